// Package icon finds icons by name and reads them.
//
//	name ─► Themes.Find (freedesktop icon theme specification) ─► a file ─► Decode: PNG, bounded ─► Fit: pixels
//	                                                                └► SVG: rasterised elsewhere, in a confined process
//
// Every icon is untrusted input: the package reads at most MaxFile bytes of a file, and
// decodes pictures of at most MaxSide pixels a side. It opens files only below
// the given directories (Themes.FS), and runs nothing.
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
	MaxFile = 1 << 20 // bytes of a file: the largest of the common themes have a tenth of it
	MaxSide = 1024    // pixels; themes have at most 512
)

// ErrTooLarge is Decode's error for a picture beyond the limits.
var ErrTooLarge = errors.New("larger than an icon is")

// Read returns a file's content, at most MaxFile bytes.
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

// Decode reads a PNG. It checks the size before it allocates memory for the pixels.
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

// Fit returns img centred in side×side pixels, scaled with its proportions.
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
