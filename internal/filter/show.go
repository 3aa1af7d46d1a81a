package filter

import (
	"math"

	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// Showing: the filter sends the compositor what takes effect in the model.
//
// The flow, for the surface at the top of a tree:
//
//  1. its role (a window, a popup, an image) decides which part of it is shown;
//     everything below it is cut to the same part (arrange)
//  2. each surface's difference from its state on the compositor is written
//     (present), and committed; all sub-surfaces wait for the root
//  3. the frame is placed around it, and the geometry sent
//  4. the root is committed, which shows everything at once
//
// Each shown surface has a viewport of ours, with a destination: so its size on the
// screen is the one written here, whatever its buffer is.

// show makes the compositor show the model's tree of r.
func (f *frames) show(c *relay.Conn, r *view) error {
	defer stateOf(c).bury(c)
	switch r.Role {
	case surface.Toplevel:
		return f.showWindow(c, r)
	case surface.Popup:
		return f.showPopup(c, r)
	case surface.Cursor, surface.Icon:
		return f.showImage(c, r)
	default:
		return nil // without a role it waits in the model
	}
}

// commit writes a commit and counts it for the VM.
func (f *frames) commit(c *relay.Conn, id uint32) {
	stateOf(c).countCommit(c)
	c.ToServer().Msg(id, wayland.WlSurfaceReqCommit)
}

// arrange shows the sub-surfaces of p, cut to area, a box in p's coordinates. The
// compositor's surface of p begins at origin. With on unset it hides them. It tells
// whether p must be committed.
func (f *frames) arrange(c *relay.Conn, p *view, area box, origin surface.Point, on bool) (changed bool, err error) {
	kids, _ := p.Children()
	for _, s := range kids {
		at, settled := s.At()
		if !settled || of(s).sub == nil {
			continue
		}
		did, err := f.arrangeOne(c, of(s), at, area, origin, on)
		if err != nil {
			return false, err
		}
		changed = changed || did
	}
	return changed, nil
}

func (f *frames) arrangeOne(c *relay.Conn, v *view, at surface.Point, area box, origin surface.Point, on bool) (changed bool, err error) {
	inside := area.Moved(-at.X, -at.Y)
	w, h := v.Current.Size()
	crop := rect(0, 0, w, h).Intersect(inside)
	on = on && w > 0 && !crop.Empty() && v.showable()
	below, err := f.arrange(c, v, inside, surface.Point{X: crop.X, Y: crop.Y}, on)
	if err != nil {
		return false, err
	}
	wrote, err := f.present(c, v, crop, on)
	if err != nil {
		return false, err
	}
	if wrote || below || v.Applied {
		v.Applied = false
		f.commit(c, v.id)
		changed = true
	}
	if on {
		to := surface.Point{X: at.X + crop.X - origin.X, Y: at.Y + crop.Y - origin.Y}
		if !v.remote.placed || v.remote.at != to {
			v.remote.at, v.remote.placed = to, true
			c.ToServer().Msg(v.sub.Server, wayland.WlSubsurfaceReqSetPosition, uint32(to.X), uint32(to.Y))
			changed = true
		}
	}
	return changed, nil
}

// showable tells whether the content's buffer still exists.
func (v *view) showable() bool {
	b := v.Current.Buffer
	return b != nil && (v.Shown() && v.remote.mapped || !b.Data.(*buffer).lost)
}

// present writes the changes of one surface, of which it shows crop. The caller commits.
func (f *frames) present(c *relay.Conn, v *view, crop box, on bool) (wrote bool, err error) {
	if !on {
		v.Current.Damage.Reset()
		return f.hideContent(c, v)
	}
	e := c.ToServer()
	fresh := !v.remote.mapped
	if !v.Shown() || fresh {
		if err := f.attach(c, v, 0, 0); err != nil {
			return false, err
		}
		wrote = true
	}
	other := f.frameBuffer(c, v, crop)
	wrote = wrote || other
	d := &v.Current.Damage
	damaged := len(d.Surface) > 0 || len(d.Buffer) > 0
	switch {
	// The client has not damaged what was hidden until now; and not every compositor takes
	// another part of the buffer for damage.
	case d.All, fresh && (v.remote.hidden || !damaged), other && !fresh, v.image != nil && damaged:
		e.Msg(v.id, wayland.WlSurfaceReqDamage, 0, 0, math.MaxInt32, math.MaxInt32)
		wrote = true
	default:
		for _, b := range d.Surface {
			if b.W != math.MaxInt32 { // a place that saturates keeps its far end
				b.X, b.Y = sum(b.X, -crop.X), sum(b.Y, -crop.Y)
			}
			e.Msg(v.id, wayland.WlSurfaceReqDamage, uint32(b.X), uint32(b.Y), uint32(b.W), uint32(b.H))
			wrote = true
		}
		for _, b := range d.Buffer {
			e.Msg(v.id, wayland.WlSurfaceReqDamageBuffer, uint32(b.X), uint32(b.Y), uint32(b.W), uint32(b.H))
			wrote = true
		}
	}
	d.Reset()
	v.remote.hidden = false
	wrote = v.shift(c, crop) || wrote
	return wrote, nil
}

// attach writes the current content.
func (f *frames) attach(c *relay.Conn, v *view, x, y int32) error {
	b := v.Current.Buffer.Data.(*buffer)
	flt := filterOf(c)
	v.holds.attach(flt, b)
	if err := v.holds.commit(flt, c.Server(v.id)); err != nil {
		return err
	}
	c.ToServer().Msg(v.id, wayland.WlSurfaceReqAttach, b.obj.Server, uint32(x), uint32(y))
	b.busy = true
	v.remote.mapped = true
	v.MarkWritten()
	return nil
}

// hideContent takes a surface's content off the screen.
func (f *frames) hideContent(c *relay.Conn, v *view) (wrote bool, err error) {
	if !v.remote.mapped {
		return false, nil
	}
	v.remote.mapped, v.remote.hidden = false, true
	v.MarkHidden()
	flt := filterOf(c)
	v.holds.attach(flt, nil)
	c.ToServer().Msg(v.id, wayland.WlSurfaceReqAttach, 0, 0, 0)
	return true, v.holds.commit(flt, c.Server(v.id))
}

// unshow removes a sub-surface from its parent on the compositor, with its content.
func (f *frames) unshow(c *relay.Conn, v *view) {
	if v.sub == nil {
		return
	}
	dropObject(c, v.sub, wayland.WlSubsurfaceReqDestroy)
	v.sub = nil
	if wrote, _ := f.hideContent(c, v); wrote { // hiding takes no memory, and so cannot fail
		f.commit(c, v.id)
	}
}

// frameBuffer sends which part of the buffer is shown, and how large.
func (f *frames) frameBuffer(c *relay.Conn, v *view, crop box) (wrote bool) {
	e := c.ToServer()
	if t := v.Current.Transform; t != v.remote.transform {
		v.remote.transform, wrote = t, true
		e.Msg(v.id, wayland.WlSurfaceReqSetBufferTransform, uint32(t))
	}
	src := v.source(crop)
	if v.port == nil {
		if f.viewporter == nil {
			return wrote
		}
		v.port = c.Own(wayland.WpViewport, f.viewporter.Version, nil)
		e.Msg(f.viewporter.Server, wayland.WpViewporterReqGetViewport, v.port.Server, v.id)
		v.remote.w, v.remote.src = 0, box{}
	}
	if src != v.remote.src {
		v.remote.src, wrote = src, true
		s := [4]uint32{uint32(src.X), uint32(src.Y), uint32(src.W), uint32(src.H)}
		if src.W == 0 {
			const unset = math.MaxUint32 - 255 // -1 in fixed point
			s = [4]uint32{unset, unset, unset, unset}
		}
		e.Msg(v.port.Server, wayland.WpViewportReqSetSource, s[0], s[1], s[2], s[3])
	}
	w, h := crop.W, crop.H
	if v.image != nil {
		w, h = v.image.w, v.image.h
	}
	if v.remote.w != w || v.remote.h != h {
		v.remote.w, v.remote.h, wrote = w, h, true
		e.Msg(v.port.Server, wayland.WpViewportReqSetDestination, uint32(w), uint32(h))
	}
	return wrote
}

// source returns the part of the buffer that crop shows, in its pixels and 24.8 fixed
// point; W is 0 for the whole buffer.
func (v *view) source(crop box) box {
	w, h := v.Current.Size()
	part := v.Current.Part()
	all := v.Current.Source.W == 0
	if crop == rect(0, 0, w, h) {
		if all {
			return box{}
		}
		return part
	}
	// Edges lie on whole pixels of the buffer, unless the client stretches it itself.
	edge := func(whole, n, of int32) int32 {
		p := float64(whole) * float64(n) / float64(of)
		if all {
			p = math.Round(p/256) * 256
		}
		return int32(math.Floor(min(p, float64(whole))))
	}
	side := func(whole, from, n, of int32) (at, length int32) {
		at = min(edge(whole, from, of), whole-1)
		return at, max(edge(whole, from+n, of)-at, 1)
	}
	x, sw := side(part.W, crop.X, crop.W, w)
	y, sh := side(part.H, crop.Y, crop.H, h)
	return rect(part.X+x, part.Y+y, sw, sh)
}

// shift stores the shown part of a surface, which the translation of places depends on.
// Regions are not worth translating: the whole shown part of a shifted surface takes
// input, unless none of it does, and none of it counts as opaque.
func (v *view) shift(c *relay.Conn, crop box) (wrote bool) {
	moved := v.crop.X != crop.X || v.crop.Y != crop.Y
	v.crop = crop
	if moved {
		for o, p := range stateOf(c).pointers {
			if p.focus == v {
				p.frameDue = true // the client gets the frame event of the next motion
				p.wake(o)
			}
		}
	}
	for _, r := range []struct {
		*region
		op uint16
	}{{&v.input, wayland.WlSurfaceReqSetInputRegion}, {&v.opaque, wayland.WlSurfaceReqSetOpaqueRegion}} {
		if v.shifted() && r.some && (moved || r.pending) {
			c.ToServer().Msg(v.id, r.op, 0)
			wrote = true
		}
		r.pending = false
	}
	return wrote
}

func (v *view) shifted() bool { return v != nil && (v.crop.X != 0 || v.crop.Y != 0) }

// toClientFixed translates a place in an event, two words of 24.8 fixed point at off.
func (v *view) toClientFixed(body []byte, off int) {
	if v.shifted() {
		add(body, off, v.crop.X<<8)
		add(body, off+4, v.crop.Y<<8)
	}
}

func add(body []byte, off int, n int32) {
	wayland.PutWord(body, off, uint32(sum(int32(wayland.Word(body, off)), n)))
}
