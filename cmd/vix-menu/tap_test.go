package main

import (
	"encoding/binary"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A tap relays between a client and the compositor, and notes
// when the client commits a surface with a buffer and when a key reaches it. It measures
// all menus. It can also play a touchscreen for a client whose compositor has none
// (touch_test.go).
type tap struct {
	path    string
	frames  chan time.Time    // commits with a buffer
	keys    chan time.Time    // presses
	screens chan *touchscreen // of clients that request touch; nil: no touchscreen
	listen  *net.UnixListener
	done    sync.WaitGroup
}

func newTap(t testing.TB, path, compositor string, touch bool) *tap {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{path: path, listen: l, frames: make(chan time.Time, 10000), keys: make(chan time.Time, 1000)}
	if touch {
		p.screens = make(chan *touchscreen, 1)
	}
	p.done.Go(func() {
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			s, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: compositor, Net: "unix"})
			if err != nil {
				c.Close()
				continue
			}
			x := &tapped{tap: p, client: c, ids: map[uint32]string{1: "wl_display"}, buffer: map[uint32]bool{}}
			p.done.Go(func() { pass(c, s, new(sync.Mutex), x.request) })
			p.done.Go(func() { pass(s, c, &x.writing, x.event) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.done.Wait()
	})
	return p
}

// clear drops the notes.
func (p *tap) clear() {
	for {
		select {
		case <-p.frames:
		case <-p.keys:
		default:
			return
		}
	}
}

// pass copies one direction, whole messages with their descriptors. see may change a
// message, and reports whether to pass it on.
func pass(from, to *net.UnixConn, writing *sync.Mutex, see func(msg []byte) bool) {
	defer from.Close()
	defer to.Close()
	var rest []byte
	var fds []int
	defer func() { closeAll(fds) }()
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(28*4))
	for {
		n, k, _, _, err := from.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		if messages, err := unix.ParseSocketControlMessage(oob[:k]); err == nil {
			for _, m := range messages {
				more, _ := unix.ParseUnixRights(&m)
				fds = append(fds, more...)
			}
		}
		rest = append(rest, buf[:n]...)
		var out []byte
		for len(rest) >= 8 {
			size := int(binary.NativeEndian.Uint32(rest[4:]) >> 16)
			if size < 8 || len(rest) < size {
				break
			}
			if see(rest[:size]) {
				out = append(out, rest[:size]...)
			}
			rest = rest[size:]
		}
		if len(out) == 0 {
			continue // descriptors may come before the end of their message
		}
		var rights []byte
		if len(fds) > 0 {
			rights = unix.UnixRights(fds...)
		}
		writing.Lock()
		_, _, err = to.WriteMsgUnix(out, rights, nil)
		writing.Unlock()
		closeAll(fds)
		fds = nil
		if err != nil {
			return
		}
	}
}

func closeAll(fds []int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}

// tapped holds the relevant objects of one connection.
type tapped struct {
	*tap
	client  *net.UnixConn
	writing sync.Mutex // serialises messages to the client
	mu      sync.Mutex
	ids     map[uint32]string
	buffer  map[uint32]bool // surfaces to which a buffer was attached
	surface uint32          // the first
}

// header parses a message's header.
func header(msg []byte) (id uint32, op uint16, body []byte) {
	return binary.NativeEndian.Uint32(msg), uint16(binary.NativeEndian.Uint32(msg[4:])), msg[8:]
}

func (x *tapped) request(msg []byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	id, op, body := header(msg)
	word := func(i int) uint32 { return binary.NativeEndian.Uint32(body[i:]) }
	switch kind := x.ids[id]; {
	case kind == "wl_display" && op == 1:
		x.ids[word(0)] = "wl_registry"
	case kind == "wl_registry" && op == 0:
		n := int(word(4))
		name := strings.TrimRight(string(body[8:8+n]), "\x00")
		x.ids[word(len(body)-4)] = name
	case kind == "wl_compositor" && op == 0:
		x.ids[word(0)] = "wl_surface"
		if x.surface == 0 {
			x.surface = word(0)
		}
	case kind == "wl_seat" && op == 1:
		x.ids[word(0)] = "wl_keyboard"
	case kind == "wl_seat" && op == 2 && x.screens != nil:
		// The compositor numbers objects too: it makes a pointer that is hidden from the
		// client.
		binary.NativeEndian.PutUint32(msg[4:], uint32(len(msg))<<16)
		x.ids[word(0)] = "wl_touch"
		x.screens <- &touchscreen{x: x, id: word(0)}
	case kind == "wl_surface" && op == 1:
		x.buffer[id] = word(0) != 0
	case kind == "wl_surface" && op == 6 && x.buffer[id]:
		select {
		case x.frames <- time.Now():
		default:
		}
	case kind == "wl_surface" && op == 0:
		delete(x.ids, id)
		delete(x.buffer, id)
	}
	return true
}

func (x *tapped) event(msg []byte) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	id, op, body := header(msg)
	switch {
	case x.ids[id] == "wl_keyboard" && op == 3 && len(body) == 16 && binary.NativeEndian.Uint32(body[12:]) == 1:
		select {
		case x.keys <- time.Now():
		default:
		}
	case x.ids[id] == "wl_seat" && op == 0 && x.screens != nil:
		const touch = 4
		binary.NativeEndian.PutUint32(body, binary.NativeEndian.Uint32(body)|touch)
	case x.ids[id] == "wl_touch":
		return false
	}
	return true
}
