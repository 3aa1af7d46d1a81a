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
	"sync"

	"vix/internal/relay"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// Config says where clients come from and where they go.
type Config struct {
	Listen *net.UnixListener
	Device string // the render node, for example /dev/dri/renderD128
	Log    *slog.Logger
}

// Run serves clients until ctx is done or the listener fails. It returns after
// all connections have ended, and closes the listener.
func Run(ctx context.Context, cfg Config) error {
	dev, err := virtwl.OpenDevice(cfg.Device)
	if err != nil {
		return errors.Join(err, cfg.Listen.Close())
	}
	defer dev.Close()
	hooks := relay.GuestHooks()
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = cfg.Listen.Close() })
	defer stop()
	for n := 1; ; n++ {
		conn, err := cfg.Listen.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept a client: %w", err)
		}
		log := cfg.Log.With("client", n)
		wg.Go(func() {
			if err := serve(ctx, dev, conn, hooks, log); err != nil && ctx.Err() == nil {
				log.Warn("connection ended", "err", err)
			}
		})
	}
}

// serve relays one client until it ends.
func serve(ctx context.Context, dev *virtwl.Device, conn *net.UnixConn, hooks *relay.Hooks, log *slog.Logger) error {
	client, err := wayland.NewUnixConn(conn)
	if err != nil {
		return err
	}
	host, err := dev.Connect(ctx)
	if err != nil {
		return errors.Join(err, client.Close())
	}
	g := relay.NewGuest(blobs{host}, log)
	err = relay.New(client, host, relay.Config{
		Hooks:   hooks,
		Globals: relay.GuestGlobals,
		State:   g,
		Log:     log,
	}).Run(ctx)
	return errors.Join(err, g.Close())
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
