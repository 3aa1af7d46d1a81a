// Package guestproxy is the guest's side of the display: a Wayland socket whose
// connections go to the host over virtio-gpu cross-domain, each in a context of
// its own.
//
//	client ⇄ unix socket ⇄ relay with our hooks ⇄ virtwl ⇄ virtio-gpu
//
//	guestproxy.go  the socket, its clients, and a relay for each
//	shm.go         the hooks: each wl_buffer has a shadow that the host can see
//	shadow.go      memory for shadows: few large blobs
//	damage.go      which pixels of a shadow are stale
//
// It is a convenience, no protection: the host trusts nothing that it sends.
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

// Config holds the listener of the clients and their way to the host.
type Config struct {
	Listen *net.UnixListener
	Device string // the render node, for example /dev/dri/renderD128
	// Tap, when set, is the switch of a tap on all connections.
	Tap *relay.TapSwitch
	// Meter, when set, measures while it runs.
	Meter *relay.Meter
	// Stats names a file: while it exists, each connection that begins writes a
	// relay.MeterLine to its end when it has ended.
	Stats string
	Log   *slog.Logger
}

// maxClients bounds the clients served at once, below the host's limit for a VM
// (gpu.Limits): later clients wait in the socket's backlog.
const maxClients = 240

// Run serves clients until ctx is done or the listener fails. It returns after
// all connections have ended, and closes the listener.
func Run(ctx context.Context, cfg Config) error {
	dev, err := virtwl.OpenDevice(cfg.Device)
	if err != nil {
		return errors.Join(err, cfg.Listen.Close())
	}
	defer dev.Close()
	s := &server{cfg: cfg, dev: dev}
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

// server holds what connections share.
type server struct {
	cfg Config
	dev *virtwl.Device
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
	meter, done := s.meter()
	defer done()
	return Relay(ctx, Client{ID: n, Blobs: blobs{host}, Tap: s.cfg.Tap, Meter: meter, Log: log}, client, host)
}

// A Client holds the options of one connection's relay.
type Client struct {
	ID    uint64           // its number for the tap
	Blobs Blobs            // makes the memory of its shadows
	Tap   *relay.TapSwitch // may be nil
	Meter *relay.Meter     // may be nil
	Log   *slog.Logger
}

// Relay relays a client to the host's end with the guest's hooks until one of them ends
// it, or ctx is done. It closes both, and every blob.
func Relay(ctx context.Context, c Client, near, far wayland.Transport) error {
	return newState(c).relay(ctx, near, far)
}

func (g *state) relay(ctx context.Context, near, far wayland.Transport) error {
	conn := relay.New(g.Meter.Near(near), g.Meter.Far(far), relay.Config{
		Hooks:   hooks(),
		Globals: globals,
		State:   g,
		ID:      g.ID,
		Tap:     g.Tap,
		Log:     g.Log,
	})
	return errors.Join(conn.Run(ctx), g.shadow.close())
}

// meter returns the meter of a new connection, nil without a stats file, and a function
// that ends it.
func (s *server) meter() (m *relay.Meter, done func()) {
	nothing := func() {}
	if s.cfg.Meter != nil || s.cfg.Stats == "" {
		return s.cfg.Meter, nothing
	}
	f, err := os.OpenFile(s.cfg.Stats, os.O_WRONLY|os.O_APPEND|unix.O_NONBLOCK, 0)
	if err != nil { // no file: nobody wants statistics
		return nil, nothing
	}
	m = new(relay.Meter)
	stop, _ := m.Start(f)
	return m, func() {
		stop()
		_ = f.Close()
	}
}

// blobs gives shadows the memory of a cross-domain context.
type blobs struct{ conn *virtwl.GuestConn }

func (b blobs) NewBlob(size int) (Blob, error) {
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
