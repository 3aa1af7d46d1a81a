package guestproxy

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A rig is a running connection between two peers; its blobs are memfds.
type rig struct {
	client, server *waylandtest.Peer
	g              *state
	m              *testBlobs
	done           chan struct{}
}

func newRig(t testing.TB) *rig {
	t.Helper()
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	m := &testBlobs{}
	r := &rig{
		client: &waylandtest.Peer{T: t, Tr: cn},
		server: &waylandtest.Peer{T: t, Tr: sn},
		g:      newState(Client{Blobs: m, Log: slog.New(slog.DiscardHandler)}),
		m:      m,
		done:   make(chan struct{}),
	}
	go func() {
		defer close(r.done)
		_ = r.g.relay(context.Background(), cf, sf) // a protocol error is seen by the client
	}()
	t.Cleanup(func() { r.close(t) })
	return r
}

// close ends the connection from both sides and waits for it.
func (r *rig) close(t testing.TB) {
	r.client.Tr.Close()
	r.server.Tr.Close()
	wayland.CloseAll(r.client.Descs)
	wayland.CloseAll(r.server.Descs)
	<-r.done
	if n := r.m.Live.Load(); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
}

// bound binds the client's registry, #2, to a global that the server announces, and
// returns the server's id of the new object.
func (r *rig) bound(registry, name uint32, iface string, version, id uint32) uint32 {
	r.client.T.Helper()
	r.server.Put(registry, wayland.WlRegistryEvtGlobal, name, iface, version)
	r.client.Want(2, wayland.WlRegistryEvtGlobal)
	r.client.Put(2, wayland.WlRegistryReqBind, name, iface, version, id)
	m := r.server.Want(registry, wayland.WlRegistryReqBind)
	return m.Word(len(m.Body)/4 - 1)
}

// testBlobs are Memfds that can be made to fail.
type testBlobs struct {
	waylandtest.Memfds
	full atomic.Bool
}

func (m *testBlobs) NewBlob(size int) (Blob, error) {
	if m.full.Load() {
		return nil, errors.New("full")
	}
	return m.Memfds.NewBlob(size)
}
