package filter

import (
	"errors"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// The layers of the filter's hooks, in the order in which they see a message. The
// layers read the model of surfaces (package surface) and do not know one another:
//
//	count       the limits: objects, rectangles (quota.go)
//	selections  clipboard and drags; who has the keyboard (package clipboard)
//	surfaces    the model, and its effect on the compositor (view.go, show.go)
//	frame       input on the frame is the host's (input.go)
//	focus       which serials the client was given, and for what (focus.go)
const (
	layerCount = iota
	layerSelections
	layerSurfaces
	layerFrame
	layerFocus
)

// A view is a wl_surface of the client's: the model, and the compositor's state of it.
// The model keeps a client's requests until they take effect; then show.go writes the
// difference between the two.
type view struct {
	*surface.Surface
	id    uint32        // its id on the compositor; 0 after it is destroyed
	sub   *relay.Object // its wl_subsurface, or nil
	holds bufferHolds   // the memory that it keeps alive (shm.go)

	port   *relay.Object // our wp_viewport, nil before anything is shown
	client *relay.Object // the client's own wp_viewport, which the compositor does not know
	remote remote
	// crop is the shown part, in the client's coordinates. The compositor's surface begins
	// at its corner:
	//
	//	client's coordinates = compositor's coordinates + (crop.X, crop.Y)
	crop          box
	input, opaque region

	shell  *shell  // set for a window or a popup
	border *border // the frame around it
	image  *sprite // set for a pointer's image or a drag's icon
}

// remote is a surface's state on the compositor, by our last requests.
type remote struct {
	mapped    bool // it has content
	hidden    bool // we took its content away
	transform int32
	src       box // 24.8 fixed point; W is 0 without a source
	w, h      int32
	at        surface.Point // the place in the parent
	placed    bool          // at was sent
}

// A region is what the filter knows of the input or opaque region of a surface.
type region struct {
	some    bool // it is neither the default nor empty
	pending bool // the client has set it since the last shift
}

type box = surface.Box

func rect(x, y, w, h int32) box { return box{X: x, Y: y, W: w, H: h} }

// sum returns a + b, saturated.
func sum(a, b int32) int32 { return surface.Sum(a, b) }

func clamp(v, low, high int32) int32 { return min(max(v, low), high) }

func viewOf(o *relay.Object) *view { return o.Data.(*view) }

// of returns the view of one of the model's surfaces.
func of(s *surface.Surface) *view { return s.Data.(*view) }

// viewArg returns the surface that a request's argument names, or nil.
func viewArg(c *relay.Conn, id uint32) *view {
	if o := c.Client(id); o != nil && o.Iface == wayland.WlSurface && o.Server != 0 {
		return viewOf(o)
	}
	return nil
}

// mistake turns the model's error into a protocol error of the client.
func mistake(o *relay.Object, err error) error {
	var e *surface.Error
	if errors.As(err, &e) {
		return relay.Fail(o, e.Code, "%s", e.Text)
	}
	return err
}

func viewHooks(l relay.Layer) {
	l.Request(wayland.WlCompositor, wayland.WlCompositorReqCreateSurface, onCreateSurface)
	l.Gone(wayland.WlSurface, onSurfaceGone)
	on := func(op int, f func(c *relay.Conn, v *view, m *relay.Msg) error) {
		l.Request(wayland.WlSurface, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			return false, mistake(m.Obj, f(c, viewOf(m.Obj), m))
		})
	}
	on(wayland.WlSurfaceReqAttach, onAttach)
	on(wayland.WlSurfaceReqCommit, onCommit)
	on(wayland.WlSurfaceReqOffset, func(_ *relay.Conn, v *view, m *relay.Msg) error {
		v.Move(m.Int(0), m.Int(1))
		return nil
	})
	on(wayland.WlSurfaceReqSetBufferScale, func(_ *relay.Conn, v *view, m *relay.Msg) error { return v.SetScale(m.Int(0)) })
	on(wayland.WlSurfaceReqSetBufferTransform, func(_ *relay.Conn, v *view, m *relay.Msg) error { return v.SetTransform(m.Int(0)) })
	on(wayland.WlSurfaceReqDamage, func(_ *relay.Conn, v *view, m *relay.Msg) error {
		v.Damage(rect(m.Int(0), m.Int(1), m.Int(2), m.Int(3)))
		return nil
	})
	on(wayland.WlSurfaceReqDamageBuffer, func(_ *relay.Conn, v *view, m *relay.Msg) error {
		v.DamageBuffer(rect(m.Int(0), m.Int(1), m.Int(2), m.Int(3)))
		return nil
	})
	l.Request(wayland.WlSurface, wayland.WlSurfaceReqSetInputRegion, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		viewOf(m.Obj).input.set(c, m)
		return true, nil
	})
	l.Request(wayland.WlSurface, wayland.WlSurfaceReqSetOpaqueRegion, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		viewOf(m.Obj).opaque.set(c, m)
		return true, nil
	})
	l.Request(wayland.WlSurface, wayland.WlSurfaceReqDestroy, onSurfaceDestroy)
	portHooks(l)
	subHooks(l)
}

// set stores a region; Object.Count tells whether it has rectangles. A region with too
// many becomes the default: all takes input, nothing is opaque.
func (r *region) set(c *relay.Conn, m *relay.Msg) {
	o := c.Client(m.Word(0))
	if o != nil {
		if r, ok := o.Data.(*regionData); ok && r.many {
			wayland.PutWord(m.Body, 0, 0)
			o = nil
		}
	}
	*r = region{some: o != nil && o.Count > 0, pending: true}
}

func onCreateSurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	if err := filterOf(c).take(m.Obj, display.Surfaces, 1); err != nil {
		return false, err
	}
	st := stateOf(c)
	if st.onFree == nil {
		st.onFree = func(b *surface.Buffer) { onBufferFree(c, b.Data.(*buffer)) }
	}
	v := &view{Surface: surface.New(st.onFree)}
	v.Surface.Data = v
	m.New.Data = v
	c.GiveServerID(m.New)
	v.id = m.New.Server
	return true, nil
}

func onSurfaceGone(c *relay.Conn, o *relay.Object) {
	v, ok := o.Data.(*view)
	if !ok {
		return
	}
	v.Destroy()
	f := filterOf(c)
	f.give(display.Surfaces, 1)
	v.holds.gone(f)
	if p := v.popup(); p != nil {
		f.popups.leave(p)
	}
}

func onAttach(c *relay.Conn, v *view, m *relay.Msg) error {
	if x, y := m.Int(1), m.Int(2); x != 0 || y != 0 {
		if m.Obj.Version >= 5 {
			return relay.Fail(m.Obj, surface.ErrInvalidOffset, "wl_surface.attach: an offset, which version 5 has no more")
		}
		v.Move(x, y)
	}
	id := m.Word(0)
	if id == 0 {
		v.Attach(nil)
		return nil
	}
	o := c.Client(id)
	if o == nil || o.Iface != wayland.WlBuffer {
		return relay.Fail(m.Obj, relay.ErrInvalidObject, "wl_surface.attach: invalid object %d", id)
	}
	b, ok := o.Data.(*buffer)
	if !ok {
		return relay.Fail(m.Obj, relay.ErrImplementation, "a buffer of unknown size")
	}
	v.Attach(&b.Buffer)
	return nil
}

// onCommit makes what was asked for take effect, or wait, and shows what does.
func onCommit(c *relay.Conn, v *view, m *relay.Msg) error {
	if s := v.shell; s != nil && s.hasRole() && v.Attaches() && !s.acked && !v.Acks() {
		return relay.Fail(m.Obj, errXdgUnconfigured, "content before the first configure event")
	}
	effective, err := v.Commit()
	if err != nil || !effective {
		return err
	}
	return framesOf(c).show(c, of(v.Top()))
}

// onSurfaceDestroy destroys everything that depends on a surface first, in the order
// that a compositor requires.
func onSurfaceDestroy(c *relay.Conn, m *relay.Msg) (bool, error) {
	v, f := viewOf(m.Obj), framesOf(c)
	if s := v.shell; s != nil {
		f.endRole(c, s)
		f.endShell(c, s)
	}
	f.unshow(c, v)
	f.unframe(c, v)
	st := stateOf(c)
	delete(st.images, v)
	st.forgetFocus(v)
	kids, _ := v.Children()
	for _, k := range kids {
		f.unshow(c, of(k))
	}
	v.Destroy()
	if v.port != nil {
		c.Discard(v.port, wayland.WpViewportReqDestroy)
		v.port = nil
	}
	v.id = 0
	return true, nil
}

// dropObject destroys an object of the client's on the compositor. The client keeps its
// own.
func dropObject(c *relay.Conn, o *relay.Object, op uint16) {
	if o.Server != 0 && !o.Dead {
		k := c.Keep(o)
		c.Discard(k, op)
	}
}

// portHooks keep the client's wp_viewports from the compositor, which knows only ours.
func portHooks(l relay.Layer) {
	const errExists, errNoSurface = 0, 3
	l.Request(wayland.WpViewporter, wayland.WpViewporterReqGetViewport, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		v := viewArg(c, m.Word(1))
		switch {
		case v == nil:
			return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "wp_viewporter.get_viewport: invalid surface")
		case v.client != nil:
			return false, relay.Fail(m.Obj, errExists, "the surface has a viewport")
		}
		v.client = m.New
		m.New.Data = v
		return false, nil
	})
	on := func(op int, f func(v *view, m *relay.Msg) error) {
		l.Request(wayland.WpViewport, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
			v := m.Obj.Data.(*view)
			if v.Surface.Gone() {
				return false, relay.Fail(m.Obj, errNoSurface, "the viewport's surface is gone")
			}
			return false, mistake(m.Obj, f(v, m))
		})
	}
	on(wayland.WpViewportReqSetSource, func(v *view, m *relay.Msg) error {
		return v.SetSource(rect(m.Int(0), m.Int(1), m.Int(2), m.Int(3)))
	})
	on(wayland.WpViewportReqSetDestination, func(v *view, m *relay.Msg) error { return v.SetDestination(m.Int(0), m.Int(1)) })
	l.Request(wayland.WpViewport, wayland.WpViewportReqDestroy, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if v := m.Obj.Data.(*view); v.client == m.Obj {
			v.client = nil
			v.DropViewport()
		}
		return false, nil
	})
}

// subHooks follow the tree. On the compositor every sub-surface stays synchronised: the
// filter writes the changes of the whole window, and one commit of its root shows them.
func subHooks(l relay.Layer) {
	l.Request(wayland.WlSubcompositor, wayland.WlSubcompositorReqGetSubsurface, onGetSubsurface)
	on := func(op int, f func(c *relay.Conn, v *view, m *relay.Msg) (bool, error)) {
		l.Request(wayland.WlSubsurface, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			v, ok := m.Obj.Data.(*view)
			if !ok || v.sub != m.Obj {
				return false, nil // its surface or its parent is gone
			}
			pass, err := f(c, v, m)
			return pass, mistake(m.Obj, err)
		})
	}
	on(wayland.WlSubsurfaceReqSetPosition, func(_ *relay.Conn, v *view, m *relay.Msg) (bool, error) {
		v.SetPosition(m.Int(0), m.Int(1))
		return false, nil
	})
	for op, above := range map[int]bool{wayland.WlSubsurfaceReqPlaceAbove: true, wayland.WlSubsurfaceReqPlaceBelow: false} {
		on(op, func(c *relay.Conn, v *view, m *relay.Msg) (bool, error) {
			other := viewArg(c, m.Word(0))
			if other == nil {
				return false, relay.Fail(m.Obj, surface.ErrBadSurface, "neither a sibling nor the parent of the sub-surface")
			}
			return true, v.Place(other.Surface, above)
		})
	}
	for op, sync := range map[int]bool{wayland.WlSubsurfaceReqSetSync: true, wayland.WlSubsurfaceReqSetDesync: false} {
		on(op, func(c *relay.Conn, v *view, _ *relay.Msg) (bool, error) {
			effective, err := v.SetSync(sync)
			if effective && err == nil {
				err = framesOf(c).show(c, of(v.Top()))
			}
			return false, err
		})
	}
	on(wayland.WlSubsurfaceReqDestroy, func(c *relay.Conn, v *view, _ *relay.Msg) (bool, error) {
		framesOf(c).unshow(c, v)
		return false, v.Detach()
	})
}

// onGetSubsurface makes a sub-surface, below the frame of its parent.
func onGetSubsurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	v, parent := viewArg(c, m.Word(1)), viewArg(c, m.Word(2))
	if v == nil || parent == nil {
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "wl_subcompositor.get_subsurface: invalid surface")
	}
	if v.shell != nil || v.sub != nil {
		return false, relay.Fail(m.Obj, surface.ErrBadSurface, "the surface has a role object already")
	}
	if err := v.AddTo(parent.Surface); err != nil {
		return false, mistake(m.Obj, err)
	}
	v.sub = m.New
	m.New.Data = v
	c.GiveServerID(m.New)
	v.remote.placed = false
	e := c.ToServer()
	e.Msg(m.Obj.Server, wayland.WlSubcompositorReqGetSubsurface, m.New.Server, v.id, parent.id)
	if p := parent.border.lowest(); p != nil {
		e.Msg(m.New.Server, wayland.WlSubsurfaceReqPlaceBelow, p.surface.Server)
	}
	return false, nil
}
