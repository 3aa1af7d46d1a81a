package menu

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/e2e"
	"vix/internal/desktoptest"
)

const conf = `
[vm.work]
programs = ["gtk4-demo", "foot"]
color = "blue"

[vm.office]
programs = ["gtk4-print-editor"]
`

// newRig has Mod4+d open the menu, as a user has it.
func newRig(t *testing.T) *e2e.Rig {
	t.Helper()
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	bin, err := filepath.Abs("../../build/bin")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, sub := range []string{"config/vix", "state"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "config/vix/config.toml"), []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	// The same configuration for what sway starts as for what the rig does.
	script := filepath.Join(dir, "menu")
	text := "#!/bin/sh\nexport XDG_CONFIG_HOME=" + dir + "/config XDG_STATE_HOME=" + dir + "/state\nexec " + bin + "/vix menu \"$@\" 2>>" + dir + "/said\n"
	if err := os.WriteFile(script, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, err := os.ReadFile(filepath.Join(dir, "said")); err == nil && t.Failed() {
			t.Logf("the menu said: %s", b)
		}
	})
	r := e2e.New(t, e2e.Config{Bin: bin, TOML: conf, Desktop: desktoptest.Config{
		Sway: "output * bg #7d8a9c solid_color\nbindsym Mod4+d exec " + script,
	}})
	t.Cleanup(func() { r.Vix("stop", "--force", "--all") })
	return r
}

// press opens the menu by its key and waits until it stands still.
func press(t *testing.T, r *e2e.Rig) *image.RGBA {
	t.Helper()
	was := r.Screenshot(t)
	r.Modifiers(t, "logo")
	r.KeyCode(t, 32, true) // KEY_D
	r.KeyCode(t, 32, false)
	r.Modifiers(t)
	return differs(t, r, was)
}

// differs waits until the middle of the screen is not what it was, and stands still.
func differs(t *testing.T, r *e2e.Rig, was *image.RGBA) *image.RGBA {
	t.Helper()
	var before []byte
	return r.WaitScreen(t, "a change", func(img *image.RGBA) bool {
		still := bytes.Equal(before, img.Pix)
		before = img.Pix
		return still && !bytes.Equal(img.Pix, was.Pix)
	})
}

func save(t *testing.T, name string, img image.Image) {
	t.Helper()
	dir := "../../build/e2e"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		t.Fatal(err)
	}
}

// The lines of a running VM's second pane, after that which runs the program.
const (
	disposableAct = 1 + iota
	shellAct
	stopAct
	copyAct
	pasteAct
)

// choose opens the menu and does an action of the entry that the query finds. It returns
// a picture of the pane.
func choose(t *testing.T, r *e2e.Rig, query string, action int) *image.RGBA {
	t.Helper()
	was := press(t, r)
	r.Type(t, query)
	was = differs(t, r, was)
	r.Key(t, append([]string{"Tab"}, slices.Repeat([]string{"Down"}, action)...)...)
	pane := differs(t, r, was)
	r.Key(t, "Return")
	return pane
}

// acts does what else can be done with a VM that runs, each in a menu of its own.
func acts(t *testing.T, r *e2e.Rig) {
	t.Helper()
	choose(t, r, "gtk demo", shellAct)
	shell := r.WaitWindow(t, desktoptest.ByAppID("foot"))
	r.Type(t, "echo from the menu > ~/shell; exit\n")
	r.WaitNoWindow(t, func(w *desktoptest.Node) bool { return w.ID == shell.ID })
	if got := r.Guest("work", "cat ~/shell"); got != "from the menu" {
		t.Errorf("the shell wrote %q into its VM's home", got)
	}

	r.Guest("work", "printf 'of the VM' | wl-copy")
	choose(t, r, "gtk demo", copyAct)
	until(t, "what is copied from the menu", func() bool { return strings.Contains(r.Must("clipboard", "status"), "work") })
	r.Key(t, "Escape") // this menu stays, to say what came of it
	r.Guest("work", "printf 'something else' | wl-copy")
	choose(t, r, "gtk demo", pasteAct)
	until(t, "what is pasted from the menu", func() bool { return r.Guest("work", "timeout 60 wl-paste --no-newline") == "of the VM" })
	r.Key(t, "Escape")
	r.Must("clipboard", "clear")

	choose(t, r, "work foot", disposableAct)
	r.WaitWindow(t, func(w *desktoptest.Node) bool {
		return strings.HasPrefix(w.AppID, "vix.work-d1.") && strings.HasSuffix(w.AppID, ".foot")
	})
	r.Must("stop", "--force", "work-d1")
}

// until asks again and again: what a verb that the menu runs has done has no event.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for deadline := time.Now().Add(3 * time.Minute); !ok(); <-again.C {
		if time.Now().After(deadline) {
			t.Fatal("waited for " + what)
		}
	}
}

// A key, typing, Enter: the program's window, of the right VM, with the focus. Then a
// shell, the clipboard and a disposable VM, and the VM is stopped, all from the menu.
func TestMenuRunsAndStops(t *testing.T) {
	r := newRig(t)
	closed := press(t, r)
	r.Type(t, "gtk demo")
	differs(t, r, closed)
	r.Key(t, "ctrl+Return") // and the menu stays, to be seen
	r.WaitScreen(t, "the VM's start", func(*image.RGBA) bool {
		vms := r.List()
		return len(vms) == 1 && vms[0].Name == "work"
	})
	save(t, "menu-starting.png", r.Screenshot(t))
	w := r.WaitWindow(t, desktoptest.ByAppIDPrefix("vix.work."))
	if !strings.HasPrefix(w.Name, "[work] ") {
		t.Errorf("the window %v is not tagged as the VM's", w)
	}
	r.Key(t, "Escape")
	r.WaitTree(t, "the window's focus", func(root *desktoptest.Node) bool {
		for _, n := range root.Windows() {
			if n.ID == w.ID {
				return n.Focused
			}
		}
		return false
	})
	acts(t, r)
	save(t, "menu-stop.png", choose(t, r, "gtk demo", stopAct))
	r.WaitNoWindow(t, nil)
	for again := time.NewTicker(100 * time.Millisecond); len(r.List()) > 0; <-again.C { // its directory goes without an event
	}
	r.Key(t, "Escape")
}

// Without a VM: a program that cannot run, a menu that is dismissed, and closed by the
// key that opened it.
func TestMenuFails(t *testing.T) {
	r := newRig(t)
	before := r.Screenshot(t)
	press(t, r)
	r.Key(t, "Escape")
	r.WaitScreen(t, "nothing", func(img *image.RGBA) bool { return bytes.Equal(img.Pix, before.Pix) })
	press(t, r)
	r.Modifiers(t, "logo")
	r.KeyCode(t, 32, true)
	r.KeyCode(t, 32, false)
	r.Modifiers(t)
	r.WaitScreen(t, "nothing", func(img *image.RGBA) bool { return bytes.Equal(img.Pix, before.Pix) })

	// A VM whose root is not there.
	if err := r.SetConfig("[vm.gone]\nroot = \"/nowhere\"\ndesktop = [\"foot\"]\n[vm.odd]\nprograms = [\"foot\"]\naccel = \"kvm\"\nroot = \"host\"\nmemory = \"1T\"\n"); err != nil {
		t.Fatal(err)
	}
	m := r.Start("menu")
	img := differs(t, r, before)
	r.Type(t, "odd foot")
	img = differs(t, r, img)
	r.Key(t, "ctrl+Return")
	save(t, "menu-failed.png", differs(t, r, img))
	r.Key(t, "Escape")
	if code := m.Wait(); code != 0 {
		t.Errorf("what failed was said in the menu, which ended with %d: %s", code, m.Output())
	}
	if !strings.Contains(m.Output(), "vix: ") {
		t.Errorf("standard error has nothing of it: %q", m.Output())
	}
}

// The entries for scripts, and the other menus: what they print is an index or a line.
func TestMenuForScripts(t *testing.T) {
	r := newRig(t)
	var list []struct {
		ID, Name, VM, State string
		Argv                []string
		Machine             bool
	}
	if err := json.Unmarshal([]byte(r.Must("menu", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	found := map[string]int{}
	for _, e := range list {
		found[e.ID]++
		if found[e.ID] > 1 || e.Machine != (len(e.Argv) == 0) {
			t.Errorf("entry %+v", e)
		}
	}
	for _, id := range []string{"work/org.gtk.Demo4", "office/org.gtk.PrintEditor4", "vm:work"} {
		if found[id] != 1 {
			t.Errorf("no %s in %v", id, found)
		}
	}
	if table := r.Must("menu", "--print"); !strings.Contains(table, "work/org.gtk.Demo4") || !strings.HasPrefix(table, "ID ") {
		t.Errorf("--print: %s", table)
	}
	if res := r.Vix("menu", "--run", "no/such"); res.Code != 1 || len(res.Lines()) != 1 {
		t.Errorf("--run of nothing: %v", res)
	}
	if res := r.Vix("menu", "--dmenu", "no-such-menu"); res.Code != 1 || len(res.Lines()) != 1 {
		t.Errorf("--dmenu of nothing: %v", res)
	}
	if res := r.Vix("menu", "--print", "--json"); res.Code != 2 {
		t.Errorf("--print --json: %v", res)
	}
	otherMenus(t, r)
}

// otherMenus drives each real one: dismissed, and with a choice, of which the history
// tells. The VM cannot start.
func otherMenus(t *testing.T, r *e2e.Rig) {
	if err := r.SetConfig("[defaults]\naccel = \"kvm\"\nmemory = \"1T\"\n[vm.office]\nprograms = [\"gtk4-print-editor\"]\n"); err != nil {
		t.Fatal(err)
	}
	var before float64
	// tofi comes first: in a session that a virtual keyboard has typed in before it waits
	// for something, and does not show itself.
	for _, command := range []string{"tofi --font /usr/share/fonts/truetype/dejavu/DejaVuSans.ttf", "fuzzel --log-level=warning", "wofi --cache-file=/dev/null", "bemenu --list 9"} {
		name, _, _ := strings.Cut(command, " ")
		if _, err := exec.LookPath(name); err != nil {
			t.Errorf("lacks: %s", name)
			continue
		}
		clear := r.Screenshot(t)
		m := r.Start("menu", "--dmenu", command)
		save(t, "menu-dmenu-"+name+".png", differs(t, r, clear))
		r.Key(t, "Escape")
		if code := m.Wait(); code != 0 {
			t.Errorf("%s was dismissed; menu ended with %d: %s", command, code, m.Output())
		}
		r.WaitScreen(t, "nothing", func(img *image.RGBA) bool { return bytes.Equal(img.Pix, clear.Pix) })
		m = r.Start("menu", "--dmenu", command)
		img := differs(t, r, clear)
		r.Type(t, "print ed")
		differs(t, r, img)
		r.Key(t, "Return")
		m.Wait()
		if now := used(t, r, "office/org.gtk.PrintEditor4"); now <= before {
			t.Errorf("%s: used %v, then %v: another entry was chosen: %s", command, before, now, m.Output())
		} else {
			before = now
		}
		r.WaitScreen(t, "nothing", func(img *image.RGBA) bool { return bytes.Equal(img.Pix, clear.Pix) })
	}
}

// used is what --json tells of an entry's use.
func used(t *testing.T, r *e2e.Rig, id string) float64 {
	t.Helper()
	var list []struct {
		ID  string
		Use float64
	}
	if err := json.Unmarshal([]byte(r.Must("menu", "--json")), &list); err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if e.ID == id {
			return e.Use
		}
	}
	t.Fatalf("no entry %s", id)
	return 0
}

// The menu opens with the programs of the last time, and shows what has come and gone
// since while it is open. The VM cannot start; the history tells what was chosen.
func TestMenuLooksAgain(t *testing.T) {
	r := newRig(t)
	root := t.TempDir()
	apps := filepath.Join(root, "usr/share/applications")
	for _, dir := range []string{apps, filepath.Join(root, "usr/bin"), filepath.Join(root, "etc")} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetConfig(fmt.Sprintf("[defaults]\naccel = \"kvm\"\nmemory = \"1T\"\n[vm.kept]\nroot = %q\ndesktop = [\"*\"]\n", root)); err != nil {
		t.Fatal(err)
	}
	entry := func(name string) {
		t.Helper()
		text := fmt.Sprintf("[Desktop Entry]\nType=Application\nName=Program %s\nExec=/usr/bin/true\n", name)
		if err := os.WriteFile(filepath.Join(apps, name+".desktop"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "usr/bin/true"), []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	clear := r.Screenshot(t)
	// The first row is selected if anything matches.
	shows := func(what string, any bool) {
		t.Helper()
		r.WaitScreen(t, what, func(img *image.RGBA) bool {
			at := img.RGBAAt(img.Rect.Dx()/2+100, img.Rect.Dy()/2-158)
			return !bytes.Equal(img.Pix, clear.Pix) && any == desktoptest.Near(color.RGBA{0x30, 0x33, 0x3d, 0xff}, 2)(at)
		})
	}
	open := func(query string) *desktoptest.Proc {
		t.Helper()
		r.WaitScreen(t, "nothing", func(img *image.RGBA) bool { return bytes.Equal(img.Pix, clear.Pix) })
		m := r.Start("menu")
		shows("the menu", true)
		r.Type(t, query)
		return m
	}
	for _, step := range []struct{ add, remove string }{{"first", ""}, {"second", ""}, {"third", "first"}} {
		entry(step.add)
		if step.remove != "" {
			if err := os.Remove(filepath.Join(apps, step.remove+".desktop")); err != nil {
				t.Fatal(err)
			}
			m := open("program " + step.remove)
			shows("no program "+step.remove, false)
			r.Key(t, "Escape")
			m.Wait()
		}
		m := open("program " + step.add)
		shows("the program "+step.add, true)
		r.Key(t, "Return")
		m.Wait() // with 1: the VM does not start
		if used(t, r, "kept/"+step.add) == 0 {
			t.Errorf("%s was not chosen: %s", step.add, m.Output())
		}
	}
}

// The portal's color-scheme is followed: at once by the menu that is open when it
// answers, and by the next one from its first frame. The portal is one of ours on a
// real bus.
func TestMenuFollowsThePortal(t *testing.T) {
	r := newRig(t)
	if l := desktoptest.LacksBus(); l != "" {
		t.Skip("lacks: " + l)
	}
	p := newPortal(t, r.StartBus(t, ""))
	before := r.Screenshot(t)
	var opened *image.RGBA
	for _, c := range []struct {
		scheme uint32
		light  bool
	}{{2, true}, {2, true}, {0, false}, {1, false}} {
		p.scheme.Store(c.scheme)
		m := r.Start("menu")
		// In the entry, right of the hint, is the ground.
		opened = r.WaitScreen(t, fmt.Sprintf("the menu for color-scheme %d", c.scheme), func(img *image.RGBA) bool {
			at := img.RGBAAt(img.Rect.Dx()/2+150, img.Rect.Dy()/2-215)
			bright := int(at.R) + int(at.G) + int(at.B)
			return !bytes.Equal(img.Pix, before.Pix) && (c.light && bright > 3*200 || !c.light && bright < 3*60)
		})
		asked := p.asked.Load()
		if asked == 0 {
			t.Error("the portal was not asked")
		}
		r.Key(t, "Escape")
		if code := m.Wait(); code != 0 {
			t.Errorf("the menu ended with %d: %s", code, m.Output())
		}
	}
	save(t, "menu-portal.png", opened)
}

// A portal answers org.freedesktop.portal.Settings.
type portal struct {
	scheme atomic.Uint32
	asked  atomic.Int32
}

func newPortal(t *testing.T, address string) *portal {
	t.Helper()
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	p := &portal{}
	read := func(namespace, key string) (dbus.Variant, *dbus.Error) {
		p.asked.Add(1)
		if namespace != "org.freedesktop.appearance" || key != "color-scheme" {
			return dbus.Variant{}, dbus.NewError("org.freedesktop.portal.Error.NotFound", []any{"Requested setting not found"})
		}
		return dbus.MakeVariant(dbus.MakeVariant(p.scheme.Load())), nil // Read wraps twice
	}
	if err := conn.ExportMethodTable(map[string]any{"Read": read}, "/org/freedesktop/portal/desktop", "org.freedesktop.portal.Settings"); err != nil {
		t.Fatal(err)
	}
	if reply, err := conn.RequestName("org.freedesktop.portal.Desktop", dbus.NameFlagDoNotQueue); err != nil || reply != dbus.RequestNameReplyPrimaryOwner {
		t.Fatalf("the portal's name: %v, %v", reply, err)
	}
	return p
}
