package e2e

import (
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

func newRig(t *testing.T, cfg Config) *Rig {
	t.Helper()
	if l := Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	r := New(t, cfg)
	t.Cleanup(func() {
		select {
		case <-r.Sway.Done():
			return // no picture
		default:
		}
		if t.Failed() {
			r.save(t, fileName(t.Name())+"-failed.png", r.Screenshot(t))
			t.Logf("vix list: %s", r.Vix("list"))
		}
	})
	return r
}

// fileName makes a name of words.
func fileName(words string) string { return strings.NewReplacer("/", "-", " ", "-").Replace(words) }

// save keeps a picture in build/e2e.
func (r *Rig) save(t *testing.T, name string, img *image.RGBA) {
	t.Helper()
	dir := "../build/e2e"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		t.Fatal(err)
	}
}

// waitOutput waits until a foreground program has written text.
func waitOutput(t *testing.T, p *desktoptest.Proc, text string) {
	t.Helper()
	deadline := time.After(2 * time.Minute)
	again := time.NewTicker(20 * time.Millisecond) // output has no event
	defer again.Stop()
	for !strings.Contains(p.Output(), text) {
		select {
		case <-again.C:
		case <-p.Done():
			t.Fatalf("ended without writing %q: %s", text, p.Output())
		case <-deadline:
			t.Fatalf("%q not written: %s", text, p.Output())
		}
	}
}

// waitEnd waits for the end of p and returns its status.
func waitEnd(t *testing.T, p *desktoptest.Proc, limit time.Duration) int {
	t.Helper()
	select {
	case <-p.Done():
		return p.Wait()
	case <-time.After(limit):
		t.Fatalf("no end after %v: %s", limit, p.Output())
		return 0
	}
}

// foot is the command line of a terminal with a background of that colour.
func foot(rgb string, argv ...string) []string {
	return append([]string{"foot", "-o", "colors.background=" + rgb, "-o", "csd.preferred=none", "-o", "resize-by-cells=no"}, argv...)
}

func parseRGB(t *testing.T, rgb string) color.RGBA {
	t.Helper()
	c := color.RGBA{A: 255}
	if _, err := fmt.Sscanf(rgb, "%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		t.Fatal(err)
	}
	return c
}

func (r *Rig) startIn(vm string, argv []string) *desktoptest.Proc {
	return r.Start(append([]string{"run", "--vm", vm}, argv...)...)
}

// The keyboard reaches the guest's shell, its answer the screen; closing the
// window ends the program, and run returns its status.
func TestKeyboard(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("keys", foot("102030", "-T", "a shell", "sh", "-c",
		`read line; printf '%s' "$line" >/tmp/typed; printf '\033[48;2;200;20;30m\033[2J%s' "$line"; read rest; exit 7`))
	w := r.WaitSettled(t, desktoptest.ByAppID("vix.keys.foot"))
	if w.Name != "[keys] a shell" {
		t.Errorf("title %q", w.Name)
	}
	r.Type(t, "Hello, Vix: 0123 <>|&\n")
	img := r.WaitScreen(t, "the guest's answer", func(img *image.RGBA) bool {
		return desktoptest.Share(img, Inside(w), color.RGBA{200, 20, 30, 255}, 2) > 0.9
	})
	r.save(t, "TestKeyboard.png", img)
	if got := r.Guest("keys", "cat /tmp/typed"); got != "Hello, Vix: 0123 <>|&" {
		t.Errorf("the guest's shell read %q", got)
	}
	r.Key(t, "ctrl+u", "Return")
	if code := waitEnd(t, p, 20*time.Second); code != 7 {
		t.Errorf("run ended with %d, the program with 7: %s", code, p.Output())
	}
	r.WaitNoWindow(t, nil)
	waitNoVM(t, r)
	r.CheckClean()
}

// Pointer motion, buttons and the wheel reach the program, where they should; trace
// shows them.
func TestPointer(t *testing.T) {
	r := newRig(t, Config{})
	p := r.startIn("mouse", []string{"stdbuf", "-oL", "wev"})
	w := r.WaitSettled(t, desktoptest.ByAppID("vix.mouse.wev"))
	x, y := Inside(w).Min.X+200, Inside(w).Min.Y+150
	r.Click(t, x, y)
	waitOutput(t, p, "x, y: 200.000000, 150.000000")
	waitOutput(t, p, "button: 272 (left), state: 1 (pressed)")
	waitOutput(t, p, "button: 272 (left), state: 0 (released)")
	r.Button(t, desktoptest.Right, true)
	r.Button(t, desktoptest.Right, false)
	waitOutput(t, p, "button: 273 (right), state: 0 (released)")
	r.Scroll(t, x+10, y+10, 3)
	waitOutput(t, p, "x, y: 210.000000, 160.000000")
	waitOutput(t, p, "value: 15.000000")
	r.Scroll(t, x, y, -1)
	waitOutput(t, p, "value: -15.000000")
	r.save(t, "TestPointer.png", r.Screenshot(t))
	trace := r.Start("trace", "--classes=motion,input", "mouse")
	again := time.NewTicker(50 * time.Millisecond) // that it listens has no event
	defer again.Stop()
	deadline := time.Now().Add(2 * time.Minute)
	for i := 0; !strings.Contains(trace.Output(), "wl_pointer"); i++ {
		if time.Now().After(deadline) {
			t.Fatalf("trace shows no motion: %s", trace.Output())
		}
		r.MoveTo(t, x+i%2, y)
		<-again.C
	}
	r.CloseWindow(t, w)
	if code := waitEnd(t, p, 20*time.Second); code != 0 {
		t.Errorf("run ended with %d after the window was closed", code)
	}
	if code := waitEnd(t, trace, 20*time.Second); code != 0 {
		t.Errorf("trace ended with %d after its VM: %s", code, trace.Output())
	}
	waitNoVM(t, r)
	r.CheckClean()
}

// Ten programs in one VM, each with a window of its own colour.
func TestTenPrograms(t *testing.T) {
	r := newRig(t, Config{TOML: "[vm.ten]\nmemory = \"1G\"\n"})
	var colors []string
	var procs []*desktoptest.Proc
	for i := range 10 {
		rgb := fmt.Sprintf("%02x%02x%02x", 20+20*i, 220-20*i, 100+15*(i%3))
		colors = append(colors, rgb)
		procs = append(procs, r.startIn("ten", foot(rgb, "-T", fmt.Sprint("number ", i), "sleep", "1000")))
	}
	r.WaitWindows(t, 10, desktoptest.ByAppID("vix.ten.foot"))
	img := r.WaitScreen(t, "ten colours, about a tenth of the screen each", func(img *image.RGBA) bool {
		for _, rgb := range colors {
			if desktoptest.Share(img, img.Rect, parseRGB(t, rgb), 1) < 0.08 {
				return false
			}
		}
		return true
	})
	r.save(t, "ten-programs.png", img)
	if v := r.VM("ten"); len(v.Windows) != 10 {
		t.Errorf("list tells of %d windows", len(v.Windows))
	}
	for _, w := range r.Windows(t, nil) {
		if !strings.HasPrefix(w.Name, "[ten] number ") {
			t.Errorf("title %q", w.Name)
		}
		r.CloseWindow(t, w)
	}
	for i, p := range procs {
		if code := waitEnd(t, p, 30*time.Second); code >= 125 && code < 128 {
			t.Errorf("program %d: status %d: %s", i, code, p.Output())
		}
	}
	waitNoVM(t, r)
	r.CheckClean()
}

// Three VMs at once; one is stopped while its window is open, and the others
// do not notice.
func TestThreeVMs(t *testing.T) {
	r := newRig(t, Config{TOML: "[vm.two]\ntag = \"zwei\"\n"})
	names := []string{"one", "two", "three"}
	colors := []string{"a03020", "208040", "2040a0"}
	procs := map[string]*desktoptest.Proc{}
	for i, name := range names {
		procs[name] = r.startIn(name, foot(colors[i], "-T", "shell", "sleep", "1000"))
	}
	r.WaitWindows(t, 3, nil)
	img := r.WaitScreen(t, "three colours", func(img *image.RGBA) bool {
		for _, rgb := range colors {
			if desktoptest.Share(img, img.Rect, parseRGB(t, rgb), 1) < 0.25 {
				return false
			}
		}
		return true
	})
	r.save(t, "three-vms.png", img)
	if got := len(r.List()); got != 3 {
		t.Errorf("list tells of %d VMs", got)
	}
	for _, w := range r.Windows(t, nil) {
		vm := strings.Split(w.AppID, ".")[1]
		tag := map[string]string{"one": "one", "two": "zwei", "three": "three"}[vm]
		if w.Name != "["+tag+"] shell" || w.AppID != "vix."+vm+".foot" {
			t.Errorf("a window of %s: %v", vm, w)
		}
	}
	begin := time.Now()
	r.Must("stop", "two")
	t.Logf("stop took %.1f s", time.Since(begin).Seconds())
	if code := waitEnd(t, procs["two"], 5*time.Second); code == 0 {
		t.Error("run ended with 0 although its VM was stopped under it")
	}
	r.WaitNoWindow(t, desktoptest.ByTitle("[zwei]"))
	r.WaitScreen(t, "the two other VMs' windows", func(img *image.RGBA) bool {
		return desktoptest.Share(img, img.Rect, parseRGB(t, colors[0]), 1) > 0.4 &&
			desktoptest.Share(img, img.Rect, parseRGB(t, colors[2]), 1) > 0.4
	})
	for _, name := range []string{"one", "three"} {
		if out := r.Guest(name, "hostname"); out != name {
			t.Errorf("VM %s calls itself %q", name, out)
		}
	}
	r.Must("stop", "one", "three")
	waitEnd(t, procs["one"], 5*time.Second)
	waitEnd(t, procs["three"], 5*time.Second)
	r.CheckClean()
}

// The programs that the relay must be complete for: each draws, shows its title
// with the tag, follows a new size, and ends when its window is closed.
func TestPrograms(t *testing.T) {
	r := newRig(t, Config{TOML: "[vm.apps]\nmemory = \"1G\"\n"})
	keep := r.startIn("apps", []string{"sleep", "1000"})
	for _, c := range []struct {
		argv   []string
		title  string
		follow bool // a new size, with all of its window
	}{
		// weston-simple-damage and weston-editor end or show nothing on sway
		// without Vix, too.
		{argv: []string{"weston-simple-shm"}, title: "simple-shm"},
		{argv: []string{"weston-flower"}, title: "Flower"},
		{argv: []string{"weston-terminal"}, title: "Wayland Terminal"},
		{argv: []string{"weston-eventdemo"}, title: "EventDemo"},
		{argv: []string{"gtk4-demo"}, title: "GTK Demo", follow: true},
	} {
		name := c.argv[0]
		t.Run(name, func(t *testing.T) {
			r.For(t)
			p := r.startIn("apps", c.argv)
			w := r.WaitWindow(t, nil)
			r.WaitScreen(t, "what "+name+" draws", func(img *image.RGBA) bool {
				return desktoptest.Colors(img, Inside(w)) > 15
			})
			w = r.WaitWindow(t, func(n *desktoptest.Node) bool { return strings.HasPrefix(n.Name, "[apps] ") })
			if !strings.Contains(strings.ToLower(w.Name), strings.ToLower(c.title)) || !strings.HasPrefix(w.AppID, "vix.apps.") {
				t.Errorf("%v, want a title with %q", w, c.title)
			}
			if c.follow {
				set := func() { r.Float(t, w, 100, 50, 900, 600) }
				set()
				looks := 0
				r.WaitScreen(t, "all of its window at the new size", func(img *image.RGBA) bool {
					if looks++; looks%40 == 0 {
						set() // a slow program's answer to an older size came between
					}
					black := color.RGBA{A: 255} // what is behind it
					return desktoptest.Share(img, image.Rect(960, 100, 995, 640), black, 0) < 0.1 &&
						desktoptest.Share(img, image.Rect(120, 600, 980, 645), black, 0) < 0.1 &&
						desktoptest.Share(img, image.Rect(1001, 0, 1280, 800), black, 0) > 0.9
				})
			}
			r.save(t, name+".png", r.Screenshot(t))
			r.CloseWindow(t, w)
			waitEnd(t, p, 20*time.Second)
			r.WaitNoWindow(t, nil)
		})
	}
	r.Must("stop", "apps")
	waitEnd(t, keep, 5*time.Second)
	r.CheckClean()
}

// Output, input, arguments, signals and the status pass through run.
func TestForeground(t *testing.T) {
	r := newRig(t, Config{})
	keep := r.startIn("fg", []string{"sleep", "1000"})
	waitVM(t, r, "fg")
	cmd := r.Command(r.Launcher(), "run", "--vm", "fg", "sh", "-c", `cat; echo "$1" >&2; exit 42`, "sh", "two  words")
	cmd.Stdin = strings.NewReader(strings.Repeat("0123456789abcdef\n", 40_000))
	res := r.Run(cmd)
	if res.Code != 42 || len(res.Stdout) != 17*40_000 || res.Stderr != "two  words\n" {
		t.Errorf("status %d, %d bytes, stderr %q", res.Code, len(res.Stdout), res.Stderr)
	}
	if out := r.Guest("fg", `id -u; echo "$WAYLAND_DISPLAY $XDG_RUNTIME_DIR $HOME"; ls /sys/class/net`); out != "1000\nwayland-0 /run/user/1000 /home/user\nlo" {
		t.Errorf("the guest's environment: %q", out)
	}
	term := r.startIn("fg", []string{"sh", "-c", "echo begun; exec sleep 1000"})
	waitOutput(t, term, "begun")
	term.Signal(syscall.SIGTERM)
	if code := waitEnd(t, term, 20*time.Second); code != 128+15 {
		t.Errorf("a program ended by SIGTERM: status %d: %s", code, term.Output())
	}
	if res := r.Vix("run", "--vm", "fg", "no-such-program"); res.Code != 127 || len(res.Lines()) != 1 {
		t.Errorf("a program that does not exist: %v", res)
	}
	if res := r.Vix("run", "--vm", "fg", "/etc/passwd"); res.Code != 126 || len(res.Lines()) != 1 {
		t.Errorf("a file that is no program: %v", res)
	}
	r.Must("stop", "fg")
	waitEnd(t, keep, 5*time.Second)
	r.CheckClean()
}

// waitNoVM waits until no VM runs: a VM ends soon after its last program.
func waitNoVM(t *testing.T, r *Rig) {
	t.Helper()
	waitList(t, r, "no VM", func(vms []VM) bool { return len(vms) == 0 })
}

// waitVM waits until programs run in a VM.
func waitVM(t *testing.T, r *Rig, name string) {
	t.Helper()
	waitList(t, r, "VM "+name, func(vms []VM) bool {
		for _, v := range vms {
			if v.Name == name && v.State == "running" {
				return true
			}
		}
		return false
	})
}

func waitList(t *testing.T, r *Rig, what string, ok func([]VM) bool) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	again := time.NewTicker(100 * time.Millisecond) // list has no events yet
	defer again.Stop()
	for {
		vms := r.List()
		if ok(vms) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waiting for %s: %+v", what, vms)
		}
		<-again.C
	}
}
