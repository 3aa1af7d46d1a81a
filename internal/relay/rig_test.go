package relay

import (
	"context"
	"log/slog"
	"testing"

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
func newGuestRig(t testing.TB) (*rig, *Guest, *testBlobs) {
	t.Helper()
	m := &testBlobs{}
	g := NewGuest(m, slog.New(slog.DiscardHandler))
	r := newRig(t, Config{Hooks: GuestHooks(), Globals: GuestGlobals, State: g})
	t.Cleanup(func() {
		r.close()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if n := m.Live.Load(); n != 0 {
			t.Errorf("%d blobs are left", n)
		}
	})
	return r, g, m
}

// testBlobs are Memfds that can be made to fail.
type testBlobs struct {
	Memfds
	fail error
}

func (m *testBlobs) NewBlob(size int) (Blob, error) {
	if m.fail != nil {
		return nil, m.fail
	}
	return m.Memfds.NewBlob(size)
}
