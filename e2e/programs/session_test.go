package programs

import (
	"fmt"
	"image"
	"image/color"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// A session is a VM on a desktop of its own.
type session struct {
	*e2e.Rig
	vm    string
	limit time.Duration // of each wait
	keep  *desktoptest.Proc
	home  string // of the user in the VM
	local string // instead of a VM, the socket of a proxy
}

func newSession(t *testing.T, vm, memory string, limit time.Duration) *session {
	t.Helper()
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	s := &session{vm: vm, limit: limit, home: "/home/user", Rig: e2e.New(t, e2e.Config{
		Bin:     "../../build/bin",
		TOML:    fmt.Sprintf("[vm.%s]\nmemory = %q\n", vm, memory),
		Timeout: limit,
		// A tiled window's program has 1280×800.
		Desktop: desktoptest.Config{Timeout: limit, Width: 1280 + 2*e2e.FrameSide, Height: 800 + e2e.FrameTop + e2e.FrameSide},
	})}
	// The VM outlives each program.
	s.keep = s.Start("run", "--vm", vm, "sleep", "100000")
	return s
}

// localSession is one without a VM: programs behind the same filter, with the same
// frame, at the machine's own speed.
func localSession(t *testing.T, vm string, limit time.Duration) *session {
	t.Helper()
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	s := &session{vm: vm, limit: limit, home: t.TempDir(), Rig: e2e.New(t, e2e.Config{
		Bin:     "../../build/bin",
		Timeout: limit,
		Desktop: desktoptest.Config{Timeout: limit, Width: 1280 + 2*e2e.FrameSide, Height: 800 + e2e.FrameTop + e2e.FrameSide},
	})}
	s.local = filepath.Join(s.Desktop.Dir, "tagged")
	proxy, err := filepath.Abs("../../build/bin/vix-waylandproxy")
	if err != nil {
		t.Fatal(err)
	}
	p := s.Client(t, proxy, "local", "--listen", s.local, "--vm", vm, "--frame", "full", "--color", "#2060c0")
	t.Cleanup(func() {
		p.Stop()
		if t.Failed() {
			t.Logf("the proxy wrote: %s", p.Output())
		}
	})
	for again := time.NewTicker(20 * time.Millisecond); ; <-again.C { // a socket that listens has no event
		if _, err := os.Stat(s.local); err == nil {
			again.Stop()
			return s
		}
		select {
		case <-p.Done():
			t.Fatalf("the proxy ended: %s", p.Output())
		default:
		}
	}
}

// open starts a program of the session.
func (s *session) open(argv []string) *desktoptest.Proc {
	if s.local == "" {
		return s.Start(append([]string{"run", "--vm", s.vm}, argv...)...)
	}
	cmd := s.Command(argv...)
	cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+s.local, "HOME="+s.home)
	cmd.Dir = s.home
	return s.StartCommand(cmd)
}

// end stops the VM, of which nothing may be left.
func (s *session) end(t *testing.T) {
	t.Helper()
	s.Must("stop", s.vm)
	s.waitEnd(t, s.keep)
	s.CheckClean()
}

// A program is one that runs in the session's VM, and its window. Places and
// pictures are relative to where the program draws when its window, with its
// frame, is in the screen's corner.
type program struct {
	*session
	*desktoptest.Proc
	t    *testing.T
	name string
	win  *desktoptest.Node

	opened *image.RGBA     // what changes has seen last
	calm   image.Rectangle // where quiet looks; empty: everywhere
}

// run opens a program, lets drive use it, keeps the last picture, closes its
// window and waits for its end.
func (s *session) run(t *testing.T, name string, argv []string, drive func(p *program)) {
	t.Run(name, func(t *testing.T) {
		s.For(t)
		begin := time.Now()
		p := &program{session: s, t: t, name: name}
		t.Cleanup(func() {
			if t.Failed() {
				p.keepPicture(name+"-failed.png", s.Screenshot(t))
				t.Logf("%s wrote: %s", name, p.Output())
			}
		})
		// When wtype has ended, sway's seat has no keyboard with a keymap, and a
		// program that expects one crashes (wev does). The desktop's own comes back.
		const leftShift = 42
		s.KeyCode(t, leftShift, true)
		s.KeyCode(t, leftShift, false)
		p.Proc = s.open(argv)
		p.win = s.WaitSettled(t, nil)
		opened := time.Since(begin)
		drive(p)
		for _, w := range s.Windows(t, nil) {
			s.CloseWindow(t, w)
		}
		s.waitEnd(t, p.Proc)
		s.WaitNoWindow(t, nil)
		t.Logf("%s: window after %.1f s, driven and closed after %.1f s", name, opened.Seconds(), time.Since(begin).Seconds())
	})
}

func (s *session) waitEnd(t *testing.T, p *desktoptest.Proc) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(s.limit):
		t.Fatalf("no end after %v: %s", s.limit, p.Output())
	}
}

// put writes a file into the VM.
func (s *session) put(t *testing.T, name string, content []byte) {
	t.Helper()
	if s.local != "" {
		err := os.MkdirAll(filepath.Dir(name), 0o700)
		if err == nil {
			err = os.WriteFile(name, content, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	cmd := s.Command(s.Launcher(), "run", "--vm", s.vm, "sh", "-c", `mkdir -p "${1%/*}"; cat >"$1"`, "sh", name)
	cmd.Stdin = strings.NewReader(string(content))
	if res := s.Run(cmd); res.Code != 0 {
		t.Fatalf("writing %s in the VM: %v", name, res)
	}
}

// within is a picture of the screen with the program's own coordinates.
func within(img *image.RGBA) *image.RGBA {
	return &image.RGBA{Pix: img.Pix, Stride: img.Stride, Rect: img.Rect.Sub(image.Pt(e2e.FrameSide, e2e.FrameTop))}
}

func (p *program) Screenshot(t desktoptest.T) *image.RGBA { return within(p.Desktop.Screenshot(t)) }

func (p *program) WaitScreen(t desktoptest.T, what string, ok func(*image.RGBA) bool) *image.RGBA {
	t.Helper()
	return within(p.Desktop.WaitScreen(t, what, func(img *image.RGBA) bool { return ok(within(img)) }))
}

func (p *program) MoveTo(t desktoptest.T, x, y int) {
	p.Desktop.MoveTo(t, x+e2e.FrameSide, y+e2e.FrameTop)
}

func (p *program) Click(t desktoptest.T, x, y int) {
	p.Desktop.Click(t, x+e2e.FrameSide, y+e2e.FrameTop)
}

func (p *program) Scroll(t desktoptest.T, x, y, steps int) {
	p.Desktop.Scroll(t, x+e2e.FrameSide, y+e2e.FrameTop, steps)
}

func (p *program) SetSize(t desktoptest.T, width, height int) {
	p.Desktop.SetSize(t, width+2*e2e.FrameSide, height+e2e.FrameTop+e2e.FrameSide)
}

func (p *program) keepPicture(name string, img *image.RGBA) {
	p.t.Helper()
	const dir = "../../build/e2e"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		p.t.Fatal(err)
	}
}

// picture keeps what the screen shows now.
func (p *program) picture(suffix string) {
	p.t.Helper()
	p.keepPicture(p.name+suffix+".png", p.Screenshot(p.t))
}

// title waits until a window's title is that, after the VM's tag.
func (p *program) title(text string) *desktoptest.Node {
	p.t.Helper()
	return p.WaitWindow(p.t, func(n *desktoptest.Node) bool {
		return strings.HasPrefix(n.Name, "["+p.vm+"] ") && strings.Contains(n.Name, text) && strings.HasPrefix(n.AppID, "vix."+p.vm+".")
	})
}

// float gives the window a size at the screen's corner, and waits until the
// program has drawn at that size, more or less: terminals count in cells.
func (p *program) float(width, height int) {
	p.t.Helper()
	full := image.Pt(width+2*e2e.FrameSide, height+e2e.FrameTop+e2e.FrameSide)
	p.Float(p.t, p.win, 0, 0, full.X, full.Y)
	id, looks := p.win.ID, 0
	p.WaitScreen(p.t, fmt.Sprintf("%s at %dx%d", p.name, width, height), func(img *image.RGBA) bool {
		for _, w := range p.Windows(p.t, nil) {
			if w.ID == id {
				p.win = w
			}
		}
		// Sway takes a slow program's answer to an older size for its own wish.
		if looks++; looks%40 == 0 {
			p.Float(p.t, p.win, 0, 0, full.X, full.Y)
		}
		r := e2e.Inside(p.win).Sub(image.Pt(e2e.FrameSide, e2e.FrameTop))
		return r.Min == image.Point{} && near(r.Dx(), width) && near(r.Dy(), height) &&
			desktoptest.Share(img, image.Rect(r.Max.X-4, 0, r.Max.X-1, r.Max.Y), color.RGBA{A: 255}, 0) < 0.5 &&
			desktoptest.Share(img, image.Rect(0, r.Max.Y-4, r.Max.X, r.Max.Y-1), color.RGBA{A: 255}, 0) < 0.5
	})
}

func near(is, want int) bool { return is < want+24 && is > want-24 }

// resizeOutput makes the output larger and normal again; the tiled window has to
// follow. It is for compositors: what they draw after a floating window's first
// size comes too late for sway, which then takes it for their wish.
func (p *program) resizeOutput() {
	p.t.Helper()
	right, below := image.Rect(1300, 100, 1390, 800), image.Rect(100, 820, 1300, 860)
	p.SetSize(p.t, 1400, 900)
	p.WaitScreen(p.t, p.name+" on the larger output", func(img *image.RGBA) bool {
		black := color.RGBA{A: 255}
		return desktoptest.Share(img, right, black, 0) < 0.1 && desktoptest.Share(img, below, black, 0) < 0.1
	})
	p.SetSize(p.t, 1280, 800)
}

// quiet waits until the screen has stopped to change, and returns it.
func (p *program) quiet() *image.RGBA {
	p.t.Helper()
	var last *image.RGBA
	same := 0
	calm := p.calm
	return p.WaitScreen(p.t, p.name+" at rest", func(img *image.RGBA) bool {
		if calm.Empty() {
			calm = img.Rect
		}
		if last != nil && differing(last, img, calm) < 40 { // a caret may blink
			same++
		} else {
			same = 0
		}
		last = img
		return same >= 6
	})
}

// changes does what act does, and waits until at least n pixels of r look
// otherwise than before. It returns what it was before.
func (p *program) changes(what string, r image.Rectangle, n int, act func()) *image.RGBA {
	p.t.Helper()
	before := p.quiet()
	act()
	p.opened = p.WaitScreen(p.t, what, func(img *image.RGBA) bool { return differing(before, img, r) >= n })
	return before
}

// restored waits until most of what had changed in r looks as before again. Not
// all of it: a slow program may have drawn some of its last size after that.
func (p *program) restored(what string, before *image.RGBA, r image.Rectangle, n int) {
	p.t.Helper()
	opened := p.opened
	p.WaitScreen(p.t, what, func(img *image.RGBA) bool {
		gone, total := 0, 0
		for y := r.Min.Y; y < r.Max.Y; y++ {
			for x := r.Min.X; x < r.Max.X; x++ {
				if opened.RGBAAt(x, y) != before.RGBAAt(x, y) {
					total++
					if img.RGBAAt(x, y) != opened.RGBAAt(x, y) {
						gone++
					}
				}
			}
		}
		return gone*2 > total-n
	})
}

// drawn waits until r has at least n colours.
func (p *program) drawn(r image.Rectangle, n int) {
	p.t.Helper()
	p.WaitScreen(p.t, "what "+p.name+" draws", func(img *image.RGBA) bool { return desktoptest.Colors(img, r) >= n })
}

// colored waits until a part of r has the colour.
func (p *program) colored(what string, r image.Rectangle, c color.RGBA, share float64) {
	p.t.Helper()
	p.WaitScreen(p.t, what, func(img *image.RGBA) bool { return desktoptest.Share(img, r, c, 12) >= share })
}

// keys are codes of linux/input-event-codes.h of the US layout.
var keys = map[rune]uint32{'a': 30, 'd': 32, 'e': 18, 'i': 23, 'm': 50, 'n': 49, 'p': 25, 't': 20, 'v': 47, 'y': 21, ' ': 57, '\n': 28, '\x1b': 1}

// press presses keys of the desktop's own keyboard, one after another. GTK 3 and
// some others lose the first key of a keyboard that has just come, as wtype's has.
func (p *program) press(text string) {
	p.t.Helper()
	for _, r := range text {
		code, ok := keys[r]
		if !ok {
			p.t.Fatalf("no key for %q", r)
		}
		p.KeyCode(p.t, code, true)
		p.KeyCode(p.t, code, false)
	}
}

func (p *program) rightClick(x, y int) {
	p.t.Helper()
	p.MoveTo(p.t, x, y)
	p.Button(p.t, desktoptest.Right, true)
	p.Button(p.t, desktoptest.Right, false)
}

// wrote waits until the program's output contains text.
func (p *program) wrote(text string) {
	p.t.Helper()
	deadline := time.After(p.limit)
	again := time.NewTicker(20 * time.Millisecond) // output has no event
	defer again.Stop()
	for !strings.Contains(p.Output(), text) {
		select {
		case <-again.C:
		case <-p.Done():
			p.t.Fatalf("ended without writing %q: %s", text, p.Output())
		case <-deadline:
			p.t.Fatalf("%q not written: %s", text, p.Output())
		}
	}
}

// differing counts the pixels of r that differ.
func differing(a, b *image.RGBA, r image.Rectangle) int {
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

// bounds returns the smallest rectangle around the pixels of r that have that colour.
func bounds(img *image.RGBA, r image.Rectangle, c color.RGBA) image.Rectangle {
	var b image.Rectangle
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if img.RGBAAt(x, y) == c {
				b = b.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return b
}
