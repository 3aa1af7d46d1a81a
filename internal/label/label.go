// Package label draws lines of text: the label of a VM's windows, with the VM's tag and the
// window's title (Draw), and the menu's texts, as masks (Fonts, Line in text.go).
//
//	text ─► shaped by script and direction ─► outlines ─► filled at the scale ─► pixels
//	        (go-text: HarfBuzz in Go)                     (x/image/vector)
//
// The caller passes the bytes of fonts; the package opens nothing.
package label

import (
	"image"
	"math"
)

// Options describe a label:
//
//	 Tag │ the title            a window without the focus
//	▐Tag▌  the title            the window with the focus: the tag in the background's
//	                            colour, on a box of the letters'
//
// The title is a stranger's: nothing of it is drawn left of where the tag's place ends.
type Options struct {
	Tag        string
	Title      string // "" for a label of the tag alone, as long as the tag
	Focus      bool
	Fonts      *Fonts
	Background [3]uint8
	Scale      float64 // pixels per logical pixel
	Height     int     // the picture's height, in logical pixels
	Width      int     // the tag's greatest width, in logical pixels; 0 for no bound
	Room       int     // the greatest width of both, in logical pixels; 0 for no bound
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
	maxWidth = 1024 // of tag and title together, in logical pixels
	padding  = 8    // on the left and on the right of each, in logical pixels
	margin   = 2    // around the tag's box, which leaves the frame whole, in logical pixels
)

// Draw returns the picture, or nil if there is no tag or no room for it. Text that does not
// fit is cut and ends with an ellipsis.
func Draw(o Options) *Image {
	if o.Tag == "" || o.Height <= 0 || o.Scale <= 0 {
		return nil
	}
	h := max(int(math.Round(float64(o.Height)*o.Scale)), 1)
	size := math.Round(float64(o.Height)*o.Scale*0.68*64) / 64
	room := maxWidth
	if o.Width > 0 {
		room = min(room, o.Width)
	}
	tag := o.box(o.Tag, size, room, h)
	if tag == nil {
		return nil
	}
	tag.paint(o.Background, Ink(o.Background))
	if o.Focus {
		n := int(math.Round(margin * o.Scale))
		tag.invert(image.Rect(n, n, tag.PixW-n, h-n), o.Background, Ink(o.Background))
	}
	if o.Title == "" {
		return &tag.Image
	}
	room = maxWidth
	if o.Room > 0 {
		room = min(room, o.Room)
	}
	title := o.box(o.Title, size, room-int(tag.W), h)
	if title == nil {
		return &tag.Image
	}
	title.paint(o.Background, Ink(o.Background))
	if !o.Focus {
		title.line(max(int(math.Round(o.Scale)), 1), Ink(o.Background))
	}
	return beside(&tag.Image, &title.Image)
}

// A box is a line of text in a picture of its own.
type box struct {
	Image
	mask *image.Alpha
}

// box draws text, at a size in pixels, into a picture that is at most room wide and h pixels
// high; nil if there is no room for any of it.
func (o *Options) box(text string, size float64, room, h int) *box {
	runes := []rune(text)
	if len(runes) > maxRunes {
		runes = append(runes[:maxRunes-1], '…')
	}
	line := o.Fonts.Fit(runes, size, float64(room-2*padding)*o.Scale)
	if line == nil {
		return nil
	}
	w := int(math.Ceil(line.Width/o.Scale)) + 2*padding
	for k := 0; k < 3 && !whole(float64(w)*o.Scale) && w < room; k++ {
		w++ // an unscaled picture is sharper
	}
	b := &box{Image: Image{W: int32(w), PixW: max(int(math.Round(float64(w)*o.Scale)), 1), PixH: h}}
	b.mask = image.NewAlpha(image.Rect(0, 0, b.PixW, h))
	line.Draw(b.mask, math.Round(padding*o.Scale), o.Fonts.Baseline(size, h), nil)
	return b
}

func whole(v float64) bool { return math.Abs(v-math.Round(v)) < 0.01 }

// paint gives the text and what is behind it their colours.
func (b *box) paint(bg, fg [3]uint8) {
	table := Mix(bg, fg)
	b.Pix = make([]uint32, len(b.mask.Pix))
	for k, a := range b.mask.Pix {
		b.Pix[k] = table[a]
	}
}

// invert exchanges the two colours in a part of the picture.
func (b *box) invert(part image.Rectangle, bg, fg [3]uint8) {
	table := Mix(fg, bg)
	for y := part.Min.Y; y < part.Max.Y; y++ {
		for x := part.Min.X; x < part.Max.X; x++ {
			b.Pix[y*b.PixW+x] = table[b.mask.Pix[y*b.PixW+x]]
		}
	}
}

// line draws a line of n pixels on the left, as high as the picture: no letter is.
func (b *box) line(n int, fg [3]uint8) {
	c := Mix(fg, fg)[0]
	for row := range b.PixH {
		for x := range min(n, b.PixW) {
			b.Pix[row*b.PixW+x] = c
		}
	}
}

// beside returns the two pictures, of one height, as one.
func beside(left, right *Image) *Image {
	img := &Image{W: left.W + right.W, PixW: left.PixW + right.PixW, PixH: left.PixH}
	img.Pix = make([]uint32, 0, img.PixW*img.PixH)
	for row := range img.PixH {
		img.Pix = append(img.Pix, left.Pix[row*left.PixW:][:left.PixW]...)
		img.Pix = append(img.Pix, right.Pix[row*right.PixW:][:right.PixW]...)
	}
	return img
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
