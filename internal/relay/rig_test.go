package relay

import (
	"context"
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
	same := func(t wayland.Transport) wayland.Transport { return t }
	return newRigOver(t, cfg, same, same)
}

// newRigOver relays over transports that near and far make of sockets.
func newRigOver(t testing.TB, cfg Config, near, far func(wayland.Transport) wayland.Transport) *rig {
	t.Helper()
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	r := &rig{
		client: &waylandtest.Peer{T: t, Tr: cn},
		server: &waylandtest.Peer{T: t, Tr: sn},
		conn:   New(near(cf), far(sf), cfg),
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
