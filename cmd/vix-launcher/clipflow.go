package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/clipflow"
)

// The clipboard's two processes (package clipflow), both hidden verbs.

// sides returns the places of the clipboards of VMs and host.
func (e *env) sides() (*clipflow.Sides, error) {
	dir, err := e.runtimeDir()
	if err != nil {
		return nil, err
	}
	socket, err := e.wayland()
	if err != nil {
		return nil, err
	}
	return &clipflow.Sides{RuntimeDir: dir, Wayland: socket, Sway: e.getenv("SWAYSOCK"), Config: e.config}, nil
}

func flowCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "clipboard-flow NAME",
		Short:  "the process that carries out a VM's clipboard profile",
		Hidden: true,
		Args:   args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, a []string) error {
			seal()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			sides, err := e.sides()
			if err != nil {
				return err
			}
			return clipflow.NewFlow(sides, a[0], e.stderr).Run(ctx, func() { fmt.Fprintln(e.stdout, "follows the clipboard") })
		},
	}
}

func holdCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:    "clipboard-hold",
		Short:  "the process that has what was copied",
		Hidden: true,
		Args:   args(0, 0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			seal()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM)
			defer stop()
			sides, err := e.sides()
			if err != nil {
				return err
			}
			h, err := clipflow.ReadHolder(sides, e.stdin)
			if err != nil {
				return err
			}
			return h.Run(ctx, func() {
				fmt.Fprint(e.stdout, clipflow.Ready)
				if f, ok := e.stdout.(*os.File); ok {
					_ = f.Close()
				}
			})
		},
	}
}

// seal keeps copied data from processes that would trace this one, and out of core dumps.
func seal() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) }

// startHolder starts "clipboard-hold", which outlives this process.
func (e *env) startHolder() (*clipflow.Child, error) {
	cmd, err := e.again(context.Background(), "clipboard-hold")
	if err != nil {
		return nil, err
	}
	cmd.Env = e.environ()
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &clipflow.Child{Stdin: in, Stdout: out, Wait: cmd.Wait, Release: cmd.Process.Release}, nil
}
