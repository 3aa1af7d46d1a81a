package filter

import (
	"vix/internal/relay"
	"vix/internal/wayland"
)

// Input on the pieces of a frame belongs to the host: a client gets nothing from the
// moment a device enters a piece until it leaves it. A press on a border resizes the
// window and one on the label moves it, as on any program's title bar; a plain click
// does nothing.

// A wlSeat is a wl_seat of the client's.
type wlSeat struct{ id uint32 } // its id on the compositor; 0 after its release

// A pointer is a wl_pointer of the client's.
type pointer struct {
	seat     *wlSeat
	on       *piece // the piece below it, or nil
	focus    *view  // the client's surface below it, or nil
	x, y     int32  // the place on the piece, in logical pixels
	serial   uint32
	frameDue bool          // the client got an event since the last frame event
	shape    *relay.Object // wp_cursor_shape_device_v1 of our own
	cursor   uint32        // its shape
}

// A touch is a wl_touch of the client's, with the touch points on pieces.
type touch struct {
	seat *wlSeat
	// on and focus hold the pieces and the client's surfaces below the touch points, by
	// the points' ids.
	on       map[int32]*piece
	focus    map[int32]*view
	frameDue bool
}

// A tool is a tablet's tool, a gesture or a text input.
type tool struct {
	on    bool  // it is on a piece
	focus *view // the client's surface below it, or nil
}

func inputHooks(h relay.Layer) {
	h.Request(wayland.WlSeat, wayland.WlSeatReqGetPointer, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		p := &pointer{seat: seatOf(m.Obj)}
		m.New.Data = p
		stateOf(c).pointers[m.New] = p
		stateOf(c).dismissAbsent(c)
		return true, nil
	})
	h.Request(wayland.WlSeat, wayland.WlSeatReqGetKeyboard, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		st := stateOf(c)
		st.boards++
		m.New.More = st
		st.dismissAbsent(c)
		return true, nil
	})
	h.Gone(wayland.WlKeyboard, func(c *relay.Conn, o *relay.Object) {
		if o.More != nil {
			stateOf(c).boards--
		}
	})
	h.Gone(wayland.WlPointer, func(c *relay.Conn, o *relay.Object) { delete(stateOf(c).pointers, o) })
	h.Gone(wayland.WlTouch, func(c *relay.Conn, o *relay.Object) { delete(stateOf(c).touches, o) })
	h.Request(wayland.WlSeat, wayland.WlSeatReqGetTouch, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		t := &touch{seat: seatOf(m.Obj), on: map[int32]*piece{}, focus: map[int32]*view{}}
		m.New.Data = t
		stateOf(c).touches[m.New] = t
		stateOf(c).dismissAbsent(c)
		return true, nil
	})
	h.Request(wayland.WlSeat, wayland.WlSeatReqRelease, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		seatOf(m.Obj).id = 0
		return true, nil
	})
	pointerHooks(h)
	touchHooks(h)
	toolHooks(h)
	gestureHooks(h)
	textHooks(h)
	h.Request(wayland.WlPointer, wayland.WlPointerReqSetCursor, onSetCursor)
	h.Request(wayland.ZwpTabletToolV2, wayland.ZwpTabletToolV2ReqSetCursor, onSetCursor)
	h.Request(wayland.WlPointer, wayland.WlPointerReqRelease, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if p, ok := m.Obj.Data.(*pointer); ok && p.shape != nil {
			c.Discard(p.shape, wayland.WpCursorShapeDeviceV1ReqDestroy)
			p.shape = nil
		}
		stateOf(c).forgetImages(m.Obj)
		return true, nil
	})
	h.Request(wayland.ZwpTabletToolV2, wayland.ZwpTabletToolV2ReqDestroy, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		stateOf(c).forgetImages(m.Obj)
		return true, nil
	})
}

func seatOf(o *relay.Object) *wlSeat {
	s, ok := o.Data.(*wlSeat)
	if !ok {
		s = &wlSeat{id: o.Server}
		o.Data = s
	}
	return s
}

// pieceArg returns the piece that an event's argument names, or nil; own tells
// whether the surface is ours at all.
func pieceArg(c *relay.Conn, id uint32) (p *piece, own bool) {
	o := c.Server(id)
	if o == nil || o.ID != 0 {
		return nil, false
	}
	p, _ = o.Data.(*piece)
	return p, true
}

// focusOf returns the client's surface that an event's argument names, or nil.
func focusOf(c *relay.Conn, id uint32) *view {
	if o := c.Server(id); o != nil && o.ID != 0 {
		v, _ := o.Data.(*view)
		return v
	}
	return nil
}

// wake makes the engine call the motion hooks of a pointer where the filter needs them: on
// a piece, and on a surface with shifted coordinates.
func (p *pointer) wake(o *relay.Object) { o.Awake = p.on != nil || p.focus.shifted() }

func pointerHooks(h relay.Layer) {
	hook := func(f func(c *relay.Conn, p *pointer, m *relay.Msg) bool) relay.Hook {
		return func(c *relay.Conn, m *relay.Msg) (bool, error) {
			p, ok := m.Obj.Data.(*pointer)
			if !ok {
				return true, nil
			}
			pass := f(c, p, m)
			p.frameDue = p.frameDue || pass
			return pass, nil
		}
	}
	on := func(op int, f func(c *relay.Conn, p *pointer, m *relay.Msg) bool) {
		h.Event(wayland.WlPointer, op, hook(f))
	}
	awake := func(op int, f func(c *relay.Conn, p *pointer, m *relay.Msg) bool) {
		h.EventWhile(wayland.WlPointer, op, hook(f))
	}
	off := func(_ *relay.Conn, p *pointer, _ *relay.Msg) bool { return p.on == nil }
	on(wayland.WlPointerEvtEnter, func(c *relay.Conn, p *pointer, m *relay.Msg) bool {
		pc, own := pieceArg(c, m.Word(1))
		p.on, p.focus = pc, focusOf(c, m.Word(1))
		p.focus.toClientFixed(m.Body, 8)
		if pc != nil {
			p.serial, p.x, p.y, p.cursor = m.Word(0), m.Int(2)>>8, m.Int(3)>>8, 0
			p.point(c, m.Obj)
		}
		p.wake(m.Obj)
		return !own
	})
	on(wayland.WlPointerEvtLeave, func(c *relay.Conn, p *pointer, m *relay.Msg) bool {
		p.on, p.focus = nil, nil
		m.Obj.Awake = true // until the frame event that belongs to it
		_, own := pieceArg(c, m.Word(1))
		return !own
	})
	awake(wayland.WlPointerEvtMotion, func(c *relay.Conn, p *pointer, m *relay.Msg) bool {
		if p.on == nil {
			p.focus.toClientFixed(m.Body, 4)
			return true
		}
		p.x, p.y = m.Int(1)>>8, m.Int(2)>>8
		p.point(c, m.Obj)
		return false
	})
	on(wayland.WlPointerEvtButton, func(c *relay.Conn, p *pointer, m *relay.Msg) bool {
		if p.on == nil {
			return true
		}
		if m.Word(3) == 1 && stateOf(c).endGrabs(c) {
			return false // the click ends the menu, and does nothing else
		}
		if m.Word(2) == buttonLeft && m.Word(3) == 1 {
			p.on.drag(c, p.seat, m.Word(0), p.x, p.y)
		}
		return false
	})
	for _, op := range []int{
		wayland.WlPointerEvtAxis, wayland.WlPointerEvtAxisSource, wayland.WlPointerEvtAxisStop, wayland.WlPointerEvtAxisDiscrete,
		wayland.WlPointerEvtAxisValue120, wayland.WlPointerEvtAxisRelativeDirection,
	} {
		awake(op, off)
	}
	h.EventWhile(wayland.WlPointer, wayland.WlPointerEvtFrame, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		p, ok := m.Obj.Data.(*pointer)
		if !ok {
			return true, nil
		}
		due := p.frameDue
		p.frameDue = false
		p.wake(m.Obj)
		if p.on == nil && p.focus == nil {
			stateOf(c).dismissAbsent(c)
		}
		return due, nil
	})
	relativeHooks(h)
}

// relativeHooks keep relative motion on pieces from the client.
func relativeHooks(h relay.Layer) {
	h.Request(wayland.ZwpRelativePointerManagerV1, wayland.ZwpRelativePointerManagerV1ReqGetRelativePointer, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if o := c.Client(m.Word(1)); o != nil && o.Iface == wayland.WlPointer {
			m.New.Data = o.Data
		}
		return true, nil
	})
	h.Event(wayland.ZwpRelativePointerV1, wayland.ZwpRelativePointerV1EvtRelativeMotion, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		p, ok := m.Obj.Data.(*pointer)
		if !ok || p.on == nil {
			if ok {
				p.frameDue = true
			}
			return true, nil
		}
		return false, nil
	})
}

// Buttons, edges and shapes: linux/input-event-codes.h, xdg_toplevel.resize_edge,
// wp_cursor_shape_device_v1.shape.
const (
	buttonLeft = 0x110

	edgeTop, edgeBottom, edgeLeft, edgeRight = 1, 2, 4, 8

	shapeDefault = 1
)

// shapeOf is the pointer's shape over an edge.
var shapeOf = map[uint32]uint32{
	0:                      shapeDefault,
	edgeRight:              18,
	edgeTop:                19,
	edgeTop | edgeRight:    20,
	edgeTop | edgeLeft:     21,
	edgeBottom:             22,
	edgeBottom | edgeRight: 23,
	edgeBottom | edgeLeft:  24,
	edgeLeft:               25,
}

// corner is the distance from a corner within which a press resizes in both directions.
const corner = 16

// edge returns the edges that a press at a place on a piece moves, 0 for the label.
func (p *piece) edge(x, y int32) (e uint32) {
	if p.of.window() == nil {
		return 0
	}
	// x, y is the place in the whole window with its frame; rx, ry its distance from the
	// right and lower ends.
	all := p.of.shell.geometry
	x, y = x+p.at.X-all.X, y+p.at.Y-all.Y
	rx, ry := all.W-1-x, all.H-1-y
	if min(x, y, rx, ry) >= sideWidth {
		return 0 // the label
	}
	reach := func(d int32) bool { return d < corner }
	switch {
	case reach(y):
		e |= edgeTop
	case reach(ry):
		e |= edgeBottom
	}
	switch {
	case reach(x):
		e |= edgeLeft
	case reach(rx):
		e |= edgeRight
	}
	return e
}

// point gives the pointer the shape for what a press would do.
func (p *pointer) point(c *relay.Conn, o *relay.Object) {
	f := framesOf(c)
	if f.shapes == nil || o.Server == 0 || o.Dead {
		return
	}
	if p.shape == nil {
		p.shape = c.Own(wayland.WpCursorShapeDeviceV1, f.shapes.Version, nil)
		c.ToServer().Msg(f.shapes.Server, wayland.WpCursorShapeManagerV1ReqGetPointer, p.shape.Server, o.Server)
	}
	if shape := shapeOf[p.on.edge(p.x, p.y)]; shape != p.cursor {
		p.cursor = shape
		c.ToServer().Msg(p.shape.Server, wayland.WpCursorShapeDeviceV1ReqSetShape, p.serial, shape)
	}
}

// drag starts the move or resize of a press on a piece.
func (p *piece) drag(c *relay.Conn, s *wlSeat, serial uint32, x, y int32) {
	w := p.of.window()
	if w == nil || s.id == 0 {
		return
	}
	top := w.obj.Server
	switch e := p.edge(x, y); {
	case e != 0:
		c.ToServer().Msg(top, wayland.XdgToplevelReqResize, s.id, serial, e)
	default:
		c.ToServer().Msg(top, wayland.XdgToplevelReqMove, s.id, serial)
	}
}

func touchHooks(h relay.Layer) {
	on := func(op int, f func(c *relay.Conn, t *touch, m *relay.Msg) bool) {
		h.Event(wayland.WlTouch, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			t, ok := m.Obj.Data.(*touch)
			if !ok {
				return true, nil
			}
			pass := f(c, t, m)
			t.frameDue = t.frameDue || pass
			return pass, nil
		})
	}
	on(wayland.WlTouchEvtDown, func(c *relay.Conn, t *touch, m *relay.Msg) bool {
		delete(t.on, m.Int(3))
		delete(t.focus, m.Int(3))
		p, own := pieceArg(c, m.Word(2))
		if own {
			t.on[m.Int(3)] = p
			if p != nil && !stateOf(c).endGrabs(c) {
				p.drag(c, t.seat, m.Word(0), m.Int(4)>>8, m.Int(5)>>8)
			}
		} else if v := focusOf(c, m.Word(2)); v != nil {
			t.focus[m.Int(3)] = v
			v.toClientFixed(m.Body, 16)
		}
		return !own
	})
	on(wayland.WlTouchEvtUp, func(_ *relay.Conn, t *touch, m *relay.Msg) bool {
		_, own := t.on[m.Int(2)]
		delete(t.on, m.Int(2))
		delete(t.focus, m.Int(2))
		return !own
	})
	off := func(word int) func(*relay.Conn, *touch, *relay.Msg) bool {
		return func(_ *relay.Conn, t *touch, m *relay.Msg) bool {
			_, own := t.on[m.Int(word)]
			return !own
		}
	}
	on(wayland.WlTouchEvtMotion, func(_ *relay.Conn, t *touch, m *relay.Msg) bool {
		t.focus[m.Int(1)].toClientFixed(m.Body, 8)
		_, own := t.on[m.Int(1)]
		return !own
	})
	on(wayland.WlTouchEvtShape, off(0))
	on(wayland.WlTouchEvtOrientation, off(0))
	on(wayland.WlTouchEvtCancel, func(_ *relay.Conn, t *touch, _ *relay.Msg) bool {
		clear(t.on)
		clear(t.focus)
		return true
	})
	h.Event(wayland.WlTouch, wayland.WlTouchEvtFrame, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		t, ok := m.Obj.Data.(*touch)
		if !ok {
			return true, nil
		}
		due := t.frameDue
		t.frameDue = false
		return due, nil
	})
}

func toolOf(o *relay.Object) *tool {
	t, ok := o.Data.(*tool)
	if !ok {
		t = &tool{}
		o.Data = t
	}
	return t
}

// toolHooks keep a pen on a piece from the client.
func toolHooks(h relay.Layer) {
	i := wayland.ZwpTabletToolV2
	for op := range i.Events {
		switch op {
		case wayland.ZwpTabletToolV2EvtProximityIn:
			h.Event(i, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
				_, own := pieceArg(c, m.Word(2))
				*toolOf(m.Obj) = tool{own, focusOf(c, m.Word(2))}
				return !own, nil
			})
		case wayland.ZwpTabletToolV2EvtMotion:
			h.Event(i, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
				t := toolOf(m.Obj)
				t.focus.toClientFixed(m.Body, 0)
				return !t.on, nil
			})
		case wayland.ZwpTabletToolV2EvtProximityOut:
			h.Event(i, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
				return !toolOf(m.Obj).on, nil // its frame event is still to come
			})
		case wayland.ZwpTabletToolV2EvtType, wayland.ZwpTabletToolV2EvtHardwareSerial, wayland.ZwpTabletToolV2EvtHardwareIdWacom,
			wayland.ZwpTabletToolV2EvtCapability, wayland.ZwpTabletToolV2EvtDone, wayland.ZwpTabletToolV2EvtRemoved:
		default:
			h.Event(i, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) { return !toolOf(m.Obj).on, nil })
		}
	}
	for _, pad := range []int{wayland.ZwpTabletPadV2EvtEnter, wayland.ZwpTabletPadV2EvtLeave} {
		word := 2
		if pad == wayland.ZwpTabletPadV2EvtLeave {
			word = 1
		}
		h.Event(wayland.ZwpTabletPadV2, pad, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			_, own := pieceArg(c, m.Word(word))
			return !own, nil
		})
	}
}

// gestureHooks keep gestures on a piece from the client: all have a begin event with
// the surface as third argument, and pass or not until the next begin.
func gestureHooks(h relay.Layer) {
	for _, i := range []*wayland.Interface{wayland.ZwpPointerGestureSwipeV1, wayland.ZwpPointerGesturePinchV1, wayland.ZwpPointerGestureHoldV1} {
		h.Event(i, 0, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			_, own := pieceArg(c, m.Word(2))
			toolOf(m.Obj).on = own
			return !own, nil
		})
		for op := 1; op < len(i.Events); op++ {
			h.Event(i, op, func(_ *relay.Conn, m *relay.Msg) (bool, error) { return !toolOf(m.Obj).on, nil })
		}
	}
}

// textHooks give the input method the cursor's place.
func textHooks(h relay.Layer) {
	h.Event(wayland.ZwpTextInputV3, wayland.ZwpTextInputV3EvtEnter, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		_, own := pieceArg(c, m.Word(0))
		*toolOf(m.Obj) = tool{own, focusOf(c, m.Word(0))}
		return !own, nil
	})
	h.Request(wayland.ZwpTextInputV3, wayland.ZwpTextInputV3ReqSetCursorRectangle, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		// The input method's window opens at the cursor, which must be in the client's surface.
		t := toolOf(m.Obj)
		if t.focus == nil {
			return false, nil
		}
		in := rect(m.Int(0), m.Int(1), m.Int(2), m.Int(3)).Moved(-t.focus.crop.X, -t.focus.crop.Y)
		in.X, in.Y = clamp(in.X, 0, t.focus.crop.W), clamp(in.Y, 0, t.focus.crop.H)
		in.W, in.H = clamp(in.W, 0, t.focus.crop.W-in.X), clamp(in.H, 0, t.focus.crop.H-in.Y)
		for k, v := range []int32{in.X, in.Y, in.W, in.H} {
			wayland.PutWord(m.Body, 4*k, uint32(v))
		}
		return true, nil
	})
}
