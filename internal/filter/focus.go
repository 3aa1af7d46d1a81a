package filter

import (
	"slices"
	"time"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// Authority. Some requests take something that only the user may give: the pointer during
// a move or a drag, its image, a selection. They name a serial, which an event gave to
// the client. A compositor may check it or not, so the filter checks it first: a serial
// counts only if an event of the right kind brought it to this connection, to a surface
// of the same window, and what the event began still lasts.
//
// authority lists every request with a serial or a seat that a guest can make, and what
// it needs. (A test checks that none is missing.)
var authority = map[*wayland.Message]need{
	request(wayland.WlPointer, wayland.WlPointerReqSetCursor):                                        {of: pointerIn, lasts: true, why: "only while the pointer is on the client"},
	request(wayland.ZwpTabletToolV2, wayland.ZwpTabletToolV2ReqSetCursor):                            {of: toolIn, lasts: true, why: "only while the pen is on the client"},
	request(wayland.WpCursorShapeDeviceV1, wayland.WpCursorShapeDeviceV1ReqSetShape):                 {of: pointerIn | toolIn, lasts: true, why: "as set_cursor"},
	request(wayland.XdgToplevel, wayland.XdgToplevelReqMove):                                         {of: press, lasts: true, window: true, why: "the press on the same window lasts"},
	request(wayland.XdgToplevel, wayland.XdgToplevelReqResize):                                       {of: press, lasts: true, window: true, why: "the press on the same window lasts"},
	request(wayland.XdgToplevel, wayland.XdgToplevelReqShowWindowMenu):                               {of: press, lasts: true, window: true, why: "the press on the same window lasts"},
	request(wayland.WlDataDevice, wayland.WlDataDeviceReqStartDrag):                                  {of: press, lasts: true, window: true, why: "the press on the origin's window lasts"},
	request(wayland.WlDataOffer, wayland.WlDataOfferReqAccept):                                       {of: dragIn, lasts: true, why: "the drag is over the client"},
	request(wayland.WlDataDevice, wayland.WlDataDeviceReqSetSelection):                               {of: anything, why: "any input: the selection is the VM's own"},
	request(wayland.ZwpPrimarySelectionDeviceV1, wayland.ZwpPrimarySelectionDeviceV1ReqSetSelection): {of: anything, why: "any input: the selection is the VM's own"},
	request(wayland.GtkPrimarySelectionDevice, wayland.GtkPrimarySelectionDeviceReqSetSelection):     {of: anything, why: "any input: the selection is the VM's own"},

	request(wayland.XdgPopup, wayland.XdgPopupReqGrab):                              {never: true, why: "never passed on: grab.go does what it is for"},
	request(wayland.ZwpTabletPadV2, wayland.ZwpTabletPadV2ReqSetFeedback):           {never: true, why: "never: a text that the compositor would show"},
	request(wayland.ZwpTabletPadRingV2, wayland.ZwpTabletPadRingV2ReqSetFeedback):   {never: true, why: "never: a text that the compositor would show"},
	request(wayland.ZwpTabletPadStripV2, wayland.ZwpTabletPadStripV2ReqSetFeedback): {never: true, why: "never: a text that the compositor would show"},
	request(wayland.ZwpTabletPadDialV2, wayland.ZwpTabletPadDialV2ReqSetFeedback):   {never: true, why: "never: a text that the compositor would show"},

	request(wayland.XdgActivationTokenV1, wayland.XdgActivationTokenV1ReqSetSerial): {of: press | keyPress, keyboard: true, age: 10 * time.Second, why: "an input of the last ten seconds, with the keyboard (where the user allows the interface at all)"},

	request(wayland.XdgSurface, wayland.XdgSurfaceReqAckConfigure): {answer: true, why: "a configure event of the same xdg_surface: kept until the commit (window.go)"},
	request(wayland.XdgWmBase, wayland.XdgWmBaseReqPong):           {answer: true, why: "gives nothing"},
}

// seats is the rest of the list: requests that name a seat or a pointer to get an object
// for its events, or that only the user's configuration allows.
var seats = map[*wayland.Message]string{
	request(wayland.WlDataDeviceManager, wayland.WlDataDeviceManagerReqGetDataDevice):                                      "an object that hears of the seat",
	request(wayland.ZwpPrimarySelectionDeviceManagerV1, wayland.ZwpPrimarySelectionDeviceManagerV1ReqGetDevice):            "an object that hears of the seat",
	request(wayland.GtkPrimarySelectionDeviceManager, wayland.GtkPrimarySelectionDeviceManagerReqGetDevice):                "an object that hears of the seat",
	request(wayland.ZwpTextInputManagerV3, wayland.ZwpTextInputManagerV3ReqGetTextInput):                                   "an object that hears of the seat",
	request(wayland.ZwpTabletManagerV2, wayland.ZwpTabletManagerV2ReqGetTabletSeat):                                        "an object that hears of the seat",
	request(wayland.ZwpKeyboardShortcutsInhibitManagerV1, wayland.ZwpKeyboardShortcutsInhibitManagerV1ReqInhibitShortcuts): "hidden, but where the user allows it",
}

func request(i *wayland.Interface, op int) *wayland.Message { return &i.Requests[op] }

// A need is what a request requires of its serial.
type need struct {
	of       kinds         // the kinds of event that may have given it
	lasts    bool          // what the event began has not ended
	window   bool          // the event was on the request's window
	keyboard bool          // the client has the keyboard
	age      time.Duration // the largest age of the event; 0: any
	never    bool          // the filter always drops the request
	answer   bool          // the serial comes from no input event
	why      string
}

// kinds are sets of kinds of events with a serial.
type kinds uint8

const (
	pointerIn kinds = 1 << iota // lasts until the pointer leaves
	toolIn                      // lasts until the pen leaves
	dragIn                      // lasts until the drag leaves
	press                       // a button, a finger, a pen; lasts until its release
	keyIn                       // lasts until the keyboard leaves
	keyPress
	other

	anything = pointerIn | toolIn | dragIn | press | keyIn | keyPress | other
)

// A grant is a serial that an event gave to the client.
type grant struct {
	serial uint32
	kind   kinds
	lasts  bool
	by     *relay.Object // the client's device that had the event
	code   uint32        // the button or finger
	on     *view         // the event's surface, or nil
	at     time.Time
}

// maxGrants bounds the remembered grants of a connection.
const maxGrants = 128

// addGrant stores a grant.
func (st *state) addGrant(g grant) {
	g.at = time.Now()
	if len(st.grants) < maxGrants {
		st.grants = append(st.grants, g)
		return
	}
	// The oldest that has ended makes room.
	old := 0
	for k := range st.grants {
		if !st.grants[k].lasts {
			old = k
			break
		}
	}
	copy(st.grants[old:], st.grants[old+1:])
	st.grants[len(st.grants)-1] = g
}

// endGrants ends what events of a kind began.
func (st *state) endGrants(kind kinds, by *relay.Object, same func(g *grant) bool) {
	for k := range st.grants {
		if g := &st.grants[k]; g.lasts && g.kind == kind && g.by == by && (same == nil || same(g)) {
			g.lasts = false
		}
	}
}

// forgetFocus ends what input on a surface began. It runs when the client destroys the
// surface: no compositor sends a leave event for a destroyed surface.
func (st *state) forgetFocus(v *view) {
	for k := range st.grants {
		if st.grants[k].on == v {
			st.grants[k].on, st.grants[k].lasts = nil, false
		}
	}
	for o, k := range st.keyboards {
		if k.on == v {
			delete(st.keyboards, o)
		}
	}
	for _, p := range st.pointers {
		if p.focus == v {
			p.focus = nil
		}
	}
	for _, t := range st.touches {
		for id, on := range t.focus {
			if on == v {
				delete(t.focus, id)
			}
		}
	}
}

// may tells whether the client may make a request with a serial. on is the request's
// surface, or nil.
func (st *state) may(c *relay.Conn, m *relay.Msg, serial uint32, on *view) bool {
	n := authority[m.Def]
	ok := n.of != 0 && !n.never && (!n.keyboard || len(st.keyboards) > 0) && st.hasGrant(&n, serial, on)
	if !ok {
		filterOf(c).cfg.Log.Debug("a request without authority is dropped", "request", m.Obj.Iface.Name+"."+m.Def.Name, "serial", serial)
	}
	return ok
}

func (st *state) hasGrant(n *need, serial uint32, on *view) bool {
	for k := len(st.grants) - 1; k >= 0; k-- {
		g := &st.grants[k]
		switch {
		case g.serial != serial || g.kind&n.of == 0:
		case n.lasts && !g.lasts:
		case n.window && (on == nil || g.on == nil || g.on.root() != on.root()):
		case n.age > 0 && time.Since(g.at) > n.age:
		default:
			return true
		}
	}
	return false
}

// root returns the root surface of v's window, also through popups.
func (v *view) root() *view {
	v = of(v.Top())
	for p := v.popup(); p != nil && p.parent != nil && p.parent.v != nil; p = v.popup() {
		v = of(p.parent.v.Top())
	}
	return v
}

// focusHooks record the events that reach the client: they see an event last.
func focusHooks(l relay.Layer) {
	gives := func(i *wayland.Interface, op int, f func(st *state, c *relay.Conn, m *relay.Msg)) {
		l.Event(i, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			f(stateOf(c), c, m)
			return true, nil
		})
	}
	on := func(c *relay.Conn, id uint32) *view {
		if o := c.Server(id); o != nil {
			v, _ := o.Data.(*view)
			return v
		}
		return nil
	}
	keyboardFocus(l, gives, on)
	pointerFocus(gives, on)
	touchFocus(gives, on)
	toolFocus(gives, on)
	i := wayland.WlDataDevice
	gives(i, wayland.WlDataDeviceEvtEnter, func(st *state, c *relay.Conn, m *relay.Msg) {
		st.addGrant(grant{serial: m.Word(0), kind: dragIn, lasts: true, by: m.Obj, on: on(c, m.Word(1))})
	})
	gives(i, wayland.WlDataDeviceEvtLeave, func(st *state, _ *relay.Conn, m *relay.Msg) { st.endGrants(dragIn, m.Obj, nil) })
	for _, i := range []*wayland.Interface{wayland.WlKeyboard, wayland.WlPointer, wayland.WlTouch, wayland.ZwpTabletToolV2, wayland.WlDataDevice} {
		l.Gone(i, func(c *relay.Conn, o *relay.Object) {
			st := stateOf(c)
			st.endGrants(anything, o, nil)
			for k := range st.grants {
				if st.grants[k].by == o {
					st.grants[k].by, st.grants[k].lasts = nil, false
				}
			}
			delete(st.keyboards, o)
			st.forgetImages(o)
		})
	}
	authorityHooks(l)
}

type (
	givesFunc func(i *wayland.Interface, op int, f func(st *state, c *relay.Conn, m *relay.Msg))
	onFunc    func(c *relay.Conn, id uint32) *view
)

func keyboardFocus(l relay.Layer, gives givesFunc, on onFunc) {
	i := wayland.WlKeyboard
	l.Event(i, wayland.WlKeyboardEvtEnter, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		st, v := stateOf(c), on(c, m.Word(1))
		st.keyboards[m.Obj] = &keyFocus{on: v}
		st.addGrant(grant{serial: m.Word(0), kind: keyIn, lasts: true, by: m.Obj, on: v})
		if m.Word(2) == 0 || v == nil { // or the surface is gone
			return m.Word(2) == 0, nil
		}
		// The keys that are down were pressed for another client.
		e := c.ToClient()
		e.Begin(m.Obj.ID, wayland.WlKeyboardEvtEnter)
		e.Uint(m.Word(0))
		e.Uint(c.Server(v.id).ID)
		e.Array(nil)
		return false, e.End()
	})
	gives(i, wayland.WlKeyboardEvtLeave, func(st *state, c *relay.Conn, m *relay.Msg) {
		delete(st.keyboards, m.Obj)
		st.endGrants(keyIn, m.Obj, nil)
		st.addGrant(grant{serial: m.Word(0), kind: other, by: m.Obj})
		if len(st.keyboards) == 0 {
			st.endGrabs(c)
			st.dismissAbsent(c)
		}
	})
	l.Event(i, wayland.WlKeyboardEvtKey, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		st := stateOf(c)
		k := st.keyboards[m.Obj]
		if k == nil || !k.key(m.Word(2), m.Word(3)) {
			return false, nil
		}
		st.addGrant(grant{serial: m.Word(0), kind: keyPress, by: m.Obj, on: k.on})
		return true, nil
	})
	gives(i, wayland.WlKeyboardEvtModifiers, func(st *state, _ *relay.Conn, m *relay.Msg) {
		g := grant{serial: m.Word(0), kind: other, by: m.Obj}
		if k := st.keyboards[m.Obj]; k != nil {
			g.on = k.on
		}
		st.addGrant(g)
	})
}

// A keyFocus is the state of a keyboard that is on a surface of the client's.
type keyFocus struct {
	on   *view
	keys []uint32 // the keys that are down, pressed since the keyboard came there
}

// maxKeys bounds the keys that are down together.
const maxKeys = 256

// key records a key event, and tells whether the client gets it: it gets nothing of a key
// pressed before the keyboard came.
func (k *keyFocus) key(key, state uint32) bool {
	const pressed = 1
	at := slices.Index(k.keys, key)
	switch {
	case state == pressed && at < 0 && len(k.keys) < maxKeys:
		k.keys = append(k.keys, key)
	case state == 0 && at >= 0:
		k.keys = slices.Delete(k.keys, at, at+1)
	default:
		return state == pressed || at >= 0
	}
	return true
}

func pointerFocus(gives givesFunc, on onFunc) {
	i := wayland.WlPointer
	gives(i, wayland.WlPointerEvtEnter, func(st *state, c *relay.Conn, m *relay.Msg) {
		st.addGrant(grant{serial: m.Word(0), kind: pointerIn, lasts: true, by: m.Obj, on: on(c, m.Word(1))})
	})
	gives(i, wayland.WlPointerEvtLeave, func(st *state, _ *relay.Conn, m *relay.Msg) {
		st.endGrants(pointerIn, m.Obj, nil)
		st.endGrants(press, m.Obj, nil) // the compositor has taken the pointer
		st.addGrant(grant{serial: m.Word(0), kind: other, by: m.Obj})
	})
	gives(i, wayland.WlPointerEvtButton, func(st *state, _ *relay.Conn, m *relay.Msg) {
		g := grant{serial: m.Word(0), kind: press, lasts: m.Word(3) == 1, by: m.Obj, code: m.Word(2)}
		if p, ok := m.Obj.Data.(*pointer); ok {
			g.on = p.focus
		}
		st.endGrants(press, m.Obj, func(o *grant) bool { return o.code == g.code })
		if !g.lasts {
			g.kind = other
		}
		st.addGrant(g)
	})
}

func touchFocus(gives givesFunc, on onFunc) {
	i := wayland.WlTouch
	gives(i, wayland.WlTouchEvtDown, func(st *state, c *relay.Conn, m *relay.Msg) {
		st.addGrant(grant{serial: m.Word(0), kind: press, lasts: true, by: m.Obj, code: m.Word(3), on: on(c, m.Word(2))})
	})
	gives(i, wayland.WlTouchEvtUp, func(st *state, _ *relay.Conn, m *relay.Msg) {
		st.endGrants(press, m.Obj, func(o *grant) bool { return o.code == m.Word(2) })
		st.addGrant(grant{serial: m.Word(0), kind: other, by: m.Obj})
	})
	gives(i, wayland.WlTouchEvtCancel, func(st *state, _ *relay.Conn, m *relay.Msg) { st.endGrants(press, m.Obj, nil) })
}

func toolFocus(gives givesFunc, on onFunc) {
	i := wayland.ZwpTabletToolV2
	gives(i, wayland.ZwpTabletToolV2EvtProximityIn, func(st *state, c *relay.Conn, m *relay.Msg) {
		st.addGrant(grant{serial: m.Word(0), kind: toolIn, lasts: true, by: m.Obj, on: on(c, m.Word(2))})
	})
	gives(i, wayland.ZwpTabletToolV2EvtProximityOut, func(st *state, _ *relay.Conn, m *relay.Msg) {
		st.endGrants(toolIn, m.Obj, nil)
		st.endGrants(press, m.Obj, nil)
	})
	// The tip has no button code; 0 is the code of no button.
	gives(i, wayland.ZwpTabletToolV2EvtDown, func(st *state, _ *relay.Conn, m *relay.Msg) {
		st.addGrant(grant{serial: m.Word(0), kind: press, lasts: true, by: m.Obj, on: toolOf(m.Obj).focus})
	})
	gives(i, wayland.ZwpTabletToolV2EvtUp, func(st *state, _ *relay.Conn, m *relay.Msg) {
		st.endGrants(press, m.Obj, func(o *grant) bool { return o.code == 0 })
	})
	gives(i, wayland.ZwpTabletToolV2EvtButton, func(st *state, _ *relay.Conn, m *relay.Msg) {
		code, down := m.Word(1), m.Word(2) == 1
		st.endGrants(press, m.Obj, func(o *grant) bool { return o.code == code })
		if down {
			st.addGrant(grant{serial: m.Word(0), kind: press, lasts: true, by: m.Obj, code: code, on: toolOf(m.Obj).focus})
		}
	})
}

// authorityHooks drop requests whose serial gives them no right. Requests with further
// checks call may in their own hooks: set_cursor in sprite.go, selections and drags in
// selection.go, ack_configure in window.go.
func authorityHooks(l relay.Layer) {
	onWindow := func(c *relay.Conn, m *relay.Msg, word int) bool {
		w := m.Obj.Data.(*window)
		return w.shell != nil && w.shell.v != nil && stateOf(c).may(c, m, m.Word(word), w.shell.v)
	}
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqMove, func(c *relay.Conn, m *relay.Msg) (bool, error) { return onWindow(c, m, 1), nil })
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqResize, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		const errInvalidEdge = 0
		if edges := m.Word(2); edges > 10 || edges&3 == 3 { // left and right at once
			return false, relay.Fail(m.Obj, errInvalidEdge, "xdg_toplevel.resize: invalid edge %d", edges)
		}
		return onWindow(c, m, 1), nil
	})
	l.Request(wayland.XdgToplevel, wayland.XdgToplevelReqShowWindowMenu, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if !onWindow(c, m, 1) {
			return false, nil
		}
		v := m.Obj.Data.(*window).shell.v
		wayland.PutWord(m.Body, 8, uint32(clamp(sum(m.Int(2), -v.crop.X), 0, v.crop.W)))
		wayland.PutWord(m.Body, 12, uint32(clamp(sum(m.Int(3), -v.crop.Y), 0, v.crop.H)))
		return true, nil
	})
	l.Request(wayland.WpCursorShapeDeviceV1, wayland.WpCursorShapeDeviceV1ReqSetShape, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		const errInvalidShape = 1
		if shape := m.Word(1); shape < 1 || shape > shapes[m.Obj.Version > 1] {
			return false, relay.Fail(m.Obj, errInvalidShape, "wp_cursor_shape_device_v1.set_shape: invalid shape %d", shape)
		}
		return stateOf(c).may(c, m, m.Word(0), nil), nil
	})
	l.Request(wayland.XdgActivationTokenV1, wayland.XdgActivationTokenV1ReqSetSerial, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		return stateOf(c).may(c, m, m.Word(0), nil), nil
	})
	for def, n := range authority {
		if n.never && def != request(wayland.XdgPopup, wayland.XdgPopupReqGrab) {
			i, op := whereIs(def)
			l.Request(i, op, func(*relay.Conn, *relay.Msg) (bool, error) { return false, nil })
		}
	}
}

// shapes has the last shape of cursor-shape-v1.xml: of version 1, and of those after it.
var shapes = map[bool]uint32{false: 34, true: 36}

// whereIs returns a request's interface and number.
func whereIs(def *wayland.Message) (*wayland.Interface, int) {
	for _, i := range wayland.Interfaces() {
		for op := range i.Requests {
			if &i.Requests[op] == def {
				return i, op
			}
		}
	}
	return nil, -1
}
