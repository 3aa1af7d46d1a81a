// Package icon finds icons by name and reads them.
//
//	name ─► Themes.Find (freedesktop icon theme specification) ─► a file ─► Decode: PNG, bounded ─► Fit: pixels
//	                                                                └► SVG: rasterised elsewhere, in a confined process
//
// An icon is untrusted input, wherever it comes from: a file is read up to MaxFile
// bytes, a picture decoded up to MaxSide pixels a side. The package opens only below
// the directories that it is given (Themes.FS), and runs nothing.
package icon

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"io/fs"

	"golang.org/x/image/draw"
)

// Limits of an icon.
const (
	MaxFile = 1 << 20 // bytes of its file: the largest of the common themes have a tenth
	MaxSide = 1024    // pixels; themes end at 512
)

// ErrTooLarge is what Decode says of a picture that is beyond the limits.
var ErrTooLarge = errors.New("larger than an icon is")

// Read returns a file's bytes, MaxFile at most.
func Read(dir fs.FS, path string) ([]byte, error) {
	f, err := dir.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file", path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err == nil && len(b) > MaxFile {
		err = fmt.Errorf("%s: %w", path, ErrTooLarge)
	}
	return b, err
}

// Decode reads a PNG. Its size is checked before memory is taken for its pixels.
func Decode(b []byte) (image.Image, error) {
	if len(b) > MaxFile {
		return nil, ErrTooLarge
	}
	c, err := png.DecodeConfig(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width > MaxSide || c.Height > MaxSide {
		return nil, fmt.Errorf("%d×%d pixels: %w", c.Width, c.Height, ErrTooLarge)
	}
	return png.Decode(bytes.NewReader(b))
}

// Fit returns img scaled to side×side pixels, with its proportions and centred.
func Fit(img image.Image, side int) *image.RGBA {
	out := image.NewRGBA(image.Rect(0, 0, side, side))
	b := img.Bounds()
	if b.Empty() || side <= 0 {
		return out
	}
	w, h := side, side
	if b.Dx() > b.Dy() {
		h = max(side*b.Dy()/b.Dx(), 1)
	} else {
		w = max(side*b.Dx()/b.Dy(), 1)
	}
	x, y := (side-w)/2, (side-h)/2
	to := image.Rect(x, y, x+w, y+h)
	if b.Dx() == w && b.Dy() == h {
		draw.Copy(out, to.Min, img, b, draw.Src, nil)
	} else {
		draw.CatmullRom.Scale(out, to, img, b, draw.Src, nil)
	}
	return out
}
