package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/vm"
)

func logsCommand(e *env) *cobra.Command {
	var follow, raw bool
	c := &cobra.Command{
		Use:   "logs [-f] [--raw] NAME",
		Short: "show the log of a VM, also after its end",
		Long: `Shows the log of a VM: the seconds since its start; the source, in brackets (vix,
qemu, display, virtiofsd, agent, console for the guest's kernel, or a background
program); and the line. With -f, goes on until the VM ends.

The last log of a VM that has ended is kept, and shown with a line on standard error
that says when that was, until its next end or vix remove. Of VMs that keep nothing
else, the newest 16 logs are kept. They are in $XDG_STATE_HOME/vix/logs, at most
1 MiB each.`,
		Example: `  vix logs web
  vix logs -f web`,
		ValidArgsFunction: completeLogs(e),
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
			err = reg.Logs(ctx, names[0], follow, out.stdout)
			if errors.Is(err, vm.ErrNotRunning) {
				return e.lastLog(ctx, reg, names[0], out.stdout)
			}
			return err
		},
	}
	c.Flags().BoolVar(&raw, "raw", false, rawUsage)
	c.Flags().BoolVarP(&follow, "follow", "f", false, "follow the log until the VM ends")
	return c
}

// lastLog shows the log of a VM that has ended.
func (e *env) lastLog(ctx context.Context, reg *vm.Registry, name string, w io.Writer) error {
	if _, err := reg.Names(ctx); err != nil { // which keeps the log of a supervisor that was killed
		return err
	}
	store, err := vm.OpenStore(reg.StateDir)
	if err != nil {
		return err
	}
	defer store.Close()
	log, ended, err := store.LastLog(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("VM %s: %w, and there is no log of an earlier run", name, vm.ErrNotRunning)
	case err != nil:
		return fmt.Errorf("VM %s: its last log: %w", name, err)
	}
	defer log.Close()
	fmt.Fprintf(e.stderr, "vix: VM %s has ended, at %s; this is its last log\n", name, ended.Format("15:04:05 on 2006-01-02"))
	if _, err = io.Copy(w, log); ctx.Err() != nil {
		return nil // nobody reads on
	}
	return err
}

// completeLogs completes the names of VMs that run, or have left a log.
func completeLogs(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(a) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		names := runningNames(c.Context(), e)
		_ = e.withStore(func(_ *vm.Registry, s *vm.Store) error {
			names = append(names, s.LogNames()...)
			return nil
		})
		slices.Sort(names)
		return slices.Compact(names), cobra.ShellCompDirectiveNoFileComp
	}
}
