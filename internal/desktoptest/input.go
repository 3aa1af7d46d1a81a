package desktoptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Buttons of linux/input-event-codes.h.
const (
	Left   = 0x110
	Right  = 0x111
	Middle = 0x112
)

// Type types text into the focused window, with wtype.
func (d *Desktop) Type(t T, text string) {
	t.Helper()
	if err := d.typed(d.wtype("-d", "5", text)); err != nil {
		t.Fatalf("typing %q: %v", text, err)
	}
}

// Key presses and releases keys by their XKB names ("Return", "Page_Up"), one
// after another, with modifiers given as wtype does: "ctrl+c" is Key("ctrl+c").
func (d *Desktop) Key(t T, keys ...string) {
	t.Helper()
	args := d.wtype()
	for _, k := range keys {
		var mods []string
		for {
			mod, rest, ok := cutModifier(k)
			if !ok {
				break
			}
			mods, k = append(mods, mod), rest
		}
		for _, m := range mods {
			args = append(args, "-M", m)
		}
		args = append(args, "-k", k)
		for _, m := range mods {
			args = append(args, "-m", m)
		}
	}
	if err := d.typed(args); err != nil {
		t.Fatalf("pressing %q: %v", keys, err)
	}
}

func (d *Desktop) typed(wtype []string) error {
	if _, err := d.run(wtype...); err != nil {
		return err
	}
	return d.reclaim()
}

// wtype returns its command line. Its keyboard is a new one each time. On another
// desktop than ours it may be the only one, and programs need a moment to notice
// that there is a keyboard at all. Everywhere they need one for its keymap, which
// they get with its first event (GTK 3 loses a key that comes with it): a change
// of modifiers, which types nothing.
func (d *Desktop) wtype(args ...string) []string {
	begin := []string{"wtype", "-s", "300", "-M", "shift", "-m", "shift", "-s", "50"}
	if d.Sway != nil {
		begin = slices.Delete(begin, 1, 3)
	}
	return append(begin, args...)
}

// reclaim makes our keyboard the seat's again after wtype's has gone: without,
// sway has no keymap for a program that starts then.
func (d *Desktop) reclaim() error {
	if d.Sway == nil {
		return nil
	}
	return d.input(func(s *seat, _ Rect) {
		s.request(idKeyboard, 2, modifierBits["shift"], 0, 0, 0)
		s.request(idKeyboard, 2, 0, 0, 0, 0)
	})
}

// modifierBits are those of the US layout (xkb's real modifiers).
var modifierBits = map[string]uint32{"shift": 1, "ctrl": 4, "alt": 8, "logo": 64}

// Modifiers holds modifiers down on the desktop's own keyboard, until the next
// call: Modifiers(t, "ctrl"), KeyCode(t, 31, true), … is ctrl+s.
func (d *Desktop) Modifiers(t T, names ...string) {
	t.Helper()
	var bits uint32
	for _, n := range names {
		bits |= modifierBits[n]
	}
	if err := d.input(func(s *seat, _ Rect) { s.request(idKeyboard, 2, bits, 0, 0, 0) }); err != nil {
		t.Fatalf("virtual keyboard: %v", err)
	}
}

// SetLayout changes the layout of the desktop's own keyboard to one of XKB's, such as
// "de" or "us(intl)".
func (d *Desktop) SetLayout(t T, layout string) {
	t.Helper()
	var sent error
	if err := errors.Join(d.input(func(s *seat, _ Rect) { sent = s.sendKeymap(layout) }), sent); err != nil {
		t.Fatalf("virtual keyboard: layout %s: %v", layout, err)
	}
}

// KeyCode presses or releases a key of linux/input-event-codes.h on the desktop's
// own keyboard, which has the US layout (SetLayout).
func (d *Desktop) KeyCode(t T, code uint32, down bool) {
	t.Helper()
	state := uint32(0)
	if down {
		state = 1
	}
	if err := d.input(func(s *seat, _ Rect) { s.request(idKeyboard, 1, s.now(), code, state) }); err != nil {
		t.Fatalf("virtual keyboard: %v", err)
	}
}

func cutModifier(k string) (mod, rest string, ok bool) {
	for _, m := range []string{"ctrl", "shift", "alt", "logo"} {
		if len(k) > len(m)+1 && k[:len(m)+1] == m+"+" {
			return m, k[len(m)+1:], true
		}
	}
	return "", k, false
}

// MoveTo moves the pointer to a place of the screen, in pixels.
func (d *Desktop) MoveTo(t T, x, y int) {
	t.Helper()
	d.pointer(t, func(s *seat, size Rect) {
		s.request(idPointer, 1, s.now(), uint32(x), uint32(y), uint32(size.Width), uint32(size.Height))
	})
}

// Click moves the pointer and presses and releases the left button.
func (d *Desktop) Click(t T, x, y int) {
	t.Helper()
	d.MoveTo(t, x, y)
	d.Button(t, Left, true)
	d.Button(t, Left, false)
}

// Button presses or releases a button.
func (d *Desktop) Button(t T, button uint32, down bool) {
	t.Helper()
	d.pointer(t, func(s *seat, _ Rect) {
		state := uint32(0)
		if down {
			state = 1
		}
		s.request(idPointer, 2, s.now(), button, state)
	})
}

// Drag presses the left button at one place and releases it at another.
func (d *Desktop) Drag(t T, x0, y0, x1, y1 int) {
	t.Helper()
	d.MoveTo(t, x0, y0)
	d.Button(t, Left, true)
	d.MoveTo(t, (x0+x1)/2, (y0+y1)/2)
	d.MoveTo(t, x1, y1)
	d.Button(t, Left, false)
}

// Scroll turns a wheel by steps over a place; positive steps scroll down.
func (d *Desktop) Scroll(t T, x, y, steps int) {
	t.Helper()
	d.MoveTo(t, x, y)
	step := 1
	if steps < 0 {
		step = -1
	}
	for range steps * step {
		d.pointer(t, func(s *seat, _ Rect) {
			s.request(idPointer, 5, 0) // axis_source: wheel
			// axis_discrete: vertical, 15 units as wl_fixed, one step
			s.request(idPointer, 7, s.now(), 0, uint32(int32(step*15*256)), uint32(int32(step)))
		})
	}
}

// pointer sends requests to the virtual pointer, and a frame.
func (d *Desktop) pointer(t T, requests func(s *seat, size Rect)) {
	t.Helper()
	err := d.input(func(s *seat, size Rect) {
		requests(s, size)
		s.request(idPointer, 4) // frame
	})
	if err != nil {
		t.Fatalf("virtual pointer: %v", err)
	}
}

// input sends requests and waits until the compositor has handled them.
func (d *Desktop) input(requests func(s *seat, size Rect)) error {
	if d.seat == nil {
		s, err := newSeat(d.Socket, d.timeout)
		if err != nil {
			return err
		}
		d.seat = s
	}
	size, err := d.size()
	if err != nil {
		return err
	}
	d.seat.mu.Lock()
	defer d.seat.mu.Unlock()
	requests(d.seat, size)
	return d.seat.sync()
}

// size returns the layout's size, which absolute motion refers to.
func (d *Desktop) size() (Rect, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	root, err := d.tree(ctx)
	if err != nil {
		return Rect{}, err
	}
	return root.Rect, nil
}

func (d *Desktop) closeSeat() {
	if d.seat != nil {
		d.seat.conn.Close()
	}
}

// A seat is our own client of the compositor. It holds a virtual pointer and a
// virtual keyboard for as long as the desktop lives, so that programs see them
// come once: input that arrives before a program has bound its new device is
// lost. It speaks the wire directly, because a test's harness should not need
// what it tests, and these few messages are simple.
type seat struct {
	mu      sync.Mutex
	conn    *net.UnixConn
	timeout time.Duration
	begin   time.Time
	next    uint32
	out     []byte
}

// Objects of the connection. wl_callback objects follow from idNext.
const (
	idDisplay = iota + 1
	idRegistry
	idFirst // the callback of the first round trip: ids are taken in order
	idSeat
	idPointers  // zwlr_virtual_pointer_manager_v1
	idKeyboards // zwp_virtual_keyboard_manager_v1
	idPointer
	idKeyboard
	idNext
)

func newSeat(socket string, timeout time.Duration) (*seat, error) {
	conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		return nil, err
	}
	s := &seat{conn: conn, timeout: timeout, begin: time.Now(), next: idFirst}
	if err := s.setUp(); err != nil {
		conn.Close()
		return nil, err
	}
	return s, nil
}

// globals lists the names of the compositor's globals, of several of one interface the
// last.
func (s *seat) globals() (map[string]uint32, error) {
	globals := map[string]uint32{}
	s.request(idDisplay, 1, idRegistry) // get_registry
	err := s.roundTrip(func(id, opcode uint32, body []byte) {
		if id == idRegistry && opcode == 0 && len(body) >= 8 { // global: name, interface, version
			n := binary.NativeEndian.Uint32(body[4:])
			if n >= 1 && int(n) <= len(body)-8 {
				globals[string(body[8:8+n-1])] = binary.NativeEndian.Uint32(body)
			}
		}
	})
	return globals, err
}

func (s *seat) setUp() error {
	globals, err := s.globals()
	if err != nil {
		return err
	}
	for i, iface := range []string{"wl_seat", "zwlr_virtual_pointer_manager_v1", "zwp_virtual_keyboard_manager_v1"} {
		name, ok := globals[iface]
		if !ok {
			return fmt.Errorf("the compositor has no %s", iface)
		}
		s.bind(name, iface, idSeat+uint32(i))
	}
	s.next = idNext
	s.request(idPointers, 0, idSeat, idPointer)   // create_virtual_pointer
	s.request(idKeyboards, 0, idSeat, idKeyboard) // create_virtual_keyboard
	if err := s.sendKeymap("us"); err != nil {
		return err
	}
	return s.sync()
}

// keymap is a layout's; the compositor resolves the names.
const keymap = `xkb_keymap {
	xkb_keycodes { include "evdev+aliases(qwerty)" };
	xkb_types { include "complete" };
	xkb_compat { include "complete" };
	xkb_symbols { include "pc+%s+inet(evdev)" };
};
` + "\x00"

// sendKeymap is zwp_virtual_keyboard_v1.keymap: format xkb_v1, fd, size. What is
// queued goes out with it.
func (s *seat) sendKeymap(layout string) error {
	keymap := fmt.Sprintf(keymap, layout)
	fd, err := unix.MemfdCreate("keymap", unix.MFD_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, []byte(keymap)); err != nil {
		return err
	}
	s.request(idKeyboard, 0, 1, uint32(len(keymap)))
	_, _, err = s.conn.WriteMsgUnix(s.out, unix.UnixRights(fd), nil)
	s.out = s.out[:0]
	return err
}

// bind is wl_registry.bind: name, interface as a string, version 1, new id.
func (s *seat) bind(name uint32, iface string, id uint32) {
	n := len(iface) + 1
	words := []uint32{name, uint32(n)}
	text := make([]byte, (n+3)/4*4)
	copy(text, iface)
	for i := 0; i < len(text); i += 4 {
		words = append(words, binary.NativeEndian.Uint32(text[i:]))
	}
	s.request(idRegistry, 0, append(words, 1, id)...)
}

// request queues a request whose arguments in the stream are all words.
func (s *seat) request(id, opcode uint32, args ...uint32) {
	s.out = binary.NativeEndian.AppendUint32(s.out, id)
	s.out = binary.NativeEndian.AppendUint32(s.out, uint32(8+4*len(args))<<16|opcode)
	for _, a := range args {
		s.out = binary.NativeEndian.AppendUint32(s.out, a)
	}
}

// now is the time of an input event, in milliseconds.
func (s *seat) now() uint32 { return uint32(time.Since(s.begin).Milliseconds()) }

func (s *seat) sync() error { return s.roundTrip(func(uint32, uint32, []byte) {}) }

// roundTrip sends what is queued and hands over events until all of it has
// been handled by the compositor.
func (s *seat) roundTrip(event func(id, opcode uint32, body []byte)) error {
	callback := s.next
	s.next++
	s.request(idDisplay, 0, callback) // sync
	if err := s.conn.SetDeadline(time.Now().Add(s.timeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(s.out)
	s.out = s.out[:0]
	if err != nil {
		return err
	}
	for {
		id, opcode, body, err := s.read()
		if err != nil {
			return err
		}
		if id == callback {
			return nil
		}
		event(id, opcode, body)
	}
}

// read returns the next event. Descriptors that come with one are closed unseen.
func (s *seat) read() (id, opcode uint32, body []byte, err error) {
	var head [8]byte
	if _, err := io.ReadFull(s.conn, head[:]); err != nil {
		return 0, 0, nil, err
	}
	id, word := binary.NativeEndian.Uint32(head[:]), binary.NativeEndian.Uint32(head[4:])
	if word>>16 < 8 {
		return 0, 0, nil, errors.New("malformed event of size " + strconv.Itoa(int(word>>16)))
	}
	body = make([]byte, word>>16-8)
	if _, err := io.ReadFull(s.conn, body); err != nil {
		return 0, 0, nil, err
	}
	if id == idDisplay && word&0xffff == 0 { // error: object, code, message
		return 0, 0, nil, fmt.Errorf("the compositor refused: %q", body)
	}
	return id, word & 0xffff, body, nil
}
