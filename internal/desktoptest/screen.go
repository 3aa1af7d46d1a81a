package desktoptest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"os"
	"path/filepath"
	"time"
)

// Screenshot returns the whole screen. A headless sway draws the pointer into it.
func (d *Desktop) Screenshot(t T) *image.RGBA {
	t.Helper()
	img, err := d.screenshot()
	if err != nil {
		t.Fatalf("screenshot: %v", err)
	}
	return img
}

func (d *Desktop) screenshot() (*image.RGBA, error) {
	b, err := d.run("grim", "-t", "ppm", "-")
	if err != nil {
		return nil, err
	}
	return DecodePPM(b)
}

// DecodePPM reads the raw form of ppm(5) with 8 bits a sample, such as grim writes.
func DecodePPM(b []byte) (*image.RGBA, error) {
	var w, h, depth int
	r := bytes.NewReader(b)
	if _, err := fmt.Fscanf(r, "P6\n%d %d\n%d\n", &w, &h, &depth); err != nil {
		return nil, fmt.Errorf("ppm: %w", err)
	}
	rest := b[len(b)-r.Len():]
	if depth != 255 || w <= 0 || h <= 0 || len(rest) != 3*w*h {
		return nil, fmt.Errorf("ppm: %dx%d of depth %d in %d bytes", w, h, depth, len(rest))
	}
	img := image.NewRGBA(image.Rect(0, 0, w, h))
	for i := range w * h {
		copy(img.Pix[4*i:], rest[3*i:3*i+3])
		img.Pix[4*i+3] = 0xff
	}
	return img, nil
}

// WaitScreen takes pictures until ok likes one, and returns it. It fails with
// the last picture saved beside the test's other output.
func (d *Desktop) WaitScreen(t T, what string, ok func(*image.RGBA) bool) *image.RGBA {
	t.Helper()
	deadline := time.Now().Add(d.timeout)
	again := time.NewTicker(100 * time.Millisecond)
	defer again.Stop()
	for {
		img := d.Screenshot(t)
		if ok(img) {
			return img
		}
		if time.Now().After(deadline) {
			path := filepath.Join(os.TempDir(), fmt.Sprintf("vix-screen-%d.png", time.Now().UnixNano()))
			if err := SavePNG(path, img); err != nil {
				path = err.Error()
			}
			t.Fatalf("waiting for the screen to show %s; last seen: %s", what, path)
		}
		<-again.C
	}
}

// SavePNG writes img to path, whose directory it makes.
func SavePNG(path string, img image.Image) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	var b bytes.Buffer
	if err := png.Encode(&b, img); err != nil {
		return err
	}
	return os.WriteFile(path, b.Bytes(), 0o644)
}

// SaveJSON writes v, a benchmark's figures, to path, and makes its directory.
func SaveJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// Count returns how many pixels of img within r match.
func Count(img *image.RGBA, r image.Rectangle, match func(color.RGBA) bool) int {
	n := 0
	r = r.Intersect(img.Rect)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if match(img.RGBAAt(x, y)) {
				n++
			}
		}
	}
	return n
}

// Share returns the part, 0 to 1, of r's pixels that have the colour c, give or
// take tolerance in each channel.
func Share(img *image.RGBA, r image.Rectangle, c color.RGBA, tolerance int) float64 {
	if r.Empty() {
		return 0
	}
	return float64(Count(img, r, Near(c, tolerance))) / float64(r.Dx()*r.Dy())
}

// Near matches colours within tolerance of c in each channel.
func Near(c color.RGBA, tolerance int) func(color.RGBA) bool {
	near := func(a, b uint8) bool { return max(int(a)-int(b), int(b)-int(a)) <= tolerance }
	return func(p color.RGBA) bool { return near(p.R, c.R) && near(p.G, c.G) && near(p.B, c.B) }
}

// Colors returns how many different colours r has: a window that has drawn
// nothing has one.
func Colors(img *image.RGBA, r image.Rectangle) int {
	seen := map[color.RGBA]bool{}
	Count(img, r, func(c color.RGBA) bool { seen[c] = true; return false })
	return len(seen)
}
