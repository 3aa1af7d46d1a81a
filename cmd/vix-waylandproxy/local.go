package main

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"path/filepath"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/accept"
	"vix/internal/filter"
	"vix/internal/sandbox"
	"vix/internal/wayland"
)

func localCommand() *cobra.Command {
	var path, upstream, vm string
	var debug bool
	controlFD := -1
	var tf traceFlags
	var pf profileFlags
	var pol policyFlags
	c := &cobra.Command{
		Use:   "local --listen PATH",
		Short: "filter and tag the clients of a socket, without a VM",
		Example: `  vix-waylandproxy local --listen /run/user/1000/tagged --tag mail &
  WAYLAND_DISPLAY=tagged foot`,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("local: --listen is missing")
			}
			if err := config.CheckName(vm); err != nil {
				return usagef("local: --vm: %v", err)
			}
			p, err := pol.parse(vm)
			if err != nil {
				return usagef("local: %v", err)
			}
			policy := filter.Config{VM: vm}
			// Its clients are programs of this machine: a VM's bounds do not apply to them.
			for _, name := range []string{"commits", "connects", "memory", "opens", "rectangles", "requests", "textures"} {
				if err := policy.Limits.Set(name, filter.Unlimited); err != nil {
					return err
				}
			}
			if err := apply(p, &policy, nil); err != nil {
				return usagef("local: %v", err)
			}
			up, err := compositor(upstream)
			if err != nil {
				return err
			}
			tr, err := tf.start()
			if err != nil {
				return err
			}
			stop, err := pf.start()
			if err != nil {
				return err
			}
			l, err := listen(path)
			if err != nil {
				return err
			}
			log := logger(debug)
			policy.Dial, policy.Tap, policy.Log = tr.meteredDial(dialer(up)), tr.Switch, log
			if policy.Frame == "full" {
				policy.Font = hostFont(fonts)
			}
			flt := filter.New(policy)
			var requests *net.UnixConn
			if controlFD >= 0 {
				if requests, err = inherited(controlFD, "control"); err != nil {
					return usagef("local: --control-fd %d: %v", controlFD, err)
				}
			}
			defer newControl(requests, tr, flt.Selections(), flt.Activate, log).close()
			confineLocal(path, log)
			return errors.Join(serveLocal(c.Context(), l, flt, tr, log), stop(), tr.close())
		},
	}
	f := c.Flags()
	f.StringVar(&path, "listen", "", "socket to make, an absolute path")
	f.StringVar(&upstream, "upstream", "", "the compositor's socket (default: what WAYLAND_DISPLAY names)")
	f.StringVar(&vm, "vm", "local", "VM name in app ids")
	f.IntVar(&controlFD, "control-fd", -1, "descriptor of a seqpacket socket for requests, such as a trace")
	f.BoolVar(&debug, "debug", false, "log every connection")
	pol.register(f)
	tf.register(f)
	pf.register(f)
	return c
}

// confineLocal keeps what serving the socket at path needs: connections to the
// compositor, and so to any unix socket of the user's, and the removal of the socket.
func confineLocal(path string, log *slog.Logger) {
	_, _ = time.Now().Zone() // the log's times need the zone's file
	r := sandbox.Confine(sandbox.Profile{
		Files: []sandbox.File{{Path: filepath.Dir(path), Remove: true}},
		Calls: sandbox.DisplayCalls(true, true),
	})
	log.Debug("confined", "report", r.String())
}

// serveLocal filters every client of l until ctx is done.
func serveLocal(ctx context.Context, l *net.UnixListener, f *filter.Filter, tr *tracing, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	refuse := func(_ *net.UnixConn, why error) { log.Warn("a client is refused", "err", why) }
	err := accept.Serve(l, func(conn *net.UnixConn) {
		t, err := wayland.NewUnixConn(conn)
		if err != nil {
			refuse(conn, err)
			conn.Close()
			return
		}
		wg.Go(func() { tr.broken(f.Serve(ctx, tr.meter.Near(t))) }) // the filter has logged why
	}, refuse)
	if ctx.Err() != nil {
		return nil
	}
	return err
}
