package frame

import (
	"image"
	"image/color"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestLockScreen holds that what is typed at a lock screen reaches the lock screen, all
// of it, and no VM: also one that had the focus and has a popup that grabs.
func TestLockScreen(t *testing.T) {
	for _, start := range []struct {
		name string
		f    func(t *testing.T) *desk
	}{
		{"sway", func(t *testing.T) *desk { return startSway(t, 1, swayFloats) }},
		{"labwc", func(t *testing.T) *desk { return startLabwc(t, 1, labwcPlaces) }},
	} {
		for _, grab := range []struct {
			name string
			how  func(c *client, s *seatOf) (serial uint32, ok bool)
		}{
			{"no grab", func(*client, *seatOf) (uint32, bool) { return 0, false }},
			{"an invented serial", func(*client, *seatOf) (uint32, bool) { return 12345, true }},
			{"an invented serial, of another window's popup", func(c *client, _ *seatOf) (uint32, bool) {
				first := c.xdg
				c.window(60, 40, pink) // which gets the focus
				c.sync()
				c.xdg = first
				return 12345, true
			}},
			{"the serial of a press", func(_ *client, s *seatOf) (uint32, bool) { return s.pressed, true }},
			{"the serial of the keyboard's enter", func(_ *client, s *seatOf) (uint32, bool) { return s.entered, true }},
		} {
			t.Run(start.name+", "+grab.name, func(t *testing.T) {
				d := start.f(t)
				locked(t, d, grab.how)
			})
		}
	}
}

// A seatOf is what a client has heard of its seat.
type seatOf struct {
	id, pointer, keyboard uint32
	pressed, entered      uint32 // serials
	keys                  int    // presses heard
}

func (s *seatOf) event(m waylandtest.Msg) {
	switch {
	case m.ID == s.pointer && m.Op == wayland.WlPointerEvtButton && m.Word(3) == 1:
		s.pressed = m.Word(0)
	case m.ID == s.keyboard && m.Op == wayland.WlKeyboardEvtEnter:
		s.entered = m.Word(0)
	case m.ID == s.keyboard && m.Op == wayland.WlKeyboardEvtKey && m.Word(3) == 1:
		s.keys++
	}
}

func locked(t *testing.T, d *desk, grab func(*client, *seatOf) (uint32, bool)) {
	t.Helper()
	k := newKeyboard(t, d)
	c := newHostile(t, d, work.serve(t, d.socket), 4)
	defer c.Tr.Close()
	s := &seatOf{id: c.bound("wl_seat", 5)}
	s.pointer, s.keyboard = c.id(), c.id()
	c.Send(s.id, wayland.WlSeatReqGetPointer, s.pointer)
	c.Send(s.id, wayland.WlSeatReqGetKeyboard, s.keyboard)
	c.event = s.event
	c.window(300, 200, pink)
	var at image.Rectangle
	d.waitScreen(t, "the window", func(img *image.RGBA) bool {
		at = d.extent(img, workBlue)
		return at.Dx() == 300+2*sideW
	})
	d.click(at.Min.X+150, at.Min.Y+100)
	for (s.pressed == 0 || s.entered == 0) && !c.gone {
		c.hear()
	}
	serial, ok := grab(c, s)
	d.steady(t) // the focus is where it stays
	if ok {
		pos, surface := c.id(), c.id()
		xdg, pop := c.id(), c.id()
		c.Send(idWm, wayland.XdgWmBaseReqCreatePositioner, pos)
		c.Send(pos, wayland.XdgPositionerReqSetSize, 40, 40)
		c.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
		c.Send(idCompositor, wayland.WlCompositorReqCreateSurface, surface)
		c.Send(idWm, wayland.XdgWmBaseReqGetXdgSurface, xdg, surface)
		c.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, c.xdg, pos)
		c.Send(pop, wayland.XdgPopupReqGrab, s.id, serial)
		c.Send(surface, wayland.WlSurfaceReqCommit)
		c.sync()
	}
	l := desktoptest.Attach(d.socket, "").Lock(t)
	d.waitScreen(t, "the lock screen", func(img *image.RGBA) bool {
		c := color.RGBA{desktoptest.LockColor[0], desktoptest.LockColor[1], desktoptest.LockColor[2], 255}
		return desktoptest.Share(img, img.Rect, c, 2) > 0.95
	})
	s.keys = 0
	secret := []uint32{31, 18, 46, 19, 18, 20} // of linux/input-event-codes.h
	k.press(secret...)
	c.sync()
	if got := l.Pressed(t); !slices.Equal(got, secret) || s.keys != 0 {
		t.Errorf("of the keys %v the lock screen heard %v and the VM %d", secret, got, s.keys)
	}
	// The screen can be unlocked, and the VM is as before.
	l.Unlock(t)
	d.waitScreen(t, "the window", func(img *image.RGBA) bool { return c.gone || count(img, workBlue) > 0 })
}

// A keyboard is a virtual one (zwp_virtual_keyboard_v1), which stays.
type keyboard struct{ pointer }

func newKeyboard(t *testing.T, d *desk) *keyboard {
	t.Helper()
	p, all := globals(t, d)
	bind(t, p, all, "wl_seat", 1, 4)
	bind(t, p, all, "zwp_virtual_keyboard_manager_v1", 1, 5)
	p.Send(5, 0, 4, 6) // create_virtual_keyboard
	const keymap = "xkb_keymap { xkb_keycodes { include \"evdev+aliases(qwerty)\" }; xkb_types { include \"complete\" };" +
		" xkb_compat { include \"complete\" }; xkb_symbols { include \"pc+us+inet(evdev)\" }; };\x00"
	file := waylandtest.Memfd(t, int64(len(keymap)))
	if _, err := unix.Pwrite(file.FD, []byte(keymap), 0); err != nil {
		t.Fatal(err)
	}
	var e wayland.Encoder
	e.Msg(6, 0, 1, uint32(len(keymap))) // keymap: xkb_v1, fd, size
	p.Write(e.B, file)
	k := &keyboard{pointer{p: p, sync: 7, d: d}}
	k.roundTrip()
	return k
}

// press presses and releases keys of linux/input-event-codes.h.
func (k *keyboard) press(codes ...uint32) {
	for _, code := range codes {
		for _, down := range []uint32{1, 0} {
			k.time++
			k.p.Send(6, 1, k.time, code, down)
			k.roundTrip()
		}
	}
}
