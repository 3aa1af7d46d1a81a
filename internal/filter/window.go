package filter

import (
	"errors"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A window is what the filter knows of an xdg_toplevel.
type window struct {
	id           uint64
	title, appID string
	shown        bool // content was committed, and the Event sent
}

// A surface is what the filter knows of a wl_surface.
type surface struct {
	window   *window // set when it is a toplevel's
	attached bool    // a buffer is pending
	changed  bool    // by an attach, of a buffer or none
	held     held
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

// windowOf returns the toplevel's window, made by onGetToplevel.
func windowOf(o *relay.Object) *window { return o.Data.(*window) }

// onGetXdgSurface notes which surface an xdg_surface stands for.
func onGetXdgSurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	if o := c.Client(m.Word(1)); o != nil && o.Iface == wayland.WlSurface {
		m.New.Data = surfaceOf(o)
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
	w := &window{id: f.windows.Add(1), title: Title(f.cfg.Tag, ""), appID: AppID(f.cfg.VM, "")}
	m.New.Data = w
	if s, ok := m.Obj.Data.(*surface); ok {
		s.window = w
	}
	c.GiveServerID(m.New)
	c.ToServer().Msg(m.Obj.Server, wayland.XdgSurfaceReqGetToplevel, m.New.Server)
	return errors.Join(
		setString(c, m.New, wayland.XdgToplevelReqSetTitle, w.title),
		setString(c, m.New, wayland.XdgToplevelReqSetAppId, w.appID))
}

func onAttach(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceOf(m.Obj)
	s.attached, s.changed = m.Word(0) != 0, true
	var b *buffer
	if o := c.Client(m.Word(0)); o != nil {
		b, _ = o.Data.(*buffer)
	}
	s.held.attach(filterOf(c), b)
	return true, nil
}

// onCommit tells of a window when it first gets content.
func onCommit(c *relay.Conn, m *relay.Msg) (bool, error) {
	c.State.(*state).countCommit(c)
	s := surfaceOf(m.Obj)
	if s.attached && s.window != nil && !s.window.shown {
		s.window.shown = true
		tell(c, Event{Event: "window", ID: s.window.id, Title: s.window.title, AppID: s.window.appID})
	}
	if s.changed {
		s.held.commit(filterOf(c))
	}
	s.attached, s.changed = false, false
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
