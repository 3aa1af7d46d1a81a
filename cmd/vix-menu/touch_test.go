package main

import (
	"encoding/binary"
	"image"
	"path/filepath"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/menu"
)

// A touchscreen is a client's wl_touch, whose events the tap makes: a headless sway
// has no touchscreen, and no protocol to make one. wayland.xml defines the events.
type touchscreen struct {
	x      *tapped
	id     uint32
	serial uint32
}

func (s *touchscreen) send(t *testing.T, op uint16, args ...uint32) {
	t.Helper()
	msg := binary.NativeEndian.AppendUint32(nil, s.id)
	msg = binary.NativeEndian.AppendUint32(msg, uint32(8+4*len(args))<<16|uint32(op))
	for _, a := range args {
		msg = binary.NativeEndian.AppendUint32(msg, a)
	}
	s.x.writing.Lock()
	defer s.x.writing.Unlock()
	if _, err := s.x.client.Write(msg); err != nil {
		t.Fatal(err)
	}
}

// now returns the events' time, in milliseconds; fixed returns a wl_fixed of whole pixels.
func now() uint32                         { return uint32(time.Now().UnixMilli()) }
func fixed(v int) uint32                  { return uint32(v << 8) }
func (s *touchscreen) frame(t *testing.T) { s.send(t, 3) }

func (s *touchscreen) down(t *testing.T, finger uint32, x, y int) {
	s.x.mu.Lock()
	surface := s.x.surface
	s.x.mu.Unlock()
	s.serial++
	s.send(t, 0, s.serial, now(), surface, finger, fixed(x), fixed(y))
	s.frame(t)
}

func (s *touchscreen) move(t *testing.T, finger uint32, x, y int) {
	s.send(t, 2, now(), finger, fixed(x), fixed(y))
	s.frame(t)
}

func (s *touchscreen) up(t *testing.T, finger uint32) {
	s.serial++
	s.send(t, 1, s.serial, now(), finger)
	s.frame(t)
}

func (s *touchscreen) cancel(t *testing.T) { s.send(t, 4) }

// title waits until the entry has changed: a row is selected before its pane
// opens.
func title(t *testing.T, d *desktoptest.Desktop, was *image.RGBA) *image.RGBA {
	t.Helper()
	return d.WaitScreen(t, "another title", func(img *image.RGBA) bool {
		for x := left + 20; x < left+200; x++ {
			for y := top + 10; y < top+44; y++ {
				if img.RGBAAt(x, y) != was.RGBAAt(x, y) {
					return true
				}
			}
		}
		return false
	})
}

func TestTouch(t *testing.T) {
	d := start(t)
	d.MoveTo(t, 1279, 799) // the seat has a pointer
	p := newTap(t, filepath.Join(d.Dir, "wayland-touch"), d.Socket, true)
	through := *d
	through.Socket = p.path
	// Places of the surface. By name: calc, files, firefox, foot, gtk4-demo, …
	const x, row0, rowStep = 100, first - top, step
	open := func(t *testing.T) (*shown, *touchscreen) {
		m := show(t, &through, setup())
		m.seen(d)
		select {
		case s := <-p.screens:
			return m, s
		case <-time.After(time.Minute):
			t.Fatal("the menu asks for no touch")
		}
		return nil, nil
	}
	t.Run("tap", func(t *testing.T) {
		m, s := open(t)
		s.down(t, 0, x, row0+2*rowStep)
		s.move(t, 0, x+3, row0+2*rowStep+4) // a finger is never still
		s.up(t, 0)
		m.want(menu.EventRun, "firefox", "")
		m.closed()
	})
	t.Run("scroll, a second finger, a gesture", func(t *testing.T) {
		m, s := open(t)
		was := m.seen(d)
		s.down(t, 0, x, row0+5*rowStep)
		s.down(t, 1, x, row0) // a second finger, which has no effect
		s.up(t, 1)
		for y := 5 * rowStep; y >= 2*rowStep; y -= rowStep / 3 {
			s.move(t, 0, x, row0+y)
		}
		s.up(t, 0)
		changed(t, d, was)
		s.down(t, 0, x, row0+rowStep)
		s.cancel(t) // sent by the compositor: this was not a tap
		s.up(t, 0)
		s.down(t, 0, x, row0)
		s.up(t, 0)
		m.want(menu.EventRun, "foot", "") // three rows further
		m.closed()
	})
	t.Run("long press", func(t *testing.T) {
		m, s := open(t)
		list := m.seen(d)
		s.down(t, 0, x, row0+4*rowStep) // gtk4-demo, whose VM runs
		pane := title(t, d, list)
		s.up(t, 0) // that touch has no further effect
		s.down(t, 0, x, 20)
		s.up(t, 0)
		title(t, d, pane)
		s.down(t, 0, x, row0+4*rowStep)
		title(t, d, list)
		s.up(t, 0)
		s.down(t, 0, x, row0+2*rowStep)
		s.up(t, 0)
		m.want(menu.EventAction, "gtk4-demo", "stop")
		m.update(menu.Update{Close: true})
		m.closed()
	})
}
