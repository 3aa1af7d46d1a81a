// Package label draws lines of text: the label of a VM's windows, on a plain
// background (Draw), and the menu's texts, as masks (Fonts, Line in text.go).
//
//	text ─► shaped by script and direction ─► outlines ─► filled at the scale ─► pixels
//	        (go-text: HarfBuzz in Go)                     (x/image/vector)
//
// The caller passes the bytes of fonts; the package opens nothing. A label's font is
// parsed anew for each picture: pictures are few and kept by the caller, and a
// font in memory is larger than all of them.
package label

import (
	"image"
	"math"
)

// Options describe a label.
type Options struct {
	Text       string
	Font       []byte // an OpenType font; the built-in one replaces nil and an unreadable font
	Background [3]uint8
	Scale      float64 // pixels per logical pixel
	Height     int     // the picture's height, in logical pixels
	Width      int     // the picture's greatest width, in logical pixels; 0 for no bound
}

// An Image is a label's picture.
type Image struct {
	W          int32    // in logical pixels
	PixW, PixH int      // in pixels
	Pix        []uint32 // wl_shm.format.xrgb8888, row after row
}

// Limits of a label: longer text is useless, and costs memory.
const (
	maxRunes = 64
	maxWidth = 1024 // in logical pixels
	padding  = 8    // on the left and on the right, in logical pixels
)

// Draw returns the picture, or nil if there is nothing to draw or no room for it.
// Text that does not fit is cut and ends with an ellipsis.
func Draw(o Options) *Image {
	text := []rune(o.Text)
	if len(text) > maxRunes {
		text = append(text[:maxRunes-1], '…')
	}
	if len(text) == 0 || o.Height <= 0 || o.Scale <= 0 {
		return nil
	}
	fonts := NewFonts(o.Font)
	h := max(int(math.Round(float64(o.Height)*o.Scale)), 1)
	size := math.Round(float64(o.Height)*o.Scale*0.68*64) / 64
	room := float64(maxWidth - 2*padding)
	if o.Width > 0 {
		room = min(room, float64(o.Width-2*padding))
	}
	line := fonts.Fit(text, size, room*o.Scale)
	if line == nil {
		return nil
	}
	w := int(math.Ceil(line.Width/o.Scale)) + 2*padding
	for k := 0; k < 3 && !whole(float64(w)*o.Scale) && (o.Width == 0 || w < o.Width); k++ {
		w++ // an unscaled picture is sharper
	}
	img := &Image{W: int32(w), PixW: max(int(math.Round(float64(w)*o.Scale)), 1), PixH: h}
	mask := image.NewAlpha(image.Rect(0, 0, img.PixW, h))
	line.Draw(mask, math.Round(padding*o.Scale), fonts.Baseline(size, h), nil)
	img.Pix = blend(mask, o.Background, Ink(o.Background))
	return img
}

func whole(v float64) bool { return math.Abs(v-math.Round(v)) < 0.01 }

func blend(mask *image.Alpha, bg, fg [3]uint8) []uint32 {
	table := Mix(bg, fg)
	pix := make([]uint32, len(mask.Pix))
	for k, a := range mask.Pix {
		pix[k] = table[a]
	}
	return pix
}

// Mix returns the colour of fg over bg for each coverage, as xrgb8888 with a full first
// byte. It mixes in linear light as the eye does: otherwise dark strokes on a bright
// background would be thin, and bright ones fat.
func Mix(bg, fg [3]uint8) *[256]uint32 {
	table := new([256]uint32)
	for a := range table {
		table[a] = 0xff
	}
	for k := range bg {
		from, to := linear(bg[k]), linear(fg[k])
		for a := range table {
			t := float64(a) / 255
			table[a] = table[a]<<8 | uint32(encode(from*(1-t)+to*t))
		}
	}
	return table
}

// Ink returns black or white, whichever contrasts more with the background: one of
// them always reaches 4.5:1, which WCAG 2 requires for text.
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

// linear decodes sRGB; encode is its inverse (IEC 61966-2-1).
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
