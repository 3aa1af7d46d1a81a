package filter

import (
	"slices"

	"vix/internal/relay"
)

// Grabs. xdg_popup.grab gives a client every key until its popup goes, behind the
// user's back: at a lock screen too, on compositors that look no closer. So it is never
// passed on. What programs want of it works without:
//
//	the menu hears keys        the window that it belongs to has the keyboard; programs
//	                           give their menus its keys
//	a click in the program     is the program's to see, as with a grab
//	a click elsewhere          takes the focus, or is on the frame: the menu is dismissed
//	(nobody is there)          popups go with the last of keyboard, pointer and fingers
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

// endGrabs dismisses the popups that would have a grab, the last one first. It tells
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

// absent tells whether a client that hears of input has neither the keyboard nor a pointer
// or a finger on it. Then it opens no popups, and those that it has are dismissed: some
// compositors show the popups of a window that is not seen, above all others, where a
// click on one would bring the keyboard to it.
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

// left dismisses all popups of a client that is absent now.
func (st *state) left(c *relay.Conn) {
	if !st.absent() {
		return
	}
	for v := range st.frames.roots {
		if p := v.popup(); p != nil {
			st.frames.dismiss(c, p)
		}
	}
}
