package menu

import (
	"bytes"
	"encoding/json"
	"image"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
	text := "#!/bin/sh\nexport XDG_CONFIG_HOME=" + dir + "/config XDG_STATE_HOME=" + dir + "/state\nexec " + bin + "/vix-launcher menu \"$@\" 2>>" + dir + "/said\n"
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

// A key, typing, Enter: the program's window, of the right VM, with the focus. Then the
// VM is stopped from the menu. All with one VM.
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
	was := press(t, r)
	r.Type(t, "gtk demo")
	was = differs(t, r, was)
	r.Key(t, "Tab", "Down", "Down", "Down") // after run, disposable and shell
	save(t, "menu-stop.png", differs(t, r, was))
	r.Key(t, "Return")
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
	if !strings.Contains(m.Output(), "vix-launcher: ") {
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
	for _, command := range []string{"fuzzel --log-level=warning", "wofi --cache-file=/dev/null", "bemenu --list 9"} {
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
