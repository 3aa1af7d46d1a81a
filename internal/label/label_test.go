package label

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestContrast checks that text is legible on every colour.
func TestContrast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u := rapid.Uint8()
		c := [3]uint8{u.Draw(t, "r"), u.Draw(t, "g"), u.Draw(t, "b")}
		if r := Contrast(c, Ink(c)); r < 4.5 {
			t.Fatalf("%v has %v on it: %.2f", c, Ink(c), r)
		}
	})
}

// TestDraw draws at several scales: the picture has its size, both colours, and
// nothing touches its edges.
func TestDraw(t *testing.T) {
	for _, scale := range []float64{1, 1.25, 1.5, 2, 3} {
		bg := [3]uint8{0x20, 0x60, 0xc0}
		img := Draw(Options{Text: "[work] Ägypten", Background: bg, Scale: scale, Height: 22})
		if img == nil || len(img.Pix) != img.PixW*img.PixH || img.PixH != int(22*scale+0.5) {
			t.Fatalf("at %v: %+v", scale, img)
		}
		ink, ground := 0, 0
		for k, p := range img.Pix {
			switch x, y := k%img.PixW, k/img.PixW; {
			case p == 0xff2060c0:
				ground++
			case x == 0 || y == 0 || x == img.PixW-1 || y == img.PixH-1:
				t.Fatalf("at %v: the edge at %d,%d is %x", scale, x, y, p)
			case p == 0xffffffff:
				ink++
			}
		}
		if n := len(img.Pix); ink*100 < n || ground*2 < n {
			t.Errorf("at %v: %d of %d pixels are text, %d ground", scale, ink, n, ground)
		}
	}
}

// TestRoom checks that a label never exceeds its room.
func TestRoom(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Text:   rapid.String().Draw(t, "text"),
			Scale:  rapid.Float64Range(0.5, 4).Draw(t, "scale"),
			Height: 22,
			Width:  rapid.IntRange(0, 300).Draw(t, "room"),
		}
		if img := Draw(o); img != nil && o.Width > 0 && int(img.W) > o.Width {
			t.Fatalf("%d of %d", img.W, o.Width)
		}
	})
	whole := Draw(Options{Text: "personal", Scale: 1, Height: 22})
	cut := Draw(Options{Text: "personal", Scale: 1, Height: 22, Width: 60})
	if whole == nil || cut == nil || cut.W >= whole.W {
		t.Error(whole, cut)
	}
	if img := Draw(Options{Text: strings.Repeat("W", 5000), Scale: 1, Height: 22}); img == nil || img.W > maxWidth {
		t.Error(img)
	}
}

// TestBadFont checks that an unreadable font changes only the look.
func TestBadFont(t *testing.T) {
	if Draw(Options{Text: "x", Font: []byte("no font"), Scale: 1, Height: 22}) == nil {
		t.Error("nothing drawn")
	}
}
