package desktop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"math"
	"os"
	"path"
	"strings"

	"golang.org/x/image/draw"

	"vix/config"
	"vix/internal/icon"
	"vix/internal/plain"
)

// IconSizes are what is written of each icon, in pixels: sway's launchers ask for
// the small one, menus at twice the scale for the other.
var IconSizes = []int{48, 128}

// A Rasterise makes a PNG of size × size pixels of an SVG. The SVG is hostile; the PNG is
// taken for hostile too.
type Rasterise func(ctx context.Context, svg []byte, size int) ([]byte, error)

var errNoIcon = errors.New("no icon")

// iconPlaces are where a root has an icon called NAME, the best first.
var iconPlaces = []string{
	"usr/share/icons/hicolor/256x256/apps/NAME.png", "usr/share/icons/hicolor/128x128/apps/NAME.png",
	"usr/share/icons/hicolor/scalable/apps/NAME.svg",
	"usr/share/icons/hicolor/512x512/apps/NAME.png", "usr/share/icons/hicolor/96x96/apps/NAME.png",
	"usr/share/icons/hicolor/64x64/apps/NAME.png", "usr/share/icons/hicolor/48x48/apps/NAME.png",
	"usr/share/pixmaps/NAME.svg", "usr/share/pixmaps/NAME.png",
	"usr/share/icons/hicolor/32x32/apps/NAME.png", "usr/share/pixmaps/NAME",
	"usr/share/icons/Adwaita/scalable/apps/NAME.svg",
}

// Icon returns an App's icon, of each of IconSizes, as PNG of our own making with a
// mark of the VM's colour in its corner. The guest's files are only ever decoded:
// PNG here, SVG by rasterise.
func Icon(ctx context.Context, root *os.Root, name string, mark config.Color, rasterise Rasterise) (map[int][]byte, error) {
	src, err := iconSource(ctx, root, name, rasterise)
	if err != nil {
		return nil, err
	}
	icons := map[int][]byte{}
	for _, size := range IconSizes {
		dst := icon.Fit(src, size)
		drawMark(dst, mark)
		var b bytes.Buffer
		if err := png.Encode(&b, dst); err != nil {
			return nil, err
		}
		icons[size] = b.Bytes()
	}
	return icons, nil
}

func iconSource(ctx context.Context, root *os.Root, name string, rasterise Rasterise) (image.Image, error) {
	places := []string{name}
	if !path.IsAbs(name) {
		if !plainName(name) {
			return nil, errNoIcon
		}
		name = strings.TrimSuffix(strings.TrimSuffix(name, ".png"), ".svg")
		places = nil
		for _, p := range iconPlaces {
			places = append(places, strings.ReplaceAll(p, "NAME", name))
		}
	}
	last := errNoIcon
	for _, p := range places {
		b, err := readIn(root, p, icon.MaxFile)
		if err != nil {
			if !errors.Is(err, os.ErrNotExist) {
				last = fmt.Errorf("icon %s: %w", plain.Text(p, maxComment, plain.OneLine), err)
			}
			continue
		}
		if !bytes.HasPrefix(b, []byte("\x89PNG")) {
			if b, err = rasterise(ctx, b, IconSizes[len(IconSizes)-1]); err != nil {
				last = fmt.Errorf("icon %s: %w", plain.Text(p, maxComment, plain.OneLine), err)
				continue
			}
		}
		img, err := icon.Decode(b)
		if err == nil {
			return img, nil
		}
		last = fmt.Errorf("icon %s: %w", plain.Text(p, maxComment, plain.OneLine), err)
	}
	return nil, last
}

// drawMark draws a disc of the VM's colour, in a white ring, into the corner.
func drawMark(dst *image.RGBA, mark config.Color) {
	var c color.NRGBA
	if _, err := fmt.Sscanf(string(mark), "#%02x%02x%02x", &c.R, &c.G, &c.B); err != nil {
		return
	}
	c.A = 255
	size := float64(dst.Bounds().Dx())
	radius, ring := size*0.2, size*0.035
	centre := size - radius - ring
	for y := range dst.Bounds().Dy() {
		for x := range dst.Bounds().Dx() {
			d := math.Hypot(float64(x)+0.5-centre, float64(y)+0.5-centre)
			blend(dst, x, y, color.NRGBA{255, 255, 255, 255}, radius+ring-d)
			blend(dst, x, y, c, radius-d)
		}
	}
}

// blend paints a pixel that lies depth pixels within an edge.
func blend(dst *image.RGBA, x, y int, c color.NRGBA, depth float64) {
	a := min(max(depth+0.5, 0), 1)
	if a == 0 {
		return
	}
	if a < 1 {
		c.A = uint8(a * 255)
	}
	draw.Draw(dst, image.Rect(x, y, x+1, y+1), image.NewUniform(c), image.Point{}, draw.Over)
}
