package frame

import (
	"encoding/binary"
	"fmt"
	"image/color"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A client shows plain colours: a window, a popup of it that needs no input to open,
// and a sub-surface.
type client struct {
	*waylandtest.Peer
	next       uint32
	all        map[string]uint32 // its globals' names
	surface    uint32
	xdg        uint32
	top        uint32
	viewporter uint32
	data       uint32 // wl_data_device_manager
	w, h       int    // that the compositor told last, 0 for as it likes
	// A hostile client may be thrown out: then it is gone, and that is no failure.
	hostile, gone bool
	event         func(waylandtest.Msg) // hears all that comes; may be nil
}

// Send and Write are those of the Peer, for a client that may be gone.
func (c *client) Send(id uint32, op uint16, words ...uint32) {
	c.T.Helper()
	var e wayland.Encoder
	e.Msg(id, op, words...)
	c.Write(e.B)
}

func (c *client) Write(b []byte, ds ...wayland.Desc) {
	c.T.Helper()
	if err := c.Tr.Send(b, ds); err != nil {
		c.lost(err)
	}
}

// lost is the end of the connection.
func (c *client) lost(why any) {
	c.T.Helper()
	if c.gone = true; !c.hostile {
		c.T.Fatalf("the connection ended: %v", why)
	}
}

// Its globals.
const (
	idCompositor = 4 + iota
	idSubcompositor
	idShm
	idWm
	idFree
)

func newClient(t *testing.T, d *desk, socket string) *client {
	t.Helper()
	p, all := globals(t, &desk{socket: socket, name: d.name})
	bind(t, p, all, "wl_compositor", 4, idCompositor)
	bind(t, p, all, "wl_subcompositor", 1, idSubcompositor)
	bind(t, p, all, "wl_shm", 1, idShm)
	bind(t, p, all, "xdg_wm_base", 2, idWm)
	return &client{Peer: p, next: idFree, all: all}
}

func (c *client) id() uint32 { c.next++; return c.next - 1 }

// bound binds a global and returns its id.
func (c *client) bound(iface string, version uint32) uint32 {
	c.T.Helper()
	id := c.id()
	bind(c.T.(*testing.T), c.Peer, c.all, iface, version, id)
	return id
}

// hear takes an event in: it answers pings, notes sizes, and fails at an error.
func (c *client) hear() waylandtest.Msg {
	c.T.Helper()
	m, err := c.Next()
	if c.event != nil && err == nil {
		c.event(m)
	}
	switch {
	case err != nil:
		c.lost(err)
	case m.ID == 1 && m.Op == wayland.WlDisplayEvtError:
		c.lost(fmt.Sprintf("%q", m.Body))
	case m.ID == idWm:
		c.Send(idWm, wayland.XdgWmBaseReqPong, m.Word(0))
	case m.ID == c.top && c.top != 0 && m.Op == wayland.XdgToplevelEvtConfigure:
		c.w, c.h = int(m.Word(0)), int(m.Word(1))
	}
	return m
}

// sync waits until the compositor has handled all requests so far.
func (c *client) sync() {
	c.T.Helper()
	id := c.id()
	c.Send(1, wayland.WlDisplayReqSync, id)
	for !c.gone && c.hear().ID != id {
	}
}

// buffer makes a wl_buffer of one colour.
func (c *client) buffer(w, h int, col color.RGBA) uint32 {
	pool, buf := c.id(), c.id()
	d := waylandtest.Memfd(c.T, int64(w*h*4))
	b := make([]byte, w*h*4)
	for k := 0; k < len(b); k += 4 {
		binary.NativeEndian.PutUint32(b[k:], uint32(col.R)<<16|uint32(col.G)<<8|uint32(col.B))
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

// configured waits for the next configure event of an xdg_surface, and acknowledges it.
func (c *client) configured(xdg uint32) {
	c.T.Helper()
	for !c.gone {
		if m := c.hear(); m.ID == xdg && m.Op == wayland.XdgSurfaceEvtConfigure {
			c.Send(xdg, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
			return
		}
	}
}

func (c *client) show(surface, buffer uint32) {
	c.Send(surface, wayland.WlSurfaceReqAttach, buffer, 0, 0)
	c.Send(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<20, 1<<20)
	c.Send(surface, wayland.WlSurfaceReqCommit)
}

func (c *client) window(w, h int, col color.RGBA) {
	c.T.Helper()
	c.open()
	c.show(c.surface, c.buffer(w, h, col))
}

// open makes a window without content and waits until it is told its size.
func (c *client) open(states ...uint16) {
	c.T.Helper()
	c.begin(states...)
	if len(states) > 0 {
		c.sized()
	}
}

// begin makes a window without content, in states that requests of xdg_toplevel set,
// and acknowledges the first configure event.
func (c *client) begin(states ...uint16) {
	c.T.Helper()
	c.surface, c.xdg, c.top = c.id(), c.id(), c.id()
	c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, c.surface)
	c.Send(idWm, wayland.XdgWmBaseReqGetXdgSurface, c.xdg, c.surface)
	c.Send(c.xdg, wayland.XdgSurfaceReqGetToplevel, c.top)
	for _, op := range states {
		if op == wayland.XdgToplevelReqSetFullscreen {
			c.Send(c.top, op, 0) // on any output
		} else {
			c.Send(c.top, op)
		}
	}
	c.Send(c.surface, wayland.WlSurfaceReqCommit)
	c.configured(c.xdg)
}

// sized waits until the window is told a size: sway lets it choose before it finds a
// place for it, and labwc tells it its own when it gets the focus.
func (c *client) sized() {
	c.T.Helper()
	for c.w <= 1 && !c.gone {
		c.show(c.surface, c.buffer(1, 1, color.RGBA{}))
		c.configured(c.xdg)
	}
}

// popup opens below the rectangle of the window, as a menu does.
func (c *client) popup(x, y, rw, rh, w, h int, col color.RGBA) (surface, xdg uint32) {
	c.T.Helper()
	surface, xdg = c.openPopup(c.xdg, x, y, rw, rh, w, h)
	c.show(surface, c.buffer(w, h, col))
	return surface, xdg
}

// openPopup opens a popup without content below a rectangle of a parent.
func (c *client) openPopup(parent uint32, x, y, rw, rh, w, h int) (surface, xdg uint32) {
	c.T.Helper()
	pos, s := c.id(), c.id()
	xdg = c.id()
	pop := c.id()
	c.Send(idWm, wayland.XdgWmBaseReqCreatePositioner, pos)
	c.Send(pos, wayland.XdgPositionerReqSetSize, uint32(w), uint32(h))
	c.Send(pos, wayland.XdgPositionerReqSetAnchorRect, uint32(x), uint32(y), uint32(rw), uint32(rh))
	c.Send(pos, wayland.XdgPositionerReqSetAnchor, 6)  // bottom_left
	c.Send(pos, wayland.XdgPositionerReqSetGravity, 8) // bottom_right
	c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, s)
	c.Send(idWm, wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
	c.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, parent, pos)
	c.Send(s, wayland.WlSurfaceReqCommit)
	c.configured(xdg)
	return s, xdg
}

// child puts a sub-surface on the window.
func (c *client) child(x, y, w, h int, col color.RGBA) (s, sub uint32) {
	s, sub = c.childOf(c.surface, x, y)
	c.show(s, c.buffer(w, h, col))
	c.Send(c.surface, wayland.WlSurfaceReqCommit)
	return s, sub
}

// childOf makes a sub-surface without content.
func (c *client) childOf(parent uint32, x, y int) (s, sub uint32) {
	s, sub = c.id(), c.id()
	c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, s)
	c.Send(idSubcompositor, wayland.WlSubcompositorReqGetSubsurface, sub, s, parent)
	c.Send(sub, wayland.WlSubsurfaceReqSetPosition, uint32(x), uint32(y))
	return s, sub
}
