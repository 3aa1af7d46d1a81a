package hostile

import (
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"vix/internal/wayland"
)

// Colours of what these attacks show: of their windows, and of what is to come out of
// its frame.
const (
	plainBlue = 0x2040ff
	pink      = 0xff00ff
)

// invented is a serial that no compositor has sent.
const invented = 4711

// keys shows a window, and says what it hears of a keyboard and a pointer.
func keys(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	if err := r.listen(c); err != nil {
		return err
	}
	w, err := c.NewWindow("listens", "keys")
	if err != nil {
		return err
	}
	if err := w.Show(0, 0, 0x808080); err != nil {
		return err
	}
	r.say("shown")
	return c.live(w, 0x808080)
}

// live has a window follow the sizes that it is told, until the connection ends.
func (c *Client) live(w *Window, rgb uint32) error {
	for {
		known := w.Configured
		if err := c.Until(func() bool { return w.Configured != known }); err != nil {
			return err
		}
		if err := w.Show(0, 0, rgb); err != nil {
			return err
		}
	}
}

// listen says every key and button that is pressed, and when the keyboard comes.
func (r *Run) listen(c *Client) error {
	can := uint32(0)
	seat := c.Bind("wl_seat", 5, func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlSeatEvtCapabilities {
			can = d.Uint()
		}
	})
	if err := c.Sync(); err != nil {
		return err
	}
	c.seat = seat
	if can&seatPointer != 0 {
		c.Req(seat, wayland.WlSeatReqGetPointer, c.ID(func(op uint16, d *wayland.Decoder) {
			switch op {
			case wayland.WlPointerEvtEnter:
				r.say("pointer enters")
			case wayland.WlPointerEvtButton:
				_, _, button, down := d.Uint(), d.Uint(), d.Uint(), d.Uint()
				r.say("button %d %d", button, down)
			}
		}))
	}
	const seatKeyboard = 2
	if can&seatKeyboard != 0 {
		c.Req(seat, wayland.WlSeatReqGetKeyboard, c.ID(func(op uint16, d *wayland.Decoder) {
			switch op {
			case wayland.WlKeyboardEvtEnter:
				r.say("keyboard enters")
			case wayland.WlKeyboardEvtLeave:
				r.say("keyboard leaves")
			case wayland.WlKeyboardEvtKey:
				_, _, key, down := d.Uint(), d.Uint(), d.Uint(), d.Uint()
				if down == pressed {
					r.say("key %d", key)
				}
			}
		}))
	}
	return nil
}

// A menu is a popup.
type menu struct{ surface, xdg, popup uint32 }

// menu opens a popup at a place of its parent's, and waits until it is configured.
func (c *Client) menu(parent uint32, w, h, x, y int, before ...func(m menu)) (m menu, err error) {
	pos := c.ID(nil)
	c.Req(c.wm, wayland.XdgWmBaseReqCreatePositioner, pos)
	c.Req(pos, wayland.XdgPositionerReqSetSize, w, h)
	c.Req(pos, wayland.XdgPositionerReqSetAnchorRect, x, y, 1, 1)
	c.Req(pos, wayland.XdgPositionerReqSetAnchor, uint32(5))  // top left
	c.Req(pos, wayland.XdgPositionerReqSetGravity, uint32(8)) // bottom right
	m.surface = c.ID(nil)
	c.Req(c.comp, wayland.WlCompositorReqCreateSurface, m.surface)
	configured := false
	m.xdg = c.ID(func(_ uint16, d *wayland.Decoder) {
		configured = true
		c.Req(m.xdg, wayland.XdgSurfaceReqAckConfigure, d.Uint())
	})
	c.Req(c.wm, wayland.XdgWmBaseReqGetXdgSurface, m.xdg, m.surface)
	m.popup = c.ID(nil)
	c.Req(m.xdg, wayland.XdgSurfaceReqGetPopup, m.popup, parent, pos)
	for _, f := range before {
		f(m)
	}
	c.Req(m.surface, wayland.WlSurfaceReqCommit)
	return m, c.Until(func() bool { return configured })
}

// display shows content on a surface.
func (c *Client) display(surface, buffer uint32) {
	c.Req(surface, wayland.WlSurfaceReqAttach, buffer, 0, 0)
	c.Req(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<30, 1<<30)
	c.Req(surface, wayland.WlSurfaceReqCommit)
}

// takeInput opens two windows, and popups of both with grabs, and asks for all else that
// takes input, with serials that nobody sent. It goes on asking, and says what it hears.
func takeInput(r *Run) error {
	c, err := r.ready()
	if err != nil {
		return err
	}
	if err := r.listen(c); err != nil {
		return err
	}
	manager, device := c.Bind("wl_data_device_manager", 3, nil), c.ID(nil)
	c.Req(manager, wayland.WlDataDeviceManagerReqGetDataDevice, device, c.seat)
	var ws [2]*Window
	for i := range ws {
		if ws[i], err = c.NewWindow("grabs", "hostile"); err != nil {
			return err
		}
		if err := ws[i].Show(200, 100, plainBlue); err != nil {
			return err
		}
	}
	b, err := c.Buffer(20, 20, pink)
	if err != nil {
		return err
	}
	for n := uint32(0); ; n++ {
		w := ws[n%2]
		m, err := c.menu(w.XdgSurface, 20, 20, 5, 5, func(m menu) { c.Req(m.popup, wayland.XdgPopupReqGrab, c.seat, invented+n) })
		if err != nil {
			return err
		}
		c.display(m.surface, b)
		c.Req(w.Toplevel, wayland.XdgToplevelReqMove, c.seat, invented+n)
		c.Req(w.Toplevel, wayland.XdgToplevelReqResize, c.seat, invented+n, uint32(4))
		c.Req(w.Toplevel, wayland.XdgToplevelReqShowWindowMenu, c.seat, invented+n, 5, 5)
		c.Req(device, wayland.WlDataDeviceReqStartDrag, uint32(0), w.Surface, uint32(0), invented+n)
		if err := c.Sync(); err != nil {
			return err
		}
		if n == 1 {
			r.say("grabbed")
		}
		if n >= 1 { // the newest stays for a while
			if err := c.pause(200 * time.Millisecond); err != nil {
				return err
			}
		}
		c.Req(m.popup, wayland.XdgPopupReqDestroy)
		c.Req(m.xdg, wayland.XdgSurfaceReqDestroy)
		c.Req(m.surface, wayland.WlSurfaceReqDestroy)
	}
}

// pause takes events in for about so long: it asks again and again.
func (c *Client) pause(d time.Duration) error {
	for until := time.Now().Add(d); time.Now().Before(until); {
		if err := c.Sync(); err != nil {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return nil
}

// confusions make the filter's model and the compositor differ, on filters that look at
// requests instead of states. Each has a window of 300×200.
var confusions = map[string]func(c *Client, w *Window, sub, big uint32) error{
	"role": func(c *Client, w *Window, sub, big uint32) error {
		seat := c.Bind("wl_seat", 5, nil)
		manager, device := c.Bind("wl_data_device_manager", 3, nil), c.ID(nil)
		c.Req(manager, wayland.WlDataDeviceManagerReqGetDataDevice, device, seat)
		x := c.newSurface()
		c.display(x, big)
		c.Req(device, wayland.WlDataDeviceReqStartDrag, uint32(0), w.Surface, x, invented)
		c.onto(sub, x, w.Surface, -100, -100)
		c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		return nil
	},
	"pending": func(c *Client, w *Window, sub, big uint32) error {
		x := c.newSurface()
		c.display(x, big)
		c.Req(x, wayland.WlSurfaceReqAttach, uint32(0), 0, 0) // never committed
		c.onto(sub, x, w.Surface, -100, -100)
		c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		return nil
	},
	"nested": func(c *Client, w *Window, sub, big uint32) error {
		m, err := c.menu(w.XdgSurface, 40, 40, 5, 5)
		if err != nil {
			return err
		}
		tiny, err := c.Buffer(1, 1, plainBlue)
		if err != nil {
			return err
		}
		low, err := c.Buffer(40, 40, plainBlue)
		if err != nil {
			return err
		}
		c.display(m.surface, low)
		k := c.newSurface()
		c.Req(c.onto(sub, k, m.surface, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		c.display(k, tiny)
		c.Req(m.surface, wayland.WlSurfaceReqCommit)
		g := c.newSurface()
		c.display(g, big) // before it has a role
		c.onto(sub, g, k, -100, -100)
		c.Req(k, wayland.WlSurfaceReqCommit)
		return nil
	},
	"destroyed": func(c *Client, w *Window, sub, big uint32) error {
		k, g := c.newSurface(), c.newSurface()
		tiny, err := c.Buffer(1, 1, plainBlue)
		if err != nil {
			return err
		}
		c.Req(c.onto(sub, k, w.Surface, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		c.display(k, tiny)
		c.Req(c.onto(sub, g, k, -100, -100), wayland.WlSubsurfaceReqSetDesync)
		c.display(g, big)
		c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		c.Req(k, wayland.WlSurfaceReqDestroy)
		c.display(g, big)
		c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		return nil
	},
	"offset": func(c *Client, w *Window, sub, big uint32) error {
		k := c.newSurface()
		c.Req(c.onto(sub, k, w.Surface, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		for range 5 {
			c.Req(k, wayland.WlSurfaceReqOffset, -100, -100)
			c.display(k, big)
			c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		}
		return nil
	},
	"larger": func(c *Client, w *Window, _, big uint32) error {
		m, err := c.menu(w.XdgSurface, 10, 10, -30, -30)
		if err != nil {
			return err
		}
		c.display(m.surface, big)
		return nil
	},
	"larger, nested": func(c *Client, w *Window, sub, big uint32) error {
		parent := w.XdgSurface
		for range 4 {
			m, err := c.menu(parent, 600, 400, -30, -30)
			if err != nil {
				return err
			}
			c.display(m.surface, big)
			k := c.newSurface()
			c.onto(sub, k, m.surface, -200, -200)
			c.display(k, big)
			c.Req(m.surface, wayland.WlSurfaceReqCommit)
			parent = m.xdg
		}
		return nil
	},
}

// newSurface makes a surface.
func (c *Client) newSurface() uint32 {
	s := c.ID(nil)
	c.Req(c.comp, wayland.WlCompositorReqCreateSurface, s)
	return s
}

// onto makes a surface a sub-surface of another.
func (c *Client) onto(subcompositor, s, parent uint32, x, y int) (sub uint32) {
	sub = c.ID(nil)
	c.Req(subcompositor, wayland.WlSubcompositorReqGetSubsurface, sub, s, parent)
	c.Req(sub, wayland.WlSubsurfaceReqSetPosition, x, y)
	return sub
}

// confuse plays one of the confusions: it says what came of it, and holds.
//
//	confuse NAME
func confuse(r *Run) error {
	do := confusions[strings.Join(r.Args, " ")]
	if do == nil {
		return fmt.Errorf("confuse: no %q; there are %s", r.Args, strings.Join(Confusions(), ", "))
	}
	c, err := r.ready()
	if err != nil {
		return err
	}
	w, err := c.NewWindow("with a frame", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(300, 200, plainBlue); err != nil {
		return err
	}
	big, err := c.Buffer(600, 400, pink)
	if err != nil {
		return err
	}
	err = do(c, w, c.Bind("wl_subcompositor", 1, nil), big)
	if err == nil {
		err = c.Sync()
	}
	r.say("tried: %v", err)
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

// Confusions returns what confuse can play.
func Confusions() (names []string) {
	for n := range confusions {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// cursor gives the pointer an image of SIDE whose hotspot is at X, Y, whenever it comes.
//
//	cursor SIDE X Y
func cursor(r *Run) error {
	if len(r.Args) < 3 {
		return fmt.Errorf("cursor: want SIDE X Y")
	}
	var n [3]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(r.Args[i]); err != nil {
			return err
		}
	}
	c, err := r.ready()
	if err != nil {
		return err
	}
	can := uint32(0)
	seat := c.Bind("wl_seat", 5, func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlSeatEvtCapabilities {
			can = d.Uint()
		}
	})
	if err := c.Until(func() bool { return can&seatPointer != 0 }); err != nil {
		return err
	}
	b, err := c.Buffer(n[0], n[0], pink)
	if err != nil {
		return err
	}
	image, ptr := c.newSurface(), uint32(0)
	ptr = c.ID(func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlPointerEvtEnter {
			c.Req(ptr, wayland.WlPointerReqSetCursor, d.Uint(), image, n[1], n[2])
			c.display(image, b)
			r.say("image")
		}
	})
	c.Req(seat, wayland.WlSeatReqGetPointer, ptr)
	w, err := c.NewWindow("with a pointer", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(300, 200, plainBlue); err != nil {
		return err
	}
	r.say("shown")
	return c.live(w, plainBlue)
}

// amplify has a window of as many sub-surfaces as it may have, and resizes it as often as
// it is let for the seconds given: each time the host says much more than the guest did.
//
//	amplify SECONDS
func amplify(r *Run) error {
	secs, err := strconv.ParseFloat(r.Args[0], 64)
	if err != nil {
		return err
	}
	c, err := r.ready()
	if err != nil {
		return err
	}
	w, err := c.NewWindow("with many children", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(300, 200, plainBlue); err != nil {
		return err
	}
	big, err := c.Buffer(600, 400, pink)
	if err != nil {
		return err
	}
	sub, children := c.Bind("wl_subcompositor", 1, nil), 0
	for ; children < 120; children++ {
		s := c.newSurface()
		c.onto(sub, s, w.Surface, 0, 0)
		c.display(s, big)
		if err := c.every(children, 16); err != nil {
			return err
		}
	}
	var sizes [2]uint32
	for i := range sizes {
		if sizes[i], err = c.Buffer(300-10*i, 200-10*i, plainBlue); err != nil {
			return err
		}
	}
	begin, n := time.Now(), 0
	for ; time.Since(begin).Seconds() < secs; n++ {
		c.display(w.Surface, sizes[n%2])
		if n%8 == 7 {
			if err := c.Sync(); err != nil {
				return err
			}
		}
	}
	if err := c.Sync(); err != nil {
		return err
	}
	r.say("amplified %d times by %d in %d ms", n, children, time.Since(begin).Milliseconds())
	return nil
}

// pin has memory held by a message that never ends, and lets go of its own end, again
// and again on connections of their own, until it gets no more.
//
//	pin COUNT
func pin(r *Run) error {
	most, err := strconv.Atoi(r.Args[0])
	if err != nil {
		return err
	}
	n := 0
	var conns []*Client // whose ends stay open
	for n < most {
		c, err := r.ready()
		if err == nil {
			conns = append(conns, c)
			err = c.pin()
		}
		if err != nil {
			r.say("pinned %d of %d MiB each: %v", n, chunk>>20, err)
			break
		}
		n++
	}
	if n == most {
		r.say("pinned %d of %d MiB each", n, chunk>>20)
	}
	r.Hold()
	runtime.KeepAlive(conns)
	return nil
}

// pin has the other side hold memory.
func (c *Client) pin() error {
	if err := c.Sync(); err != nil {
		return err
	}
	m, err := c.memory(chunk)
	if err != nil {
		return err
	}
	for i := 0; i < chunk; i += 4096 {
		m.Mem[i] = 1
	}
	d, err := m.desc()
	if err != nil {
		return err
	}
	if err := c.Send([]byte{byte(c.shm), 0, 0, 0}, []wayland.Desc{d}); err != nil { // half a header
		return err
	}
	return m.Free()
}
