package label

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

var builtin = NewFonts(nil)

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
		img := Draw(Options{Fonts: builtin, Tag: "[work] Ägypten", Background: bg, Scale: scale, Height: 22})
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
			Fonts:  builtin,
			Tag:    rapid.String().Draw(t, "text"),
			Scale:  rapid.Float64Range(0.5, 4).Draw(t, "scale"),
			Height: 22,
			Width:  rapid.IntRange(0, 300).Draw(t, "room"),
		}
		if img := Draw(o); img != nil && o.Width > 0 && int(img.W) > o.Width {
			t.Fatalf("%d of %d", img.W, o.Width)
		}
	})
	whole := Draw(Options{Fonts: builtin, Tag: "personal", Scale: 1, Height: 22})
	cut := Draw(Options{Fonts: builtin, Tag: "personal", Scale: 1, Height: 22, Width: 60})
	if whole == nil || cut == nil || cut.W >= whole.W {
		t.Error(whole, cut)
	}
	if img := Draw(Options{Fonts: builtin, Tag: strings.Repeat("W", 5000), Scale: 1, Height: 22}); img == nil || img.W > maxWidth {
		t.Error(img)
	}
}

// TestBadFont checks that an unreadable font changes only the look.
func TestBadFont(t *testing.T) {
	if Draw(Options{Fonts: NewFonts([]byte("no font")), Tag: "x", Scale: 1, Height: 22}) == nil {
		t.Error("nothing drawn")
	}
}

// TestTitle checks that nothing of a title, whatever it is, changes the tag's place, and that
// the focus is to be seen there.
func TestTitle(t *testing.T) {
	bg := [3]uint8{0x20, 0x60, 0xc0}
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Fonts: builtin, Tag: "work", Background: bg, Height: 20,
			Focus: rapid.Bool().Draw(t, "focus"), Scale: rapid.Float64Range(0.5, 4).Draw(t, "scale"),
		}
		tag := Draw(o)
		o.Title = rapid.OneOf(rapid.String(), rapid.StringOfN(rapid.RuneFrom([]rune("\u0300\u0301\u0307\u05b0\u064b\u0e31ab \u05d0\u0627")), 1, 80, -1)).Draw(t, "title")
		img := Draw(o)
		if img.PixH != tag.PixH || int(img.W) > maxWidth || len(img.Pix) != img.PixW*img.PixH {
			t.Fatalf("%d by %d, %d logical, %d pixels", img.PixW, img.PixH, img.W, len(img.Pix))
		}
		for row := range tag.PixH {
			if !slices.Equal(img.Pix[row*img.PixW:][:tag.PixW], tag.Pix[row*tag.PixW:][:tag.PixW]) {
				t.Fatalf("%q changes row %d of the tag", o.Title, row)
			}
		}
	})
	o := Options{Fonts: builtin, Tag: "work", Title: "mail", Background: bg, Height: 20, Scale: 1}
	without := Draw(o)
	o.Focus = true
	with := Draw(o)
	ink := func(img *Image) (n int) {
		for _, p := range img.Pix {
			if p == 0xffffffff {
				n++
			}
		}
		return n
	}
	if ink(with) < 2*ink(without) || with.W != without.W {
		t.Errorf("%d and %d pixels of ink", ink(without), ink(with))
	}
}
