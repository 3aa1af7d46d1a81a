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
	"os"
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
	typed = "uname -nr"
)

func main() {
	bin := flag.String("bin", "build/bin", "`directory` of the programs")
	out := flag.String("out", "build/demo", "`directory` of the picture")
	flag.Parse()
	d := &demo{out: *out, build: os.Getenv("VIX_BUILD_SECONDS")}
	err := d.protected(func() { d.run(*bin, os.Getenv("WAYLAND_DISPLAY"), os.Getenv("SWAYSOCK"), os.Getenv("XDG_RUNTIME_DIR")) })
	if err = errors.Join(err, d.protected(d.cleanUp)); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// A demo is the T of a run that is not a test.
type demo struct {
	out, build string
	cleanups   []func()
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
	cfg := e2e.Config{Bin: bin, TOML: config}
	if display != "" {
		if !filepath.IsAbs(display) {
			display = filepath.Join(runtime, display)
		}
		d.Logf("showing on the compositor at %s", display)
		cfg.Attach = desktoptest.Attach(display, swaysock)
	} else {
		d.Logf("no WAYLAND_DISPLAY: showing on a headless sway")
		cfg.Desktop = desktoptest.Config{Width: 1600, Height: 900, Sway: look}
	}
	r := e2e.New(d, cfg)
	if r.IPC == "" {
		d.plain(r)
		return
	}

	terminal := r.Start("run", "--vm", "demo", "foot", "-o", "csd.preferred=none", "-o", "font=monospace:size=13",
		"script", "--quiet", "--flush", "/tmp/transcript")
	shell := r.WaitSettled(d, desktoptest.ByAppID("vix.demo.foot"))
	first := r.VM("demo")
	gtk := r.Start("run", "--vm", "office", "gtk4-demo")
	window := r.WaitWindow(d, func(n *desktoptest.Node) bool { return strings.HasPrefix(n.AppID, "vix.office.") })
	second := r.VM("office")
	r.Desktop.Command(d, fmt.Sprintf("[con_id=%d] resize set width 520 px", shell.ID))
	r.WaitScreen(d, "what the GTK program draws", func(img *image.RGBA) bool {
		w := r.WaitWindow(d, func(n *desktoptest.Node) bool { return n.ID == window.ID })
		return desktoptest.Colors(img, e2e.Inside(w)) > 40
	})

	r.Focus(d, shell)
	before := r.Screenshot(d)
	r.Type(d, typed+"\n")
	answer := r.Guest("demo", `until grep -q "$(uname -nr)" /tmp/transcript; do sleep 0.1; done; uname -nr`)
	shell = r.WaitWindow(d, func(n *desktoptest.Node) bool { return n.ID == shell.ID })
	picture := r.WaitScreen(d, "the answer", func(img *image.RGBA) bool {
		return changed(before, img, shell.Content().Image()) > 500
	})
	path := filepath.Join(d.out, "desktop.png")
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		d.Fatalf("%v", err)
	}
	if err := desktoptest.SavePNG(path, picture); err != nil {
		d.Fatalf("%v", err)
	}

	d.stages(first)
	d.stages(second)
	d.Logf("\ntyped %q into the terminal of VM demo; its shell answered %q", typed, answer)
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

// changed counts the pixels of r that differ.
func changed(a, b *image.RGBA, r image.Rectangle) int {
	n := 0
	r = r.Intersect(a.Rect).Intersect(b.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if a.RGBAAt(x, y) != b.RGBAAt(x, y) {
				n++
			}
		}
	}
	return n
}
