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
		Short: "show a VM that runs a folder",
		Long: `Shows the VM NAME, which has to run, the folder HOSTDIR of the host: read-only
without :rw, at /mnt/NAME without GUESTPATH. It shows that folder alone: no link leads
out of it, and what is mounted below it is empty. In it, everything belongs to the
user: on the host to whoever runs the VM, in the guest to its ordinary user. Each file
that the guest has seen of late takes a descriptor of the host's: where the limit of open
files (ulimit -Hn) is low, many thousands fail with "Too many open files in system".

"mount NAME staging" makes an empty folder at a path that is not to be guessed, and
prints both: the host's, and the guest's. It is removed when it is taken back, or when
the VM stops.

The share goes with the VM, or with umount. To have it at every start, put it under
"shares" in config.toml.`,
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
		Short: "take a folder back from a VM that runs",
		Long: `Takes the folder at GUESTPATH back from the VM NAME: afterwards its files are out of
the guest's reach, whatever the guest does. A program in the guest that still uses it
is a reason to refuse; with --force it gets errors from then on.`,
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
				return usagef("umount: want an absolute path of the guest, not %q", clip(a[1]))
			}
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			return reg.Umount(c.Context(), a[0], path.Clean(a[1]), force)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "also if it is in use")
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
