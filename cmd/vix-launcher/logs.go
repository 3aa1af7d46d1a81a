package main

import (
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
)

func logsCommand(e *env) *cobra.Command {
	var follow, raw bool
	c := &cobra.Command{
		Use:   "logs [-f] [--raw] NAME",
		Short: "show the log of a running VM",
		Long: `Shows the log of a running VM: the seconds since its start; the source, in brackets
(vix, qemu, display, virtiofsd, agent, console for the guest's kernel, or a
background program); and the line. With -f, goes on until the VM ends.

The log has a bounded size and disappears with the VM.`,
		Example: `  vix logs web
  vix logs -f web`,
		ValidArgsFunction: completeNames(e),
		Args:              args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, names []string) error {
			if err := config.CheckName(names[0]); err != nil {
				return usagef("logs: %v", err)
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			ctx, unread, err := untilUnread(ctx, e.stdout) // even when there is no new output
			if err != nil {
				return err
			}
			defer unread()
			out := e.guestOutput(false, raw, nil)
			defer out.end()
			return reg.Logs(ctx, names[0], follow, out.stdout)
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, rawUsage)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow the log until the VM ends")
	return c
}
