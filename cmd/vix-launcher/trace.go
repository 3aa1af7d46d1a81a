package main

import (
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/trace"
)

func traceCommand(e *env) *cobra.Command {
	var classes string
	c := &cobra.Command{
		Use:   "trace [--classes LIST] NAME",
		Short: "show the Wayland messages of a VM's programs",
		Long: `Shows every Wayland message between a VM's programs and the compositor, as the
programs see it, until the VM ends or you interrupt it: the time, the connection's
number, "->" for a request, and the message in WAYLAND_DEBUG's style.

LIST picks classes, or drops those with a '-' in front: all, motion, frame, shm,
input, shell, selection, registry, output, other. The class times, alone, shows
instead where the time of a program's round trips goes.`,
		Example: `  vix trace web
  vix trace --classes=input,shell web
  vix trace --classes=-motion,-frame web`,
		ValidArgsFunction: completeNames(e),
		Args:              args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			if err := config.CheckName(names[0]); err != nil {
				return usagef("trace: %v", err)
			}
			if _, err := trace.ParseClasses(classes); err != nil {
				return usagef("trace: --classes: %v", err)
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			ctx, unread, err := untilUnread(ctx, e.stdout)
			if err != nil {
				return err
			}
			defer unread()
			return reg.Trace(ctx, names[0], classes, e.stdout)
		},
	}
	c.Flags().StringVar(&classes, "classes", "all", "show only this `LIST` of classes")
	return c
}
