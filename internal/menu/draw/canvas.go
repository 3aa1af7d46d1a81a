package draw

import (
	"image"
	"math"

	"vix/internal/label"
)

// A Color is red, green, blue.
type Color = [3]uint8

// A Canvas is the pixels of a buffer: wl_shm.format.argb8888, premultiplied.
type Canvas struct {
	W, H     int // pixels
	Pix      []uint32
	contents []string // the content of each region, as a Painter's key
}

// NewCanvas returns a canvas that has not been painted yet.
func NewCanvas(w, h int, pix []uint32) *Canvas { return &Canvas{W: w, H: h, Pix: pix} }

// Forget marks the whole canvas for painting.
func (c *Canvas) Forget() { c.contents = nil }

func opaque(c Color) uint32 {
	return 0xff000000 | uint32(c[0])<<16 | uint32(c[1])<<8 | uint32(c[2])
}

func (c *Canvas) bounds() image.Rectangle { return image.Rect(0, 0, c.W, c.H) }

// fill fills a rectangle.
func (c *Canvas) fill(r image.Rectangle, col Color) {
	r = r.Intersect(c.bounds())
	v := opaque(col)
	for y := r.Min.Y; y < r.Max.Y; y++ {
		row := c.Pix[y*c.W+r.Min.X : y*c.W+r.Max.X]
		for i := range row {
			row[i] = v
		}
	}
}

// shape paints a colour by the coverage of each pixel, 0 to 1.
func (c *Canvas) shape(r image.Rectangle, col Color, cover func(x, y float64) float64) {
	r = r.Intersect(c.bounds())
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			if a := cover(float64(x)+0.5, float64(y)+0.5); a > 0 {
				c.over(y*c.W+x, col, min(a, 1))
			}
		}
	}
}

// over paints a colour over a pixel with coverage a.
func (c *Canvas) over(i int, col Color, a float64) {
	if a >= 1 {
		c.Pix[i] = opaque(col)
		return
	}
	was, out := c.Pix[i], uint32(0)
	for shift := 24; shift >= 0; shift -= 8 {
		new := 255.0
		if shift < 24 {
			new = float64(col[2-shift/8])
		}
		old := float64(was >> shift & 0xff)
		out |= uint32(math.Round(old*(1-a)+new*a)) << shift
	}
	c.Pix[i] = out
}

// A box is a rectangle with round corners, in pixels.
type box struct{ x0, y0, x1, y1, radius float64 }

// rect returns the whole pixels that the box touches.
func (b box) rect() image.Rectangle {
	return image.Rect(int(math.Floor(b.x0)), int(math.Floor(b.y0)), int(math.Ceil(b.x1)), int(math.Ceil(b.y1)))
}

func (b box) inset(d float64) box {
	return box{b.x0 + d, b.y0 + d, b.x1 - d, b.y1 - d, max(b.radius-d, 0)}
}

// cover returns how much of the pixel around x, y is inside the box.
func (b box) cover(x, y float64) float64 {
	dx := max(b.x0+b.radius-x, x-(b.x1-b.radius), 0)
	dy := max(b.y0+b.radius-y, y-(b.y1-b.radius), 0)
	if dx > 0 && dy > 0 {
		return min(max(b.radius-math.Hypot(dx, dy)+0.5, 0), 1)
	}
	edge := min(x-b.x0, b.x1-x, y-b.y0, b.y1-y)
	return min(max(edge+0.5, 0), 1)
}

// box paints a box: its inside in one step, its edge and corners by coverage.
func (c *Canvas) box(b box, col Color) {
	all := b.rect()
	in := image.Rect(int(math.Ceil(b.x0)), int(math.Ceil(b.y0)), int(math.Floor(b.x1)), int(math.Floor(b.y1)))
	r := int(math.Ceil(b.radius))
	middle := image.Rect(in.Min.X, in.Min.Y+r, in.Max.X, in.Max.Y-r)
	if middle.Empty() || in.Dx() <= 2*r {
		c.shape(all, col, b.cover)
		return
	}
	c.fill(middle, col)
	c.fill(image.Rect(in.Min.X+r, in.Min.Y, in.Max.X-r, middle.Min.Y), col)
	c.fill(image.Rect(in.Min.X+r, middle.Max.Y, in.Max.X-r, in.Max.Y), col)
	for _, r := range []image.Rectangle{
		// The corners, and the rows and columns that are partly covered.
		image.Rect(all.Min.X, in.Min.Y, in.Min.X+r, middle.Min.Y), image.Rect(in.Max.X-r, in.Min.Y, all.Max.X, middle.Min.Y),
		image.Rect(all.Min.X, middle.Max.Y, in.Min.X+r, in.Max.Y), image.Rect(in.Max.X-r, middle.Max.Y, all.Max.X, in.Max.Y),
		image.Rect(all.Min.X, all.Min.Y, all.Max.X, in.Min.Y), image.Rect(all.Min.X, in.Max.Y, all.Max.X, all.Max.Y),
		image.Rect(all.Min.X, middle.Min.Y, in.Min.X, middle.Max.Y), image.Rect(in.Max.X, middle.Min.Y, all.Max.X, middle.Max.Y),
	} {
		c.shape(r, col, b.cover)
	}
}

// outline paints a box's edge, width pixels wide.
func (c *Canvas) outline(b box, width float64, col Color) {
	in := b.inset(width)
	c.shape(b.rect(), col, func(x, y float64) float64 { return b.cover(x, y) - in.cover(x, y) })
}

// stroke paints a line with round ends.
func (c *Canvas) stroke(x0, y0, x1, y1, width float64, col Color) {
	r := box{min(x0, x1) - width, min(y0, y1) - width, max(x0, x1) + width, max(y0, y1) + width, 0}.rect()
	length := (x1-x0)*(x1-x0) + (y1-y0)*(y1-y0)
	c.shape(r, col, func(x, y float64) float64 {
		t := min(max(((x-x0)*(x1-x0)+(y-y0)*(y1-y0))/length, 0), 1)
		return width/2 - math.Hypot(x-x0-t*(x1-x0), y-y0-t*(y1-y0)) + 0.5
	})
}

// ring paints a circle's outline.
func (c *Canvas) ring(x, y, radius, width float64, col Color) {
	r := box{x - radius - width, y - radius - width, x + radius + width, y + radius + width, 0}.rect()
	c.shape(r, col, func(px, py float64) float64 { return width/2 - math.Abs(math.Hypot(px-x, py-y)-radius) + 0.5 })
}

// mask paints fg through a mask at x, y, over a background bg.
func (c *Canvas) mask(m *image.Alpha, x, y int, table *[256]uint32) {
	r := m.Rect.Add(image.Pt(x, y)).Intersect(c.bounds())
	for py := r.Min.Y; py < r.Max.Y; py++ {
		from := m.Pix[(py-y)*m.Stride+r.Min.X-x:]
		to := c.Pix[py*c.W+r.Min.X : py*c.W+r.Max.X]
		for i := range to {
			if a := from[i]; a != 0 {
				to[i] = table[a]
			}
		}
	}
}

// picture paints a premultiplied picture over the canvas.
func (c *Canvas) picture(img *image.RGBA, x, y int) {
	r := img.Rect.Add(image.Pt(x, y)).Intersect(c.bounds())
	for py := r.Min.Y; py < r.Max.Y; py++ {
		for px := r.Min.X; px < r.Max.X; px++ {
			p := img.Pix[img.PixOffset(px-x, py-y):]
			a := uint32(p[3])
			if a == 0 {
				continue
			}
			was, out := c.Pix[py*c.W+px], uint32(0)
			for k, shift := range []int{16, 8, 0} {
				out |= min(uint32(p[k])+(was>>shift&0xff)*(255-a)/255, 255) << shift
			}
			c.Pix[py*c.W+px] = out | min(a+(was>>24)*(255-a)/255, 255)<<24
		}
	}
}

// A mixer caches the tables of label.Mix: a menu has few pairs of colours.
type mixer map[[2]Color]*[256]uint32

func (m mixer) of(bg, fg Color) *[256]uint32 {
	k := [2]Color{bg, fg}
	if m[k] == nil {
		m[k] = label.Mix(bg, fg)
	}
	return m[k]
}

// blend mixes fg into bg by part.
func blend(bg, fg Color, part float64) Color {
	var c Color
	for k := range c {
		c[k] = uint8(math.Round(float64(bg[k])*(1-part) + float64(fg[k])*part))
	}
	return c
}
