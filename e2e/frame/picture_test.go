package frame

import (
	"fmt"
	"image"
	"image/color"
	"os"
	"strings"
	"testing"

	"vix/internal/desktoptest"
)

var (
	workBlue    = color.RGBA{0x20, 0x60, 0xc0, 0xff}
	vaultYellow = color.RGBA{0xf0, 0xc0, 0x00, 0xff}
)

// desks starts each compositor at each scale that most tests have.
func desks(t *testing.T, sway, labwc string, f func(t *testing.T, d *desk)) {
	for _, scale := range []float64{1, 1.5, 2} {
		everyDesk(t, fmt.Sprint(scale), scale, sway, labwc, f)
	}
}

// everyDesk starts each compositor that can have the scale headless, with lines of
// sway's configuration and rules of labwc's for windows. They share nothing, and run in
// parallel when the test itself has returned. KWin and Mutter, which are in the larger
// system root alone, run one after the other.
func everyDesk(t *testing.T, name string, scale float64, sway, labwc string, f func(t *testing.T, d *desk), options ...func(*desk)) {
	one := func(kind string, start func(t *testing.T) *desk) {
		t.Run(kind+"-"+name, func(t *testing.T) {
			if kind != "kwin" && kind != "mutter" {
				t.Parallel()
			}
			d := start(t)
			d.again = start
			f(t, d)
		})
	}
	one("sway", func(t *testing.T) *desk { return startSway(t, scale, sway, options...) })
	one("labwc", func(t *testing.T) *desk { return startLabwc(t, scale, labwc, options...) })
	if whole := int(scale); float64(whole) == scale {
		one("weston", func(t *testing.T) *desk { return startWeston(t, whole, options...) })
	}
	if os.Getenv("VIX_E2E_FULL") != "" {
		one("kwin", func(t *testing.T) *desk { return startKWin(t, scale, options...) })
		one("mutter", func(t *testing.T) *desk { return startMutter(t, scale, options...) })
	}
}

func (d *desk) picture(what string) string {
	return fmt.Sprintf("frame-%s-%v%s.png", d.name, d.scale, strings.NewReplacer("/", "-", " ", "_", ",", "").Replace(what))
}

// px is a rectangle of logical pixels on the picture.
func (d *desk) px(r image.Rectangle) image.Rectangle {
	s := func(v int) int { return int(float64(v)*d.scale + 0.5) }
	return image.Rect(s(r.Min.X), s(r.Min.Y), s(r.Max.X), s(r.Max.Y))
}

func count(img *image.RGBA, c color.RGBA) int {
	return desktoptest.Count(img, img.Rect, desktoptest.Near(c, 2))
}

// terminal is foot, or what a compositor without a seat, Weston's headless one, can
// show.
func (d *desk) terminal(arg string) []string {
	if d.name != "weston" {
		return []string{"foot", arg}
	}
	if arg == "--fullscreen" {
		return []string{"weston-terminal", "--fullscreen"}
	}
	return []string{"weston-terminal"}
}

// TestPicture shows windows of two VMs, one with a menu open.
func TestPicture(t *testing.T) {
	desks(t, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		a, b := work.serve(t, d.socket), vault.serve(t, d.socket)
		run(t, d, a, d.terminal("--window-size-pixels=500x300")...)
		d.waitScreen(t, "the first frame", func(img *image.RGBA) bool { return count(img, workBlue) > 3000 })
		run(t, d, b, "gtk4-demo")
		before := 0
		img := d.waitScreen(t, "the second frame", func(img *image.RGBA) bool {
			n := count(img, vaultYellow)
			steady := n == before && n > 10000
			before = n
			return steady
		})
		if d.seat != nil {
			frame := d.extent(img, vaultYellow)
			menu := image.Pt(frame.Max.X-156, frame.Min.Y+43)
			if d.name == "kwin" || d.name == "mutter" {
				menu.X += 80 // fewer buttons are beside it
			}
			d.click(menu.X, menu.Y)
			img = d.waitScreen(t, "the menu's frame", func(img *image.RGBA) bool { return count(img, vaultYellow) > before+500 })
		}
		keep(t, d.picture(""), img)
	})
}

// TestPlain shows a window of known pixels with a popup, and a sub-surface that
// sticks out of it: each has its frame, and the popup is where it should be.
func TestPlain(t *testing.T) {
	desks(t, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		c := newClient(t, d, work.serve(t, d.socket))
		white, lime, red := color.RGBA{255, 200, 255, 255}, color.RGBA{0, 255, 0, 255}, color.RGBA{255, 0, 0, 255}
		c.window(300, 200, white)
		c.popup(40, 30, 100, 20, 120, 80, lime)
		c.child(200, 120, 200, 50, red)
		img := d.waitScreen(t, "window, popup and sub-surface", func(img *image.RGBA) bool {
			return count(img, lime) > 120*80*9/10 && count(img, red) > 90*50*9/10
		})
		keep(t, d.picture("-plain"), img)
		s := func(v int) int { return int(float64(v) * d.scale) }
		// The window's corner is where white begins, and the popup's where lime does.
		w, p := corner(img, white), corner(img, lime)
		if at := p.Sub(w); abs(at.X-s(40)) > 1 || abs(at.Y-s(50)) > 1 {
			t.Errorf("the popup is at %v of the window, not at %d,%d", at, s(40), s(50))
		}
		for what, r := range map[string]image.Rectangle{
			"the left of the popup": image.Rect(p.X-s(2), p.Y, p.X, p.Y+s(80)),
			"below it":              image.Rect(p.X, p.Y+s(80), p.X+s(120), p.Y+s(82)),
			"the left":              image.Rect(w.X-s(4), w.Y, w.X, w.Y+s(200)),
			"below":                 image.Rect(w.X, w.Y+s(200), w.X+s(300), w.Y+s(204)),
		} {
			if share := desktoptest.Share(img, r, workBlue, 2); share < 0.6 { // at 1.5, the guest's stretched edge blends with it
				t.Errorf("%s has no frame: %.2f of %v", what, share, r)
			}
		}
	})
}

// corner is the first pixel of a colour.
func corner(img *image.RGBA, c color.RGBA) image.Point {
	near := desktoptest.Near(c, 2)
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x++ {
			// Letters and cursors are small.
			if near(img.RGBAAt(x, y)) && near(img.RGBAAt(x+20, y)) && near(img.RGBAAt(x, y+12)) {
				return image.Pt(x, y)
			}
		}
	}
	return image.Point{}
}

func abs(v int) int { return max(v, -v) }

// whole tells whether a window fills the screen below a title bar of the
// compositor's with its frame on all sides. The pointer is in the lower right corner.
func (d *desk) whole(img *image.RGBA, c color.RGBA, below int) bool {
	for _, r := range []image.Rectangle{
		image.Rect(0, 60, 4, deskH-4), image.Rect(deskW-4, 60, deskW, deskH-60), image.Rect(30, deskH-4, deskW-60, deskH), image.Rect(200, below, deskW-30, below+20),
	} {
		if desktoptest.Share(img, d.px(r).Inset(1), c, 2) < 1 {
			return false
		}
	}
	return true
}

// TestFullscreen holds that a program that is fullscreen has its frame.
func TestFullscreen(t *testing.T) {
	desks(t, "", "", func(t *testing.T, d *desk) {
		a := work.serve(t, d.socket)
		run(t, d, a, d.terminal("--fullscreen")...)
		img := d.waitScreen(t, "a frame around the screen", func(img *image.RGBA) bool {
			if d.name == "weston" {
				// Weston places a fullscreen window by its bounding box, wrongly: half of
				// what is to its left and above is missing in its sum.
				return desktoptest.Share(img, d.px(image.Rect(400, 14, deskW-10, 20)).Inset(1), workBlue, 2) == 1
			}
			return d.whole(img, workBlue, 0)
		})
		keep(t, d.picture("-fullscreen"), img)
	})
}

// TestMaximised holds the same of a maximised window, on a compositor that knows
// such.
func TestMaximised(t *testing.T) {
	for _, scale := range []float64{1, 1.5} {
		t.Run(fmt.Sprintf("labwc-%v", scale), func(t *testing.T) {
			d := startLabwc(t, scale, "")
			b := vault.serve(t, d.socket)
			run(t, d, b, "foot", "--maximized")
			// labwc draws a title bar of 26 pixels around windows that let it.
			img := d.waitScreen(t, "a frame", func(img *image.RGBA) bool { return d.whole(img, vaultYellow, 26) })
			keep(t, d.picture("-maximised"), img)
		})
	}
}
