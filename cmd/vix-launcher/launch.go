package main

import (
	"os/signal"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/launch"
)

// desktopLaunchCommand is the command in an entry's Exec.
func desktopLaunchCommand(e *env) *cobra.Command {
	var r launch.Request
	c := &cobra.Command{
		Use:    "launch [--action ACTION] VM APP [FILE…]",
		Hidden: true,
		Args:   args(2, -1, "VM or APP"),
		RunE: func(c *cobra.Command, a []string) error {
			r.VM, r.App, r.Files, r.Token = a[0], a[1], a[2:], e.activationToken()
			for i, f := range r.Files {
				if strings.HasPrefix(f, "file:") { // launchers pass paths and URLs
					path, err := desktop.LocalPath(f)
					if err != nil {
						return usagef("desktop launch: %v", err)
					}
					r.Files[i] = path
				}
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop() // takes back the files that were passed
			return runStatus(e.launcher().Start(ctx, reg, r))
		},
	}
	c.Flags().StringVar(&r.Action, "action", "", "instead of the program itself")
	return c
}

// activationToken returns the token from the process that started us: its permission to show
// a window.
func (e *env) activationToken() string {
	for _, name := range []string{"XDG_ACTIVATION_TOKEN", "DESKTOP_STARTUP_ID"} {
		if t := e.getenv(name); t != "" {
			return t
		}
	}
	return ""
}
