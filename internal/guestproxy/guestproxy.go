// Package guestproxy is the guest's side of the display: a Wayland socket whose
// connections go to the host over virtio-gpu cross-domain, each in a context of
// its own.
//
//	client ⇄ unix socket ⇄ relay with the guest's hooks ⇄ virtwl ⇄ virtio-gpu
//
// It is convenience, never protection: the host trusts nothing of it.
package guestproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/accept"
	"vix/internal/relay"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// Config says where clients come from and where they go.
type Config struct {
	Listen *net.UnixListener
	Device string // the render node, for example /dev/dri/renderD128
	// Tap, when set, may be given a tap of all connections.
	Tap *relay.TapSwitch
	// Meter, when set, measures while it runs.
	Meter *relay.Meter
	// Stats names a file: while it exists, each connection that begins writes a
	// relay.MeterLine to its end when it has ended.
	Stats string
	Log   *slog.Logger
}

// maxClients bounds the clients that are served at once, below what the host
// allows a VM (gpu.Limits): who comes later waits in the socket's backlog.
const maxClients = 240

// Run serves clients until ctx is done or the listener fails. It returns after
// all connections have ended, and closes the listener.
func Run(ctx context.Context, cfg Config) error {
	dev, err := virtwl.OpenDevice(cfg.Device)
	if err != nil {
		return errors.Join(err, cfg.Listen.Close())
	}
	defer dev.Close()
	s := &server{cfg: cfg, dev: dev, hooks: relay.GuestHooks()}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cfg.Listen.Close() })
	defer stop()
	places := make(chan struct{}, maxClients)
	n := uint64(0)
	err = accept.Serve(cfg.Listen, func(conn *net.UnixConn) {
		n++
		client := n
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			conn.Close()
			return
		}
		wg.Go(func() {
			defer func() { <-places }()
			s.serve(ctx, conn, client)
		})
	}, func(_ *net.UnixConn, why error) { cfg.Log.Warn("a client is refused", "err", why) })
	if err != nil && ctx.Err() == nil {
		return fmt.Errorf("accept a client: %w", err)
	}
	return nil
}

// server is what connections share.
type server struct {
	cfg   Config
	dev   *virtwl.Device
	hooks *relay.Hooks
}

// serve relays client n until it ends.
func (s *server) serve(ctx context.Context, conn *net.UnixConn, n uint64) {
	log := s.cfg.Log.With("client", n)
	if err := s.relay(ctx, conn, n, log); err != nil && ctx.Err() == nil {
		log.Warn("connection ended", "err", err)
	}
}

func (s *server) relay(ctx context.Context, conn *net.UnixConn, n uint64, log *slog.Logger) error {
	client, err := wayland.NewUnixConn(conn)
	if err != nil {
		return err
	}
	host, err := s.dev.Connect(ctx)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	g := relay.NewGuest(blobs{host}, log)
	near, far, done := s.measured(client, host, g)
	defer done()
	err = relay.New(near, far, relay.Config{
		Hooks:   s.hooks,
		Globals: relay.GuestGlobals,
		State:   g,
		ID:      n,
		Tap:     s.cfg.Tap,
		Log:     log,
	}).Run(ctx)
	return errors.Join(err, g.Close())
}

// measured lets the connection be measured, if that is wanted.
func (s *server) measured(client, host wayland.Transport, g *relay.Guest) (near, far wayland.Transport, done func()) {
	nothing := func() {}
	if m := s.cfg.Meter; m != nil {
		g.Meter = m
		return m.Near(client), m.Far(host), nothing
	}
	if s.cfg.Stats == "" {
		return client, host, nothing
	}
	f, err := os.OpenFile(s.cfg.Stats, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0)
	if err != nil { // nobody asked
		return client, host, nothing
	}
	m := new(relay.Meter)
	stop, _ := m.Start(f)
	g.Meter = m
	return m.Near(client), m.Far(host), func() {
		stop()
		_ = f.Close()
	}
}

// blobs gives the relay's shadows the memory of a cross-domain context.
type blobs struct{ conn *virtwl.GuestConn }

func (b blobs) NewBlob(size int) (relay.Blob, error) {
	v, err := b.conn.NewBlob(size)
	if err != nil {
		return nil, err
	}
	return blob{v}, nil
}

type blob struct{ b *virtwl.Blob }

func (b blob) Mem() []byte                 { return b.b.Mem }
func (b blob) Desc() (wayland.Desc, error) { return wayland.ResDesc(b.b.Res), nil }
func (b blob) Close() error                { return b.b.Close() }
