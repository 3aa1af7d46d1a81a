package frame

import (
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// Sizes of a decorated client's own parts, as those of libdecor and foot.
const (
	titleH = 26
	grip   = 5 // of the transparent borders by which it is resized
)

// A decorated client draws a title bar above its window, and transparent borders around
// both that stick out, on sub-surfaces.
type decorated struct {
	*client
	parts [5]struct{ surface, sub uint32 } // title, top, left, right, bottom
}

func newDecorated(t *testing.T, d *desk, socket string) *decorated {
	t.Helper()
	c := &decorated{client: newClient(t, d, socket)}
	c.open()
	for k := range c.parts {
		c.parts[k].surface, c.parts[k].sub = c.childOf(c.surface, 0, 0)
	}
	return c
}

// clear makes a wl_buffer that nothing is seen of.
func (c *client) clear(w, h int) uint32 {
	pool, buf := c.id(), c.id()
	d := waylandtest.Memfd(c.T, int64(w*h*4))
	var e wayland.Encoder
	e.Msg(idShm, wayland.WlShmReqCreatePool, pool, uint32(w*h*4))
	c.Write(e.B, d)
	c.Send(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, uint32(w), uint32(h), uint32(w*4), 0)
	return buf
}

// show draws everything at a size of the window without its title bar.
func (c *decorated) draw(w, h int) {
	for k, r := range []image.Rectangle{
		image.Rect(0, -titleH, w, 0),
		image.Rect(-grip, -titleH-grip, w+grip, -titleH),
		image.Rect(-grip, -titleH, 0, h),
		image.Rect(w, -titleH, w+grip, h),
		image.Rect(-grip, h, w+grip, h+grip),
	} {
		p := c.parts[k]
		c.Send(p.sub, wayland.WlSubsurfaceReqSetPosition, uint32(r.Min.X), uint32(r.Min.Y))
		if k == 0 {
			c.show(p.surface, c.buffer(r.Dx(), r.Dy(), red))
		} else {
			c.show(p.surface, c.clear(r.Dx(), r.Dy()))
		}
	}
	c.Send(c.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 0, neg-titleH, uint32(w), uint32(h+titleH))
	c.show(c.surface, c.pattern(w, h))
	c.sync()
}

// pattern makes a wl_buffer whose outermost pixels are lime, the others pink.
func (c *client) pattern(w, h int) uint32 {
	pool, buf := c.id(), c.id()
	d := waylandtest.Memfd(c.T, int64(w*h*4))
	b := make([]byte, 0, w*h*4)
	for y := range h {
		for x := range w {
			col := pink
			if x == 0 || y == 0 || x == w-1 || y == h-1 {
				col = lime
			}
			b = binary.NativeEndian.AppendUint32(b, uint32(col.R)<<16|uint32(col.G)<<8|uint32(col.B))
		}
	}
	if _, err := unix.Pwrite(d.FD, b, 0); err != nil {
		c.T.Fatal(err)
	}
	var e wayland.Encoder
	e.Msg(idShm, wayland.WlShmReqCreatePool, pool, uint32(len(b)))
	c.Write(e.B, d)
	c.Send(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, uint32(w), uint32(h), uint32(w*4), 1)
	return buf
}

// TestDecorated holds that a program that decorates its window itself, on sub-surfaces,
// has one frame around all of it, at whatever size, and loses nothing of its content.
func TestDecorated(t *testing.T) {
	for _, scale := range []float64{1, 2} {
		everyDesk(t, fmt.Sprint(scale), scale, swayFloats, undecorated+labwcPlaces, func(t *testing.T, d *desk) {
			c := newDecorated(t, d, work.serve(t, d.socket))
			for _, size := range []image.Point{{300, 200}, {500, 350}, {200, 120}, {201, 350}, {450, 121}, {300, 200}} {
				c.draw(size.X, size.Y)
				whole := image.Pt(size.X+2*sideW, size.Y+titleH+labelH+sideW)
				var bad string
				d.waitScreen(t, fmt.Sprint("the window of ", size), func(img *image.RGBA) bool {
					at := d.extent(img, workBlue)
					bad = d.exact(img, at, whole, size)
					return bad == ""
				}, &bad)
			}
			keep(t, d.picture("-decorated"), d.steady(t))
		})
	}
}

// exact says what is wrong with a decorated window in at, with its frame.
func (d *desk) exact(img *image.RGBA, at image.Rectangle, whole, size image.Point) string {
	if at.Size() != whole {
		return fmt.Sprintf("the frame's colour is in %v, and the window with its frame is %v", at, whole)
	}
	if missing := d.framed(img, at, workBlue); missing != "" {
		return "its frame lacks " + missing
	}
	title := image.Rectangle{at.Min.Add(image.Pt(sideW, labelH)), image.Pt(at.Max.X-sideW, at.Min.Y+labelH+titleH)}
	content := image.Rect(title.Min.X, title.Max.Y, title.Max.X, at.Max.Y-sideW)
	for _, part := range []struct {
		what string
		r    image.Rectangle
		c    color.RGBA
	}{
		{"the title bar", title, red},
		{"the first column", image.Rect(content.Min.X, content.Min.Y, content.Min.X+1, content.Max.Y), lime},
		{"the last column", image.Rect(content.Max.X-1, content.Min.Y, content.Max.X, content.Max.Y), lime},
		{"the first row", image.Rect(content.Min.X, content.Min.Y, content.Max.X, content.Min.Y+1), lime},
		{"the last row", image.Rect(content.Min.X, content.Max.Y-1, content.Max.X, content.Max.Y), lime},
		{"the content", content.Inset(2), pink},
	} {
		// The pointer may be over it, and what is stretched is mixed at its edges.
		if share := desktoptest.Share(img, d.px(part.r), part.c, 140); share < 0.9 {
			return fmt.Sprintf("%s, in %v, is %.2f of its colour", part.what, part.r, share)
		}
	}
	return ""
}

// TestDecoratedFoot holds the same of foot, which is resized by the frame's corner.
func TestDecoratedFoot(t *testing.T) {
	seated(t, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		run(t, d, work.serve(t, d.socket), "foot", "-o", "csd.preferred=client", "-o", "resize-by-cells=no", "--window-size-pixels=500x300", "sleep", "1000")
		var at image.Rectangle
		one := func(img *image.RGBA) bool {
			at = d.extent(img, workBlue)
			// No ring within the frame either.
			inside := image.Rect(at.Min.X+sideW, at.Min.Y+labelH, at.Max.X-sideW, at.Max.Y-sideW)
			return !at.Empty() && d.framed(img, at, workBlue) == "" && desktoptest.Count(img, d.px(inside), desktoptest.Near(workBlue, 2)) == 0
		}
		d.waitScreen(t, "one frame", one)
		for _, by := range []image.Point{{-150, -100}, {100, 60}, {-120, -40}, {60, -20}} { // never beyond where it was
			before := at.Size()
			d.drag(t, at.Max.Sub(image.Pt(2, 2)), at.Max.Sub(image.Pt(2, 2)).Add(by))
			d.waitScreen(t, fmt.Sprintf("one frame, changed by %v", by), func(img *image.RGBA) bool {
				if !one(img) {
					return false
				}
				grown := at.Size().Sub(before).Sub(by)
				return abs(grown.X) <= 16 && abs(grown.Y) <= 24 // by whole cells, at some of foot's versions
			})
		}
		keep(t, d.picture("-foot"), d.steady(t))
	})
}

// drag presses at one place and releases at another. What the press starts is under
// way when the picture stays.
func (d *desk) drag(t *testing.T, from, to image.Point) {
	t.Helper()
	d.seat.move(from.X, from.Y)
	d.seat.button(1)
	d.steady(t)
	for k := 1; k <= 4; k++ {
		p := from.Add(to.Sub(from).Mul(k).Div(4))
		d.seat.move(p.X, p.Y)
		d.steady(t) // a late answer to an earlier size counts as a wish, for sway
	}
	d.seat.button(0)
	d.seat.move(d.w-1, d.h-1)
}
