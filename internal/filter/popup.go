package filter

import (
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Popups. What a client says of a popup's place refers to window geometries as it
// declares them; the compositor knows others, larger by the frames. So a client's
// xdg_positioner stays local; what it was told is kept, and told to one of our own,
// corrected, when it is used:
//
//	                    the client's            the compositor's
//	parent's geometry   declared                declared + frame
//	anchor rectangle    ──────────────────────► shifted by the parent's frame
//	popup's size        ──────────────────────► + its own thin frame
//	place and size      ◄────────────────────── xdg_popup.configure
//
// A popup is what the filter knows of an xdg_popup.
type popup struct {
	surface, parent *surface
}

// A positioner is what a client told its xdg_positioner.
type positioner struct {
	version      uint32
	w, h         int32
	anchorRect   box
	hasRect      bool
	anchor       uint32
	gravity      uint32
	adjustment   uint32
	dx, dy       int32
	reactive     bool
	parentW      int32
	parentH      int32
	hasParent    bool
	parentSerial uint32
	hasSerial    bool
}

const (
	// maxPlace keeps sums of places far from overflow; no screen is that far away.
	maxPlace = 1 << 24
)

func popupHooks(h *relay.Hooks) {
	h.Request(wayland.XdgWmBase, wayland.XdgWmBaseReqCreatePositioner, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = &positioner{version: m.Obj.Version}
		return false, nil
	})
	positionerHooks(h)
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqGetPopup, onGetPopup)
	h.Request(wayland.XdgPopup, wayland.XdgPopupReqReposition, onReposition)
	h.Event(wayland.XdgPopup, wayland.XdgPopupEvtConfigure, onPopupConfigure)
	h.Request(wayland.XdgPopup, wayland.XdgPopupReqDestroy, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if p, ok := m.Obj.Data.(*popup); ok && p.surface.popup == p {
			p.surface.popup, p.surface.told = nil, box{}
		}
		return true, nil
	})
	giveBackPopups(h)
}

// countPopups is all that is done with popups when there is no frame.
func countPopups(h *relay.Hooks) {
	h.Request(wayland.XdgSurface, wayland.XdgSurfaceReqGetPopup, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if err := filterOf(c).take(m.Obj, Popups, 1); err != nil {
			return false, err
		}
		c.State.(*state).countOpen(c)
		m.New.Data = &popup{}
		return true, nil
	})
	giveBackPopups(h)
}

func giveBackPopups(h *relay.Hooks) {
	h.Gone(wayland.XdgPopup, func(c *relay.Conn, o *relay.Object) {
		if _, counted := o.Data.(*popup); counted {
			filterOf(c).give(Popups, 1)
		}
	})
}

func positionerHooks(h *relay.Hooks) {
	on := func(op int, do func(p *positioner, m *relay.Msg)) {
		h.Request(wayland.XdgPositioner, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
			do(m.Obj.Data.(*positioner), m)
			return false, nil
		})
	}
	at := func(m *relay.Msg, k int) int32 { return clamp(m.Int(k), -maxPlace, maxPlace) }
	on(wayland.XdgPositionerReqSetSize, func(p *positioner, m *relay.Msg) { p.w, p.h = at(m, 0), at(m, 1) })
	on(wayland.XdgPositionerReqSetAnchorRect, func(p *positioner, m *relay.Msg) {
		p.anchorRect, p.hasRect = box{at(m, 0), at(m, 1), at(m, 2), at(m, 3)}, true
	})
	on(wayland.XdgPositionerReqSetAnchor, func(p *positioner, m *relay.Msg) { p.anchor = m.Word(0) })
	on(wayland.XdgPositionerReqSetGravity, func(p *positioner, m *relay.Msg) { p.gravity = m.Word(0) })
	on(wayland.XdgPositionerReqSetConstraintAdjustment, func(p *positioner, m *relay.Msg) { p.adjustment = m.Word(0) })
	on(wayland.XdgPositionerReqSetOffset, func(p *positioner, m *relay.Msg) { p.dx, p.dy = at(m, 0), at(m, 1) })
	on(wayland.XdgPositionerReqSetReactive, func(p *positioner, _ *relay.Msg) { p.reactive = true })
	on(wayland.XdgPositionerReqSetParentSize, func(p *positioner, m *relay.Msg) {
		p.parentW, p.parentH, p.hasParent = at(m, 0), at(m, 1), true
	})
	on(wayland.XdgPositionerReqSetParentConfigure, func(p *positioner, m *relay.Msg) {
		p.parentSerial, p.hasSerial = m.Word(0), true
	})
}

// origin returns where the geometry that the client declares begins in the one that
// the compositor knows.
func (f *frames) origin(s *surface) (x, y int32) {
	if s.role == rolePopup {
		return thinWidth, thinWidth
	}
	return f.side, f.top
}

// onGetPopup makes a popup with a positioner of our own.
func onGetPopup(c *relay.Conn, m *relay.Msg) (bool, error) {
	f := framesOf(c)
	s, ok := m.Obj.Data.(*surface)
	parent := c.Client(m.Word(1))
	pos := c.Client(m.Word(2))
	if !ok || pos == nil || pos.Iface != wayland.XdgPositioner {
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "xdg_surface.get_popup: invalid surface or positioner")
	}
	var ps *surface
	if parent != nil && parent.Iface == wayland.XdgSurface {
		ps, _ = parent.Data.(*surface)
	}
	if ps == nil || ps == s || ps.xdg == 0 {
		return false, relay.Fail(m.Obj, errWmInvalidPopupParent, "a popup without a parent")
	}
	p := pos.Data.(*positioner)
	if err := f.checkPopup(c, m.Obj, p.w, p.h); err != nil {
		return false, err
	}
	if err := filterOf(c).take(m.Obj, Popups, 1); err != nil {
		return false, err
	}
	c.State.(*state).countOpen(c)
	s.role, s.changed = rolePopup, true
	s.popup = &popup{surface: s, parent: ps}
	m.New.Data = s.popup
	own, err := f.positioner(c, pos, s.base, ps)
	if err != nil {
		return false, err
	}
	c.GiveServerID(m.New)
	c.ToServer().Msg(m.Obj.Server, wayland.XdgSurfaceReqGetPopup, m.New.Server, ps.xdg, own.Server)
	c.Discard(own, wayland.XdgPositionerReqDestroy)
	return false, nil
}

func onReposition(c *relay.Conn, m *relay.Msg) (bool, error) {
	f := framesOf(c)
	p, ok := m.Obj.Data.(*popup)
	pos := c.Client(m.Word(0))
	if !ok || pos == nil || pos.Iface != wayland.XdgPositioner {
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "xdg_popup.reposition: invalid positioner")
	}
	ps := pos.Data.(*positioner)
	if err := f.checkPopup(c, m.Obj, ps.w, ps.h); err != nil {
		return false, err
	}
	own, err := f.positioner(c, pos, p.surface.base, p.parent)
	if err != nil {
		return false, err
	}
	c.ToServer().Msg(m.Obj.Server, wayland.XdgPopupReqReposition, own.Server, m.Word(1))
	c.Discard(own, wayland.XdgPositionerReqDestroy)
	return false, nil
}

// positioner makes one of our own that says what the client's does.
func (f *frames) positioner(c *relay.Conn, o *relay.Object, base uint32, parent *surface) (*relay.Object, error) {
	p := o.Data.(*positioner)
	if p.w <= 0 || p.h <= 0 || !p.hasRect || p.anchorRect.w < 0 || p.anchorRect.h < 0 {
		return nil, relay.Fail(o, errWmInvalidPositioner, "an xdg_positioner without a valid size and anchor rectangle")
	}
	own := c.Own(wayland.XdgPositioner, p.version, nil)
	e := c.ToServer()
	e.Msg(base, wayland.XdgWmBaseReqCreatePositioner, own.Server)
	say := func(op uint16, words ...int32) {
		var w [4]uint32
		for k, v := range words {
			w[k] = uint32(v)
		}
		e.Msg(own.Server, op, w[:len(words)]...)
	}
	x, y := f.origin(parent)
	say(wayland.XdgPositionerReqSetSize, p.w+2*thinWidth, p.h+2*thinWidth)
	say(wayland.XdgPositionerReqSetAnchorRect, p.anchorRect.x+x, p.anchorRect.y+y, p.anchorRect.w, p.anchorRect.h)
	e.Msg(own.Server, wayland.XdgPositionerReqSetAnchor, p.anchor)
	e.Msg(own.Server, wayland.XdgPositionerReqSetGravity, p.gravity)
	e.Msg(own.Server, wayland.XdgPositionerReqSetConstraintAdjustment, p.adjustment)
	gx, gy := pull(p.gravity)
	say(wayland.XdgPositionerReqSetOffset, p.dx-gx*thinWidth, p.dy-gy*thinWidth)
	if p.reactive {
		say(wayland.XdgPositionerReqSetReactive)
	}
	if p.hasParent && p.parentW > 0 && p.parentH > 0 {
		w, h := p.parentW+2*thinWidth, p.parentH+2*thinWidth
		if parent.role != rolePopup {
			w, h = p.parentW+2*f.side, p.parentH+f.top+f.side
		}
		say(wayland.XdgPositionerReqSetParentSize, w, h)
	}
	if p.hasSerial {
		e.Msg(own.Server, wayland.XdgPositionerReqSetParentConfigure, p.parentSerial)
	}
	return own, nil
}

// pull returns the direction in which a gravity lets a popup grow, -1, 0 or 1 on
// each axis (xdg_positioner.gravity).
func pull(gravity uint32) (x, y int32) {
	switch gravity {
	case 1, 5, 7: // top, top_left, top_right
		y = -1
	case 2, 6, 8: // bottom, bottom_left, bottom_right
		y = 1
	}
	switch gravity {
	case 3, 5, 6: // left, top_left, bottom_left
		x = -1
	case 4, 7, 8: // right, top_right, bottom_right
		x = 1
	}
	return x, y
}

// onPopupConfigure tells the client place and size without frames.
func onPopupConfigure(c *relay.Conn, m *relay.Msg) (bool, error) {
	p, ok := m.Obj.Data.(*popup)
	if !ok {
		return true, nil
	}
	x, y := framesOf(c).origin(p.parent)
	wayland.PutWord(m.Body, 0, uint32(sum(m.Int(0), thinWidth-x)))
	wayland.PutWord(m.Body, 4, uint32(sum(m.Int(1), thinWidth-y)))
	wayland.PutWord(m.Body, 8, uint32(less(m.Int(2), 2*thinWidth)))
	wayland.PutWord(m.Body, 12, uint32(less(m.Int(3), 2*thinWidth)))
	return true, nil
}

// checkPopup refuses a popup that would hide the desktop.
func (f *frames) checkPopup(c *relay.Conn, o *relay.Object, w, h int32) error {
	if !f.tooLarge(w, h) {
		return nil
	}
	filterOf(c).cfg.Log.Warn("popup refused: larger than 90 % of the screen", "vm", filterOf(c).cfg.VM, "width", w, "height", h)
	if o == nil {
		return &relay.ProtocolError{Object: 1, Code: relay.ErrImplementation, Text: "a popup of more than 90 % of the screen"}
	}
	return relay.Fail(o, errWmInvalidPositioner, "a popup of more than 90 %% of the screen")
}

func (f *frames) tooLarge(w, h int32) bool {
	sw, sh := f.screen()
	return int64(w)*10 > int64(sw)*9 && int64(h)*10 > int64(sh)*9
}

// fitPopup frames a popup.
func (f *frames) fitPopup(c *relay.Conn, s *surface, w, h int32) error {
	f.roots[s] = struct{}{}
	v := f.visible(s, w, h, 0)
	if err := f.checkPopup(c, nil, v.w, v.h); err != nil {
		return err
	}
	f.cut(c, s, w, h, s.aligned(v, w, h))
	if err := f.put(c, s, s.area, thinWidth, thinWidth); err != nil {
		return err
	}
	v.x, v.y = v.x-s.dx, v.y-s.dy
	f.tell(c, s, v.grown(thinWidth, thinWidth))
	return f.checkChildren(c, s)
}
