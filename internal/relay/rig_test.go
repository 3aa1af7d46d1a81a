package relay

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A peer is a hand-driven end of a connection: the client's or the server's.
type peer struct {
	t     testing.TB
	tr    *wayland.UnixConn
	buf   []byte
	descs []wayland.Desc
}

// msg is a message that a peer received.
type msg struct {
	id   uint32
	op   uint16
	body []byte
}

func (m msg) word(k int) uint32 { return wayland.Word(m.body, 4*k) }

func (p *peer) send(id uint32, op uint16, words ...uint32) {
	p.t.Helper()
	var e wayland.Encoder
	e.Msg(id, op, words...)
	p.write(e.B)
}

func (p *peer) write(b []byte, ds ...wayland.Desc) {
	p.t.Helper()
	if err := p.tr.Send(b, ds); err != nil {
		p.t.Fatalf("send: %v", err)
	}
}

// next returns the next message, or an error at the end.
func (p *peer) next() (msg, error) {
	for {
		id, op, size, err := wayland.Next(p.buf)
		if err != nil {
			return msg{}, err
		}
		if size > 0 {
			m := msg{id, op, p.buf[wayland.HeaderSize:size]}
			p.buf = p.buf[size:]
			return m, nil
		}
		b := make([]byte, 8192)
		n, ds, err := p.tr.Recv(b, p.descs)
		p.descs = ds
		if err != nil {
			return msg{}, err
		}
		p.buf = append(p.buf, b[:n]...)
	}
}

// want receives one message and checks its object and opcode.
func (p *peer) want(id uint32, op uint16) msg {
	p.t.Helper()
	m, err := p.next()
	if err != nil {
		p.t.Fatalf("want %d.%d: %v", id, op, err)
	}
	if m.id != id || m.op != op {
		p.t.Fatalf("want %d.%d, got %d.%d % x", id, op, m.id, m.op, m.body)
	}
	return m
}

// wantError receives up to wl_display.error and returns it.
func (p *peer) wantError() (object, code uint32, text string) {
	p.t.Helper()
	for {
		m, err := p.next()
		if err != nil {
			p.t.Fatalf("want an error: %v", err)
		}
		if m.id == 1 && m.op == wayland.WlDisplayEvtError {
			d := wayland.NewDecoder(m.body)
			return d.Uint(), d.Uint(), string(d.String())
		}
	}
}

func (p *peer) wantEnd() {
	p.t.Helper()
	for {
		if _, err := p.next(); err != nil {
			if !errors.Is(err, io.EOF) {
				p.t.Fatalf("want the end: %v", err)
			}
			return
		}
	}
}

func socketPair(t testing.TB) (near, far *wayland.UnixConn) {
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

// A rig is a running connection between two peers.
type rig struct {
	client, server *peer
	conn           *Conn
	done           chan error
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	cn, cf := socketPair(t)
	sn, sf := socketPair(t)
	r := &rig{
		client: &peer{t: t, tr: cn},
		server: &peer{t: t, tr: sn},
		conn:   New(cf, sf, cfg),
		done:   make(chan error, 1),
	}
	go func() { r.done <- r.conn.Run(context.Background()) }()
	t.Cleanup(func() { r.close() })
	return r
}

// close ends the connection from both sides and waits for it.
func (r *rig) close() error {
	r.client.tr.Close()
	r.server.tr.Close()
	wayland.CloseAll(r.client.descs)
	wayland.CloseAll(r.server.descs)
	r.client.descs, r.server.descs = nil, nil
	err := <-r.done
	r.done <- err
	return err
}

// newGuestRig relays with the guest's hooks; blobs are memfds.
func newGuestRig(t testing.TB) (*rig, *Guest, *memBlobs) {
	t.Helper()
	m := &memBlobs{}
	g := NewGuest(m, slog.New(slog.DiscardHandler))
	r := newRig(t, Config{Hooks: GuestHooks(), Globals: GuestGlobals, State: g})
	t.Cleanup(func() {
		r.close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if m.live != 0 {
			t.Errorf("%d blobs are left", m.live)
		}
	})
	return r, g, m
}

// memBlobs is the in-memory twin of a virtwl connection's blobs.
type memBlobs struct {
	live, made int
	fail       error
}

type memBlob struct {
	m   *memBlobs
	fd  int
	mem []byte
}

func (m *memBlobs) NewBlob(size int) (Blob, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	fd, err := unix.MemfdCreate("blob", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	m.live++
	m.made++
	return &memBlob{m, fd, mem}, nil
}

func (b *memBlob) Mem() []byte { return b.mem }

func (b *memBlob) Desc() (wayland.Desc, error) {
	fd, err := unix.FcntlInt(uintptr(b.fd), unix.F_DUPFD_CLOEXEC, 0)
	return wayland.FileDesc(wayland.KindMemory, fd), err
}

func (b *memBlob) Close() error {
	b.m.live--
	return errors.Join(unix.Munmap(b.mem), unix.Close(b.fd))
}

// leakCheck fails the test when it leaves goroutines or descriptors behind. It
// must be called first. Goroutines that are about to end are waited for.
func leakCheck(t testing.TB) {
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
		deadline := time.Now().Add(5 * time.Second)
		for runtime.NumGoroutine() > g0 && time.Now().Before(deadline) {
			runtime.Gosched()
		}
		if g := runtime.NumGoroutine(); g > g0 {
			b := make([]byte, 1<<20)
			t.Errorf("%d goroutines before, %d after\n%s", g0, g, b[:runtime.Stack(b, true)])
		}
		if f := fds(); f != f0 {
			t.Errorf("%d descriptors before, %d after", f0, f)
		}
	})
}
