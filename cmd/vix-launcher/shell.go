package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"slices"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/vm"
)

func shellCommand(e *env) *cobra.Command {
	var user string
	var raw bool
	c := &cobra.Command{
		Use:   "shell [--user USER] [--raw] NAME",
		Short: "open a shell in a VM, starting the VM if necessary",
		Long: `Opens the login shell of the guest's ordinary user in the VM NAME, on this terminal.
A VM that config.toml names, or that has kept something, starts if it does not run.
The VM does not end before the shell does.

Every key goes to the guest, except "~." at the beginning of a line, which leaves a
guest that does not answer ("~~" is one "~"). Afterwards the terminal is as it was
before. The guest cannot set the terminal's clipboard, title or colours, nor make
it answer, unless --raw is given.

With --user root the shell is root's in the guest, which is no nearer to the host.`,
		Example: `  vix shell web
  vix shell --user root web`,
		ValidArgsFunction: func(c *cobra.Command, a []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(a) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return completeVM(e)(c, a, word)
		},
		Args: func(c *cobra.Command, a []string) error {
			if err := args(1, 1, "NAME")(c, a); err != nil {
				return err
			}
			if err := config.CheckName(a[0]); err != nil {
				return usagef("shell: %v", err)
			}
			if err := checkUser(user); err != nil {
				return usagef("shell: %v", err)
			}
			return nil
		},
		RunE: func(c *cobra.Command, a []string) error {
			return runStatus(shell(c.Context(), e, a[0], user, raw))
		},
	}
	c.Flags().StringVarP(&user, "user", "u", "", "log in as this `USER` of the guest, by name or number")
	c.Flags().BoolVar(&raw, "raw", false, rawUsage)
	return c
}

func shell(ctx context.Context, e *env, name, user string, raw bool) error {
	if ttyOf(e.stdin) == nil {
		return usagef("shell: standard input is not a terminal; use vix exec %s sh", name)
	}
	launch, err := e.launchKnown(ctx, name)
	if err != nil {
		return err
	}
	// A shell ignores TERM; only the end of its terminal ends it.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ends := make(chan os.Signal, 1)
	signal.Notify(ends, unix.SIGTERM, unix.SIGHUP)
	defer signal.Stop(ends)
	go func() {
		select {
		case sig := <-ends:
			n := sig.(unix.Signal)
			cancel(&vm.Failure{Code: 128 + int(n), Text: fmt.Sprintf("VM %s: shell hung up: %v", name, n)})
		case <-ctx.Done():
		}
	}()
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, unix.SIGINT, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	return runInVM(ctx, e, vm.Run{VM: name, Launch: launch, How: vm.How{Kind: agent.KindShell, User: user}, Signals: signals}, true, raw)
}

// launchKnown returns what starts the VM name, if it does not run and the user knows it: by
// config.toml, or because it has kept something. It is nil for others, so that a mistyped name
// starts nothing.
func (e *env) launchKnown(ctx context.Context, name string) (func() (vm.Launch, error), error) {
	reg, err := e.registry()
	if err != nil {
		return nil, err
	}
	defer reg.Close()
	st, err := stateOf(ctx, reg, name)
	if err == nil && st.State != vm.StateStopping || err != nil && !errors.Is(err, vm.ErrNotRunning) {
		return nil, nil // it can be asked, or says why not
	}
	conf, err := e.config()
	if err != nil {
		return nil, err
	}
	_, known := conf.VMs[name]
	_ = e.withStore(func(_ *vm.Registry, s *vm.Store) error { // without a store, nothing is kept
		kept, err := s.Names()
		known = known || slices.Contains(kept, name)
		return err
	})
	if !known {
		return nil, nil
	}
	v, err := conf.VM(name)
	if err != nil {
		return nil, err
	}
	l := e.launcher()
	if v, err = l.Complete(v); err != nil {
		return nil, err
	}
	if err := l.BuildRoot(ctx, v); err != nil {
		return nil, err
	}
	return func() (vm.Launch, error) { return l.Spec(ctx, v) }, nil
}
