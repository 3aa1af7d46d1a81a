package main

import (
	"context"
	"errors"
	"sync"

	"github.com/spf13/cobra"

	"vix/config"
)

func stopCommand(e *env) *cobra.Command {
	var force, all bool
	c := &cobra.Command{
		Use:   "stop [--force] NAME…|--all",
		Short: "stop VMs",
		Long: `Stops VMs, and returns when all of their processes and files are gone. The guest's
programs get SIGTERM and a second to end, then the guest powers off. A guest that
does not is killed after a few seconds.

With --force, or as vix kill, the guest is not asked, and a supervisor that does
not answer is killed too.`,
		Example: `  vix stop web
  vix stop --force --all`,
		ValidArgsFunction: completeNames(e),
		Args: func(c *cobra.Command, names []string) error {
			switch {
			case all && len(names) > 0:
				return usagef("stop: use either --all or names; see vix stop --help")
			case !all && len(names) == 0:
				return usagef("stop: NAME missing; see vix stop --help")
			}
			for _, n := range names {
				if err := config.CheckName(n); err != nil {
					return usagef("stop: %v", err)
				}
			}
			return nil
		},
		RunE: func(c *cobra.Command, names []string) error {
			return stop(c.Context(), e, names, all, force || c.CalledAs() == "kill")
		},
	}
	c.Flags().BoolVar(&force, "force", false, "kill the VM instead of asking its guest to end")
	c.Flags().BoolVar(&all, "all", false, "stop every running VM")
	return c
}

// stop stops the VMs concurrently; an error names its VM.
func stop(ctx context.Context, e *env, names []string, all, force bool) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	if all {
		if names, err = reg.Names(ctx); err != nil {
			return err
		}
	}
	errs := make([]error, len(names))
	var stopping sync.WaitGroup
	for i, name := range names {
		stopping.Go(func() { errs[i] = reg.Stop(ctx, name, force) })
	}
	stopping.Wait()
	return errors.Join(errs...)
}
