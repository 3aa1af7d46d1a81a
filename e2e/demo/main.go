// Command demo shows what Vix is for: a terminal in one VM, typed into, beside
// a GTK 4 program in another, on the current compositor or, where there is
// none, on a headless sway. It leaves a picture, the seconds of every stage, and
// what the compositor says of the windows. `make demo` builds and runs it.
package main

import (
	"errors"
	"flag"
	"fmt"
	"image"
	"image/color"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// The two VMs and their programs.
const (
	config = `[vm.demo]
color = "green"

[vm.office]
tag = "work"
color = "blue"
memory = "768M"
`
	// Title bars, as on a desktop; they show the VMs' tags.
	look = `default_border normal 3
font pango:DejaVu Sans 11
client.focused #2f7d4f #2f7d4f #ffffff #2f7d4f #2f7d4f
client.unfocused #34406a #34406a #e0e4f0 #34406a #34406a
client.focused_inactive #34406a #34406a #e0e4f0 #34406a #34406a
gaps inner 12
`
	// The shell's prompt is a block of a colour that nothing else has: a picture with one
	// block more also has all that the shell wrote before it.
	prompt = `\[\e[48;2;29;111;139m\] demo \[\e[0m\] `
	// What is typed, and where the answer is besides on the screen.
	typed  = "uname -nr | tee /tmp/answer"
	answer = "/tmp/answer"
)

// promptColor is the prompt's.
var promptColor = color.RGBA{29, 111, 139, 255}

func main() {
	bin := flag.String("bin", "build/bin", "`directory` of the programs")
	out := flag.String("out", "build/demo", "`directory` of the picture")
	flag.Parse()
	d := &demo{out: *out, build: os.Getenv("VIX_BUILD_SECONDS")}
	err := d.protected(func() { d.run(*bin, os.Getenv("WAYLAND_DISPLAY"), os.Getenv("SWAYSOCK"), os.Getenv("XDG_RUNTIME_DIR")) })
	if err != nil {
		for _, p := range d.programs {
			d.Logf("vix said: %s", p.Output())
		}
	}
	if err = errors.Join(err, d.protected(d.cleanUp)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A demo is the T of a run that is not a test.
type demo struct {
	out, build string
	cleanups   []func()
	programs   []*desktoptest.Proc // what was started, to say why a window did not come
}

// failure is what Fatalf panics with, to leave from any depth.
type failure struct{ error }

func (d *demo) Helper()                           {}
func (d *demo) Logf(format string, args ...any)   { fmt.Printf(format+"\n", args...) }
func (d *demo) Fatalf(format string, args ...any) { panic(failure{fmt.Errorf(format, args...)}) }
func (d *demo) Cleanup(f func())                  { d.cleanups = append(d.cleanups, f) }

func (d *demo) cleanUp() {
	for len(d.cleanups) > 0 {
		last := len(d.cleanups) - 1
		f := d.cleanups[last]
		d.cleanups = d.cleanups[:last]
		f()
	}
}

func (d *demo) protected(f func()) (err error) {
	defer func() {
		switch r := recover().(type) {
		case nil:
		case failure:
			err = r
		default:
			panic(r)
		}
	}()
	f()
	return nil
}

func (d *demo) run(bin, display, swaysock, runtime string) {
	for _, name := range []string{"qemu-system-x86_64", "foot", "bash", "gtk4-demo"} {
		if _, err := exec.LookPath(name); err != nil {
			d.Fatalf("%s is not installed, and the demo needs it", name)
		}
	}
	cfg := e2e.Config{Bin: bin, TOML: config}
	if display != "" {
		if !filepath.IsAbs(display) {
			display = filepath.Join(runtime, display)
		}
		d.Logf("showing on the compositor at %s", display)
		cfg.Attach = desktoptest.Attach(display, swaysock)
	} else {
		d.Logf("no WAYLAND_DISPLAY: showing on a headless sway")
		// Without KVM, on a busy machine, a VM takes minutes to start.
		cfg.Desktop = desktoptest.Config{Width: 1600, Height: 900, Sway: look, Timeout: 6 * time.Minute}
	}
	r := e2e.New(d, cfg)
	if r.IPC == "" {
		d.plain(r)
		return
	}

	terminal := r.Start("run", "--vm", "demo", "foot", "-o", "csd.preferred=none", "-o", "font=monospace:size=13",
		"env", "PS1="+prompt, "bash", "--norc")
	d.programs = append(d.programs, terminal)
	shell := r.WaitSettled(d, desktoptest.ByAppID("vix.demo.foot"))
	first := r.VM("demo")
	gtk := r.Start("run", "--vm", "office", "gtk4-demo")
	d.programs = append(d.programs, gtk)
	window := r.WaitWindow(d, func(n *desktoptest.Node) bool { return strings.HasPrefix(n.AppID, "vix.office.") })
	second := r.VM("office")
	r.Desktop.Command(d, fmt.Sprintf("[con_id=%d] resize set width 520 px", shell.ID))
	r.WaitScreen(d, "what the GTK program draws", func(img *image.RGBA) bool {
		w := r.WaitWindow(d, func(n *desktoptest.Node) bool { return n.ID == window.ID })
		return desktoptest.Colors(img, e2e.Inside(w)) > 40
	})

	r.Focus(d, shell)
	// prompts counts the pixels of the shell's prompts.
	prompts := func(img *image.RGBA) int {
		w := r.WaitWindow(d, func(n *desktoptest.Node) bool { return n.ID == shell.ID })
		return desktoptest.Count(img, e2e.Inside(w), desktoptest.Near(promptColor, 3))
	}
	one := prompts(r.WaitScreen(d, "the shell's prompt", func(img *image.RGBA) bool { return prompts(img) > 100 }))
	r.Type(d, typed+"\n")
	picture := r.WaitScreen(d, "the answer, and the prompt after it", func(img *image.RGBA) bool { return prompts(img) > one*3/2 })
	said := r.Guest("demo", "cat "+answer)
	path := filepath.Join(d.out, "desktop.png")
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		d.Fatalf("%v", err)
	}
	if err := desktoptest.SavePNG(path, picture); err != nil {
		d.Fatalf("%v", err)
	}

	d.stages(first)
	d.stages(second)
	d.Logf("\ntyped %q into the terminal of VM demo; its shell answered %q", typed, said)
	d.Logf("swaymsg -t get_tree says of the windows:")
	for _, w := range r.Windows(d, desktoptest.ByAppIDPrefix("vix.")) {
		d.Logf("  %v", w)
	}
	d.Logf("picture: %s (%dx%d)", path, picture.Rect.Dx(), picture.Rect.Dy())
	d.end(r, terminal, gtk)
}

// plain is the demo on a compositor that does not speak sway's IPC: the user
// sees the windows, and closes them.
func (d *demo) plain(r *e2e.Rig) {
	d.Logf("the compositor is not sway: look at the two windows, and close them")
	terminal := r.Start("run", "--vm", "demo", "foot")
	gtk := r.Start("run", "--vm", "office", "gtk4-demo")
	<-terminal.Done()
	<-gtk.Done()
	d.Logf("run ended with %d and %d", terminal.Wait(), gtk.Wait())
}

// end closes the windows as a user does and sees that nothing stays.
func (d *demo) end(r *e2e.Rig, programs ...*desktoptest.Proc) {
	for _, w := range r.Windows(d, desktoptest.ByAppIDPrefix("vix.")) {
		r.CloseWindow(d, w)
	}
	for _, p := range programs {
		select {
		case <-p.Done():
		case <-time.After(30 * time.Second):
			d.Fatalf("a program did not end after its window was closed: %s", p.Output())
		}
	}
	for again := time.NewTicker(100 * time.Millisecond); len(r.List()) > 0; <-again.C {
	}
	r.CheckClean()
	d.Logf("closed both windows: the programs, their VMs and all their processes have ended")
}

func (d *demo) stages(v e2e.VM) {
	d.Logf("\nVM %s, seconds since its start (and by the guest's clock):", v.Name)
	if d.build != "" {
		d.Logf("  %-9s %6s  (before)", "build", d.build)
		d.build = "" // once
	}
	for _, s := range v.Stages {
		guest := ""
		if s.Uptime > 0 {
			guest = fmt.Sprintf("  (%.2f)", s.Uptime)
		}
		d.Logf("  %-9s %6.2f%s", s.Name, s.Seconds, guest)
	}
}
