package filter

import (
	"slices"

	"vix/internal/relay"
)

// Grabs. xdg_popup.grab gives a client every key until its popup ends, without the
// user's knowledge: even at a lock screen, on careless compositors. So the filter never
// passes it on. Its uses work without it:
//
//	the menu gets keys         its window has the keyboard; programs pass the keys on to
//	                           their menus
//	a click in the program     goes to the program, as with a grab
//	a click elsewhere          takes the focus, or is on the frame: the menu is dismissed
//	(no input is there)        popups end with the last of keyboard, pointer and fingers
//	the screen is locked       takes the focus
//
// A grab's states are
//
//	asked ── show ──► open ── the keyboard leaves, the window is no longer active, a press
//	                  │       on a frame, popup_done of the compositor ──► dismissed
//	                  └─ destroy ─► gone                                  ── destroy ─► gone
func onGrab(c *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*popup)
	if p.shell == nil || p.dismissed || p.grabs {
		return false, nil
	}
	if p.shell.mapped {
		const errInvalidGrab = 0
		return false, relay.Fail(m.Obj, errInvalidGrab, "xdg_popup.grab: the popup is shown already")
	}
	p.grabs = true
	st := stateOf(c)
	st.grabs = append(st.grabs, p)
	return false, nil
}

// endGrabs dismisses the popups that would have a grab, the newest first. It tells
// whether there were any.
func (st *state) endGrabs(c *relay.Conn) bool {
	if len(st.grabs) == 0 {
		return false
	}
	for _, p := range slices.Backward(st.grabs) {
		st.frames.dismiss(c, p)
	}
	st.grabs = nil
	return true
}

// absent tells whether a client with input devices has neither the keyboard nor a pointer
// or a finger on it. An absent client may not open popups, and loses those it has: some
// compositors show the popups of an invisible window above all others, where a click on
// one would bring the keyboard to it.
func (st *state) absent() bool {
	if st.boards == 0 && len(st.pointers) == 0 && len(st.touches) == 0 || len(st.keyboards) > 0 {
		return false
	}
	for _, p := range st.pointers {
		if p.on != nil || p.focus != nil {
			return false
		}
	}
	for _, t := range st.touches {
		if len(t.on)+len(t.focus) > 0 {
			return false
		}
	}
	return true
}

// dismissAbsent dismisses all popups of a client that is absent.
func (st *state) dismissAbsent(c *relay.Conn) {
	if !st.absent() {
		return
	}
	for v := range st.frames.roots {
		if p := v.popup(); p != nil {
			st.frames.dismiss(c, p)
		}
	}
}
