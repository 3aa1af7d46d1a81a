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

// A tap stands between a client and the compositor, passes on what both say, and notes
// when the client commits a surface with a buffer and when a key reaches it. All menus
// are measured by it.
type tap struct {
	path   string
	frames chan time.Time // commits with a buffer
	keys   chan time.Time // presses
	listen *net.UnixListener
	done   sync.WaitGroup
}

func newTap(t testing.TB, path, compositor string) *tap {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	p := &tap{path: path, listen: l, frames: make(chan time.Time, 10000), keys: make(chan time.Time, 1000)}
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
			x := &tapped{tap: p, ids: map[uint32]string{1: "wl_display"}, buffer: map[uint32]bool{}}
			p.done.Go(func() { pass(c, s, x.request) })
			p.done.Go(func() { pass(s, c, x.event) })
		}
	})
	t.Cleanup(func() {
		l.Close()
		p.done.Wait()
	})
	return p
}

// clear forgets what was noted.
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

// pass copies one direction, with descriptors, and shows each whole message to see.
func pass(from, to *net.UnixConn, see func(id uint32, op uint16, body []byte)) {
	defer from.Close()
	defer to.Close()
	var rest []byte
	buf, oob := make([]byte, 64<<10), make([]byte, unix.CmsgSpace(28*4))
	for {
		n, k, _, _, err := from.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		_, _, err = to.WriteMsgUnix(buf[:n], oob[:k], nil)
		if k > 0 {
			if messages, perr := unix.ParseSocketControlMessage(oob[:k]); perr == nil {
				for _, m := range messages {
					fds, _ := unix.ParseUnixRights(&m)
					for _, fd := range fds {
						_ = unix.Close(fd)
					}
				}
			}
		}
		if err != nil {
			return
		}
		rest = append(rest, buf[:n]...)
		for len(rest) >= 8 {
			word := binary.NativeEndian.Uint32(rest[4:])
			size := int(word >> 16)
			if size < 8 || len(rest) < size {
				break
			}
			see(binary.NativeEndian.Uint32(rest), uint16(word), rest[8:size])
			rest = rest[size:]
		}
	}
}

// tapped is one connection: of its objects, those that matter.
type tapped struct {
	*tap
	mu     sync.Mutex
	ids    map[uint32]string
	buffer map[uint32]bool // surfaces to which a buffer was attached
}

func (x *tapped) request(id uint32, op uint16, body []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
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
	case kind == "wl_seat" && op == 1:
		x.ids[word(0)] = "wl_keyboard"
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
}

func (x *tapped) event(id uint32, op uint16, body []byte) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.ids[id] == "wl_keyboard" && op == 3 && len(body) == 16 && binary.NativeEndian.Uint32(body[12:]) == 1 {
		select {
		case x.keys <- time.Now():
		default:
		}
	}
}
