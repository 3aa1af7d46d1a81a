package filter

import (
	"slices"
	"testing"

	"vix/internal/relay"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// hears receives what the compositor hears until a surface's commit, and tells whether a
// request was among it.
func (r *framed) hears(w framedWindow, id uint32, op uint16) (heard bool) {
	r.rig.host.T.Helper()
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	for {
		m, err := r.rig.host.Next()
		if err != nil {
			r.rig.host.T.Fatal(err)
		}
		heard = heard || m.ID == id && m.Op == op
		if m.ID == w.hostSurface && m.Op == wayland.WlSurfaceReqCommit {
			return heard
		}
	}
}

// TestFullscreenWaits holds that a window without the focus does not become fullscreen:
// sway gives such a one the keyboard.
func TestFullscreenWaits(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(100, 100))
	r.guest.Send(w.top, wayland.XdgToplevelReqSetFullscreen, 0)
	if r.hears(w, w.hostTop, wayland.XdgToplevelReqSetFullscreen) {
		t.Error("passed on without the focus")
	}
	active := func() {
		var e wayland.Encoder
		e.Begin(w.hostTop, wayland.XdgToplevelEvtConfigure)
		e.Uint(0)
		e.Uint(0)
		e.Array([]byte{stateActivated, 0, 0, 0})
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
		r.rig.host.Write(e.B)
		r.guest.Want(w.top, wayland.XdgToplevelEvtConfigure)
	}
	active()
	if !r.hears(w, w.hostTop, wayland.XdgToplevelReqSetFullscreen) {
		t.Error("it does not become fullscreen when it has the focus")
	}
	r.guest.Send(w.top, wayland.XdgToplevelReqSetFullscreen, 0)
	if !r.hears(w, w.hostTop, wayland.XdgToplevelReqSetFullscreen) {
		t.Error("not passed on with the focus")
	}
}

// TestHeldKeys holds that a client hears nothing of keys that were pressed before the
// keyboard came to it.
func TestHeldKeys(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(100, 100))
	h, g, board := r.rig.host, r.guest, r.id()
	g.Send(r.ids[wayland.WlSeat], wayland.WlSeatReqGetKeyboard, board)
	host := r.skip(r.host[wayland.WlSeat], wayland.WlSeatReqGetKeyboard).Word(0)
	var e wayland.Encoder
	e.Begin(host, wayland.WlKeyboardEvtEnter)
	e.Uint(5)
	e.Uint(w.hostSurface)
	e.Array([]byte{30, 0, 0, 0, 42, 0, 0, 0})
	if err := e.End(); err != nil {
		t.Fatal(err)
	}
	h.Write(e.B)
	if m := g.Want(board, wayland.WlKeyboardEvtEnter); m.Word(0) != 5 || m.Word(1) != w.surface || m.Word(2) != 0 {
		t.Errorf("enters with %v", m.Body)
	}
	key := func(serial, key, state uint32) { h.Send(host, wayland.WlKeyboardEvtKey, serial, 0, key, state) }
	key(6, 30, 0) // was held
	key(7, 31, 1)
	key(8, 42, 0) // was held
	key(9, 31, 0)
	for _, serial := range []uint32{7, 9} {
		if m := g.Want(board, wayland.WlKeyboardEvtKey); m.Word(0) != serial || m.Word(2) != 31 {
			t.Errorf("hears of key %d, serial %d", m.Word(2), m.Word(0))
		}
	}
}

// TestFullscreenWithoutSeat holds that a window waits for no focus where there is none,
// as on a compositor without input.
func TestFullscreenWithoutSeat(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.guest.Send(w.top, wayland.XdgToplevelReqSetFullscreen, 0)
	if r.hears(w, w.hostTop, wayland.XdgToplevelReqSetFullscreen) {
		t.Error("passed on without the focus")
	}
	r.rig.host.Send(r.ask, wayland.WlRegistryEvtGlobalRemove, uint32(framedName+slices.Index(framedGlobals, wayland.WlSeat)))
	configure := func(serial, width uint32) {
		var e wayland.Encoder
		e.Begin(w.hostTop, wayland.XdgToplevelEvtConfigure)
		e.Uint(width)
		e.Uint(width)
		e.Array(nil)
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
		r.rig.host.Write(e.B)
		r.rig.host.Send(w.hostXdg, wayland.XdgSurfaceEvtConfigure, serial)
	}
	configure(70, 0)
	r.skip(w.hostTop, wayland.XdgToplevelReqSetFullscreen)
	configure(71, 500)
	if m := r.guest.Want(w.top, wayland.XdgToplevelEvtConfigure); m.Word(0) == 0 {
		t.Error("the first configure event is of a window that is not fullscreen")
	}
	if m := r.guest.Want(w.xdg, wayland.XdgSurfaceEvtConfigure); m.Word(0) != 71 {
		t.Errorf("serial %d and not 71", m.Word(0))
	}
}

// TestParentsMakeNoCircle holds that no window becomes its own ancestor, with which KWin
// ends.
func TestParentsMakeNoCircle(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	a, b, c := r.window(), r.window(), r.window()
	for _, w := range []framedWindow{a, b, c} {
		r.show(w, r.buffer(100, 100))
	}
	for _, p := range []struct {
		child, parent framedWindow
		passed        bool
	}{{a, a, false}, {a, b, true}, {b, a, false}, {b, c, true}, {c, a, false}, {c, c, false}} {
		r.guest.Send(p.child.top, wayland.XdgToplevelReqSetParent, p.parent.top)
		if got := r.hears(p.child, p.child.hostTop, wayland.XdgToplevelReqSetParent); got != p.passed {
			t.Errorf("%d as the parent of %d: passed is %v", p.parent.top, p.child.top, got)
		}
	}
	// Without the middle, the first is the last one's; and then free.
	r.guest.Send(b.top, wayland.XdgToplevelReqDestroy)
	r.guest.Send(c.top, wayland.XdgToplevelReqSetParent, a.top)
	if r.hears(c, c.hostTop, wayland.XdgToplevelReqSetParent) {
		t.Error("a circle over a window that has gone")
	}
	r.guest.Send(a.top, wayland.XdgToplevelReqSetParent, 0)
	r.guest.Send(c.top, wayland.XdgToplevelReqSetParent, a.top)
	if !r.hears(c, c.hostTop, wayland.XdgToplevelReqSetParent) {
		t.Error("a window without parents cannot be one")
	}
}

// TestPopupsOfTheAbsent holds that a client without keyboard and pointer opens no popup,
// and that its popups go with both.
func TestPopupsOfTheAbsent(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(100, 100))
	ptr := r.id()
	r.guest.Send(r.ids[wayland.WlSeat], wayland.WlSeatReqGetPointer, ptr)
	hostPtr := r.skip(r.host[wayland.WlSeat], wayland.WlSeatReqGetPointer).Word(0)
	popup := func() (pop uint32) {
		pos, s, xdg := r.id(), r.id(), r.id()
		pop = r.id()
		g := r.guest
		g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner, pos)
		g.Send(pos, wayland.XdgPositionerReqSetSize, 20, 20)
		g.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
		g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, s)
		g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
		g.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, w.xdg, pos)
		hostXdg := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
		hostPop := r.skip(hostXdg, wayland.XdgSurfaceReqGetPopup).Word(0)
		r.rig.host.Send(hostPop, wayland.XdgPopupEvtConfigure, 0, 0, 24, 24)
		r.rig.host.Send(hostXdg, wayland.XdgSurfaceEvtConfigure, 9)
		g.Want(pop, wayland.XdgPopupEvtConfigure)
		g.Want(xdg, wayland.XdgSurfaceEvtConfigure)
		g.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 9)
		g.Send(s, wayland.WlSurfaceReqAttach, r.buffer(20, 20), 0, 0)
		g.Send(s, wayland.WlSurfaceReqCommit)
		return pop
	}
	r.guest.Want(popup(), wayland.XdgPopupEvtPopupDone)
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtEnter, 1, w.hostSurface, 0, 0)
	r.guest.Want(ptr, wayland.WlPointerEvtEnter)
	shown := popup()
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtFrame)
	r.guest.Want(ptr, wayland.WlPointerEvtFrame) // and nothing before it
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtLeave, 2, w.hostSurface)
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtFrame)
	r.guest.Want(ptr, wayland.WlPointerEvtLeave)
	for {
		m, err := r.guest.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == shown && m.Op == wayland.XdgPopupEvtPopupDone {
			break
		}
	}
}

// TestNoFocusOfTheGone holds that a client is not on a surface that it has destroyed,
// which no leave event tells.
func TestNoFocusOfTheGone(t *testing.T) {
	v, w := &view{}, &view{}
	board, mouse, finger := &relay.Object{}, &relay.Object{}, &relay.Object{}
	st := &state{
		boards:    1,
		keyboards: map[*relay.Object]*keyFocus{board: {on: v}},
		pointers:  map[*relay.Object]*pointer{mouse: {focus: v}},
		touches:   map[*relay.Object]*touch{finger: {on: map[int32]*piece{}, focus: map[int32]*view{0: v}}},
	}
	st.addGrant(grant{serial: 7, kind: press, lasts: true, by: mouse, on: v})
	st.forgetFocus(w)
	if st.absent() || !st.grants[0].lasts {
		t.Error("another surface's end counts")
	}
	st.forgetFocus(v)
	if !st.absent() || st.grants[0].lasts {
		t.Errorf("it is there still: %+v", st.grants)
	}
}
