package threats

import (
	"fmt"
	"image"
	"image/color"
	"strconv"
	"strings"
	"testing"

	"vix/internal/desktoptest"
)

// evilColor is the evil VM's in the configuration, and so its frame's.
var evilColor = color.RGBA{0xc0, 0x20, 0x20, 0xff}

// sides returns how much of each side of a rectangle of the screen is of a colour.
func sides(img *image.RGBA, r image.Rectangle, c color.RGBA) [4]float64 {
	return [4]float64{
		desktoptest.Share(img, image.Rect(r.Min.X, r.Min.Y, r.Max.X, r.Min.Y+2), c, 3),
		desktoptest.Share(img, image.Rect(r.Min.X, r.Max.Y-2, r.Max.X, r.Max.Y), c, 3),
		desktoptest.Share(img, image.Rect(r.Min.X, r.Min.Y, r.Min.X+2, r.Max.Y), c, 3),
		desktoptest.Share(img, image.Rect(r.Max.X-2, r.Min.Y, r.Max.X, r.Max.Y), c, 3),
	}
}

func framed(s [4]float64) bool { return min(s[0], s[1], s[2], s[3]) > 0.95 }

// TestThreat04Fullscreen. Seen to fail without a frame.
func TestThreat04Fullscreen(t *testing.T) {
	s := threat(t, 4)
	p := s.hold(t, "larger: ", "fullscreen")
	var w, h int
	told := line(p.Output(), "told fullscreen")
	if _, err := fmt.Sscanf(told, "told fullscreen %d %d", &w, &h); err != nil {
		t.Fatalf("%q: %v", told, err)
	}
	red := color.RGBA{0xff, 0, 0, 0xff}
	full := s.Screenshot(t).Bounds()
	if w >= full.Dx() || h >= full.Dy() {
		t.Errorf("told to be %d×%d on a screen of %v", w, h, full)
	}
	img := s.WaitScreen(t, "the fullscreen window in its frame", func(img *image.RGBA) bool {
		return desktoptest.Share(img, img.Bounds(), red, 3) > 0.5 && framed(sides(img, img.Bounds(), evilColor))
	})
	s.save(t, "threat04-fullscreen.png", img)
	// The label is above it, with text in it.
	strip := image.Rect(4, 2, full.Dx()-4, full.Dy()-h-4)
	if n := desktoptest.Count(img, strip, desktoptest.Near(red, 3)); n > 0 {
		t.Errorf("%d of the guest's pixels in the label", n)
	}
	if desktoptest.Colors(img, strip) < 2 {
		t.Error("the label has no text")
	}
	s.unharmed(t)
}

// TestThreat05Popups. Seen to fail without a frame.
func TestThreat05Popups(t *testing.T) {
	s := threat(t, 5)
	pink := color.RGBA{0xff, 0, 0xff, 0xff}
	screen := s.Screenshot(t).Bounds()
	for _, size := range [][4]int{
		{5000, 5000, -2000, -2000}, {3000, 3000, 0, 0}, {1280, 800, 640, 400}, {1276, 796, 640, 400}, {1276, 300, 640, 300},
		{200, 100, 300, 200}, {1, 1, 50, 50}, {1 << 30, 10, 0, 0},
	} {
		args := []string{"popup"}
		for _, n := range size {
			args = append(args, strconv.Itoa(n))
		}
		p := s.hold(t, "popup", args...)
		if !strings.Contains(p.Output(), "refused: ") {
			waitOutput(t, p, "shown: ")
		}
		img := s.Screenshot(t)
		if out := p.Output(); strings.Contains(out, "shown: ") && size[0] <= screen.Dx() {
			// The compositor shows a new window, and its popup with it, when it has arranged
			// its layout. The first picture with the popup must have its frame too.
			img = s.WaitScreen(t, "the popup", func(img *image.RGBA) bool { return !bounds(img, pink).Empty() })
		}
		r := bounds(img, pink)
		switch {
		case r.Empty():
			t.Logf("%v: not shown: %.200s", size, strings.TrimSpace(p.Output()))
		case r.Dx() > screen.Dx()*9/10 && r.Dy() > screen.Dy()*9/10:
			t.Errorf("%v: a popup covers %v of %v", size, r, screen)
		case r.Dx() > 4:
			out := r.Inset(-2)
			if got := sides(img, out.Intersect(screen), evilColor); out.In(screen) && !framed(got) {
				t.Errorf("%v: the popup at %v has frame on %.2f of its sides", size, r, got)
			}
			s.save(t, fmt.Sprintf("threat05-popup-%dx%d.png", size[0], size[1]), img)
			t.Logf("%v: shown at %v", size, r)
		}
		s.end(t, p)
		s.WaitNoWindow(t, nil)
		s.WaitScreen(t, "no popup any more", func(img *image.RGBA) bool { return bounds(img, pink).Empty() })
	}
	// Sub-surfaces are no popups, and may be anywhere all the same.
	p := s.hold(t, "shown", "outside")
	img := s.WaitScreen(t, "the sub-surfaces", func(img *image.RGBA) bool { return !bounds(img, pink).Empty() })
	s.save(t, "threat05-outside.png", img)
	if n, at := bare(img, pink); bounds(img, pink).Empty() || n > 0 {
		t.Errorf("%d of the guest's pixels border on the desktop without a frame, at %v; shown within %v", n, at, bounds(img, pink))
	}
	s.end(t, p)
	s.WaitNoWindow(t, nil)
	s.unharmed(t)
}

// bare counts the pixels of a colour beside which there is neither the same colour nor
// the frame's, and returns the place of one.
func bare(img *image.RGBA, c color.RGBA) (n int, at image.Point) {
	own, frame := desktoptest.Near(c, 3), desktoptest.Near(evilColor, 3)
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x++ {
			if !own(img.RGBAAt(x, y)) {
				continue
			}
			for _, d := range [...]image.Point{{X: 1}, {X: -1}, {Y: 1}, {Y: -1}} {
				q := image.Pt(x, y).Add(d)
				if px := img.RGBAAt(q.X, q.Y); q.In(img.Rect) && !own(px) && !frame(px) {
					n, at = n+1, q
				}
			}
		}
	}
	return n, at
}

// bounds is the smallest rectangle that holds all pixels of a colour.
func bounds(img *image.RGBA, c color.RGBA) (r image.Rectangle) {
	near := desktoptest.Near(c, 3)
	for y := img.Rect.Min.Y; y < img.Rect.Max.Y; y++ {
		for x := img.Rect.Min.X; x < img.Rect.Max.X; x++ {
			if near(img.RGBAAt(x, y)) {
				r = r.Union(image.Rect(x, y, x+1, y+1))
			}
		}
	}
	return r
}
