package filter

import (
	"image"
	"image/color"
	"testing"

	"vix/internal/desktoptest"
)

// A popup too narrow for a label of its own lies exactly over the tag in the label of its
// window: what remains on the frame's strip is the guest's title, "personal", which reads as
// the tag of another VM, and no box tells that the window has the focus. On sway.
func TestAttackTagCovered(t *testing.T) {
	for name, popups := range map[string][][4]int{
		"one popup":                    {{34, 1, 2, 0}},
		"two, as for a longer tag":     {{14, 1, 2, 0}, {18, 1, 20, 0}},
		"a wide one, with a label":     {{296, 1, 2, 0}},
		"nothing, to see that it held": {},
	} {
		t.Run(name, func(t *testing.T) {
			d, socket := startFramed(t, "full")
			p := newPainter(t, socket, 300, 120)
			p.fill(0, guestRed)
			p.fill(1, guestRed)
			p.title("personal")
			p.present(p.surface, "buffer0")
			p.sync()
			white := color.RGBA{255, 255, 255, 255}
			tag := image.Rect(atX, 20, atX+37, 20+labelHeight) // the tag is "tag"
			rest := image.Rect(atX+38, 20, atX+300-endRoom, 20+labelHeight)
			box := image.Rect(atX+5, 24, atX+8, 20+labelHeight-4) // also of a popup's label
			ink := func(img *image.RGBA, r image.Rectangle) int {
				return r.Dx()*r.Dy() - desktoptest.Count(img, r, desktoptest.Near(frameBlue, 2))
			}
			d.WaitScreen(t, "the tag's box and the title", func(img *image.RGBA) bool {
				return desktoptest.Share(img, box, white, 2) == 1 && ink(img, rest) > 30
			})
			for _, m := range popups {
				p.present(p.popup(m[0], m[1], m[2], m[3]), "buffer1")
				p.sync()
			}
			img := steady(t, d)
			t.Logf("pixels of ink in the tag's place: %d, in the title's: %d", ink(img, tag), ink(img, rest))
			if ink(img, tag) < 30 && ink(img, rest) > 30 {
				t.Error("the tag is covered, and the title is shown: it reads as the tag of another VM")
			}
			if ink(img, tag) > 0 && desktoptest.Share(img, box, white, 2) < 1 {
				t.Error("a window with the focus shows no box")
			}
		})
	}
}
