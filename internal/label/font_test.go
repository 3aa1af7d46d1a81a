package label

import (
	"bytes"
	"os"
	"slices"
	"testing"

	"github.com/go-text/typesetting/font"
	"github.com/go-text/typesetting/font/opentype"
	"github.com/go-text/typesetting/shaping"
	"golang.org/x/image/font/gofont/gobold"
)

const dejavu = "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf"

func readDejaVu(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(dejavu)
	if err != nil {
		t.Skip("lacks: " + dejavu)
	}
	return b
}

// TestLean checks that a partly read font gives the same outlines, lines
// and heights as the whole font.
func TestLean(t *testing.T) {
	b := readDejaVu(t)
	_, o, err := readLean(b)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := parse(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	drawn := 0
	for g := range font.GID(7000) {
		want, _ := whole.GlyphDataOutline(g)
		if got := o.segments(g); !slices.EqualFunc(got, want.Segments, near) {
			t.Fatalf("glyph %d: got %v, want %v", g, got, want.Segments)
		}
		if len(want.Segments) > 0 {
			drawn++
		}
	}
	if drawn < 5000 {
		t.Fatalf("only %d glyphs are drawn", drawn)
	}
	lean, all := NewFonts(b), NewFonts(b)
	all.faces, all.drawn = []*font.Face{whole}, map[*font.Face]*outlines{whole: {face: whole}}
	for _, text := range []string{"", "Toäÿ Ag ffi AVATAR", "a\u0301q\u0323\u0307", "שָׁלוֹם مرحبا"} {
		x, y := lean.Line([]rune(text), 17.5), all.Line([]rune(text), 17.5)
		if x.Width != y.Width || (text != "") != (x.Width > 0) || lean.Baseline(17.5, 30) != all.Baseline(17.5, 30) {
			t.Errorf("%q: %v and %v wide, baselines at %v and %v", text, x.Width, y.Width, lean.Baseline(17.5, 30), all.Baseline(17.5, 30))
		}
		for i := range x.runs {
			if !slices.EqualFunc(x.runs[i].Glyphs, y.runs[i].Glyphs, func(p, q shaping.Glyph) bool {
				return p.GlyphID == q.GlyphID && p.Advance == q.Advance && p.XOffset == q.XOffset && p.YOffset == q.YOffset
			}) {
				t.Errorf("%q: %v and %v", text, x.runs[i].Glyphs, y.runs[i].Glyphs)
			}
		}
	}
}

// near reports whether two segments differ by at most two units of 2048: sfnt rounds.
func near(a, b opentype.Segment) bool {
	for i := range a.ArgsSlice() {
		if dx, dy := a.Args[i].X-b.Args[i].X, a.Args[i].Y-b.Args[i].Y; max(dx, dy, -dx, -dy) > 2 {
			return false
		}
	}
	return a.Op == b.Op
}

// A font without anchors for marks needs its outlines to place them.
func TestLeanWantsAnchors(t *testing.T) {
	if _, _, err := readLean(gobold.TTF); err == nil {
		t.Error("read without outlines")
	}
}

func BenchmarkNewFonts(b *testing.B) {
	file := readDejaVu(b)
	b.ReportAllocs()
	for b.Loop() {
		NewFonts(file)
	}
}
