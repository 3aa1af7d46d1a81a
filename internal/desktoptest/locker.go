package desktoptest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// A Locker is a lock screen (ext-session-lock-v1) of a desktop with one output: a
// plain colour that counts the keys that it hears. It speaks the wire directly, as the
// desktop's seat does.
type Locker struct {
	s      *seat
	ids    lockerIDs
	locked bool
	// pressed holds the keys of linux/input-event-codes.h that were pressed, in order,
	// at most maxPressed.
	pressed []uint32
}

type lockerIDs struct {
	compositor, shm, output, seat, manager uint32
	keyboard, lock, surface, lockSurface   uint32
}

const maxPressed = 1024

// LockColor is what a locked screen shows.
var LockColor = [3]uint8{0x00, 0xff, 0xff}

// Lock locks the desktop, and returns when the compositor says that it is. Unlock ends
// it; a test that does not leaves a desktop that stays locked.
func (d *Desktop) Lock(t T) *Locker {
	t.Helper()
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: d.Socket, Net: "unix"})
	if err != nil {
		t.Fatalf("lock screen: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	l := &Locker{s: &seat{conn: conn, timeout: d.timeout, begin: time.Now(), next: idFirst}}
	if err := l.lock(); err != nil {
		t.Fatalf("lock screen: %v", err)
	}
	return l
}

// Pressed waits until the compositor has handled all input so far, and returns the
// keys whose presses the lock screen has heard.
func (l *Locker) Pressed(t T) []uint32 {
	t.Helper()
	if err := l.s.roundTrip(l.event); err != nil {
		t.Fatalf("lock screen: %v", err)
	}
	return l.pressed
}

// Unlock ends the lock.
func (l *Locker) Unlock(t T) {
	t.Helper()
	l.s.request(l.ids.lock, 2) // unlock_and_destroy
	if err := l.s.roundTrip(l.event); err != nil {
		t.Fatalf("lock screen: %v", err)
	}
}

// new returns a fresh id.
func (l *Locker) new() uint32 { l.s.next++; return l.s.next - 1 }

func (l *Locker) lock() error {
	globals, err := l.s.globals()
	if err != nil {
		return err
	}
	for _, g := range []struct {
		id    *uint32
		iface string
	}{
		{&l.ids.compositor, "wl_compositor"}, {&l.ids.shm, "wl_shm"}, {&l.ids.output, "wl_output"},
		{&l.ids.seat, "wl_seat"}, {&l.ids.manager, "ext_session_lock_manager_v1"},
	} {
		name, ok := globals[g.iface]
		if !ok {
			return fmt.Errorf("the compositor has no %s", g.iface)
		}
		*g.id = l.new()
		l.s.bind(name, g.iface, *g.id)
	}
	l.ids.keyboard, l.ids.lock, l.ids.surface, l.ids.lockSurface = l.new(), l.new(), l.new(), l.new()
	l.s.request(l.ids.seat, 1, l.ids.keyboard)                                 // get_keyboard
	l.s.request(l.ids.manager, 1, l.ids.lock)                                  // lock
	l.s.request(l.ids.compositor, 0, l.ids.surface)                            // create_surface
	l.s.request(l.ids.lock, 1, l.ids.lockSurface, l.ids.surface, l.ids.output) // get_lock_surface
	if err := l.s.roundTrip(l.event); err != nil {
		return err
	}
	for !l.locked {
		// What the events asked for: the compositor may wait for the surface's content.
		if err := l.s.roundTrip(l.event); err != nil {
			return err
		}
		if l.locked {
			break
		}
		id, opcode, body, err := l.s.read()
		if err != nil {
			return err
		}
		if id == l.ids.lock && opcode == 1 { // finished
			return errors.New("the compositor refuses to lock: another locker, or a client that may not")
		}
		l.event(id, opcode, body)
	}
	return l.s.roundTrip(l.event)
}

// event takes an event in; what it answers is sent with the next requests.
func (l *Locker) event(id, opcode uint32, body []byte) {
	word := func(k int) uint32 { return binary.NativeEndian.Uint32(body[4*k:]) }
	switch {
	case id == l.ids.lock && opcode == 0 && len(body) == 0: // locked
		l.locked = true
	case id == l.ids.lockSurface && opcode == 0 && len(body) == 12: // configure: serial, width, height
		l.s.request(l.ids.lockSurface, 1, word(0)) // ack_configure
		_ = l.show(word(1), word(2))               // without it the compositor shows a colour of its own
	case id == l.ids.keyboard && opcode == 3 && len(body) == 16 && word(3) == 1: // key: serial, time, key, state
		if len(l.pressed) < maxPressed {
			l.pressed = append(l.pressed, word(2))
		}
	}
}

// show fills the screen. What is queued goes out with it.
func (l *Locker) show(w, h uint32) error {
	if w == 0 || h == 0 || w > 1<<14 || h > 1<<14 {
		return fmt.Errorf("a lock screen of %d×%d", w, h)
	}
	fd, err := unix.MemfdCreate("lock", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	row := make([]byte, 0, 4*w)
	for range w {
		row = binary.NativeEndian.AppendUint32(row, uint32(LockColor[0])<<16|uint32(LockColor[1])<<8|uint32(LockColor[2]))
	}
	for range h {
		if _, err := unix.Write(fd, row); err != nil {
			return err
		}
	}
	pool, buffer := l.new(), l.new()
	l.s.request(l.ids.shm, 0, pool, w*h*4) // create_pool, with the descriptor
	if _, _, err := l.s.conn.WriteMsgUnix(l.s.out, unix.UnixRights(fd), nil); err != nil {
		return err
	}
	l.s.out = l.s.out[:0]
	l.s.request(pool, 0, buffer, 0, w, h, w*4, 1) // create_buffer, xrgb8888
	l.s.request(pool, 1)                          // destroy
	l.s.request(l.ids.surface, 1, buffer, 0, 0)   // attach
	l.s.request(l.ids.surface, 2, 0, 0, w, h)     // damage
	l.s.request(l.ids.surface, 6)                 // commit
	return nil
}
