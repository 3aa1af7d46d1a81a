package main

import (
	"context"
	"fmt"
	"log/slog"
	"os/signal"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/launch"
)

// busIdle is how long an unused D-Bus service stays: the time that a user may take between
// two menu entries.
const busIdle = 30 * time.Second

// dbusServiceCommand is the service that the bus starts.
func dbusServiceCommand(e *env) *cobra.Command {
	idle := busIdle
	c := &cobra.Command{
		Use:    "dbus-service",
		Hidden: true,
		Args:   args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			return e.serveBus(ctx, idle)
		},
	}
	c.Flags().DurationVar(&idle, "idle", busIdle, "how long to stay unused")
	return c
}

func (e *env) serveBus(ctx context.Context, idle time.Duration) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	l := e.launcher()
	conn, err := l.DialBus(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	data, err := e.dataDir()
	if err != nil {
		return err
	}
	defer data.Close()
	s := &desktop.Service{
		Conn: conn, Registry: reg, Version: version, Idle: idle,
		Log: slog.New(slog.NewTextHandler(e.stderr, nil)),
		Start: func(ctx context.Context, s desktop.Start) error {
			return l.Start(ctx, reg, launch.Request{
				VM: s.VM, App: s.App, Argv: s.Argv, Action: s.Action, Files: s.Files, Token: s.Token, Disposable: s.Disposable,
			})
		},
		Entries: func() ([]desktop.InstalledEntry, error) { return desktop.List(data), nil },
	}
	if err := s.Run(ctx); err != nil {
		return fmt.Errorf("dbus-service: %w", err)
	}
	return nil
}
