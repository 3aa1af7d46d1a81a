// Package waylandtest gives tests hand-driven ends of a Wayland connection, and
// a check that nothing is left behind.
package waylandtest

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A Peer is a hand-driven end of a connection: the client's or the server's.
type Peer struct {
	T  testing.TB
	Tr *wayland.UnixConn
	wayland.Reader
}

// A Msg is a message that a Peer has received.
type Msg = wayland.Msg

// Send sends a message of words only.
func (p *Peer) Send(id uint32, op uint16, words ...uint32) {
	p.T.Helper()
	var e wayland.Encoder
	e.Msg(id, op, words...)
	p.Write(e.B)
}

// Put sends a message of words and strings.
func (p *Peer) Put(id uint32, op uint16, args ...any) {
	p.T.Helper()
	var e wayland.Encoder
	if err := e.Put(id, op, args...); err != nil {
		p.T.Fatal(err)
	}
	p.Write(e.B)
}

// Write sends bytes and descriptors unchanged.
func (p *Peer) Write(b []byte, ds ...wayland.Desc) {
	p.T.Helper()
	if err := p.Tr.Send(b, ds); err != nil {
		p.T.Fatalf("send: %v", err)
	}
}

// Next returns the next message, or an error at the end.
func (p *Peer) Next() (Msg, error) {
	p.Transport = p.Tr
	return p.Reader.Next()
}

// Globals gets the registry as object 2, and returns the names of the globals. The next
// free id is 4.
func (p *Peer) Globals() map[string]uint32 {
	p.T.Helper()
	p.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	p.Send(1, wayland.WlDisplayReqSync, 3)
	names := map[string]uint32{}
	for {
		m, err := p.Next()
		if err != nil {
			p.T.Fatal(err)
		}
		if m.ID == 3 {
			return names
		}
		if d := m.Args(); m.ID == 2 && m.Op == wayland.WlRegistryEvtGlobal {
			name := d.Uint()
			names[string(d.String())] = name
		}
	}
}

// Want receives one message and checks its object and opcode.
func (p *Peer) Want(id uint32, op uint16) Msg {
	p.T.Helper()
	m, err := p.Next()
	if err != nil {
		p.T.Fatalf("want %d.%d: %v", id, op, err)
	}
	if m.ID != id || m.Op != op {
		p.T.Fatalf("want %d.%d, got %d.%d % x", id, op, m.ID, m.Op, m.Body)
	}
	return m
}

// WantError receives up to wl_display.error and returns it.
func (p *Peer) WantError() (object, code uint32, text string) {
	p.T.Helper()
	for {
		m, err := p.Next()
		if err != nil {
			p.T.Fatalf("want an error: %v", err)
		}
		if m.ID == 1 && m.Op == wayland.WlDisplayEvtError {
			d := wayland.NewDecoder(m.Body)
			return d.Uint(), d.Uint(), string(d.String())
		}
	}
}

// WantEnd receives up to the end of the connection.
func (p *Peer) WantEnd() {
	p.T.Helper()
	for {
		if _, err := p.Next(); err != nil {
			if !errors.Is(err, io.EOF) {
				p.T.Fatalf("want the end: %v", err)
			}
			return
		}
	}
}

// Pair returns two connected transports.
func Pair(t testing.TB) (near, far *wayland.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(fd int) *wayland.UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		u, err := wayland.NewUnixConn(c.(*net.UnixConn))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	return mk(fds[0]), mk(fds[1])
}

// Serve listens on a new socket until the test ends, and gives each connection to
// serve, which owns it and returns when it is over or ctx is done.
func Serve(t testing.TB, path string, serve func(ctx context.Context, client *wayland.UnixConn)) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			client, err := wayland.NewUnixConn(conn)
			if err != nil {
				t.Error(err)
				return
			}
			wg.Go(func() { serve(ctx, client) })
		}
	})
}

// LeakCheck fails the test if it leaves goroutines or descriptors behind. It
// must be called first. It waits for what is about to end.
func LeakCheck(t testing.TB) {
	t.Helper()
	fds := func() int {
		d, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(d)
	}
	runtime.GC()
	f0, g0 := fds(), runtime.NumGoroutine()
	t.Cleanup(func() {
		// A goroutine or descriptor of an earlier test, or a timer's, may be counted too: all of
		// ours is gone when at one moment there are no more than before.
		for deadline := time.Now().Add(5 * time.Second); ; runtime.Gosched() {
			g, f := runtime.NumGoroutine(), fds()
			if g <= g0 && f <= f0 {
				return
			}
			if time.Now().After(deadline) {
				b := make([]byte, 1<<20)
				t.Errorf("%d goroutines before, %d after; %d descriptors before, %d after\n%s", g0, g, f0, f, b[:runtime.Stack(b, true)])
				return
			}
		}
	})
}

// Memfd returns a fresh file of size bytes.
func Memfd(t testing.TB, size int64) wayland.Desc {
	t.Helper()
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, size); err != nil {
		t.Fatal(err)
	}
	return wayland.FileDesc(wayland.KindMemory, fd)
}
