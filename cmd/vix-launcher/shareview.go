package main

import (
	"fmt"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/rootfs"
	"vix/internal/sandbox"
)

// shareviewCommand is the process that becomes virtiofsd on one folder of the host's.
// The supervisor starts it in namespaces of its own.
func shareviewCommand(*env) *cobra.Command {
	var report, folder int
	var write, whole bool
	c := &cobra.Command{
		Use:    "shareview HOSTDIR DIR PROGRAM [ARG…]",
		Hidden: true,
		Args:   args(3, -1, "HOSTDIR, DIR or PROGRAM"),
		RunE: func(_ *cobra.Command, a []string) error {
			if !ownMounts() {
				return usagef("shareview: is started by the supervisor of a VM only")
			}
			unix.Umask(0o022)        // what a guest makes has the permissions that it asks for
			unix.CloseOnExec(folder) // it is outside of all that virtiofsd is to reach
			mount := func(host, dir string) error { return rootfs.MountShare(host, dir, write) }
			if whole {
				mount = rootfs.MountTree
			}
			if err := mount(fmt.Sprintf("/proc/self/fd/%d", folder), a[1]); err != nil {
				return fmt.Errorf("%s: %w", a[0], err)
			}
			if err := rootfs.DenySetuid(); err != nil {
				return err
			}
			p := sandbox.Profile{KeepCapabilities: true, KeepMounts: true}
			return sandbox.Exec(p, func(r sandbox.Report) { tell(report, r) }, a[2:], nil)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().BoolVar(&whole, "whole", false, "a root: read-only, with what is mounted in it")
	c.Flags().BoolVar(&write, "write", false, "the folder may be written to")
	c.Flags().IntVar(&folder, "folder-fd", -1, "descriptor of HOSTDIR, which is its name for messages")
	c.Flags().IntVar(&report, "report-fd", -1, "descriptor that gets a JSON line about the confinement")
	return c
}
