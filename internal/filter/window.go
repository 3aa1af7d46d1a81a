package filter

import (
	"errors"
	"math"
	"slices"
	"sync/atomic"

	"vix/config"
	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// A shell is what the filter knows of an xdg_surface. Its states are
//
//	made ── get_toplevel, get_popup ──► has a role ── ack_configure, commit ──► acked
//	  ▲                                    │  ▲                                  │
//	  └───── destroy of the role ──────────┘  └── commit without content ────────┘
type shell struct {
	v    *view         // nil after the client destroyed the surface
	obj  *relay.Object // the client's xdg_surface
	base uint32        // the id of its xdg_wm_base on the compositor

	window *window
	popup  *popup
	popups []*popup // its child popups, oldest first

	// next collects the compositor's events since its last xdg_surface.configure. queue
	// holds what the client has not acknowledged yet, and now what it acknowledged last.
	next, now configuration
	queue     []configuration
	acked     bool // the client has acknowledged one, so its content may be shown

	mapped bool
	// visible is the shown part of the window in the client's coordinates, area the same
	// part in the compositor's. geometry is the window geometry sent to the compositor.
	visible, area, geometry box
}

// A configuration is one configure sequence. Its size includes the frame.
type configuration struct {
	valid  bool // false before the first event
	serial uint32
	w, h   int32 // 0: as the client likes
	// fixed says that the window may not be larger: the compositor has maximised it,
	// tiled it or made it fullscreen.
	fixed  bool
	full   bool  // fullscreen
	active bool  // the window has the focus
	top    int32 // the height of a popup's frame above its content
	past   bool  // the filter acknowledged a later one for the client
	skip   bool  // the client does not get it
}

// maxQueue bounds the configure events that a client leaves unanswered.
const maxQueue = 64

// A window is what the filter knows of an xdg_toplevel.
type window struct {
	id           uint64
	title, appID string
	name         string // the title without the tag, plain
	forgotten    bool   // it was taken off the screen, and with that its title and app id
	shown        bool   // content was committed, and the Event sent

	shell *shell        // nil when the surface is gone
	obj   *relay.Object // the client's xdg_toplevel
	over  atomic.Bool   // the window has ended; other connections read it
	// waits says that the window becomes fullscreen once it has the focus.
	waits bool
}

// alive tells whether the window still exists. Any connection may call it.
func (w *window) alive() bool { return !w.over.Load() }

// window returns the surface's window, or nil.
func (v *view) window() *window {
	if v == nil || v.shell == nil {
		return nil
	}
	return v.shell.window
}

// popup returns the surface's popup, or nil.
func (v *view) popup() *popup {
	if v == nil || v.shell == nil {
		return nil
	}
	return v.shell.popup
}

// Codes of xdg_surface.error and xdg_wm_base.error (xdg-shell.xml).
const (
	errXdgAlreadyConstructed = 2
	errXdgUnconfigured       = 3
	errXdgInvalidSerial      = 4
	errXdgSize               = 5

	errWmRole               = 0
	errWmDefunct            = 1
	errWmInvalidPopupParent = 3
	errWmInvalidState       = 4
	errWmInvalidPositioner  = 5
)

func windowHooks(l relay.Layer) {
	l.Request(wayland.XdgWmBase, wayland.XdgWmBaseReqGetXdgSurface, onGetXdgSurface)
	l.Request(wayland.XdgWmBase, wayland.XdgWmBaseReqDestroy, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if n := stateOf(c).bases[m.Obj.Server]; n > 0 {
			return false, relay.Fail(m.Obj, errWmDefunct, "xdg_wm_base.destroy: %d of its surfaces are there still", n)
		}
		return true, nil
	})
	l.Event(wayland.XdgToplevel, wayland.XdgToplevelEvtConfigure, onConfigure)
	l.Event(wayland.XdgToplevel, wayland.XdgToplevelEvtConfigureBounds, onBounds)
	l.Event(wayland.XdgSurface, wayland.XdgSurfaceEvtConfigure, onSerial)
	l.Request(wayland.XdgSurface, wayland.XdgSurfaceReqAckConfigure, onAck)
	l.Request(wayland.XdgSurface, wayland.XdgSurfaceReqSetWindowGeometry, onGeometryRequest)
	l.Request(wayland.XdgSurface, wayland.XdgSurfaceReqDestroy, onXdgSurfaceDestroy)
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqDestroy, onToplevelDestroy)
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetParent, onSetParent)
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetFullscreen, onSetFullscreen)
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqUnsetFullscreen, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.Obj.Data.(*window).waits = false
		return true, nil
	})
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetMinSize, onSizeHint)
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqSetMaxSize, onSizeHint)
	l.Gone(wayland.XdgToplevel, onToplevelGone)
	l.Gone(wayland.XdgSurface, func(c *relay.Conn, o *relay.Object) {
		if s, ok := o.Data.(*shell); ok {
			stateOf(c).bases[s.base]--
		}
	})
}

func shellOf(o *relay.Object) *shell { return o.Data.(*shell) }

// onGetXdgSurface makes an xdg_surface of a surface without content.
func onGetXdgSurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	v := viewArg(c, m.Word(1))
	switch {
	case v == nil:
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "xdg_wm_base.get_xdg_surface: invalid surface")
	case v.shell != nil || v.Role != surface.None && v.Role != surface.Toplevel && v.Role != surface.Popup:
		return false, relay.Fail(m.Obj, errWmRole, "the surface is %s already", v.Role)
	case v.HasContent():
		return false, relay.Fail(m.Obj, errWmInvalidState, "the surface has content already")
	}
	st := stateOf(c)
	st.frames.ask(c)
	c.GiveServerID(m.New)
	v.shell = &shell{v: v, obj: m.New, base: m.Obj.Server}
	st.bases[m.Obj.Server]++
	m.New.Data = v.shell
	return true, nil
}

// hasRole tells whether the surface is a window or a popup that can be shown.
func (s *shell) hasRole() bool { return s.window != nil || s.popup != nil && !s.popup.dismissed }

// canHaveRole says why an xdg_surface cannot get a role.
func (s *shell) canHaveRole(o *relay.Object, r surface.Role) error {
	switch {
	case s.v == nil:
		return relay.Fail(o, errXdgAlreadyConstructed, "the surface is gone")
	case s.window != nil || s.popup != nil:
		return relay.Fail(o, errXdgAlreadyConstructed, "the xdg_surface has a role already")
	}
	return mistake(o, s.v.SetRole(r, errXdgAlreadyConstructed))
}

// newWindow makes the window of a get_toplevel request. It writes the request
// itself, so that the window's identity follows at once.
func newWindow(c *relay.Conn, m *relay.Msg) error {
	f, s := filterOf(c), shellOf(m.Obj)
	if err := s.canHaveRole(m.Obj, surface.Toplevel); err != nil {
		return err
	}
	if err := f.take(m.Obj, display.Toplevels, 1); err != nil {
		return err
	}
	stateOf(c).countOpen(c)
	w := &window{id: f.windows.Add(1), title: Title(f.cfg.Tag, ""), appID: config.AppID(f.cfg.VM, ""), shell: s, obj: m.New}
	m.New.Data = w
	c.GiveServerID(m.New)
	s.window = w
	c.ToServer().Msg(m.Obj.Server, wayland.XdgSurfaceReqGetToplevel, m.New.Server)
	return errors.Join(
		setString(c, m.New, wayland.XdgToplevelReqSetTitle, w.title),
		setString(c, m.New, wayland.XdgToplevelReqSetAppId, w.appID))
}

// onSetFullscreen passes the request of a window that has the focus. Sway gives the
// keyboard to any window that asks to be fullscreen, so any other window waits for the
// focus, and does not choose the screen.
func onSetFullscreen(c *relay.Conn, m *relay.Msg) (bool, error) {
	w := m.Obj.Data.(*window)
	if w.mayFill(c) {
		return true, nil
	}
	w.waits = true
	return false, nil
}

// mayFill tells whether a window may become fullscreen: it has the focus, or there is no
// seat and so no focus to steal. The seats are known by the first configure event (see
// frames.ask).
func (w *window) mayFill(c *relay.Conn) bool {
	return w.shell != nil && (w.shell.next.active || w.shell.next.valid && len(framesOf(c).seats) == 0)
}

// fill makes a window fullscreen if it has waited for the focus.
func (w *window) fill(c *relay.Conn) {
	if w.waits && w.shell != nil {
		w.waits = false
		c.ToServer().Msg(w.obj.Server, wayland.XdgToplevelReqSetFullscreen, 0)
	}
}

func onToplevelGone(c *relay.Conn, o *relay.Object) {
	w, ok := o.Data.(*window)
	if !ok {
		return
	}
	w.over.Store(true)
	filterOf(c).family.leave(w)
	filterOf(c).give(display.Toplevels, 1)
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

// States of xdg_toplevel.configure (xdg-shell.xml).
const (
	stateMaximized  = 1
	stateFullscreen = 2
	stateActivated  = 4
	stateTiledLeft  = 5 // right, top and bottom follow; since version 2
)

// onConfigure tells the client the size without the frame, and that it is tiled on
// all sides. A tiled client draws no shadow, which would lie between its window and the
// frame.
func onConfigure(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, w := framesOf(c), m.Obj.Data.(*window)
	d := wayland.NewDecoder(m.Body)
	next := configuration{valid: true, w: d.Int(), h: d.Int()}
	states := d.Array()
	var tiled [4]bool
	for b := states; len(b) >= 4; b = b[4:] {
		switch v := wayland.Word(b, 0); {
		case v == stateMaximized, v == stateFullscreen:
			next.fixed, next.full = true, next.full || v == stateFullscreen
		case v == stateActivated:
			next.active = true
		case v >= stateTiledLeft && v < stateTiledLeft+4:
			tiled[v-stateTiledLeft] = true
		}
	}
	if tiled == [4]bool{true, true, true, true} {
		next.fixed = true
	}
	if w.shell != nil {
		if w.shell.next.active && !next.active {
			stateOf(c).endGrabs(c) // it has lost the focus
		}
		w.shell.next = next
		if w.waits && w.mayFill(c) {
			w.fill(c)
			if !w.shell.mapped {
				// The compositor answers with another configure event, and the program begins
				// fullscreen: Weston does not move a window that becomes fullscreen later.
				w.shell.next.skip = true
				return false, nil
			}
		}
	}
	if !f.drawn {
		return true, nil
	}
	states = slices.Clone(states)
	for k, is := range tiled {
		if !is && m.Obj.Version >= 2 {
			states = append(states, 0, 0, 0, 0)
			wayland.PutWord(states, len(states)-4, uint32(stateTiledLeft+k))
		}
	}
	tw, th := next.w, next.h
	if s := w.shell; s != nil && s.mapped && tw == 0 && th == 0 && !next.fixed && !s.now.fixed {
		// "As you like" becomes the present size: a program that believes to be tiled
		// remembers no size of its own.
		tw, th = s.geometry.W, s.geometry.H
	}
	e := c.ToClient()
	e.Begin(m.Obj.ID, wayland.XdgToplevelEvtConfigure)
	e.Int(less(tw, 2*f.side))
	e.Int(less(th, f.top+f.side))
	e.Array(states)
	return false, e.End()
}

// less takes n off a size. The size 0 means none, and stays 0.
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

// onSizeHint adds the frame to a minimum or maximum size; 0 means none.
func onSizeHint(c *relay.Conn, m *relay.Msg) (bool, error) {
	f := framesOf(c)
	if m.Int(0) < 0 || m.Int(1) < 0 {
		const errInvalidSize = 2
		return false, relay.Fail(m.Obj, errInvalidSize, "%s: a size below 0", m.Def.Name)
	}
	add := func(k int, n int32) {
		if v := m.Int(k); v > 0 {
			wayland.PutWord(m.Body, 4*k, uint32(sum(v, n)))
		}
	}
	add(0, 2*f.side)
	add(1, f.top+f.side)
	return true, nil
}

// onSerial ends a configure sequence. It cuts a window that is now too large at once:
// the program may never answer, and the frame must stay visible.
func onSerial(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := shellOf(m.Obj)
	if s.next.skip {
		s.next.skip = false
		return false, nil
	}
	s.next.serial = m.Word(0)
	if s.popup != nil && s.popup.ours {
		return false, framesOf(c).finishGrow(c, s)
	}
	if len(s.queue) == maxQueue {
		s.queue = slices.Delete(s.queue, 0, 1)
	}
	s.queue = append(s.queue, s.next)
	if s.window == nil || !s.mapped {
		return true, nil
	}
	f := framesOf(c)
	if w, h := f.bound(s); s.geometry.W > w || s.geometry.H > h || s.v.staleLabel() {
		return true, errors.Join(f.show(c, s.v), f.relabelPopups(c, s))
	}
	return true, nil
}

// relabelPopups shows in the labels of a window's popups whether it has the focus.
func (f *frames) relabelPopups(c *relay.Conn, s *shell) error {
	for _, p := range slices.Clone(s.popups) {
		if p.shell == nil || !p.shell.mapped || p.shell.v == nil {
			continue
		}
		if p.shell.v.staleLabel() {
			if err := f.show(c, p.shell.v); err != nil {
				return err
			}
		}
		if err := f.relabelPopups(c, p.shell); err != nil {
			return err
		}
	}
	return nil
}

// onAck keeps the acknowledgement for the commit that it belongs to.
func onAck(_ *relay.Conn, m *relay.Msg) (bool, error) {
	s := shellOf(m.Obj)
	if s.v == nil || s.window == nil && s.popup == nil {
		return false, nil
	}
	if slices.IndexFunc(s.queue, func(f configuration) bool { return f.serial == m.Word(0) }) < 0 {
		if len(s.queue) == maxQueue || s.now.serial == m.Word(0) {
			return false, nil // too late, so that the queue has dropped it; or a second time
		}
		return false, relay.Fail(m.Obj, errXdgInvalidSerial, "xdg_surface.ack_configure: serial %d was not sent", m.Word(0))
	}
	s.v.Ack(m.Word(0))
	return false, nil
}

// acknowledge writes the acknowledgement that belongs to the state that takes effect.
func (s *shell) acknowledge(c *relay.Conn) (wrote bool) {
	a := &s.v.Current
	if !a.Acked {
		return false
	}
	a.Acked = false
	k := slices.IndexFunc(s.queue, func(f configuration) bool { return f.serial == a.Ack })
	if k < 0 {
		return false
	}
	conf := s.queue[k]
	s.queue = slices.Delete(s.queue, 0, k+1)
	if conf.past {
		return false
	}
	s.now, s.acked = conf, true
	if s.popup != nil {
		s.popup.top = s.now.top
	}
	c.ToServer().Msg(s.obj.Server, wayland.XdgSurfaceReqAckConfigure, s.now.serial)
	return true
}

// onGeometryRequest stores the client's geometry. The compositor gets the geometry with
// the frame.
func onGeometryRequest(_ *relay.Conn, m *relay.Msg) (bool, error) {
	b := rect(m.Int(0), m.Int(1), m.Int(2), m.Int(3))
	if b.Empty() {
		return false, relay.Fail(m.Obj, errXdgSize, "invalid window geometry %d×%d", b.W, b.H)
	}
	if s := shellOf(m.Obj); s.v != nil {
		s.v.SetGeometry(b)
	}
	return false, nil
}

func onXdgSurfaceDestroy(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, s := framesOf(c), shellOf(m.Obj)
	f.endRole(c, s)
	f.endShell(c, s)
	return false, nil
}

func onToplevelDestroy(c *relay.Conn, m *relay.Msg) (bool, error) {
	if w := m.Obj.Data.(*window); w.shell != nil {
		framesOf(c).endRole(c, w.shell)
	}
	return false, nil
}

// endRole takes a window or a popup off the screen, and destroys its role object on
// the compositor, after those of its popups. The client keeps its own object.
func (f *frames) endRole(c *relay.Conn, s *shell) {
	f.endPopups(c, s)
	if s.v != nil {
		f.unmap(c, s)
		s.v.ResetXdg()
		s.v.Unattach() // content before the next configure event is the client's mistake
	}
	if w := s.window; w != nil {
		s.window, w.shell = nil, nil
		w.over.Store(true)
		filterOf(c).family.leave(w)
		dropObject(c, w.obj, wayland.XdgToplevelReqDestroy)
	}
	if p := s.popup; p != nil {
		s.popup = nil
		p.end(c)
		dropObject(c, p.obj, wayland.XdgPopupReqDestroy)
	}
	s.next, s.now, s.queue, s.geometry = configuration{}, configuration{}, nil, box{}
}

// endShell destroys an xdg_surface on the compositor.
func (f *frames) endShell(c *relay.Conn, s *shell) {
	dropObject(c, s.obj, wayland.XdgSurfaceReqDestroy)
	if s.v != nil {
		s.v.shell, s.v = nil, nil
	}
}

// unmap takes a window or a popup off the screen.
func (f *frames) unmap(c *relay.Conn, s *shell) {
	f.endPopups(c, s)
	s.acked, s.geometry, s.now = false, box{}, configuration{}
	if s.window != nil {
		s.next = configuration{} // the compositor begins anew: a focus from before is none
	}
	if !s.mapped {
		return
	}
	if s.window != nil {
		s.window.forgotten = true
	}
	s.mapped = false
	delete(f.roots, s.v)
	if p := s.popup; p != nil {
		_ = f.noteBlank(c, p, false) // shows nothing, and so cannot fail
		filterOf(c).popups.leave(p)
		p.requests = slices.DeleteFunc(p.requests, func(r placeRequest) bool { return r.ours })
	}
	f.hideFrame(c, s.v)
	if _, err := f.hideContent(c, s.v); err == nil {
		f.commit(c, s.v.id)
	}
}

// showWindow shows a window in its frame.
func (f *frames) showWindow(c *relay.Conn, v *view) error {
	s := v.shell
	if s == nil || s.window == nil {
		return nil
	}
	w, h := v.Current.Size()
	if w == 0 || !s.acked && !v.Current.Acked { // with an earlier role's content, perhaps
		return f.commitEmpty(c, s)
	}
	if err := f.canShow(c, v); err != nil {
		return err
	}
	wrote := s.acknowledge(c)
	if !s.acked {
		return relay.Fail(c.Server(v.id), errXdgUnconfigured, "content before the first configure event")
	}
	mw, mh := f.bound(s)
	beyond := int32(maxDeco)
	if s.now.full {
		beyond = 0 // a compositor may place a fullscreen window by its widest surface
	}
	vis := v.windowPart(w, h, beyond)
	vis.W, vis.H = min(vis.W, less(mw, 2*f.side)), min(vis.H, less(mh, f.top+f.side))
	// The part cut off may be the whole surface.
	vis.X, vis.Y = max(vis.X, 1-vis.W), max(vis.Y, 1-vis.H)
	return f.showShell(c, s, vis, f.top, f.side, wrote)
}

// bound returns the largest size of a window with its frame: the screen's, or the size
// that the compositor fixed last, whether the client has answered or not.
func (f *frames) bound(s *shell) (w, h int32) {
	w, h = f.screen()
	if s.now.fixed && s.now.w > 0 && s.now.h > 0 {
		w, h = s.now.w, s.now.h
	}
	if n := len(s.queue); n > 0 {
		if last := s.queue[n-1]; last.fixed && last.w > 0 && last.h > 0 {
			w, h = min(w, last.w), min(h, last.h)
		}
	}
	return w, h
}

// canShow tells whether content may be shown yet.
func (f *frames) canShow(c *relay.Conn, v *view) error {
	if f.ready() {
		return nil
	}
	if f.compositor != nil {
		return errNoFrame
	}
	return relay.Fail(c.Server(v.id), errXdgUnconfigured, "content before the first configure event")
}

// commitEmpty passes on a commit without content. The first one makes the compositor
// configure the window; a later one takes the window off the screen.
func (f *frames) commitEmpty(c *relay.Conn, s *shell) error {
	switch {
	case s.mapped:
		f.unmap(c, s)
	case s.v.Applied:
		if w := s.window; w != nil && w.forgotten {
			// xdg-shell discards them when a window goes (xdg_toplevel, "Unmapping").
			w.forgotten = false
			if err := errors.Join(w.say(c, wayland.XdgToplevelReqSetTitle, w.title), w.say(c, wayland.XdgToplevelReqSetAppId, w.appID)); err != nil {
				return err
			}
		}
		s.acknowledge(c)
		f.commit(c, s.v.id)
	}
	s.v.Applied = false
	return nil
}

// showShell shows the part vis of a window or popup, and puts a frame around it.
func (f *frames) showShell(c *relay.Conn, s *shell, vis box, top, side int32, wrote bool) error {
	v := s.v
	w, h := v.Current.Size()
	crop := rect(max(vis.X, 0), max(vis.Y, 0), 0, 0)
	crop.W, crop.H = max(min(vis.X+vis.W, w)-crop.X, 1), max(min(vis.Y+vis.H, h)-crop.Y, 1)
	below, err := f.arrange(c, v, vis, surface.Point{X: crop.X, Y: crop.Y}, true)
	if err != nil {
		return err
	}
	if !s.mapped && s.window != nil {
		if s.window.shown { // and not for the first time, which get_toplevel has counted
			stateOf(c).countOpen(c)
		}
		if err := f.activate(c, v); err != nil {
			return err
		}
	}
	changed, err := f.present(c, v, crop, true)
	if err != nil {
		return err
	}
	s.visible, s.area = vis, vis.Moved(-crop.X, -crop.Y)
	framed, err := f.put(c, v, s.area, top, side)
	if err != nil {
		return err
	}
	moved := f.tell(c, s, withFrame(s.area, top, side))
	if wrote || below || changed || framed || moved || v.Applied {
		v.Applied = false
		f.commit(c, v.id)
	}
	if moved {
		if s.mapped && s.window != nil {
			stateOf(c).countResize(c)
		}
		f.recount(c, s)
	}
	if !s.mapped {
		s.mapped = true
		f.roots[v] = struct{}{}
		if n := s.window; n != nil && !n.shown {
			n.shown = true
			tell(c, Event{Event: "window", ID: n.id, Title: n.title, AppID: n.appID})
		}
	}
	return nil
}

// maxDeco bounds how far the geometry of a window may reach beyond its root surface:
// some programs draw their title bars on sub-surfaces around it.
const maxDeco = 128

// windowPart returns the part of a root surface that is the window: the declared
// geometry, up to beyond the surface's edges, or the whole surface without one.
func (v *view) windowPart(w, h, beyond int32) box {
	d := v.Current.Geometry
	if d.W == 0 {
		return rect(0, 0, w, h)
	}
	x0, y0 := clamp(d.X, -beyond, w-1), clamp(d.Y, -beyond, h-1)
	x1, y1 := clamp(sum(d.X, d.W), max(x0, 0)+1, w+beyond), clamp(sum(d.Y, d.H), max(y0, 0)+1, h+beyond)
	return rect(x0, y0, x1-x0, y1-y0)
}

// tell gives the compositor a window's geometry.
func (f *frames) tell(c *relay.Conn, s *shell, b box) (wrote bool) {
	if s.geometry == b {
		return false
	}
	s.geometry = b
	c.ToServer().Msg(s.obj.Server, wayland.XdgSurfaceReqSetWindowGeometry, uint32(b.X), uint32(b.Y), uint32(b.W), uint32(b.H))
	return true
}

// refit shows all windows again after the outputs, which bound them, have changed.
func (f *frames) refit(c *relay.Conn) {
	screens := make([]screen, 0, len(f.outputs))
	for _, o := range f.outputs {
		if w, h := o.size(); w > 0 && h > 0 {
			screens = append(screens, screen{w, h})
		}
	}
	if len(screens) == 0 {
		return
	}
	f.mu.Lock()
	f.screens = screens
	f.mu.Unlock()
	for v := range f.roots {
		if err := f.show(c, v); err != nil {
			filterOf(c).cfg.Log.Warn("a window could not be fitted to the screens", "vm", filterOf(c).cfg.VM, "err", err)
		}
		if v.window() != nil {
			f.recount(c, v.shell)
		}
	}
}

// A screen is an output's size in logical pixels.
type screen struct{ w, h int32 }

// screen returns the largest size of any window, in logical pixels.
func (f *frames) screen() (w, h int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.screens) == 0 {
		return math.MaxInt32, math.MaxInt32
	}
	for _, s := range f.screens {
		w, h = max(w, s.w), max(h, s.h)
	}
	return w, h
}
