package filter

import (
	"errors"
	"math"
	"slices"

	"vix/config"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// A window is what the filter knows of an xdg_toplevel.
type window struct {
	id           uint64
	title, appID string
	shown        bool // content was committed, and the Event sent

	surface *surface
	top     uint32 // the compositor's id of the xdg_toplevel; 0 when it is destroyed
	// next is what the compositor has said since its last xdg_surface.configure,
	// sent what the client was told and has not acknowledged yet, now what holds.
	next, now configured
	sent      []configured
}

// A configured is one configure sequence of a window, with the frame.
type configured struct {
	serial uint32
	w, h   int32 // 0: as the client likes
	// fixed is set where the window may not be larger: it is maximised, fullscreen
	// or tiled by the compositor.
	fixed bool
}

// maxSent bounds the configure events that a client leaves unanswered.
const maxSent = 64

// A role is what a surface is for.
type role uint8

const (
	roleNone role = iota
	roleToplevel
	rolePopup
	roleChild  // a wl_subsurface
	roleCursor // of a pointer or a tool
	roleIcon   // of a drag
)

// A surface is what the filter knows of a wl_surface.
type surface struct {
	window   *window // set when it is a toplevel's
	attached bool    // a buffer is pending
	replaced bool    // an attach, of a buffer or none, is pending: for held
	held     held    // what it keeps of memory (shm.go)

	// What follows serves the frame. What requests set holds from the next commit,
	// which is when it is looked at.
	changed   bool // something that the frame depends on
	id        uint32
	role      role
	bufW      int32 // of the buffer attached last, 0 without one
	bufH      int32
	scale     int32 // wl_surface.set_buffer_scale, 0 and 1 alike
	transform int32
	src       [4]int32 // wp_viewport's, 24.8 fixed point; all 0 or -256 without
	dst       [2]int32 // 0 or -1 without
	viewport  uint32   // the client's wp_viewport on the compositor
	crop      *relay.Object
	cropped   bool

	base     uint32 // the xdg_wm_base on the compositor
	xdg      uint32 // the xdg_surface on the compositor
	declared box    // the geometry that the client declares; w is 0 without
	told     box    // and the one that the compositor was told
	// visible is the part of a window that is shown, in the client's coordinates,
	// area the same in the compositor's: what the client keeps to the left and above
	// of its geometry is cut off, and so the two differ by dx, dy (see shift).
	visible, area box
	dx, dy        int32
	input, opaque region
	border        *border

	popup    *popup
	sub      *child
	children []*surface
}

func windowHooks(h *relay.Hooks) {
	h.Request(wayland.XdgWmBase, wayland.XdgWmBaseReqGetXdgSurface, onGetXdgSurface)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqAttach, onAttach)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqCommit, onCommit)
	h.Gone(wayland.XdgToplevel, onToplevelGone)
}

func surfaceOf(o *relay.Object) *surface {
	s, ok := o.Data.(*surface)
	if !ok {
		s = &surface{}
		o.Data = s
	}
	return s
}

// surfaceArg returns the surface that a request's argument names, or nil.
func surfaceArg(c *relay.Conn, id uint32) *surface {
	if o := c.Client(id); o != nil && o.Iface == wayland.WlSurface && o.Server != 0 {
		s := surfaceOf(o)
		s.id = o.Server
		return s
	}
	return nil
}

// windowOf returns the toplevel's window, made by onGetToplevel.
func windowOf(o *relay.Object) *window { return o.Data.(*window) }

// onGetXdgSurface notes which surface an xdg_surface stands for.
func onGetXdgSurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceArg(c, m.Word(1))
	if s == nil {
		return true, nil
	}
	m.New.Data = s
	if f := framesOf(c); f != nil {
		f.ask(c)
		c.GiveServerID(m.New)
		s.base, s.xdg = m.Obj.Server, m.New.Server
		s.declared, s.told = box{}, box{}
	}
	return true, nil
}

// newWindow makes the window of a get_toplevel request. It writes the request
// itself, so that nothing comes between it and the window's identity.
func newWindow(c *relay.Conn, m *relay.Msg) error {
	f := filterOf(c)
	if err := f.take(m.Obj, Toplevels, 1); err != nil {
		return err
	}
	c.State.(*state).countOpen(c)
	w := &window{id: f.windows.Add(1), title: Title(f.cfg.Tag, ""), appID: config.AppID(f.cfg.VM, "")}
	m.New.Data = w
	c.GiveServerID(m.New)
	if s, ok := m.Obj.Data.(*surface); ok {
		s.window = w
		s.role, s.changed = roleToplevel, framesOf(c) != nil
		w.surface, w.top = s, m.New.Server
	}
	c.ToServer().Msg(m.Obj.Server, wayland.XdgSurfaceReqGetToplevel, m.New.Server)
	return errors.Join(
		setString(c, m.New, wayland.XdgToplevelReqSetTitle, w.title),
		setString(c, m.New, wayland.XdgToplevelReqSetAppId, w.appID))
}

func onAttach(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceOf(m.Obj)
	s.attached, s.replaced = m.Word(0) != 0, true
	var b *buffer
	if o := c.Client(m.Word(0)); o != nil {
		b, _ = o.Data.(*buffer)
	}
	s.held.attach(filterOf(c), b)
	if framesOf(c) != nil {
		return true, s.attach(c, m)
	}
	return true, nil
}

// onCommit tells of a window when it first gets content.
func onCommit(c *relay.Conn, m *relay.Msg) (bool, error) {
	st := c.State.(*state)
	st.countCommit(c)
	s := surfaceOf(m.Obj)
	if s.replaced {
		s.replaced = false
		if err := s.held.commit(filterOf(c), m.Obj); err != nil {
			return false, err
		}
	}
	s.damageAll(c, m.Obj)
	if s.changed {
		if err := st.frames.commit(c, s, m.Obj); err != nil {
			return false, err
		}
	}
	if s.attached && s.window != nil && !s.window.shown {
		s.window.shown = true
		if err := framesOf(c).activate(c, m.Obj); err != nil {
			return false, err
		}
		tell(c, Event{Event: "window", ID: s.window.id, Title: s.window.title, AppID: s.window.appID})
	}
	s.attached = false
	return true, nil
}

func onToplevelGone(c *relay.Conn, o *relay.Object) {
	w, ok := o.Data.(*window)
	if !ok {
		return
	}
	filterOf(c).give(Toplevels, 1)
	if w.shown {
		w.shown = false
		tell(c, Event{Event: "window-closed", ID: w.id})
	}
}

func tell(c *relay.Conn, e Event) {
	if f := filterOf(c); f.cfg.Event != nil {
		f.cfg.Event(e)
	}
}

// toplevelHooks correct what the two sides tell each other of a window's size.
func toplevelHooks(h *relay.Hooks) {
	h.Event(wayland.XdgToplevel, wayland.XdgToplevelEvtConfigure, onConfigure)
	h.Event(wayland.XdgToplevel, wayland.XdgToplevelEvtConfigureBounds, onBounds)
	h.Event(wayland.XdgSurface, wayland.XdgSurfaceEvtConfigure, onSerial)
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqAckConfigure, onAck)
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqSetWindowGeometry, onGeometryRequest)
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqDestroy, onXdgSurfaceDestroy)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqDestroy, onToplevelDestroy)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetMinSize, onSizeHint)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetMaxSize, onSizeHint)
	h.Request(wayland.XdgToplevel, wayland.XdgToplevelReqShowWindowMenu, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if s := windowOf(m.Obj).surface; s != nil {
			s.toServer(m.Body, 8)
		}
		return true, nil
	})
}

// States of xdg_toplevel.configure (xdg-shell.xml).
const (
	stateMaximized  = 1
	stateFullscreen = 2
	stateTiledLeft  = 5 // right, top and bottom follow; since version 2
)

// onConfigure tells the client the size without the frame, and that it is tiled on
// all sides: then it draws no shadow, which would be outside its window but inside
// the frame.
func onConfigure(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, w := framesOf(c), windowOf(m.Obj)
	d := wayland.NewDecoder(m.Body)
	w.next = configured{w: d.Int(), h: d.Int()}
	states := d.Array()
	var tiled [4]bool
	for b := states; len(b) >= 4; b = b[4:] {
		switch v := wayland.Word(b, 0); {
		case v == stateMaximized, v == stateFullscreen:
			w.next.fixed = true
		case v >= stateTiledLeft && v < stateTiledLeft+4:
			tiled[v-stateTiledLeft] = true
		}
	}
	if tiled == [4]bool{true, true, true, true} {
		w.next.fixed = true
	}
	states = slices.Clone(states)
	for k, is := range tiled {
		if !is && m.Obj.Version >= 2 {
			states = append(states, 0, 0, 0, 0)
			wayland.PutWord(states, len(states)-4, uint32(stateTiledLeft+k))
		}
	}
	e := c.ToClient()
	e.Begin(m.Obj.ID, wayland.XdgToplevelEvtConfigure)
	e.Int(less(w.next.w, 2*f.side))
	e.Int(less(w.next.h, f.top+f.side))
	e.Array(states)
	return false, e.End()
}

// less takes n off a size; 0 means none, and stays.
func less(v, n int32) int32 {
	if v <= 0 {
		return v
	}
	return max(v-n, 1)
}

func onBounds(c *relay.Conn, m *relay.Msg) (bool, error) {
	f := framesOf(c)
	wayland.PutWord(m.Body, 0, uint32(less(m.Int(0), 2*f.side)))
	wayland.PutWord(m.Body, 4, uint32(less(m.Int(1), f.top+f.side)))
	return true, nil
}

// onSizeHint adds the frame to a least or a largest size; 0 means none.
func onSizeHint(c *relay.Conn, m *relay.Msg) (bool, error) {
	f := framesOf(c)
	add := func(k int, n int32) {
		if v := m.Int(k); v > 0 {
			wayland.PutWord(m.Body, 4*k, uint32(sum(v, n)))
		}
	}
	add(0, 2*f.side)
	add(1, f.top+f.side)
	return true, nil
}

// sum saturates.
func sum(a, b int32) int32 {
	return int32(min(max(int64(a)+int64(b), math.MinInt32), math.MaxInt32))
}

// onSerial ends a configure sequence.
func onSerial(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s, ok := m.Obj.Data.(*surface); ok && s.window != nil {
		w := s.window
		w.next.serial = m.Word(0)
		if len(w.sent) == maxSent {
			w.sent = slices.Delete(w.sent, 0, 1)
		}
		w.sent = append(w.sent, w.next)
	}
	return true, nil
}

func onAck(_ *relay.Conn, m *relay.Msg) (bool, error) {
	s, ok := m.Obj.Data.(*surface)
	if !ok || s.window == nil {
		return true, nil
	}
	w := s.window
	k := slices.IndexFunc(w.sent, func(f configured) bool { return f.serial == m.Word(0) })
	if k >= 0 {
		if f := w.sent[k]; f.w != w.now.w || f.h != w.now.h || f.fixed != w.now.fixed {
			s.changed = true
		}
		w.now = w.sent[k]
		w.sent = slices.Delete(w.sent, 0, k+1)
	}
	return true, nil
}

// onGeometryRequest keeps the geometry to itself: the compositor is told the
// frame's.
func onGeometryRequest(_ *relay.Conn, m *relay.Msg) (bool, error) {
	s, ok := m.Obj.Data.(*surface)
	if !ok {
		return true, nil
	}
	b := box{m.Int(0), m.Int(1), m.Int(2), m.Int(3)}
	if b.w <= 0 || b.h <= 0 {
		return false, relay.Fail(m.Obj, errXdgSize, "invalid window geometry %d×%d", b.w, b.h)
	}
	if s.declared != b {
		s.declared, s.changed = b, true
	}
	return false, nil
}

// Codes of xdg_surface.error and xdg_wm_base.error (xdg-shell.xml).
const (
	errXdgUnconfigured      = 3
	errXdgSize              = 5
	errWmInvalidPopupParent = 3
	errWmInvalidPositioner  = 5
)

func onXdgSurfaceDestroy(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s, ok := m.Obj.Data.(*surface); ok {
		s.xdg, s.told, s.declared = 0, box{}, box{}
	}
	return true, nil
}

func onToplevelDestroy(_ *relay.Conn, m *relay.Msg) (bool, error) {
	w := windowOf(m.Obj)
	w.top = 0
	if w.surface != nil && w.surface.window == w {
		w.surface.window, w.surface.told = nil, box{}
	}
	return true, nil
}
