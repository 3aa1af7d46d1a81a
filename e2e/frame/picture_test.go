package frame

import (
	"fmt"
	"image"
	"image/color"
	"testing"

	"vix/internal/desktoptest"
)

var (
	workBlue    = color.RGBA{0x20, 0x60, 0xc0, 0xff}
	vaultYellow = color.RGBA{0xf0, 0xc0, 0x00, 0xff}
)

// desks starts each compositor at each scale that it can do headless.
func desks(t *testing.T, sway, labwc string, f func(t *testing.T, d *desk)) {
	for _, scale := range []float64{1, 1.5} {
		t.Run(fmt.Sprintf("sway-%v", scale), func(t *testing.T) { f(t, startSway(t, scale, sway)) })
		t.Run(fmt.Sprintf("labwc-%v", scale), func(t *testing.T) { f(t, startLabwc(t, scale, labwc)) })
	}
	for _, scale := range []int{1, 2} {
		t.Run(fmt.Sprintf("weston-%v", scale), func(t *testing.T) { f(t, startWeston(t, scale)) })
	}
}

func (d *desk) picture(what string) string {
	return fmt.Sprintf("frame-%s-%v%s.png", d.name, d.scale, what)
}

// px is a rectangle of logical pixels on the picture.
func (d *desk) px(r image.Rectangle) image.Rectangle {
	s := func(v int) int { return int(float64(v)*d.scale + 0.5) }
	return image.Rect(s(r.Min.X), s(r.Min.Y), s(r.Max.X), s(r.Max.Y))
}

func count(img *image.RGBA, c color.RGBA) int {
	return desktoptest.Count(img, img.Rect, desktoptest.Near(c, 2))
}

// TestPicture shows windows of two VMs, one with a menu open.
func TestPicture(t *testing.T) {
	desks(t, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		a, b := work.serve(t, d.socket), vault.serve(t, d.socket)
		run(t, d, a, "foot", "--window-size-pixels=500x300")
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
			menu := vaultAt.Add(image.Pt(652, 43))
			d.seat.click(menu.X, menu.Y)
			img = d.waitScreen(t, "the menu's frame", func(img *image.RGBA) bool { return count(img, vaultYellow) > before+500 })
		}
		keep(t, d.picture(""), img)
	})
}

// whole tells whether a window fills the screen with its frame on all sides.
func (d *desk) whole(img *image.RGBA, c color.RGBA) bool {
	for _, r := range []image.Rectangle{
		image.Rect(0, 30, 4, deskH-4), image.Rect(deskW-4, 30, deskW, deskH-4), image.Rect(30, deskH-4, deskW-30, deskH), image.Rect(200, 0, deskW-30, 20),
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
		run(t, d, a, "foot", "--fullscreen")
		img := d.waitScreen(t, "a frame around the screen", func(img *image.RGBA) bool { return d.whole(img, workBlue) })
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
			// labwc draws its title bar where foot lets it.
			img := d.waitScreen(t, "a frame", func(img *image.RGBA) bool {
				return desktoptest.Share(img, d.px(image.Rect(0, 60, 4, deskH)).Inset(1), vaultYellow, 2) == 1 &&
					desktoptest.Share(img, d.px(image.Rect(deskW-4, 60, deskW, deskH)).Inset(1), vaultYellow, 2) == 1 &&
					desktoptest.Share(img, d.px(image.Rect(0, deskH-4, deskW, deskH)).Inset(1), vaultYellow, 2) == 1
			})
			keep(t, d.picture("-maximised"), img)
		})
	}
}
