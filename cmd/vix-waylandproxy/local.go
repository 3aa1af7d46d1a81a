package main

import (
	"context"
	"net"
	"os"
	"sync"

	"github.com/spf13/cobra"

	"vix/internal/filter"
	"vix/internal/wayland"
)

func localCommand() *cobra.Command {
	var path, upstream, vm, tag string
	var debug, trace bool
	c := &cobra.Command{
		Use:   "local --listen PATH",
		Short: "filter and tag the clients of a socket, without a VM",
		Example: `  vix-waylandproxy local --listen /run/user/1000/tagged --tag mail &
  WAYLAND_DISPLAY=tagged foot`,
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usagef("local: --listen is missing")
			}
			up, err := compositor(upstream)
			if err != nil {
				return err
			}
			if tag == "" {
				tag = vm
			}
			l, err := listen(path)
			if err != nil {
				return err
			}
			cfg := filter.Config{VM: vm, Tag: tag, Dial: dialer(up), Log: logger(debug)}
			if trace {
				cfg.Trace = os.Stderr
			}
			return serveLocal(c.Context(), l, filter.New(cfg))
		},
	}
	f := c.Flags()
	f.StringVar(&path, "listen", "", "socket to make, an absolute path")
	f.StringVar(&upstream, "upstream", "", "the compositor's socket (default: what WAYLAND_DISPLAY names)")
	f.StringVar(&vm, "vm", "local", "VM name in app ids")
	f.StringVar(&tag, "tag", "", "text in front of titles (default: the VM's name)")
	f.BoolVar(&debug, "debug", false, "log every connection")
	f.BoolVar(&trace, "trace", false, "print every message to standard error")
	return c
}

// serveLocal filters every client of l until ctx is done.
func serveLocal(ctx context.Context, l *net.UnixListener, f *filter.Filter) error {
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return err
		}
		t, err := wayland.NewUnixConn(conn)
		if err != nil {
			return err
		}
		wg.Go(func() { _ = f.Serve(ctx, t) }) // the filter has logged why
	}
}
