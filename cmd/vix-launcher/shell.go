package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"

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
		Short: "a login shell in a VM that runs, on this terminal",
		Long: `Runs the login shell of the guest's ordinary user in the VM NAME, which has to run
(or be starting), on a terminal of the guest's: with job control, and with this
terminal's size as it changes. The VM does not end before the shell does.

Every key goes to the guest. "~." at the beginning of a line leaves a guest that
does not answer; "~~" is one "~". However shell ends, the terminal is as it was
before: its state, and what programs of the guest left on (mouse, bracketed paste,
alternate screen, hidden cursor, …). Of what the guest writes, nothing passes that
sets the clipboard, a title or colours of the terminal, or makes it answer; with
--raw every byte does, and nothing is put back but the terminal's state.

With --user root the shell is root's: the guest is your own machine, and whoever
is root in it is no nearer to the host.

Exit status: that of the shell, 128+n for signal n; 125, with one line, where Vix
or the VM failed. TERM and HUP hang the shell up.`,
		Example: `  vix shell web
  vix shell --user root web`,
		ValidArgsFunction: completeFirstName(e),
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
	c.Flags().StringVar(&user, "user", "", "the guest's `USER`, by name or number")
	c.Flags().BoolVar(&raw, "raw", false, rawUsage)
	return c
}

func shell(ctx context.Context, e *env, name, user string, raw bool) error {
	if ttyOf(e.stdin) == nil {
		return usagef("shell: standard input is not a terminal; use vix exec %s -- sh", name)
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
	return runInVM(ctx, e, vm.Run{VM: name, How: vm.How{Kind: agent.KindShell, User: user}, Signals: signals}, true, raw)
}
