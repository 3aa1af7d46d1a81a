package window

import (
	"time"

	"github.com/neurlang/wayland/wl"

	"vix/internal/menu/draw"
	"vix/internal/menu/proto"
)

// A pointer is the seat's pointer.
type pointer struct {
	wl     *wl.Pointer
	shape  *proto.WpShapeDeviceV1
	x, y   float64
	inside bool
	moved  bool    // moved since it entered: a menu that opens below it selects nothing
	axis   float64 // scroll distance of less than a line
}

// A finger is the first finger on the screen.
type finger struct {
	wl     *wl.Touch
	id     int32
	down   bool
	x, y   float64
	begin  float64 // its first position
	last   float64 // its position at the last scroll
	scroll bool    // it scrolls, and is no longer a tap
	long   *time.Timer
}

const (
	wheelLine = 5.0 // units of the axis; a notch is 15
	tapSlack  = 10  // logical pixels that a tap may move
	longTouch = 500 * time.Millisecond
)

func (w *window) takePointer(has bool) {
	if !has {
		_ = w.mouse.wl.Release()
		w.mouse = pointer{}
		return
	}
	p, err := w.globals.seat.GetPointer()
	if err != nil {
		return
	}
	w.mouse.wl = p
	if w.globals.cursors != nil {
		w.mouse.shape, _ = w.globals.cursors.GetPointer(p)
	}
	p.AddEnterHandler(w)
	p.AddLeaveHandler(w)
	p.AddMotionHandler(w)
	p.AddButtonHandler(w)
	p.AddAxisHandler(w)
}

// HandlePointerEnter shows the ordinary cursor.
func (w *window) HandlePointerEnter(ev wl.PointerEnterEvent) {
	w.call(func() {
		w.mouse.x, w.mouse.y, w.mouse.inside, w.mouse.moved = float64(ev.SurfaceX), float64(ev.SurfaceY), true, false
		if w.mouse.shape != nil {
			const ordinary = 1
			_ = w.mouse.shape.SetShape(ev.Serial, ordinary)
		}
	})
}

// HandlePointerLeave forgets the pointer's position.
func (w *window) HandlePointerLeave(wl.PointerLeaveEvent) { w.call(func() { w.mouse.inside = false }) }

// HandlePointerMotion selects the row below the pointer.
func (w *window) HandlePointerMotion(ev wl.PointerMotionEvent) {
	w.call(func() {
		x, y := float64(ev.SurfaceX), float64(ev.SurfaceY)
		w.mouse.moved = w.mouse.moved || x != w.mouse.x || y != w.mouse.y
		w.mouse.x, w.mouse.y = x, y
		if w.mouse.moved {
			w.point(x, y)
		}
	})
}

// point selects the row at a position, and reports whether there is one.
func (w *window) point(x, y float64) bool {
	row := draw.RowAt(w.Setup.Look, x, y)
	line := w.model.Top() + row
	if row < 0 || line >= w.model.Count() {
		return false
	}
	if line != w.model.At() {
		w.model.Select(line)
		w.dirty = true
	}
	return true
}

// HandlePointerButton handles clicks: left activates the row, right opens or closes the second
// pane.
func (w *window) HandlePointerButton(ev wl.PointerButtonEvent) {
	const left, right, back, side = 0x110, 0x111, 0x116, 0x113
	w.call(func() {
		if ev.State == 0 {
			return
		}
		w.keys.serial = ev.Serial
		on := w.point(w.mouse.x, w.mouse.y)
		w.dirty = true
		switch {
		case ev.Button == left && on:
			w.activate(false)
		case ev.Button == left && w.mouse.y < draw.EntryHeight, ev.Button == back, ev.Button == side:
			w.model.Back()
		case ev.Button == right:
			if !w.model.Back() && on {
				w.model.Open()
			}
		}
	})
}

// HandlePointerAxis scrolls.
func (w *window) HandlePointerAxis(ev wl.PointerAxisEvent) {
	w.call(func() {
		if ev.Axis != 0 {
			return
		}
		w.mouse.axis += float64(ev.Value)
		if lines := int(w.mouse.axis / wheelLine); lines != 0 {
			w.mouse.axis -= float64(lines) * wheelLine
			w.model.Scroll(lines)
			w.dirty = true
		}
	})
}

// HandleTouchDown begins a tap, a scroll or a long press.
func (w *window) HandleTouchDown(ev wl.TouchDownEvent) {
	w.call(func() {
		if w.touch.down {
			return
		}
		w.keys.serial = ev.Serial
		x, y := float64(ev.X), float64(ev.Y)
		w.touch = finger{wl: w.touch.wl, id: ev.Id, down: true, x: x, y: y, begin: y, last: y, long: time.NewTimer(longTouch)}
		w.point(x, y)
	})
}

// HandleTouchMotion scrolls the rows with the finger.
func (w *window) HandleTouchMotion(ev wl.TouchMotionEvent) {
	w.call(func() {
		t := &w.touch
		if !t.down || ev.Id != t.id {
			return
		}
		t.x, t.y = float64(ev.X), float64(ev.Y)
		if !t.scroll && max(t.y-t.begin, t.begin-t.y) < tapSlack {
			return
		}
		t.scroll = true
		t.stop()
		if lines := int((t.last - t.y) / draw.RowHeight); lines != 0 {
			t.last -= float64(lines * draw.RowHeight)
			w.model.Scroll(lines)
			w.dirty = true
		}
	})
}

// HandleTouchUp ends the touch; a tap activates the row below it.
func (w *window) HandleTouchUp(ev wl.TouchUpEvent) {
	w.call(func() {
		t := &w.touch
		if !t.down || ev.Id != t.id {
			return
		}
		t.down = false
		t.stop()
		w.dirty = true
		switch {
		case t.scroll:
		case w.point(t.x, t.y):
			w.activate(false)
		case t.y < draw.EntryHeight:
			w.model.Back()
		}
	})
}

// HandleTouchCancel means that the compositor took the touch for a gesture.
func (w *window) HandleTouchCancel(wl.TouchCancelEvent) {
	w.call(func() {
		w.touch.down = false
		w.touch.stop()
	})
}

func (t *finger) stop() {
	if t.long != nil {
		t.long.Stop()
		t.long = nil
	}
}

// longPress opens the second pane; the rest of that touch has no effect.
func (w *window) longPress() {
	w.touch.long, w.touch.scroll = nil, true
	if w.point(w.touch.x, w.touch.y) {
		w.model.Open()
		w.dirty = true
	}
}
