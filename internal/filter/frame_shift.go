package filter

import (
	"math"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// Shifted surfaces. A client may keep a shadow around the geometry that it declares
// of a window or popup; GTK does even when it is told that it is tiled. The frame
// belongs around the geometry, and nothing may be outside the frame, so the rest is
// cut off by a viewport. Then the surface begins, for the compositor, where the
// geometry does, and every place on it that the two sides tell each other differs by
// dx, dy:
//
//	client's coordinates = compositor's coordinates + (dx, dy)
//
// Sub-surfaces of it have coordinates of their own, and only their position differs.

// A region is what is known of the input or opaque region of a surface.
type region struct {
	some    bool // it is neither the default nor empty
	pending bool // it was set since the last look
}

func shiftHooks(h *relay.Hooks) {
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetInputRegion, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		s := surfaceOf(m.Obj)
		s.setRegion(c, &s.input, m.Word(0))
		return true, nil
	})
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetOpaqueRegion, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		s := surfaceOf(m.Obj)
		s.setRegion(c, &s.opaque, m.Word(0))
		return true, nil
	})
}

// setRegion notes a region; Count tells whether anything was added to it.
func (s *surface) setRegion(c *relay.Conn, r *region, id uint32) {
	o := c.Client(id)
	*r = region{some: o != nil && o.Count > 0, pending: true}
	if s.shifted() {
		s.changed = true
	}
}

// shift makes dx, dy a root surface's, with its next commit. Regions are not worth
// translating: all that is shown of a shifted surface takes input, unless none of it
// does, and none of it counts as opaque.
func (f *frames) shift(c *relay.Conn, s *surface, dx, dy int32) {
	moved := s.dx != dx || s.dy != dy
	s.dx, s.dy = dx, dy
	for _, r := range []struct {
		*region
		op uint16
	}{{&s.input, wayland.WlSurfaceReqSetInputRegion}, {&s.opaque, wayland.WlSurfaceReqSetOpaqueRegion}} {
		if s.shifted() && r.some && (moved || r.pending) {
			c.ToServer().Msg(s.id, r.op, 0)
		}
		r.pending = false
	}
	if !moved {
		return
	}
	for _, k := range s.children {
		if k.sub != nil {
			c.ToServer().Msg(k.sub.id, wayland.WlSubsurfaceReqSetPosition, uint32(k.sub.x-dx), uint32(k.sub.y-dy))
		}
	}
}

func (s *surface) shifted() bool { return s != nil && (s.dx != 0 || s.dy != 0) }

// toServer translates a place in a request, two words at off.
func (s *surface) toServer(body []byte, off int) {
	if s.shifted() {
		add(body, off, -s.dx)
		add(body, off+4, -s.dy)
	}
}

// toClientFixed translates a place in an event, two words of 24.8 fixed point at off.
func (s *surface) toClientFixed(body []byte, off int) {
	if s.shifted() {
		add(body, off, s.dx<<8)
		add(body, off+4, s.dy<<8)
	}
}

func add(body []byte, off int, n int32) {
	wayland.PutWord(body, off, uint32(sum(int32(wayland.Word(body, off)), n)))
}

// onDamage is wl_surface.damage, which is in surface coordinates; for what may come
// first of a frame, see onMuchDamage.
func onDamage(most uint32) relay.Hook {
	return func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if m.Obj.Count++; m.Obj.Count > most {
			return onMuchDamage(c, m)
		}
		if s := surfaceOf(m.Obj); s.shifted() {
			// A place that saturates keeps its far end.
			if m.Int(2) != math.MaxInt32 {
				s.toServer(m.Body, 0)
			}
		}
		return true, nil
	}
}
