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
		Short: "show the log of a VM that runs",
		Long: `Shows the log of a VM that runs: the seconds since its start, in brackets who
says it (vix, qemu, console: the guest's kernel; display, virtiofsd, agent, or a
background program), and the line. With -f, go on until the VM ends.

The log is kept in memory-backed files of bounded size, and goes with the VM. It
holds text alone; a terminal is shown no more of it than that, unless --raw is given.`,
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
	c.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the VM ends")
	return c
}
