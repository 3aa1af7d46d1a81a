package filter

import (
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// Images that follow the pointer: its own, and a drag's icon. They are the only content
// of a guest outside its windows, and so they are small and contain the pointer. A
// larger image is scaled down. A frame around it would not always be visible, because
// Mutter shows no sub-surfaces of a drag's icon.
//
// The protocols let a client choose where the pointer is in its image, with numbers of
// any size, and move it with each frame. The filter clamps the place to the image.

// maxImage is the largest side of an image, in logical pixels.
const maxImage = 64

// A sprite is what the filter knows of a surface that follows the pointer.
type sprite struct {
	w, h int32 // the shown size, 0 before
	// hot is the client's place of the pointer in the image, in its own coordinates.
	hot surface.Point

	// of is the pointer or tool that shows the image, by the last valid set_cursor, with
	// its serial; nil for an icon.
	of       *relay.Object
	op       uint16
	serial   uint32
	spotSent surface.Point // where the compositor has the pointer in the image
}

// showImage shows an image, small enough and with the pointer in it.
func (f *frames) showImage(c *relay.Conn, v *view) error {
	g := v.image
	if g == nil {
		return nil
	}
	applied := v.Applied
	v.Applied = false
	moved := v.Current.Moved
	v.Current.Moved = surface.Point{}
	g.hot = surface.Point{X: sum(g.hot.X, -moved.X), Y: sum(g.hot.Y, -moved.Y)}
	w, h := v.Current.Size()
	if w == 0 || !v.showable() {
		wrote, err := f.hideContent(c, v)
		if wrote {
			f.commit(c, v.id)
		}
		return err
	}
	if f.viewporter == nil {
		return nil // the compositor's globals are not known yet; images wait for a window
	}
	old := *g
	g.w, g.h = fitInto(w, h, maxImage)
	at := g.spot(w, h)
	if old.w > 0 {
		g.point(c, v, surface.Point{X: min(at.X, old.w-1), Y: min(at.Y, old.h-1)})
	}
	wrote, err := f.present(c, v, rect(0, 0, w, h), true)
	if err == nil && v.Role == surface.Icon {
		var placed bool
		placed, err = f.placeIcon(c, v, at)
		wrote = wrote || placed
	}
	if err != nil {
		return err
	}
	if wrote || applied {
		f.commit(c, v.id)
	}
	g.point(c, v, at)
	return nil
}

// fitInto returns w×h scaled down in proportion until both are at most n.
func fitInto(w, h, n int32) (int32, int32) {
	if long := int64(max(w, h)); long > int64(n) {
		w, h = max(int32(int64(w)*int64(n)/long), 1), max(int32(int64(h)*int64(n)/long), 1)
	}
	return w, h
}

// spot returns the pointer's place in the shown image, for an image of w×h from the
// client.
func (g *sprite) spot(w, h int32) surface.Point {
	in := func(hot, shown, drawn int32) int32 {
		return clamp(int32(int64(hot)*int64(shown)/int64(drawn)), 0, shown-1)
	}
	return surface.Point{X: in(g.hot.X, g.w, w), Y: in(g.hot.Y, g.h, h)}
}

// point tells the compositor where the pointer is in its image.
func (g *sprite) point(c *relay.Conn, v *view, at surface.Point) {
	if g.of == nil || g.spotSent == at || !stateOf(c).hasGrant(&need{of: pointerIn | toolIn, lasts: true}, g.serial, nil) {
		return
	}
	g.spotSent = at
	c.ToServer().Msg(g.of.Server, g.op, g.serial, v.id, uint32(at.X), uint32(at.Y))
}

// placeIcon moves a drag's icon so that the pointer is in it.
func (f *frames) placeIcon(c *relay.Conn, v *view, at surface.Point) (wrote bool, err error) {
	g := v.image
	if d := (surface.Point{X: g.spotSent.X - at.X, Y: g.spotSent.Y - at.Y}); d != (surface.Point{}) {
		g.spotSent = at
		if c.Server(v.id).Version >= 5 {
			c.ToServer().Msg(v.id, wayland.WlSurfaceReqOffset, uint32(d.X), uint32(d.Y))
		} else if err := f.attach(c, v, d.X, d.Y); err != nil {
			return false, err
		}
		wrote = true
	}
	return wrote, nil
}

// onSetCursor gives the pointer or a tool an image while it is on the client.
func onSetCursor(c *relay.Conn, m *relay.Msg) (bool, error) {
	st := stateOf(c)
	id, serial := m.Word(1), m.Word(0)
	if id == 0 {
		return st.may(c, m, serial, nil), nil
	}
	v := viewArg(c, id)
	const errRole = 0
	switch {
	case v == nil:
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "%s.set_cursor: invalid surface", m.Obj.Iface.Name)
	case v.shell != nil || v.sub != nil:
		return false, relay.Fail(m.Obj, errRole, "the surface is %s already", v.Role)
	}
	if kids, _ := v.Children(); len(kids) > 0 {
		return false, relay.Fail(m.Obj, errRole, "a pointer's image with sub-surfaces")
	}
	if err := v.SetRole(surface.Cursor, errRole); err != nil {
		return false, mistake(m.Obj, err)
	}
	if !st.may(c, m, serial, nil) {
		return false, nil
	}
	if v.image == nil {
		v.image = &sprite{}
	}
	g := v.image
	st.images[v] = struct{}{}
	v.Current.Moved = surface.Point{}
	g.of, g.op, g.serial = m.Obj, uint16(opOf(m)), serial
	g.hot = surface.Point{X: clamp(m.Int(2), -maxPlace, maxPlace), Y: clamp(m.Int(3), -maxPlace, maxPlace)}
	g.spotSent = surface.Point{X: -1, Y: -1} // nothing with this serial
	st.frames.ask(c)
	if err := st.frames.show(c, v); err != nil {
		return false, err
	}
	if g.spotSent.X < 0 { // it has nothing to show yet
		g.point(c, v, surface.Point{})
	}
	return false, nil
}

// opOf returns a request's number.
func opOf(m *relay.Msg) int {
	for op := range m.Obj.Iface.Requests {
		if &m.Obj.Iface.Requests[op] == m.Def {
			return op
		}
	}
	return -1
}

// forgetImages detaches all images from a pointer or tool that is gone.
func (st *state) forgetImages(o *relay.Object) {
	for v := range st.images {
		if v.image.of == o {
			v.image.of = nil
		}
	}
}

// dragIcon is clipboard.Env.Icon. A drag goes on without its icon.
func dragIcon(c *relay.Conn, id uint32) bool {
	f, v := framesOf(c), viewArg(c, id)
	if v == nil || v.shell != nil || v.sub != nil {
		return false
	}
	if kids, _ := v.Children(); len(kids) > 0 {
		return false
	}
	if v.SetRole(surface.Icon, 0) != nil {
		return false
	}
	// The compositor puts the icon's corner at the pointer when a drag begins.
	v.image = &sprite{}
	v.Current.Moved = surface.Point{}
	return f.show(c, v) == nil
}
