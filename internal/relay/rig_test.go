package relay

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A rig is a running connection between two peers.
type rig struct {
	client, server *waylandtest.Peer
	conn           *Conn
	done           chan error
}

func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	r := &rig{
		client: &waylandtest.Peer{T: t, Tr: cn},
		server: &waylandtest.Peer{T: t, Tr: sn},
		conn:   New(cf, sf, cfg),
		done:   make(chan error, 1),
	}
	go func() { r.done <- r.conn.Run(context.Background()) }()
	t.Cleanup(func() { r.close() })
	return r
}

// close ends the connection from both sides and waits for it.
func (r *rig) close() error {
	r.client.Tr.Close()
	r.server.Tr.Close()
	wayland.CloseAll(r.client.Descs)
	wayland.CloseAll(r.server.Descs)
	r.client.Descs, r.server.Descs = nil, nil
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
