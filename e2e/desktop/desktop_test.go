// Package desktop tests what a VM is on the desktop that it runs on: desktop entries,
// D-Bus activation, notifications, focus, workspaces, as the desktop's own programs
// use them (gio, gtk-launch, gdbus, busctl, mako, sway).
package desktop

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/config"
	"vix/e2e"
	"vix/internal/desktop"
	"vix/internal/desktoptest"
	"vix/internal/wayland"
)

const conf = `
[vm.placed]
desktop   = ["foot"]
mime      = ["text/plain"]
workspace = "3"
[vm.free]
desktop   = ["foot", "org.gtk.Demo4"]
`

// A desk is a rig with a session bus that starts our service, and mako.
type desk struct {
	*e2e.Rig
	t    *testing.T
	data string // XDG_DATA_HOME
	env  []string
	bus  *dbus.Conn
	sway desktop.Sway
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	if l := e2e.Lacks() + desktoptest.LacksBus(); l != "" {
		t.Skip("lacks: " + l)
	}
	for _, name := range []string{"gio", "gtk-launch", "busctl", "desktop-file-validate", "rsvg-convert", "waybar", "dbus-run-session"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
	top := desktoptest.Start(t, desktoptest.Config{})
	d := &desk{t: t, data: t.TempDir(), sway: desktop.Sway{Socket: top.IPC}}
	services := filepath.Join(d.data, "dbus-1/services")
	if err := os.MkdirAll(services, 0o755); err != nil {
		t.Fatal(err)
	}
	address := top.StartBus(t, services)
	top.Mako(t)
	d.Rig = e2e.New(t, e2e.Config{Attach: top, Bin: "../../build/bin", TOML: conf})
	d.env = []string{"SWAYSOCK=" + top.IPC, "XDG_DATA_HOME=" + d.data}
	var err error
	if d.bus, err = desktop.DialBus(t.Context(), address); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.bus.Close() })
	// As a session does at its start.
	env := map[string]string{}
	for _, kv := range d.Command("true").Env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	for _, kv := range d.env {
		k, v, _ := strings.Cut(kv, "=")
		env[k] = v
	}
	if err := d.bus.BusObject().Call("org.freedesktop.DBus.UpdateActivationEnvironment", 0, env).Err; err != nil {
		t.Fatal(err)
	}
	service, err := os.ReadFile("../../packaging/dbus/dev.vix.Launcher.service")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(service), "@bindir@", filepath.Dir(d.Launcher()))
	if err := os.WriteFile(filepath.Join(services, "dev.vix.Launcher.service"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return d
}

// command is one of the desktop's own programs.
func (d *desk) command(argv ...string) *exec.Cmd {
	cmd := d.Command(argv...)
	cmd.Env = append(cmd.Env, d.env...)
	return cmd
}

func (d *desk) must(argv ...string) string {
	d.t.Helper()
	res := d.Run(d.command(argv...))
	if res.Code != 0 {
		d.t.Fatalf("%q: %v", argv, res)
	}
	return res.Stdout
}

const gdbusPatience = "170" // seconds; a VM's start is in it

func (d *desk) gdbus(name, path, method string, args ...string) e2e.Result {
	d.t.Helper()
	argv := []string{"gdbus", "call", "--session", "--timeout", gdbusPatience, "--dest", name, "--object-path", path, "--method", method}
	return d.Run(d.command(append(argv, args...)...))
}

func (d *desk) manager(method string, args ...string) e2e.Result {
	d.t.Helper()
	return d.gdbus(desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1."+method, args...)
}

func TestDesktop(t *testing.T) {
	d := newDesk(t)
	for _, step := range []struct {
		name string
		run  func(*desk)
	}{
		{"snippets", (*desk).testSnippets},
		{"sync", (*desk).testSync},
		{"a bus of its own", (*desk).testOwnBus},
		{"activation from nothing", (*desk).testActivation},
		{"files", (*desk).testOpen},
		{"manager", (*desk).testManager},
		{"failure", (*desk).testFailure},
		{"bar", (*desk).testBar},
		{"killed in a run", (*desk).testKilled},
		{"token", (*desk).testToken},
		{"actions", (*desk).testActions},
		{"another user", (*desk).testOtherUser},
		{"an image's programs, and their files", (*desk).testImage},
		{"a built root's programs", (*desk).testDebian},
	} {
		if !t.Run(step.name, func(t *testing.T) {
			parent := d.t
			d.t = t
			defer func() { d.t = parent }()
			d.For(t)
			step.run(d)
		}) {
			t.Fatal("the rest depends on it")
		}
	}
}

// testSnippets: sway takes what we tell users to include.
func (d *desk) testSnippets() {
	file := filepath.Join(d.t.TempDir(), "config")
	snippet, err := filepath.Abs("../../packaging/sway/vix.conf")
	if err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("set $mod Mod4\ninclude "+snippet+"\n"), 0o644); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.command("sway", "--validate", "-c", file)
	cmd.Env = append(cmd.Env, "WLR_BACKENDS=headless", "WLR_LIBINPUT_NO_DEVICES=1")
	if r := d.Run(cmd); r.Code != 0 || strings.Contains(r.Stderr, "rror on line") {
		d.t.Errorf("sway --validate: %v", r)
	}
}

// testOwnBus: under dbus-run-session a call starts the service, and the service leaves
// when nobody needs it.
func (d *desk) testOwnBus() {
	out := d.must("dbus-run-session", "--", "gdbus", "call", "--session", "--dest", desktop.BusName,
		"--object-path", "/dev/vix/Launcher", "--method", "dev.vix.Manager1.List")
	if strings.TrimSpace(out) != "(@aa{sv} [],)" {
		d.t.Errorf("List: %q", out)
	}
	d.must("dbus-run-session", "--", d.Launcher(), "dbus-service", "--idle", "500ms")
}

// testBar: waybar shows the VM in its colour.
func (d *desk) testBar() {
	module, err := filepath.Abs("../../packaging/waybar/vix.jsonc")
	if err != nil {
		d.t.Fatal(err)
	}
	file := filepath.Join(d.t.TempDir(), "config")
	text := fmt.Sprintf(`{"layer": "top", "height": 30, "modules-right": ["custom/vix"], "include": [%q]}`, module)
	style := filepath.Join(filepath.Dir(module), "vix.css")
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		d.t.Fatal(err)
	}
	cmd := d.command("waybar", "-c", file, "-s", style)
	for i, kv := range cmd.Env {
		if path, ok := strings.CutPrefix(kv, "PATH="); ok {
			cmd.Env[i] = "PATH=" + filepath.Dir(d.Launcher()) + ":" + path
		}
	}
	bar := d.StartCommand(cmd)
	defer bar.Stop()
	conf, err := config.Parse("", nil)
	if err != nil {
		d.t.Fatal(err)
	}
	placed, err := conf.VM("placed")
	if err != nil {
		d.t.Fatal(err)
	}
	var want color.RGBA
	if _, err := fmt.Sscanf(string(placed.Color), "#%02x%02x%02x", &want.R, &want.G, &want.B); err != nil {
		d.t.Fatal(err)
	}
	want.A = 255
	seen := d.WaitScreen(d.t, "the VM's mark in the bar", func(s *image.RGBA) bool {
		if s.RGBAAt(100, 5) == want { // a window's frame: the bar is not there yet
			return false
		}
		for y := range 30 {
			for x := range s.Bounds().Dx() {
				if s.RGBAAt(x, y) == want {
					return true
				}
			}
		}
		return false
	})
	d.save("desktop-bar.png", seen)
}

// save keeps a picture.
func (d *desk) save(name string, img image.Image) {
	d.t.Helper()
	if err := os.MkdirAll("../../build/e2e", 0o755); err != nil {
		d.t.Fatal(err)
	}
	f, err := os.Create(filepath.Join("../../build/e2e", name))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	if err := png.Encode(f, img); err != nil {
		d.t.Error(err)
	}
}

// testSync: the entries pass every check, and what is gone goes.
func (d *desk) testSync() {
	d.must(d.Launcher(), "desktop", "sync")
	entry := filepath.Join(d.data, "applications/dev.vix.placed.foot.desktop")
	d.must("desktop-file-validate", entry, filepath.Join(d.data, "applications/dev.vix.free.org.gtk.Demo4.desktop"))
	f, err := os.Open(filepath.Join(d.data, "icons/hicolor/128x128/apps/dev.vix.free.org.gtk.Demo4.png"))
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	icon, err := png.Decode(f)
	if err != nil || icon.Bounds().Dx() != 128 {
		d.t.Fatalf("the icon, made of an SVG: %v", err)
	}
	d.save("desktop-icon.png", icon)
	var changes []desktop.Change
	if err := json.Unmarshal([]byte(d.must(d.Launcher(), "desktop", "sync", "--dry-run", "--json")), &changes); err != nil || len(changes) != 0 {
		d.t.Errorf("a second sync would change %v (%v)", changes, err)
	}
	if err := d.SetConfig(strings.Replace(conf, `, "org.gtk.Demo4"`, "", 1)); err != nil {
		d.t.Fatal(err)
	}
	d.must(d.Launcher(), "desktop", "sync")
	var list []desktop.InstalledEntry
	if err := json.Unmarshal([]byte(d.must(d.Launcher(), "desktop", "list", "--json")), &list); err != nil {
		d.t.Fatal(err)
	}
	if len(list) != 2 || list[0].Entry != "dev.vix.free.foot" || list[1].Entry != "dev.vix.placed.foot" {
		d.t.Errorf("entries: %+v", list)
	}
}

// testActivation: two callers at once, nothing runs; one service, one VM, a window for
// each, on the VM's workspace, the user's with the focus.
func (d *desk) testActivation() {
	if d.owner(desktop.BusName) != "" {
		d.t.Fatal("the service runs already")
	}
	var both sync.WaitGroup
	both.Go(func() { d.must("gio", "launch", filepath.Join(d.data, "applications/dev.vix.placed.foot.desktop")) })
	both.Go(func() {
		if r := d.gdbus("dev.vix.placed.foot", "/dev/vix/placed/foot", "org.freedesktop.Application.Activate", "{'activation-token': <'wish'>}"); r.Code != 0 {
			d.t.Errorf("Activate: %v", r)
		}
	})
	both.Wait()
	if d.owner("dev.vix.placed.foot") == "" || d.owner(desktop.BusName) != d.owner("dev.vix.placed.foot") {
		d.t.Errorf("owners: %q, %q", d.owner(desktop.BusName), d.owner("dev.vix.placed.foot"))
	}
	d.WaitWindows(d.t, 2, desktoptest.ByAppID("vix.placed.foot"))
	d.waitFocus("vix.placed.foot", "3")
	all, err := d.sway.Windows(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	for _, w := range all {
		if w.Workspace != "3" {
			d.t.Errorf("%+v: not on workspace 3", w)
		}
	}
	if vms := d.List(); len(vms) != 1 || vms[0].Name != "placed" {
		d.t.Errorf("VMs: %+v", vms)
	}
}

func (d *desk) owner(name string) string {
	var owner string
	_ = d.bus.BusObject().Call("org.freedesktop.DBus.GetNameOwner", 0, name).Store(&owner)
	return owner
}

// waitFocus waits until such a window has the focus, on that workspace.
func (d *desk) waitFocus(appID, workspace string) {
	d.t.Helper()
	var at string
	d.WaitTree(d.t, fmt.Sprintf("%s with focus", appID), func(root *desktoptest.Node) bool {
		w, err := d.sway.Focused(d.t.Context())
		at = w.Workspace
		return err == nil && w.AppID == appID
	})
	if at != workspace {
		d.t.Errorf("%s has the focus on workspace %q, want %q", appID, at, workspace)
	}
}

// testOpen: a program sees the file that it is given, read-only, and no other of its
// folder.
func (d *desk) testOpen() {
	dir := filepath.Join(d.data, "papers")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		d.t.Fatal(err)
	}
	for _, name := range []string{"letter.txt", "secret.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\nexec sleep 100000\n"), 0o755); err != nil {
			d.t.Fatal(err)
		}
	}
	// foot's entry offers no file, so that it is the service that is asked. As with GLib, foot
	// gets the file as its argument, which it runs.
	if r := d.gdbus("dev.vix.placed.foot", "/dev/vix/placed/foot", "org.freedesktop.Application.Open",
		fmt.Sprintf("['file://%s/letter.txt']", dir), "{}"); r.Code != 0 {
		d.t.Fatalf("Open: %v", r)
	}
	d.WaitWindows(d.t, 3, desktoptest.ByAppID("vix.placed.foot"))
	for _, n := range d.notes() {
		if strings.Contains(n, "did not start") {
			d.t.Error(n)
		}
	}
	if got := d.Guest("placed", "ls /mnt/open-*; cat /mnt/open-*/*; echo x 2>&1 >>/mnt/open-*/letter.txt || echo refused"); !strings.HasPrefix(got, "letter.txt\n#!/bin/sh\n") || !strings.Contains(got, "refused") {
		d.t.Errorf("the guest sees %q", got)
	}
	if r := d.gdbus("dev.vix.placed.foot", "/dev/vix/placed/foot", "org.freedesktop.Application.Open", "['https://example.org/']", "{}"); r.Code == 0 || !strings.Contains(r.Stderr, "dev.vix.Error.InvalidArgs") {
		d.t.Errorf("Open of a URL: %v", r)
	}
}

// testManager: every method and property, by two clients.
func (d *desk) testManager() {
	if r := d.manager("List"); r.Code != 0 || !strings.Contains(r.Stdout, "'name': <'placed'>") || !strings.Contains(r.Stdout, "'state': <'running'>") {
		d.t.Errorf("List: %v", r)
	}
	if r := d.manager("Run", "placed", "['foot', '--app-id=ran']", "{'activation-token': <'wish'>}"); r.Code != 0 {
		d.t.Errorf("Run: %v", r)
	}
	d.WaitWindow(d.t, desktoptest.ByAppID("vix.placed.ran"))
	d.waitFocus("vix.placed.ran", "3")
	for _, c := range []struct {
		method string
		args   []string
		want   string
	}{
		{"Run", []string{"placed", "['nothere']", "{}"}, "dev.vix.Error.ProgramNotFound"},
		{"Run", []string{"BAD", "['x']", "{}"}, "dev.vix.Error.InvalidArgs"},
		{"Run", []string{"placed", "@as []", "{}"}, "dev.vix.Error.InvalidArgs"},
		{"Run", []string{"placed", "['x']", "{'nonsense': <1>}"}, "dev.vix.Error.InvalidArgs"},
		{"Stop", []string{"nothere", "false"}, "dev.vix.Error.NotRunning"},
	} {
		if r := d.manager(c.method, c.args...); r.Code == 0 || !strings.Contains(r.Stderr, c.want) {
			d.t.Errorf("%s %q: %v, want %s", c.method, c.args, r, c.want)
		}
	}
	for _, method := range []string{"Watch", "Reload"} {
		if r := d.manager(method); r.Code != 0 {
			d.t.Errorf("%s: %v", method, r)
		}
	}
	for _, c := range []struct {
		method string
		args   []string
		want   string
	}{
		{"Get", []string{"dev.vix.Manager1", "VMs"}, "(<['placed']>,)"},
		{"GetAll", []string{"dev.vix.Manager1"}, "'VMs': <['placed']>"},
		{"Get", []string{"dev.vix.Manager1", "Nothing"}, "org.freedesktop.DBus.Error.UnknownProperty"},
		{"Set", []string{"dev.vix.Manager1", "VMs", "<0>"}, "org.freedesktop.DBus.Error.PropertyReadOnly"},
	} {
		r := d.gdbus(desktop.BusName, "/dev/vix/Launcher", "org.freedesktop.DBus.Properties."+c.method, c.args...)
		if !strings.Contains(r.Stdout+r.Stderr, c.want) {
			d.t.Errorf("%s %q: %v, want %s", c.method, c.args, r, c.want)
		}
	}
	out := d.must("busctl", "--address="+d.busAddress(), "introspect", desktop.BusName, "/dev/vix/Launcher")
	for _, want := range []string{"dev.vix.Manager1", ".List", ".Run", ".Stop", ".VMChanged", ".VMEnded", ".VMs", `1 "placed"`} {
		if !strings.Contains(out, want) {
			d.t.Errorf("introspection has no %s:\n%s", want, out)
		}
	}
	out = d.must("busctl", "--address="+d.busAddress(), "introspect", "dev.vix.placed.foot", "/dev/vix/placed/foot")
	if !strings.Contains(out, ".ActivateAction") || strings.Contains(out, ".SetMust") {
		d.t.Errorf("introspection of an entry:\n%s", out)
	}
	if out := d.must("gdbus", "introspect", "--session", "--dest", desktop.BusName, "--object-path", "/dev/vix"); !strings.Contains(out, "node") {
		d.t.Errorf("introspection of a parent: %s", out)
	}
}

func (d *desk) busAddress() string { return "unix:path=" + filepath.Join(d.Desktop.Dir, "bus") }

// notes is what mako shows.
func (d *desk) notes() []string {
	d.t.Helper()
	var raw []map[string]dbus.Variant
	if err := d.bus.Object("org.freedesktop.Notifications", "/fr/emersion/Mako").Call("fr.emersion.Mako.ListNotifications", 0).Store(&raw); err != nil {
		d.t.Fatal(err)
	}
	var list []string
	for _, n := range raw {
		list = append(list, fmt.Sprint(n["summary"].Value(), "\n", n["body"].Value()))
	}
	return list
}

// testFailure: what does not start says why, where the user sees it.
func (d *desk) testFailure() {
	r := d.manager("Run", "placed", "['nothere']", "{}")
	if r.Code == 0 {
		d.t.Fatal("a program that is not there ran")
	}
	if !slices.ContainsFunc(d.notes(), func(n string) bool {
		return strings.HasPrefix(n, "nothere did not start in placed\n") && strings.Contains(n, "vix logs placed") && strings.Contains(n, "not found")
	}) {
		d.t.Errorf("notifications: %q", d.notes())
	}
	d.save("desktop-failure.png", d.Screenshot(d.t))
}

// listen returns the manager's signals.
func (d *desk) listen() chan *dbus.Signal {
	d.t.Helper()
	if err := d.bus.AddMatchSignal(dbus.WithMatchInterface("dev.vix.Manager1")); err != nil {
		d.t.Fatal(err)
	}
	signals := make(chan *dbus.Signal, 256)
	d.bus.Signal(signals)
	return signals
}

// testKilled: the service is killed while it starts a VM: the VM lives, the program
// runs, and the next call, of another service, sees both.
func (d *desk) testKilled() {
	var pid uint32
	if err := d.bus.BusObject().Call("org.freedesktop.DBus.GetConnectionUnixProcessID", 0, desktop.BusName).Store(&pid); err != nil {
		d.t.Fatal(err)
	}
	signals := d.listen()
	defer d.bus.RemoveSignal(signals)
	asked := make(chan e2e.Result, 1)
	go func() { asked <- d.manager("Run", "free", "['foot']", "{}") }()
	deadline := time.After(2 * time.Minute)
	for starting := false; !starting; {
		select {
		case s := <-signals:
			var name, state string
			if s.Name == "dev.vix.Manager1.VMChanged" && len(s.Body) > 1 && dbus.Store(s.Body[:2], &name, &state) == nil {
				starting = name == "free" && state == "starting"
			}
		case r := <-asked:
			d.t.Fatalf("Run ended before the VM was seen to start: %v", r)
		case <-deadline:
			d.t.Fatal("no signal of the VM's start")
		}
	}
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		d.t.Fatal(err)
	}
	if r := <-asked; r.Code == 0 {
		d.t.Errorf("Run was answered by a dead service: %v", r)
	}
	d.WaitWindow(d.t, desktoptest.ByAppID("vix.free.foot"))
	if r := d.manager("List"); r.Code != 0 || !strings.Contains(r.Stdout, "'name': <'free'>") || !strings.Contains(r.Stdout, "'name': <'placed'>") {
		d.t.Errorf("List after the kill: %v", r)
	}
	if r := d.manager("Stop", "placed", "false"); r.Code != 0 {
		d.t.Errorf("Stop: %v", r)
	}
}

// token asks the compositor for an activation token, as a launcher does.
func (d *desk) token() string {
	d.t.Helper()
	tr, err := wayland.Dial(d.Desktop.Socket)
	if err != nil {
		d.t.Fatal(err)
	}
	c := wayland.NewClient(tr)
	defer c.Close()
	if err := c.Registry(); err != nil {
		d.t.Fatal(err)
	}
	manager, token := c.Bind(wayland.XdgActivationV1.Name, 1), c.NewID()
	c.Msg(manager, wayland.XdgActivationV1ReqGetActivationToken, token)
	c.Msg(token, wayland.XdgActivationTokenV1ReqCommit)
	if err := c.Flush(); err != nil {
		d.t.Fatal(err)
	}
	for {
		m, err := c.Next()
		if err != nil {
			d.t.Fatal(err)
		}
		if m.ID == token {
			dec := m.Args()
			return string(dec.String())
		}
	}
}

// testToken: a window opens where its program was asked for, though the user is
// elsewhere by then.
func (d *desk) testToken() {
	d.Desktop.Command(d.t, "workspace number 7")
	before := len(d.Windows(d.t, desktoptest.ByAppID("vix.free.foot")))
	if r := d.gdbus("dev.vix.free.foot", "/dev/vix/free/foot", "org.freedesktop.Application.Activate", fmt.Sprintf("{'activation-token': <'%s'>}", d.token())); r.Code != 0 {
		d.t.Fatalf("Activate: %v", r)
	}
	d.Desktop.Command(d.t, "workspace number 8")
	d.WaitWindows(d.t, before+1, desktoptest.ByAppID("vix.free.foot"))
	all, err := d.sway.Windows(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	on := map[string]int{}
	for _, w := range all {
		on[w.Workspace]++
	}
	if on["7"] != 1 || on["8"] != 0 {
		d.t.Errorf("windows by workspace: %v, want one on 7 and none on 8", on)
	}
	d.must("gtk-launch", "dev.vix.free.foot")
	d.WaitWindows(d.t, before+2, desktoptest.ByAppID("vix.free.foot"))
	line, _, _ := strings.Cut(d.must("sh", "-c", d.Launcher()+" status --waybar | head -n 1"), "\n")
	if !strings.Contains(line, `"class":["running"]`) || !strings.Contains(line, "<b>free</b>") {
		d.t.Errorf("waybar's line: %s", line)
	}
}

// testActions: what an entry offers besides its program.
func (d *desk) testActions() {
	act := func(action string) e2e.Result {
		d.t.Helper()
		return d.gdbus("dev.vix.free.foot", "/dev/vix/free/foot", "org.freedesktop.Application.ActivateAction", action, "[]", "{'desktop-startup-id': <'wish'>}")
	}
	if r := act("nonsense"); r.Code == 0 || !strings.Contains(r.Stderr, `dev.vix.Error.InvalidArgs: unknown action "nonsense"`) {
		d.t.Errorf("an action that is none: %v", r)
	}
	d.must("makoctl", "dismiss", "--all")
	before := len(d.Windows(d.t, desktoptest.ByAppID("vix.free.foot")))
	for _, action := range []string{"shell", "disposable"} {
		if r := act(action); r.Code != 0 {
			d.t.Errorf("%s: %v", action, r)
		}
	}
	start := d.WaitScreen(d.t, "the notification of a VM's start", func(s *image.RGBA) bool {
		shown := slices.ContainsFunc(d.notes(), func(n string) bool { return strings.HasPrefix(n, "Starting foot in free-d1\n") })
		return shown && s.RGBAAt(s.Bounds().Dx()-20, 20) == color.RGBA{0x28, 0x55, 0x77, 0xff} // mako's own
	})
	d.save("desktop-start.png", start)
	d.WaitWindows(d.t, before+1, desktoptest.ByAppID("vix.free.foot"))
	d.WaitWindow(d.t, desktoptest.ByAppID("vix.free-d1.foot"))
	starting := func(n string) bool { return strings.HasPrefix(n, "Starting") }
	deadline := time.Now().Add(time.Minute)
	for slices.ContainsFunc(d.notes(), starting) { // mako tells nobody
		if time.Now().After(deadline) {
			d.t.Fatalf("notifications a minute after the program has a window: %q", d.notes())
		}
	}
	// gio offers the actions that an entry has, by their names.
	entry := filepath.Join(d.data, "applications/dev.vix.free.foot.desktop")
	if b, err := os.ReadFile(entry); err != nil || !strings.Contains(string(b), "\nActions=disposable;shell;stop;\n") {
		d.t.Errorf("%v: %s", err, b)
	}
	signals := d.listen()
	defer d.bus.RemoveSignal(signals)
	if r := act("stop"); r.Code != 0 {
		d.t.Errorf("stop: %v", r)
	}
	for deadline, ended := time.After(time.Minute), false; !ended; {
		select {
		case s := <-signals:
			ended = s.Name == "dev.vix.Manager1.VMEnded" && slices.Equal(s.Body, []any{"free"})
		case <-deadline:
			d.t.Fatal("no signal of the VM's end")
		}
	}
	if vms := d.List(); len(vms) != 1 || vms[0].Name != "free-d1" {
		d.t.Errorf("VMs after stop: %+v", vms)
	}
	d.Must("stop", "--all")
}

// openBus is a bus that serves every user.
const openBus = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path=%s</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// testOtherUser: on a bus that lets others in, the service refuses each of its methods
// to them, even what the bus itself would let pass.
func (d *desk) testOtherUser() {
	if os.Getuid() != 0 {
		d.t.Skip("only root can be another user")
	}
	dir, err := os.MkdirTemp("", "vix-bus") // which another user may enter
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "bus")
	config := filepath.Join(dir, "bus.conf")
	if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(config, fmt.Appendf(nil, openBus, socket), 0o644)); err != nil {
		d.t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		d.t.Fatal(err)
	}
	defer r.Close()
	daemon := exec.Command("dbus-daemon", "--config-file="+config, "--nofork", "--nosyslog", "--print-address=3")
	daemon.ExtraFiles = []*os.File{w}
	bus := d.StartCommand(daemon)
	defer bus.Stop()
	w.Close()
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil { // it listens
		d.t.Fatalf("no bus: %s", bus.Output())
	}
	address := "DBUS_SESSION_BUS_ADDRESS=unix:path=" + socket
	service := d.command(d.Launcher(), "dbus-service")
	service.Env = append(service.Env, address)
	served := d.StartCommand(service)
	defer served.Stop()
	call := func(uid uint32, name, path, method string, args ...string) e2e.Result {
		d.t.Helper()
		argv := []string{"call", "--session", "--dest", name, "--object-path", path, "--method", method}
		cmd := exec.Command("gdbus", append(argv, args...)...)
		cmd.Env = []string{address, "PATH=" + os.Getenv("PATH")}
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		return d.Run(cmd)
	}
	wait := exec.Command("gdbus", "wait", "--session", "dev.vix.free.foot")
	wait.Env = []string{address, "PATH=" + os.Getenv("PATH")}
	if r := d.Run(wait); r.Code != 0 {
		d.t.Fatalf("the service: %v: %s", r, served.Output())
	}
	if r := call(0, desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.List"); r.Code != 0 {
		d.t.Fatalf("the user himself: %v", r)
	}
	for _, c := range [][]string{
		{desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.List"},
		{desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.Run", "free", "['foot']", "@a{sv} {}"},
		{desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.Stop", "free", "false"},
		{desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.Watch"},
		{desktop.BusName, "/dev/vix/Launcher", "dev.vix.Manager1.Reload"},
		{desktop.BusName, "/dev/vix/Launcher", "org.freedesktop.DBus.Properties.Get", "dev.vix.Manager1", "VMs"},
		{desktop.BusName, "/dev/vix/Launcher", "org.freedesktop.DBus.Properties.GetAll", "dev.vix.Manager1"},
		{desktop.BusName, "/dev/vix/Launcher", "org.freedesktop.DBus.Properties.Set", "dev.vix.Manager1", "VMs", "<0>"},
		{desktop.BusName, "/dev/vix/Launcher", "org.freedesktop.DBus.Introspectable.Introspect"},
		{"dev.vix.free.foot", "/dev/vix/free/foot", "org.freedesktop.Application.Activate", "@a{sv} {}"},
		{"dev.vix.free.foot", "/dev/vix/free/foot", "org.freedesktop.Application.Open", "['file:///etc/passwd']", "@a{sv} {}"},
		{"dev.vix.free.foot", "/dev/vix/free/foot", "org.freedesktop.Application.ActivateAction", "shell", "@av []", "@a{sv} {}"},
	} {
		if r := call(65534, c[0], c[1], c[2], c[3:]...); r.Code == 0 || !strings.Contains(r.Stderr, "dev.vix.Error.Denied: this service is for user 0 alone") {
			d.t.Errorf("another user's %q: %v", c, r)
		}
	}
	if vms := d.List(); len(vms) > 0 {
		d.t.Errorf("VMs: %+v", vms)
	}
}
