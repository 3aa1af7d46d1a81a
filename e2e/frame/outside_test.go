package frame

import (
	"fmt"
	"image"
	"image/color"
	"slices"
	"strings"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// Colours of what a hostile guest shows, far from those of desktops and frames.
var (
	pink    = color.RGBA{255, 200, 255, 255}
	lime    = color.RGBA{0, 255, 0, 255}
	red     = color.RGBA{255, 0, 0, 255}
	yellow  = color.RGBA{255, 255, 0, 255} // of a pointer's or a drag's image
	content = []color.RGBA{pink, lime, red}
)

// maxImage is the largest image of a pointer or a drag, in logical pixels.
const maxImage = 64

// outside says what of a guest's is shown outside its frames, or "". In each row and
// column of pixels the frame's colour is at both ends of what is the guest's, or the
// screen ends there.
func (d *desk) outside(img *image.RGBA) string {
	guest := func(c color.RGBA) bool {
		if c.G < 8 && c.B < 8 && c.R > 32 {
			return true // red, mixed with what is beside it where it is stretched
		}
		for _, g := range content {
			if desktoptest.Near(g, 24)(c) {
				return true
			}
		}
		return false
	}
	return d.unframed(img, guest)
}

func (d *desk) unframed(img *image.RGBA, guest func(color.RGBA) bool) string {
	frame := desktoptest.Near(workBlue, 2)
	// ends tells whether a run of the guest's pixels ends before at, in direction step.
	ends := func(at, step image.Point) bool {
		for range 3 { // stretched edges are mixed with it
			if !at.In(img.Rect) || frame(img.RGBAAt(at.X, at.Y)) {
				return true
			}
			at = at.Add(step)
		}
		return false
	}
	for _, axis := range []image.Point{{1, 0}, {0, 1}} {
		for y := range img.Rect.Dy() {
			for x := range img.Rect.Dx() {
				at := image.Pt(x, y)
				if !guest(img.RGBAAt(x, y)) {
					continue
				}
				for _, step := range []image.Point{axis, {-axis.X, -axis.Y}} {
					next := at.Add(step)
					if next.In(img.Rect) && guest(img.RGBAAt(next.X, next.Y)) || ends(next, step) {
						continue
					}
					return fmt.Sprintf("%v at %v of the picture has no frame beside it, but %v", img.RGBAAt(x, y), at, img.RGBAAt(next.X, next.Y))
				}
			}
		}
	}
	return ""
}

// loose says what is wrong with a pointer's or a drag's image: it is at most 64×64
// with the pointer in it.
func (d *desk) loose(img *image.RGBA, at image.Point) string {
	near := desktoptest.Near(yellow, 24)
	if desktoptest.Count(img, img.Rect, near) == 0 {
		return ""
	}
	e := d.extent(img, yellow)
	switch {
	case e.Dx() > maxImage || e.Dy() > maxImage:
		return fmt.Sprintf("a pointer's image of %v", e.Size())
	case !at.In(e.Inset(-4)): // the edges of what is stretched are not yellow
		return fmt.Sprintf("a pointer's image in %v with the pointer at %v", e, at)
	}
	return ""
}

// A scene is what a hostile guest does once it has a window of 300×200.
type scene struct {
	name string
	do   func(c *client)
	// over tells that it may cover the window's own frame, as a popup does.
	over bool
}

const neg = 1 << 32 // neg-n is -n as an argument

// viewport gives a surface a viewport.
func (c *client) viewport(surface uint32) uint32 {
	v := c.id()
	c.Send(c.viewporter, wayland.WpViewporterReqGetViewport, v, surface)
	return v
}

// scenes are of sub-surfaces, popups and the window itself; they need no input.
var scenes = []scene{
	{"a child that sticks out on the right", func(c *client) { c.child(200, 120, 200, 50, red) }, false},
	{"a child that sticks out on the left and above", func(c *client) { c.child(-60, -60, 200, 150, red) }, false},
	{"a child larger than the window", func(c *client) { c.child(-100, -100, 500, 400, red) }, false},
	{"a child far outside", func(c *client) { c.child(330, 250, 100, 100, red) }, false},
	{"a child moved by attach", func(c *client) {
		s, sub := c.child(0, 0, 300, 200, lime)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.showAt(s, c.buffer(300, 200, lime), 400, 250)
	}, false},
	{"a child moved by attach, again and again", func(c *client) {
		s, sub := c.child(0, 0, 100, 100, lime)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		for range 20 {
			c.showAt(s, c.buffer(100, 100, lime), -30, -20)
		}
	}, false},
	{"a synchronised child moved by attach", func(c *client) {
		s, _ := c.child(0, 0, 100, 100, lime)
		c.showAt(s, c.buffer(100, 100, lime), 260, 170)
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
	}, false},
	{"a child moved by offset", func(c *client) {
		s, sub := c.child(0, 0, 300, 200, lime)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.Send(s, wayland.WlSurfaceReqOffset, 400, 250)
		c.show(s, c.buffer(300, 200, lime))
	}, false},
	{"the window moved by attach", func(c *client) { c.showAt(c.surface, c.buffer(300, 200, lime), -50, -30) }, true},
	{"the window moved by offset", func(c *client) {
		c.Send(c.surface, wayland.WlSurfaceReqOffset, 60, 40)
		c.show(c.surface, c.buffer(300, 200, lime))
	}, true},
	{"a child by its viewport", func(c *client) {
		s, _ := c.childOf(c.surface, 100, 100)
		c.Send(c.viewport(s), wayland.WpViewportReqSetDestination, 400, 300)
		c.show(s, c.buffer(200, 150, red))
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
	}, false},
	{"a child whose viewport is set later", func(c *client) {
		s, sub := c.child(100, 50, 190, 140, red)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.Send(c.viewport(s), wayland.WpViewportReqSetDestination, 400, 300)
		c.redraw(s)
	}, false},
	{"a child whose viewport goes", func(c *client) {
		s, sub := c.childOf(c.surface, 100, 100)
		v := c.viewport(s)
		c.Send(v, wayland.WpViewportReqSetDestination, 20, 20)
		c.show(s, c.buffer(400, 300, red))
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.Send(v, wayland.WpViewportReqDestroy)
		c.redraw(s)
	}, false},
	{"a child by its buffer's scale", func(c *client) {
		s, sub := c.childOf(c.surface, 100, 100)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.Send(s, wayland.WlSurfaceReqSetBufferScale, 4)
		c.show(s, c.buffer(400, 300, red))
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
		c.Send(s, wayland.WlSurfaceReqSetBufferScale, 1)
		c.redraw(s)
	}, false},
	{"a child by its buffer's transform", func(c *client) {
		s, sub := c.childOf(c.surface, 0, 0)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.show(s, c.buffer(300, 20, red))
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
		c.Send(s, wayland.WlSurfaceReqSetBufferTransform, 1)
		c.redraw(s)
	}, false},
	{"the window by its buffer's transform and scale", func(c *client) {
		c.Send(c.surface, wayland.WlSurfaceReqSetBufferScale, 2)
		c.Send(c.surface, wayland.WlSurfaceReqSetBufferTransform, 3)
		c.show(c.surface, c.buffer(500, 700, lime))
		c.Send(c.surface, wayland.WlSurfaceReqSetBufferScale, 1)
		c.redraw(c.surface)
	}, true},
	{"a child of a child that is shown by its parent's commit", func(c *client) {
		a, as := c.child(0, 0, 1, 1, lime)
		c.Send(as, wayland.WlSubsurfaceReqSetDesync)
		b := c.id()
		c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, b)
		c.show(b, c.buffer(500, 400, red)) // before it has a role
		sub := c.id()
		c.Send(idSubcompositor, wayland.WlSubcompositorReqGetSubsurface, sub, b, a)
		c.Send(sub, wayland.WlSubsurfaceReqSetPosition, neg-100, neg-100)
		c.Send(a, wayland.WlSurfaceReqCommit)
	}, false},
	{"a child whose content is there and whose pending one is not", func(c *client) {
		b, sub := c.id(), c.id()
		c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, b)
		c.show(b, c.buffer(500, 400, red))
		c.Send(b, wayland.WlSurfaceReqAttach, 0, 0, 0)
		c.Send(idSubcompositor, wayland.WlSubcompositorReqGetSubsurface, sub, b, c.surface)
		c.Send(sub, wayland.WlSubsurfaceReqSetPosition, neg-100, neg-100)
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
	}, false},
	{"a child that moves after its window's commit", func(c *client) {
		_, sub := c.child(10, 10, 100, 100, red)
		c.Send(sub, wayland.WlSubsurfaceReqSetPosition, 280, 180)
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
		c.Send(sub, wayland.WlSubsurfaceReqSetPosition, neg-90, neg-90)
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
	}, false},
	{"a child that is told to be above all", func(c *client) {
		_, a := c.child(-50, -50, 500, 400, red)
		s, _ := c.child(0, 0, 10, 10, lime)
		c.Send(a, wayland.WlSubsurfaceReqPlaceAbove, s)
		c.Send(c.surface, wayland.WlSurfaceReqCommit)
	}, false},
	{"a window that shrinks under its child", func(c *client) {
		c.child(150, 100, 140, 90, red)
		c.show(c.surface, c.buffer(100, 60, pink))
	}, true},
	{"a window whose geometry leaves most of it out", func(c *client) {
		c.Send(c.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 100, 80, 50, 40)
		c.show(c.surface, c.buffer(300, 200, pink))
	}, true},
	{"a popup larger than it was told", func(c *client) {
		s, _ := c.openPopup(c.xdg, 10, 10, 1, 1, 20, 20)
		c.show(s, c.buffer(700, 500, lime))
	}, true},
	{"a popup that grows later", func(c *client) {
		s, _ := c.popup(10, 10, 1, 1, 60, 40, lime)
		c.show(s, c.buffer(700, 500, lime))
	}, true},
	{"a popup moved by attach", func(c *client) {
		s, _ := c.popup(10, 10, 1, 1, 60, 40, lime)
		c.showAt(s, c.buffer(60, 40, lime), 300, 300)
	}, true},
	{"a popup moved by offset", func(c *client) {
		s, _ := c.popup(10, 10, 1, 1, 60, 40, lime)
		c.Send(s, wayland.WlSurfaceReqOffset, neg-300, neg-300)
		c.show(s, c.buffer(60, 40, lime))
	}, true},
	{"a popup's geometry that leaves its edges out", func(c *client) {
		s, xdg := c.openPopup(c.xdg, 10, 10, 1, 1, 60, 40)
		c.Send(xdg, wayland.XdgSurfaceReqSetWindowGeometry, 20, 20, 60, 40)
		c.show(s, c.buffer(300, 300, lime))
	}, true},
	{"a popup half off the screen", func(c *client) {
		s, _ := c.openPopup(c.xdg, -1200, 0, 1, 1, 400, 100)
		c.show(s, c.buffer(400, 100, lime))
	}, true},
	{"a popup's child", func(c *client) {
		s, _ := c.popup(10, 10, 1, 1, 60, 40, lime)
		k, sub := c.childOf(s, -100, -100)
		c.Send(sub, wayland.WlSubsurfaceReqSetDesync)
		c.show(k, c.buffer(500, 400, red))
		c.redraw(s)
	}, true},
	{"a popup of a popup, both larger than told", func(c *client) {
		s, xdg := c.openPopup(c.xdg, 10, 10, 1, 1, 60, 40)
		c.show(s, c.buffer(200, 150, lime))
		k, _ := c.openPopup(xdg, 200, 150, 1, 1, 60, 40)
		c.show(k, c.buffer(400, 300, red))
	}, true},
}

// redraw commits what was set without a new buffer.
func (c *client) redraw(surface uint32) {
	c.Send(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<20, 1<<20)
	c.Send(surface, wayland.WlSurfaceReqCommit)
}

// showAt shows a buffer with the x and y of wl_surface.attach.
func (c *client) showAt(surface, buffer uint32, x, y int) {
	c.Send(surface, wayland.WlSurfaceReqAttach, buffer, uint32(x), uint32(y))
	c.Send(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<20, 1<<20)
	c.Send(surface, wayland.WlSurfaceReqCommit)
}

// versionOf is the wl_compositor that a scene needs: attach has x and y before 5, and
// offset is there from 5 on.
func versionOf(scene string) uint32 {
	if strings.Contains(scene, "offset") {
		return 5
	}
	return 4
}

// newHostile returns a client that may be thrown out, with the newest wl_compositor
// that has x and y in attach, or the one that has offset.
func newHostile(t *testing.T, d *desk, socket string, version uint32) *client {
	t.Helper()
	p, all := globals(t, &desk{socket: socket, name: d.name})
	c := &client{Peer: p, next: idFree, all: all, hostile: true}
	bind(t, p, all, "wl_compositor", version, idCompositor)
	bind(t, p, all, "wl_subcompositor", 1, idSubcompositor)
	bind(t, p, all, "wl_shm", 1, idShm)
	bind(t, p, all, "xdg_wm_base", 2, idWm)
	c.viewporter = c.bound("wp_viewporter", 1)
	return c
}

// TestOutside holds that nothing of a guest is shown outside a frame of its VM, and
// that the frame of its window stays whole, whatever the guest does.
func TestOutside(t *testing.T) {
	everyDesk(t, "1", 1, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		socket := work.serve(t, d.socket)
		for _, s := range scenes {
			if d.ended() {
				d = d.anew(t)
				socket = work.serve(t, d.socket)
			}
			t.Run(s.name, func(t *testing.T) { d.play(t, socket, s) })
		}
	})
}

// play shows one scene.
func (d *desk) play(t *testing.T, socket string, s scene) {
	t.Helper()
	d.waitScreen(t, "no window", func(img *image.RGBA) bool { return count(img, workBlue) == 0 })
	c := newHostile(t, d, socket, versionOf(s.name))
	defer c.Tr.Close()
	c.window(300, 200, pink)
	c.sync()
	if c.gone {
		t.Fatal("the connection ended before the scene")
	}
	var at image.Rectangle
	d.waitScreen(t, "the window", func(img *image.RGBA) bool {
		at = d.extent(img, workBlue)
		return at.Size() == image.Pt(300+2*sideW, 200+labelH+sideW) && d.framed(img, at, workBlue) == ""
	})
	s.do(c)
	c.sync()
	img := d.steady(t)
	fail := func(what string) {
		t.Helper()
		name := d.picture("-" + t.Name())
		keep(t, name, img)
		t.Errorf("%s (%s)", what, name)
	}
	if bad := d.outside(img); bad != "" {
		fail(bad)
	}
	if !c.gone && !s.over {
		if missing := d.framed(img, at, workBlue); missing != "" {
			fail("the window's frame lacks " + missing)
		}
	}
}

// images are scenes of pointers and drags: the pointer is over the window.
type images struct {
	name string
	// do is called with the wl_pointer, the serial of its enter event, and a surface
	// for the image. For drags it is the wl_data_device, and the serial of a press.
	do   func(c *client, object, serial, surface uint32)
	good bool // and so it must be shown
}

var pointers = []images{
	{"a small image", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 5, 5)
		c.show(s, c.buffer(24, 24, yellow))
	}, true},
	{"a large image", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 50, 50)
		c.show(s, c.buffer(120, 120, yellow))
	}, true},
	{"an image that is too large", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 100, 100)
		c.show(s, c.buffer(250, 250, yellow))
	}, false},
	{"an image with content before its role", func(c *client, p, serial, s uint32) {
		c.show(s, c.buffer(380, 280, yellow))
		c.Send(s, wayland.WlSurfaceReqAttach, 0, 0, 0)
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 100, 100)
	}, false},
	{"a hotspot far to the left", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, neg-100, neg-100)
		c.show(s, c.buffer(60, 60, yellow))
	}, false},
	{"a hotspot far to the right", func(c *client, p, serial, s uint32) {
		c.show(s, c.buffer(60, 60, yellow))
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 160, 140)
	}, false},
	{"a hotspot moved by attach", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 5, 5)
		for range 5 {
			c.showAt(s, c.buffer(60, 60, yellow), 40, 30)
		}
	}, false},
	{"a hotspot moved by offset", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 5, 5)
		c.show(s, c.buffer(60, 60, yellow))
		c.Send(s, wayland.WlSurfaceReqOffset, neg-100, neg-100)
		c.show(s, c.buffer(60, 60, yellow))
	}, false},
	{"a viewport", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 5, 5)
		c.Send(c.viewport(s), wayland.WpViewportReqSetDestination, 250, 250)
		c.show(s, c.buffer(10, 10, yellow))
	}, false},
	{"a buffer's scale that is taken back", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 5, 5)
		c.Send(s, wayland.WlSurfaceReqSetBufferScale, 4)
		c.show(s, c.buffer(240, 240, yellow))
		c.Send(s, wayland.WlSurfaceReqSetBufferScale, 1)
		c.redraw(s)
	}, false},
	{"a hotspot that a smaller image leaves outside", func(c *client, p, serial, s uint32) {
		c.Send(p, wayland.WlPointerReqSetCursor, serial, s, 110, 110)
		c.show(s, c.buffer(120, 120, yellow))
		c.show(s, c.buffer(20, 20, yellow))
	}, false},
}

var drags = []images{
	// Within one client; Weston 14.0 and Mutter 48.7 crash when they are asked for it.
	{"a drag without a source", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, 0, c.surface, s, serial)
		c.show(s, c.buffer(60, 60, yellow))
	}, false},
	{"a drag's icon", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
		c.show(s, c.buffer(60, 60, yellow))
	}, true},
	{"a drag's icon moved by attach", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
		c.showAt(s, c.buffer(60, 60, yellow), 200, 150)
	}, false},
	{"a drag's icon moved by attach, again and again", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
		for range 10 {
			c.showAt(s, c.buffer(60, 60, yellow), -30, -20)
		}
	}, false},
	{"a drag's icon moved by offset", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
		c.Send(s, wayland.WlSurfaceReqOffset, neg-200, 150)
		c.show(s, c.buffer(60, 60, yellow))
	}, false},
	{"a drag's large icon", func(c *client, dev, serial, s uint32) {
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
		c.show(s, c.buffer(500, 400, yellow))
	}, false},
	{"a drag's icon with content before its role", func(c *client, dev, serial, s uint32) {
		c.show(s, c.buffer(500, 400, yellow))
		c.Send(s, wayland.WlSurfaceReqAttach, 0, 0, 0)
		c.Send(dev, wayland.WlDataDeviceReqStartDrag, c.source(), c.surface, s, serial)
	}, false},
}

// source makes a wl_data_source that offers text.
func (c *client) source() uint32 {
	id := c.id()
	c.Send(c.data, wayland.WlDataDeviceManagerReqCreateDataSource, id)
	c.Put(id, wayland.WlDataSourceReqOffer, "text/plain")
	return id
}

// TestPointerImages holds that a pointer's image, and a drag's, is at the pointer and
// small.
func TestPointerImages(t *testing.T) {
	seated(t, swayFloats, labwcPlaces, func(t *testing.T, d *desk) {
		socket := work.serve(t, d.socket)
		for _, s := range append(slices.Clip(pointers), drags...) {
			if d.ended() {
				d = d.anew(t)
				socket = work.serve(t, d.socket)
			}
			t.Run(s.name, func(t *testing.T) {
				d.point(t, socket, s)
				if d.ended() { // by what a guest does
					t.Error("the compositor ended")
				}
			})
		}
	})
}

// seated starts each compositor with a seat, at scale 1.
func seated(t *testing.T, sway, labwc string, f func(t *testing.T, d *desk)) {
	everyDesk(t, "1", 1, sway, labwc, func(t *testing.T, d *desk) {
		if d.seat == nil { // Weston's headless output has none
			d = startWestonInside(t)
			d.again = startWestonInside
		}
		f(t, d)
	})
}

// point shows one scene of a pointer's image.
func (d *desk) point(t *testing.T, socket string, s images) {
	press := strings.HasPrefix(s.name, "a drag")
	t.Helper()
	d.seat.move(d.w-1, d.h-1)
	d.waitScreen(t, "no window", func(img *image.RGBA) bool { return count(img, workBlue) == 0 })
	c := newHostile(t, d, socket, versionOf(s.name))
	defer c.Tr.Close()
	seat := c.bound("wl_seat", 5)
	pointer := c.id()
	c.Send(seat, wayland.WlSeatReqGetPointer, pointer)
	c.data = c.bound("wl_data_device_manager", 3)
	device := c.id()
	c.Send(c.data, wayland.WlDataDeviceManagerReqGetDataDevice, device, seat)
	var entered, pressed uint32
	c.event = func(m waylandtest.Msg) {
		switch {
		case m.ID == pointer && m.Op == wayland.WlPointerEvtEnter:
			entered = m.Word(0)
		case m.ID == pointer && m.Op == wayland.WlPointerEvtButton && m.Word(3) == 1:
			pressed = m.Word(0)
		}
	}
	c.window(300, 200, pink)
	c.sync()
	var at image.Rectangle
	d.waitScreen(t, "the window", func(img *image.RGBA) bool {
		at = d.extent(img, workBlue)
		return at.Size() == image.Pt(300+2*sideW, 200+labelH+sideW)
	})
	place := at.Min.Add(image.Pt(150, 110))
	d.seat.move(place.X, place.Y)
	for entered == 0 && !c.gone {
		c.hear()
	}
	serial, object := entered, pointer
	if press {
		d.seat.button(1)
		defer d.seat.button(0)
		for pressed == 0 && !c.gone {
			c.hear()
		}
		serial, object = pressed, device
	}
	surface := c.id()
	c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, surface)
	s.do(c, object, serial, surface)
	c.sync()
	place = place.Add(image.Pt(10, 10))
	d.seat.move(place.X, place.Y)
	img := d.steady(t)
	bad := d.loose(img, place)
	seen := count(img, yellow)
	if d.name == "kwin" { // nested, it draws the image of its pointer white
		seen += count(img, color.RGBA{255, 255, 255, 255})
	}
	if s.good && seen < 400 {
		bad = "it is not shown"
	}
	if bad != "" {
		name := d.picture("-" + t.Name())
		keep(t, name, img)
		t.Errorf("%s (%s)", bad, name)
	}
}
