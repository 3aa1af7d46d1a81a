package frame

import (
	"fmt"
	"image"
	"image/color"
	"math"
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
// or "". Pixels at the edges of pieces may be blended at scales that are not whole.
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
		in := d.px(side.r).Intersect(img.Rect).Inset(d.blend())
		if n := desktoptest.Count(img, in, near); in.Empty() || n < in.Dx()*in.Dy() {
			return fmt.Sprintf("%s, in %v: %d of %d pixels", side.what, in, n, in.Dx()*in.Dy())
		}
	}
	// The label is letters on the colour, and the tag's box where the window has the focus.
	top := d.px(image.Rect(r.Min.X, r.Min.Y, r.Min.X+64, r.Min.Y+labelH)).Intersect(img.Rect).Inset(d.blend())
	letters := top.Dx()*top.Dy() - desktoptest.Count(img, top, near)
	if letters < int(60*d.scale*d.scale) || letters > top.Dx()*top.Dy()*3/4 {
		return fmt.Sprintf("the label, in %v: %d pixels are letters", top, letters)
	}
	return ""
}

// blend is how many pixels at an edge may be mixed with what is beyond.
func (d *desk) blend() int {
	if d.scale == math.Trunc(d.scale) {
		return 0
	}
	return 1
}

// full is where a window is that fills the output, in logical pixels.
func (d *desk) full() image.Rectangle { return image.Rect(0, 0, d.w, d.h) }

// waitFramed waits until a frame is around the whole output.
func (d *desk) waitFramed(t *testing.T, what string) {
	t.Helper()
	var lacks string
	d.waitScreen(t, what, func(img *image.RGBA) bool {
		missing := d.framed(img, d.full(), workBlue)
		if missing != "" && d.name == "weston" {
			// Weston places a fullscreen window by the box around all its surfaces,
			// wrongly: half of what is to the left of its root and above is outside.
			missing = d.framed(img, d.full().Sub(image.Pt(sideW/2, labelH/2)), workBlue)
		}
		lacks = "which lacks " + missing
		w, h := d.mode()
		if img.Rect.Size() != image.Pt(w, h) {
			lacks = fmt.Sprintf("an output of %d×%d and not %v", w, h, img.Rect.Size())
			return false
		}
		return missing == ""
	}, &lacks)
}

// undecorated is labwc's rule for windows without a title bar of its own.
const undecorated = `<windowRule identifier="vix.*" serverDecoration="no"/>`

// scales are those of the tests of frames that must not vanish.
var scales = []float64{1, 1.25, 1.5, 2, 3}

// TestStopped holds that the frame of a program that does not answer stays whole, on
// all sides, when its window has to become smaller than what it shows: its window fills
// the output, and the output changes its size and scale.
func TestStopped(t *testing.T) {
	for _, program := range []struct {
		name   string
		scales []float64
		start  func(t *testing.T, d *desk)
	}{
		{"maximised", scales, func(t *testing.T, d *desk) { d.deaf(t, wayland.XdgToplevelReqSetMaximized) }},
		{"fullscreen", []float64{1, 2}, func(t *testing.T, d *desk) { d.deaf(t, wayland.XdgToplevelReqSetFullscreen) }},
		{"foot", []float64{1.25, 2}, func(t *testing.T, d *desk) {
			p := run(t, d, work.serve(t, d.socket), "foot", "--fullscreen")
			d.waitFramed(t, "foot")
			p.Signal(syscall.SIGSTOP)
			t.Cleanup(func() { p.Signal(syscall.SIGKILL) }) // a stopped process ends by no other
		}},
	} {
		for _, scale := range program.scales {
			k := int(math.Ceil(scale)) // so that Mutter, whose mode stays, has room
			everyDesk(t, fmt.Sprintf("%s-%v", program.name, scale), 1, "", undecorated, func(t *testing.T, d *desk) {
				if d.change == nil {
					t.Skip("its headless output cannot change; TestTooLarge has it")
				}
				d.seat.move(d.w/2, d.h/2)
				program.start(t, d)
				d.waitFramed(t, "the window")
				for _, size := range d.sizes(scale) {
					d.resize(t, size.X, size.Y, scale)
					d.waitFramed(t, fmt.Sprintf("%v at %v", size, scale))
				}
				if d.name == "mutter" {
					return
				}
				d.resize(t, 1000, 600, scale) // which the program cannot fill
				d.waitScreen(t, "a frame that is whole, around less than the output", func(img *image.RGBA) bool {
					w, h := d.mode()
					return img.Rect.Size() == image.Pt(w, h) && d.framed(img, d.extent(img, workBlue), workBlue) == ""
				})
			}, sized(1280*k, 800*k))
		}
	}
}

// extent is the smallest rectangle, in logical pixels, that has all of a colour.
func (d *desk) extent(img *image.RGBA, c color.RGBA) image.Rectangle {
	near := desktoptest.Near(c, 2)
	var r image.Rectangle
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x++ {
			if near(img.RGBAAt(x, y)) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	// Outwards: a row of pixels at an edge may be blended with what is beyond.
	low := func(v int) int { return int(math.Floor(float64(v) / d.scale)) }
	high := func(v int) int { return int(math.Ceil(float64(v) / d.scale)) }
	return image.Rect(low(r.Min.X), low(r.Min.Y), high(r.Max.X), high(r.Max.Y))
}

// sizes are the sizes, in logical pixels, that an output takes one after the other
// at a scale.
func (d *desk) sizes(scale float64) []image.Point {
	if w, h := d.mode(); d.name == "mutter" { // it keeps the mode
		return []image.Point{{int(float64(w) / scale), int(float64(h) / scale)}}
	}
	return []image.Point{{1280, 800}, {600, 700}, {400, 300}, {300, 200}}
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

// TestTooLarge holds the same of a program that shows more than it was told; also of
// one that never hears what it is told, on compositors that first let a window choose.
func TestTooLarge(t *testing.T) {
	for _, size := range []image.Point{{600, 700}, {300, 200}} {
		for _, scale := range scales {
			everyDesk(t, fmt.Sprintf("%dx%d-%v", size.X, size.Y, scale), scale, "", undecorated, func(t *testing.T, d *desk) {
				if d.seat != nil {
					d.seat.move(d.w/2, d.h/2)
				}
				for _, state := range []struct {
					name  string
					op    uint16
					hears bool
				}{
					{"maximised", wayland.XdgToplevelReqSetMaximized, true},
					{"fullscreen", wayland.XdgToplevelReqSetFullscreen, true},
					{"maximised, deaf", wayland.XdgToplevelReqSetMaximized, false},
					{"fullscreen, deaf", wayland.XdgToplevelReqSetFullscreen, false},
				} {
					c := newClient(t, d, work.serve(t, d.socket))
					c.begin(state.op)
					if state.hears {
						c.sized()
					}
					c.show(c.surface, c.buffer(1280, 800, color.RGBA{255, 200, 255, 255}))
					d.waitFramed(t, state.name)
					_ = c.Tr.Close()
				}
			}, sized(size.X, size.Y))
		}
	}
}
