package frame

import (
	"fmt"
	"image"
	"image/color"
	"syscall"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
)

// Sizes of the frame of a window, in logical pixels.
const (
	labelH = 20
	sideW  = 4
)

// framed says what is missing of a window's frame that is around r, in logical pixels,
// or "". Rows and columns of pixels at the edges of pieces may be blended, at scales
// that are not whole.
func (d *desk) framed(img *image.RGBA, r image.Rectangle, c color.RGBA) string {
	near := desktoptest.Near(c, 2)
	for _, side := range []struct {
		what string
		r    image.Rectangle
	}{
		{"the left side", image.Rect(r.Min.X, r.Min.Y+labelH, r.Min.X+sideW, r.Max.Y)},
		{"the right side", image.Rect(r.Max.X-sideW, r.Min.Y+labelH, r.Max.X, r.Max.Y)},
		{"the lower side", image.Rect(r.Min.X, r.Max.Y-sideW, r.Max.X, r.Max.Y)},
		{"the end of the top", image.Rect(r.Max.X-20, r.Min.Y, r.Max.X, r.Min.Y+labelH)},
	} {
		in := d.px(side.r).Intersect(img.Rect).Inset(1)
		if n := desktoptest.Count(img, in, near); in.Empty() || n < in.Dx()*in.Dy() {
			return fmt.Sprintf("%s, in %v: %d of %d pixels", side.what, in, n, in.Dx()*in.Dy())
		}
	}
	// The label is letters on the colour.
	top := d.px(image.Rect(r.Min.X, r.Min.Y, r.Min.X+64, r.Min.Y+labelH)).Inset(1)
	letters := top.Dx()*top.Dy() - desktoptest.Count(img, top, near)
	if letters < int(60*d.scale*d.scale) || letters > top.Dx()*top.Dy()/2 {
		return fmt.Sprintf("the label, in %v: %d pixels are letters", top, letters)
	}
	return ""
}

// screen is the whole output, in logical pixels.
func (d *desk) screen() image.Rectangle { return image.Rect(0, 0, d.w, d.h) }

// waitFramed waits until a frame is around the whole output.
func (d *desk) waitFramed(t *testing.T, what string) {
	t.Helper()
	var lacks string
	d.waitScreen(t, what, func(img *image.RGBA) bool {
		lacks = "which lacks " + d.framed(img, d.screen(), workBlue)
		w, h := d.mode()
		if img.Rect.Size() != image.Pt(w, h) {
			lacks = fmt.Sprintf("an output of %d×%d and not %v", w, h, img.Rect.Size())
			return false
		}
		return lacks == "which lacks "
	}, &lacks)
}

// undecorated is labwc's rule for windows without a title bar of its own.
const undecorated = `<windowRule identifier="vix.*" serverDecoration="no"/>`

// outputs are the sizes, in logical pixels, that an output takes one after the other.
var outputs = []image.Point{{1280, 800}, {600, 700}, {400, 300}, {300, 200}, {1280, 800}}

// TestStopped holds that the frame of a program that does not answer stays whole, on
// all sides, when its window has to become smaller than what it shows: its window fills
// the output, and the output changes its size and scale.
func TestStopped(t *testing.T) {
	for _, program := range []struct {
		name  string
		start func(t *testing.T, d *desk)
	}{
		{"maximised", func(t *testing.T, d *desk) { d.deaf(t, wayland.XdgToplevelReqSetMaximized) }},
		{"fullscreen", func(t *testing.T, d *desk) { d.deaf(t, wayland.XdgToplevelReqSetFullscreen) }},
		{"foot", func(t *testing.T, d *desk) {
			p := run(t, d, work.serve(t, d.socket), "foot", "--fullscreen")
			d.waitFramed(t, "foot")
			p.Signal(syscall.SIGSTOP)
			t.Cleanup(func() { p.Signal(syscall.SIGKILL) }) // a stopped process ends by no other
		}},
	} {
		for _, scale := range []float64{1, 1.25, 1.5, 2, 3} {
			everyDesk(t, fmt.Sprintf("%s-%v", program.name, scale), 1, "", undecorated, func(t *testing.T, d *desk) {
				if d.change == nil {
					t.Skip("its headless output cannot change; TestTooLarge has it")
				}
				d.resize(t, 1280, 800, 1)
				program.start(t, d)
				d.waitFramed(t, "the window")
				for _, size := range outputs {
					d.resize(t, size.X, size.Y, scale)
					d.waitFramed(t, fmt.Sprintf("%v at %v", size, scale))
				}
			}, sized(1280, 800))
		}
	}
}

// deaf opens a window that fills the output; it acknowledges the first configure event
// alone.
func (d *desk) deaf(t *testing.T, state uint16) {
	t.Helper()
	c := newClient(t, d, work.serve(t, d.socket))
	c.open(state)
	c.show(c.surface, c.buffer(max(c.w, 1), max(c.h, 1), color.RGBA{255, 200, 255, 255}))
	c.sync()
}

// TestTooLarge holds the same of a program that answers and shows more than it was
// told.
func TestTooLarge(t *testing.T) {
	for _, state := range []struct {
		name string
		op   uint16
	}{{"maximised", wayland.XdgToplevelReqSetMaximized}, {"fullscreen", wayland.XdgToplevelReqSetFullscreen}} {
		for _, size := range outputs[1:4] {
			for _, scale := range []float64{1, 1.25, 1.5, 2, 3} {
				everyDesk(t, fmt.Sprintf("%s-%dx%d-%v", state.name, size.X, size.Y, scale), scale, "", undecorated, func(t *testing.T, d *desk) {
					if d.seat != nil {
						d.seat.move(d.w/2, d.h/2)
					}
					c := newClient(t, d, work.serve(t, d.socket))
					c.open(state.op)
					c.show(c.surface, c.buffer(1280, 800, color.RGBA{255, 200, 255, 255}))
					d.waitFramed(t, "the window")
				}, sized(size.X, size.Y))
			}
		}
	}
}
