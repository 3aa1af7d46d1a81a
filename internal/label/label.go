// Package label draws a line of text on a plain background: the label of a VM's
// windows.
//
//	text ─► shaped by script and direction ─► outlines ─► filled at the scale ─► pixels
//	        (go-text: HarfBuzz in Go)                     (x/image/vector)
//
// It is given the bytes of a font, and opens nothing. A font is read for each
// picture and dropped again: pictures are few and kept by the caller, and a font
// in memory is larger than all of them.
package label

import (
	"bytes"
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

// Options say what to draw.
type Options struct {
	Text       string
	Font       []byte // of an OpenType font; nil means the built-in one, and so does one that cannot be read
	Background [3]uint8
	Scale      float64 // pixels for each logical pixel
	Height     int     // of the picture, in logical pixels
	Width      int     // that it may have at most, in logical pixels; 0 for any
}

// An Image is a label's picture.
type Image struct {
	W          int32    // in logical pixels
	PixW, PixH int      // in pixels
	Pix        []uint32 // wl_shm.format.xrgb8888, row after row
}

// Limits of a label: longer text is of no use, and costs memory.
const (
	maxRunes = 64
	maxWidth = 1024 // in logical pixels
	padding  = 8    // on the left and on the right, in logical pixels
)

// Draw returns the picture, nil when there is nothing to draw, or no room for it.
// Text that has no room is cut and ends with an ellipsis.
func Draw(o Options) *Image {
	text := []rune(o.Text)
	if len(text) > maxRunes {
		text = append(text[:maxRunes-1], '…')
	}
	if len(text) == 0 || o.Height <= 0 || o.Scale <= 0 {
		return nil
	}
	face := parse(o.Font)
	h := max(int(math.Round(float64(o.Height)*o.Scale)), 1)
	size := math.Round(float64(o.Height)*o.Scale*0.68*64) / 64
	room := float64(maxWidth - 2*padding)
	if o.Width > 0 {
		room = min(room, float64(o.Width-2*padding))
	}
	line := fit(text, face, size, room*o.Scale)
	if line == nil {
		return nil
	}
	w := int(math.Ceil(line.width/o.Scale)) + 2*padding
	for k := 0; k < 3 && !whole(float64(w)*o.Scale) && (o.Width == 0 || w < o.Width); k++ {
		w++ // a picture that is not stretched is sharper
	}
	img := &Image{W: int32(w), PixW: max(int(math.Round(float64(w)*o.Scale)), 1), PixH: h}
	mask := image.NewAlpha(image.Rect(0, 0, img.PixW, h))
	line.draw(mask, math.Round(padding*o.Scale), baseline(face, size, h))
	img.Pix = blend(mask, o.Background, Ink(o.Background))
	return img
}

func parse(b []byte) *font.Face {
	if b != nil {
		if f, err := font.ParseTTF(bytes.NewReader(b)); err == nil {
			return f
		}
	}
	f, err := font.ParseTTF(bytes.NewReader(gobold.TTF))
	if err != nil {
		panic("label: the built-in font: " + err.Error()) // a mistake of the build
	}
	return f
}

func whole(v float64) bool { return math.Abs(v-math.Round(v)) < 0.01 }

// A line is shaped text.
type line struct {
	runs  []shaping.Output
	width float64
}

// fit shapes the text, or as much of it as has room with an ellipsis.
func fit(text []rune, face *font.Face, size, room float64) *line {
	l := shape(text, face, size)
	if l.width <= room {
		return l
	}
	low, high := 0, len(text) // text[:low] and an ellipsis has room
	for low < high {
		mid := (low + high + 1) / 2
		if l = shape(append(text[:mid:mid], '…'), face, size); l.width <= room {
			low = mid
		} else {
			high = mid - 1
		}
	}
	if low == 0 {
		return nil
	}
	return shape(append(text[:low:low], '…'), face, size)
}

// only resolves every character to one face.
type only struct{ *font.Face }

func (o only) ResolveFace(rune) *font.Face { return o.Face }

func shape(text []rune, face *font.Face, size float64) *line {
	var seg shaping.Segmenter
	var hb shaping.HarfbuzzShaper
	l := &line{}
	for _, in := range seg.Split(shaping.Input{
		Text: text, RunEnd: len(text), Direction: di.DirectionLTR, Face: face, Size: fixed.Int26_6(size * 64),
	}, only{face}) {
		out := hb.Shape(in)
		l.runs = append(l.runs, out)
		l.width += float64(out.Advance) / 64
	}
	return l
}

// baseline centres what stands between the height of capitals and the line.
func baseline(face *font.Face, size float64, h int) float64 {
	scale := size / float64(face.Upem())
	capital := 0.7 * size
	if gid, ok := face.NominalGlyph('H'); ok {
		if e, ok := face.GlyphExtents(gid); ok {
			capital = float64(e.YBearing) * scale
		}
	}
	return math.Round((float64(h) + capital) / 2)
}

// draw fills the outlines, from x on the baseline y.
func (l *line) draw(mask *image.Alpha, x, y float64) {
	r := vector.NewRasterizer(mask.Rect.Dx(), mask.Rect.Dy())
	for _, run := range l.runs {
		scale := float64(run.Size) / 64 / float64(run.Face.Upem())
		for _, g := range run.Glyphs {
			if o, ok := run.Face.GlyphDataOutline(g.GlyphID); ok {
				outline(r, o, x+float64(g.XOffset)/64, y-float64(g.YOffset)/64, scale)
			}
			x += float64(g.Advance) / 64
		}
	}
	r.Draw(mask, mask.Rect, image.Opaque, image.Point{})
}

func outline(r *vector.Rasterizer, o font.GlyphOutline, x, y, scale float64) {
	at := func(p opentype.SegmentPoint) (float32, float32) {
		return float32(x + float64(p.X)*scale), float32(y - float64(p.Y)*scale)
	}
	open := false
	for _, s := range o.Segments {
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

// blend mixes the colours, in linear light as the eye does: dark strokes on a
// bright ground would be thin otherwise, and bright ones fat.
func blend(mask *image.Alpha, bg, fg [3]uint8) []uint32 {
	var table [256]uint32
	for a := range table {
		t := float64(a) / 255
		v := uint32(0xff)
		for k := range bg {
			v = v<<8 | uint32(encode(linear(bg[k])*(1-t)+linear(fg[k])*t))
		}
		table[a] = v
	}
	pix := make([]uint32, len(mask.Pix))
	for k, a := range mask.Pix {
		pix[k] = table[a]
	}
	return pix
}

// Ink returns black or white, whichever contrasts more with the background: one of
// them always does by 4.5:1 or more, which WCAG 2 asks of text.
func Ink(bg [3]uint8) [3]uint8 {
	white := [3]uint8{255, 255, 255}
	if Contrast(bg, white) >= Contrast(bg, [3]uint8{}) {
		return white
	}
	return [3]uint8{}
}

// Contrast is WCAG 2's contrast ratio of two colours, 1 to 21.
func Contrast(a, b [3]uint8) float64 {
	x, y := luminance(a), luminance(b)
	return (max(x, y) + 0.05) / (min(x, y) + 0.05)
}

func luminance(c [3]uint8) float64 {
	return 0.2126*linear(c[0]) + 0.7152*linear(c[1]) + 0.0722*linear(c[2])
}

// linear decodes sRGB, encode is its inverse (IEC 61966-2-1).
func linear(v uint8) float64 {
	f := float64(v) / 255
	if f <= 0.04045 {
		return f / 12.92
	}
	return math.Pow((f+0.055)/1.055, 2.4)
}

func encode(f float64) uint8 {
	if f <= 0.0031308 {
		f *= 12.92
	} else {
		f = 1.055*math.Pow(f, 1/2.4) - 0.055
	}
	return uint8(math.Round(min(max(f, 0), 1) * 255))
}
