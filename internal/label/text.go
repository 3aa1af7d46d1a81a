package label

import (
	"image"
	"math"

	"github.com/go-text/typesetting/di"
	"github.com/go-text/typesetting/font"
	"github.com/go-text/typesetting/font/opentype"
	"github.com/go-text/typesetting/shaping"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"
)

// Fonts draw text, each character with the first font that has it.
type Fonts struct {
	faces []*font.Face
	drawn map[*font.Face]*outlines
	fill  *vector.Rasterizer
	hb    shaping.HarfbuzzShaper
	seg   shaping.Segmenter
}

// NewFonts reads OpenType fonts, and the first font of each collection.
// It omits unreadable ones; if none is left, it uses the built-in font.
func NewFonts(files ...[]byte) *Fonts {
	f := &Fonts{drawn: map[*font.Face]*outlines{}, fill: vector.NewRasterizer(0, 0)}
	for _, b := range files {
		f.Add(b)
	}
	if len(f.faces) == 0 && !f.Add(gobold.TTF) {
		panic("label: the built-in font cannot be read") // a mistake in the build
	}
	return f
}

// Add appends a font, and keeps b. It reports whether the font is readable.
func (f *Fonts) Add(b []byte) bool {
	face, o, err := readFont(b)
	if err != nil {
		return false
	}
	f.faces = append(f.faces, face)
	f.drawn[face] = o
	return true
}

// AddAll appends the fonts of another Fonts to f; both share the parsed fonts.
func (f *Fonts) AddAll(other *Fonts) {
	for _, face := range other.faces {
		f.faces = append(f.faces, face)
		f.drawn[face] = other.drawn[face]
	}
}

// ResolveFace is shaping.Fontmap.
func (f *Fonts) ResolveFace(r rune) *font.Face {
	for _, face := range f.faces {
		if _, ok := face.NominalGlyph(r); ok {
			return face
		}
	}
	return f.faces[0]
}

// Has reports whether one of the fonts has the character.
func (f *Fonts) Has(r rune) bool {
	_, ok := f.ResolveFace(r).NominalGlyph(r)
	return ok
}

// A Line is shaped text. Its Fonts draw it, in one goroutine at a time.
type Line struct {
	Width float64 // pixels
	runs  []shaping.Output
	fonts *Fonts
}

// Fit shapes the text at a size in pixels, or as much of it as fits with an
// ellipsis. It returns nil if not even the ellipsis fits.
func (f *Fonts) Fit(text []rune, size, room float64) *Line {
	l := f.Line(text, size)
	if l.Width <= room {
		return l
	}
	low, high := 0, len(text) // text[:low] and an ellipsis fit
	for low < high {
		mid := (low + high + 1) / 2
		if l = f.Line(append(text[:mid:mid], '…'), size); l.Width <= room {
			low = mid
		} else {
			high = mid - 1
		}
	}
	if low == 0 {
		return nil
	}
	return f.Line(append(text[:low:low], '…'), size)
}

// Line shapes the text at a size in pixels.
func (f *Fonts) Line(text []rune, size float64) *Line {
	l := &Line{fonts: f}
	if len(text) == 0 {
		return l
	}
	for _, in := range f.seg.Split(shaping.Input{
		Text: text, RunEnd: len(text), Direction: di.DirectionLTR, Face: f.faces[0], Size: fixed.Int26_6(size * 64),
	}, f) {
		out := f.hb.Shape(in)
		l.runs = append(l.runs, out)
		l.Width += float64(out.Advance) / 64
	}
	return l
}

// Baseline returns the baseline that centres capital letters in h pixels.
func (f *Fonts) Baseline(size float64, h int) float64 {
	face := f.faces[0]
	scale := size / float64(face.Upem())
	capital := 0.7 * size
	if gid, ok := face.NominalGlyph('H'); ok {
		if top := f.drawn[face].top(gid); top > 0 {
			capital = top * scale
		}
	}
	return math.Round((float64(h) + capital) / 2)
}

// Draw fills the outlines, from x on the baseline y, of the characters that only
// selects by their indices in the text, or of all.
func (l *Line) Draw(mask *image.Alpha, x, y float64, only func(index int) bool) {
	r := l.fonts.fill
	r.Reset(mask.Rect.Dx(), mask.Rect.Dy())
	for _, run := range l.runs {
		scale := float64(run.Size) / 64 / float64(run.Face.Upem())
		for _, g := range run.Glyphs {
			if only == nil || only(g.TextIndex()) {
				outline(r, l.fonts.drawn[run.Face].segments(g.GlyphID), x+float64(g.XOffset)/64, y-float64(g.YOffset)/64, scale)
			}
			x += float64(g.Advance) / 64
		}
	}
	r.Draw(mask, mask.Rect, image.Opaque, image.Point{})
}

func outline(r *vector.Rasterizer, segments []opentype.Segment, x, y, scale float64) {
	at := func(p opentype.SegmentPoint) (float32, float32) {
		return float32(x + float64(p.X)*scale), float32(y - float64(p.Y)*scale)
	}
	open := false
	for _, s := range segments {
		ax, ay := at(s.Args[0])
		bx, by := at(s.Args[1])
		cx, cy := at(s.Args[2])
		switch s.Op {
		case opentype.SegmentOpMoveTo:
			if open {
				r.ClosePath()
			}
			open = true
			r.MoveTo(ax, ay)
		case opentype.SegmentOpLineTo:
			r.LineTo(ax, ay)
		case opentype.SegmentOpQuadTo:
			r.QuadTo(ax, ay, bx, by)
		case opentype.SegmentOpCubeTo:
			r.CubeTo(ax, ay, bx, by, cx, cy)
		}
	}
	if open {
		r.ClosePath()
	}
}
