package main

import (
	"fmt"
	"path"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/vm"
)

func mountCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "mount NAME HOSTDIR[:GUESTPATH][:ro|rw]",
		Short: "share a host folder with a running VM",
		Long: `Shares the host folder HOSTDIR with the running VM NAME: read-only without :rw, at
/mnt/NAME without GUESTPATH. The guest sees that folder only: no link leads out of
it, and mounts below it are empty. In the guest, everything in it belongs to its
ordinary user.

"mount NAME staging" makes an empty folder at an unguessable path in the guest, and
prints its paths on the host and in the guest. It is removed with umount, or when
the VM stops.

A share ends with the VM. To share a folder at every start, list it under "shares"
in config.toml.`,
		Example: `  vix mount web ~/Downloads:/home/user/Downloads:rw
  vix mount office /srv/papers
  vix mount office staging`,
		Args: args(2, 2, "NAME or HOSTDIR"),
		ValidArgsFunction: func(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			switch len(a) {
			case 0:
				return runningNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
			case 1:
				return nil, cobra.ShellCompDirectiveFilterDirs
			}
			return nil, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, a []string) error {
			if err := config.CheckName(a[0]); err != nil {
				return usagef("mount: %v", err)
			}
			share, err := e.parseShare(a[1])
			if err != nil {
				return usagef("mount: %v", err)
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			st, err := reg.Mount(c.Context(), a[0], share.String())
			if err != nil {
				return err
			}
			if share.Host == "" {
				fmt.Fprintf(e.stdout, "%s %s\n", st.Host, st.Guest)
			}
			return nil
		},
	}
}

func umountCommand(e *env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "umount [--force] NAME GUESTPATH",
		Short: "stop sharing a folder with a running VM",
		Long: `Stops sharing the folder at GUESTPATH with the VM NAME: afterwards its files are out
of the guest's reach, whatever the guest does. Fails if a program in the guest still
uses the folder; with --force, that program gets errors from then on.`,
		Example: `  vix umount web /home/user/Downloads`,
		Args:    args(2, 2, "NAME or GUESTPATH"),
		ValidArgsFunction: func(c *cobra.Command, a []string, _ string) (paths []string, _ cobra.ShellCompDirective) {
			switch len(a) {
			case 0:
				paths = runningNames(c.Context(), e)
			case 1:
				for _, s := range sharesOf(c, e, a[0]) {
					paths = append(paths, s.Guest)
				}
			}
			return paths, cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(c *cobra.Command, a []string) error {
			if err := config.CheckName(a[0]); err != nil {
				return usagef("umount: %v", err)
			}
			if !path.IsAbs(a[1]) {
				return usagef("umount: want an absolute path in the guest, not %q", clip(a[1]))
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			return reg.Umount(c.Context(), a[0], path.Clean(a[1]), force)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "even if the folder is in use")
	return c
}

func sharesOf(c *cobra.Command, e *env, name string) []vm.ShareState {
	reg, err := e.registry()
	if err != nil || config.CheckName(name) != nil {
		return nil
	}
	defer reg.Close()
	st, err := reg.State(c.Context(), name)
	if err != nil {
		return nil
	}
	return st.Shares
}
