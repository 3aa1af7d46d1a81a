package programs

import (
	"flag"
	"fmt"
	"image"
	"image/color"
	"os"
	"regexp"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

var update = flag.Bool("update", false, "write testdata/wayland-info.golden")

// TestGlobals holds what a program in a VM sees of the compositor.
func TestGlobals(t *testing.T) {
	s := newSession(t, "apps", "512M", 3*time.Minute)
	s.SetSize(t, 1280, 800)
	t.Run("wayland-info", func(t *testing.T) { s.For(t); waylandInfo(t, s) })
	t.Run("weston-debug", func(t *testing.T) { s.For(t); westonDebug(t, s) })
	s.end(t)
}

// TestLight drives one program after the other in one VM.
func TestLight(t *testing.T) {
	if os.Getenv("VIX_E2E_PROGRAMS") == "" && os.Getenv("VIX_E2E_FULL") == "" {
		t.Skip("takes minutes without KVM; make e2e runs it")
	}
	s := newSession(t, "apps", "1G", 3*time.Minute)
	s.run(t, "foot", []string{"foot", "-o", "csd.preferred=none", "-o", "resize-by-cells=no"}, driveFoot)
	s.run(t, "wev", []string{"stdbuf", "-oL", "wev"}, driveWev)
	s.run(t, "weston-simple-shm", []string{"weston-simple-shm"}, driveSimpleShm)
	s.run(t, "weston-flower", []string{"weston-flower"}, driveFlower)
	s.run(t, "weston-terminal", []string{"weston-terminal", "--font-size=14"}, driveWestonTerminal)
	s.run(t, "weston-editor", []string{"weston", "--backend=wayland", "--renderer=pixman",
		"--", "/usr/bin/weston-editor"}, driveWestonEditor)
	s.run(t, "gtk4-demo", []string{"gtk4-demo"}, driveGTK4Demo)
	s.run(t, "gtk4-widget-factory", []string{"gtk4-widget-factory"}, driveWidgetFactory)
	s.end(t)
}

// A guest's globals, formats and output are those of the golden file: sway's,
// through the filter. The numbers that differ from run to run are left out.
func waylandInfo(t *testing.T, s *session) {
	got := regexp.MustCompile(`, +name: +\d+`).ReplaceAllString(s.Guest(s.vm, "wayland-info"), "")
	got = regexp.MustCompile(`(output: |VIX-)\d+`).ReplaceAllString(got, "${1}N") + "\n"
	const path = "testdata/wayland-info.golden"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("wayland-info in the guest differs from %s (-update writes it); it says:\n%s", path, got)
	}
}

// weston-debug asks for a global that sway has not: it says so in a VM as it
// does without one.
func westonDebug(t *testing.T, s *session) {
	host := s.Client(t, "weston-debug", "--list")
	code := host.Wait()
	if res := s.Vix("run", "--vm", s.vm, "weston-debug", "--list"); res.Code != code || res.Stderr != host.Output() {
		t.Errorf("in the VM: %v\nwithout: status %d, %q", res, code, host.Output())
	}
}

func driveFoot(p *program) {
	p.title("foot")
	p.float(800, 500)
	p.Click(p.t, 400, 250)
	p.changes("what the shell draws", p.win.Rect.Image(), 50_000, func() {
		p.Type(p.t, "stty size >/tmp/size; printf '\\033[44m\\033[2J'\n")
	})
	p.float(1000, 600)
	p.Type(p.t, "stty size >>/tmp/size; echo Vix >/tmp/typed\n")
	// The search box is a subsurface.
	before := p.changes("the search box", image.Rect(400, 500, 1000, 600), 500, func() { p.Key(p.t, "ctrl+shift+r") })
	p.Type(p.t, "stty")
	p.quiet()
	p.picture("")
	p.Key(p.t, "Escape")
	p.restored("the terminal without the search box", before, image.Rect(400, 550, 1000, 600), 100)
	var r0, c0, r1, c1 int
	if _, err := fmt.Sscan(p.Guest(p.vm, "cat /tmp/size"), &r0, &c0, &r1, &c1); err != nil || r1 <= r0 || c1 <= c0 {
		p.t.Errorf("rows and columns before and after the resize: %d %d, %d %d (%v)", r0, c0, r1, c1, err)
	}
	if got := p.Guest(p.vm, "cat /tmp/typed"); got != "Vix" {
		p.t.Errorf("the shell wrote %q", got)
	}
}

func driveWev(p *program) {
	p.win = p.WaitSettled(p.t, nil)
	p.Click(p.t, 200, 150)
	p.wrote("x, y: 200.000000, 150.000000")
	p.wrote("button: 272 (left), state: 1 (pressed)")
	p.wrote("button: 272 (left), state: 0 (released)")
	p.Key(p.t, "a")
	p.wrote("sym: a ")
	p.Key(p.t, "shift+Page_Up")
	p.wrote("sym: Prior ")
	p.Scroll(p.t, 210, 160, 1)
	p.wrote("value: 15.000000")
	p.SetSize(p.t, 1000, 700)
	p.wrote("width: 1000; height: 700")
	p.SetSize(p.t, 1280, 800)
	p.wrote("width: 1280; height: 800")
	p.picture("")
}

func driveSimpleShm(p *program) {
	p.title("simple-shm")
	p.float(300, 300)
	r := image.Rect(0, 0, 300, 300)
	p.drawn(r, 100)
	for i := range 3 { // it animates
		before := p.Screenshot(p.t)
		p.WaitScreen(p.t, fmt.Sprintf("another frame, %d", i), func(img *image.RGBA) bool { return differing(before, img, r) > 1000 })
	}
	p.float(500, 400)
	p.drawn(image.Rect(310, 310, 490, 390), 50)
	p.picture("")
}

// driveFlower moves the window by the program's own request, which needs the
// serial of a press that is still held.
func driveFlower(p *program) {
	p.title("Flower")
	p.Desktop.Command(p.t, fmt.Sprintf("[con_id=%d] floating enable, move absolute position 300 200", p.win.ID))
	p.drawn(image.Rect(300, 200, 500, 400), 10)
	at := image.Rect(380, 290, 420, 330)
	before := p.Screenshot(p.t)
	p.MoveTo(p.t, 400, 300)
	p.WaitScreen(p.t, "the program's own cursor", func(img *image.RGBA) bool { return differing(before, img, at) > 50 })
	p.Button(p.t, desktoptest.Left, true)
	step := 0
	p.WaitScreen(p.t, "the flower to follow the pointer", func(*image.RGBA) bool {
		step++
		p.MoveTo(p.t, min(400+10*step, 700), 300)
		return p.Windows(p.t, nil)[0].Rect.X > 400
	})
	p.Button(p.t, desktoptest.Left, false)
	p.drawn(p.Windows(p.t, nil)[0].Content().Image(), 10)
	p.picture("")
}

func driveWestonTerminal(p *program) {
	p.title("Wayland Terminal")
	p.float(700, 400)
	p.Click(p.t, 300, 200)
	p.changes("what the shell writes", image.Rect(6, 27, 690, 390), 900, func() { p.Type(p.t, "stty size >/tmp/wt; seq 1000\n") })
	p.float(900, 500)
	p.Type(p.t, "stty size >>/tmp/wt\n")
	// The frame's menu is an xdg_popup.
	before := p.changes("the window's menu", image.Rect(100, 10, 500, 300), 2000, func() { p.rightClick(200, 12) })
	p.picture("")
	p.Key(p.t, "Escape")
	p.Click(p.t, 700, 450)
	p.restored("the terminal without its menu", before, image.Rect(100, 60, 500, 300), 500)
	// It tells its shell the size some time after it has drawn at it: what counts
	// is that the last one came.
	var rows, cols int
	if _, err := fmt.Sscan(p.Guest(p.vm, "tail -n 1 /tmp/wt"), &rows, &cols); err != nil || rows < 26 || cols < 90 {
		p.t.Errorf("after the resize the shell has %d rows and %d columns (%v)", rows, cols, err)
	}
}

// driveWestonEditor drives it in a weston of the VM's own, because it needs
// zwp_text_input_manager_v1, which sway has not: a compositor in a VM, too.
func driveWestonEditor(p *program) {
	p.title("Weston Compositor")
	inside := image.Rect(20, 70, 1260, 780)
	var editor image.Rectangle // the inner weston chooses its place
	p.WaitScreen(p.t, "the editor in the inner desktop", func(img *image.RGBA) bool {
		editor = bounds(img, inside, color.RGBA{255, 255, 255, 255})
		return editor.Dx() > 300 && editor.Dy() > 200
	})
	p.Click(p.t, editor.Min.X+editor.Dx()/2, editor.Min.Y+editor.Dy()*4/10)
	p.changes("what was typed", editor, 150, func() { p.Type(p.t, "Vix Vix") })
	p.picture("")
	p.resizeOutput()
}

func driveGTK4Demo(p *program) {
	p.title("GTK Demo")
	p.float(900, 600)
	before := p.changes("the menu", image.Rect(600, 50, 900, 200), 5000, func() { p.Click(p.t, 900-1280+1128, 22) })
	p.picture("-menu")
	p.Key(p.t, "Escape")
	p.restored("the demo without its menu", before, image.Rect(600, 90, 900, 600), 500)
	p.changes("what was clicked", image.Rect(260, 90, 900, 600), 3000, func() { p.Click(p.t, 60, 145) })
	p.changes("the list's other part", image.Rect(0, 50, 240, 600), 3000, func() { p.Scroll(p.t, 120, 300, 5) })
	p.changes("what was searched", image.Rect(0, 50, 240, 600), 3000, func() {
		p.Key(p.t, "ctrl+f")
		p.Type(p.t, "dialog")
	})
	p.float(1000, 700)
	p.picture("")
}

func driveWidgetFactory(p *program) {
	p.title("GTK Widget Factory")
	p.float(1280, 800)
	p.quiet()
	p.Click(p.t, 100, 250) // an entry
	p.changes("what was typed", image.Rect(12, 235, 360, 265), 200, func() {
		p.Key(p.t, "ctrl+a")
		p.Type(p.t, "Typed in a VM")
	})
	p.changes("a button that is pressed", image.Rect(410, 60, 540, 88), 1000, func() { p.Click(p.t, 475, 73) })
	before := p.changes("the list of a drop-down", image.Rect(400, 270, 560, 400), 5000, func() { p.Click(p.t, 475, 250) })
	p.picture("-popup")
	p.Key(p.t, "Escape")
	p.restored("no list", before, image.Rect(400, 300, 560, 400), 500)
	p.changes("the second page", image.Rect(0, 60, 1280, 700), 50_000, func() { p.Click(p.t, 640, 22) })
	p.picture("")
}
