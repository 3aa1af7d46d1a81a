package main

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/rootfs"
	"vix/internal/sandbox"
	"vix/internal/supervise"
)

// superviseCommand is the process that owns a VM. run starts it, with what it
// needs on standard input, the VM's lock as descriptor 3 and its control
// socket as 4.
func superviseCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use:    "supervise NAME",
		Hidden: true,
		Args:   args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !isKind(3, unix.S_IFREG) || !isKind(4, unix.S_IFSOCK) {
				return usagef("supervise: is started by vix-launcher run only")
			}
			// A child that inherited the lock would hold it after our death; and
			// what else our caller left open is no business of the VM's.
			if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
				return err
			}
			// QEMU holds a descriptor for each piece of display memory that a guest
			// maps; having set the limit here, children get it too.
			var files syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
				files.Cur = files.Max
				_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) // the old limit does for a while
			}
			unix.Umask(0o077)
			signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGTERM)
			defer stop()
			return supervise.Run(ctx, os.Stdin, os.NewFile(3, "lock"), os.NewFile(4, "control socket"), supervise.Desktop{Place: desktop.Place, Tell: desktop.Tell})
		},
	}
}

// isKind reports whether fd is open, and a file of this kind.
func isKind(fd int, kind uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == kind
}

// rootviewCommand is the process that becomes virtiofsd on a view of the host.
// The supervisor starts it in namespaces of its own.
func rootviewCommand(*env) *cobra.Command {
	var report int
	c := &cobra.Command{
		Use:    "rootview ROOT DIR PROGRAM [ARG…]",
		Hidden: true,
		Args:   args(3, -1, "ROOT, DIR or PROGRAM"),
		RunE: func(_ *cobra.Command, a []string) error {
			if !ownMounts() {
				return usagef("rootview: is started by the supervisor of a VM only")
			}
			unix.Umask(0o022) // the supervisor's would keep the guest's user out
			if err := rootfs.MountView(a[0], a[1]); err != nil {
				return err
			}
			p := sandbox.Profile{KeepCapabilities: true, KeepMounts: true}
			return sandbox.Exec(p, func(r sandbox.Report) { tell(report, r) }, a[2:], nil)
		},
	}
	c.Flags().SetInterspersed(false)
	c.Flags().IntVar(&report, "report-fd", -1, "descriptor that gets a JSON line about the confinement")
	return c
}

// confineCommand confines itself and becomes another program. The supervisor
// starts it, in namespaces of its own where it can.
func confineCommand(*env) *cobra.Command {
	var p sandbox.Profile
	var read, exec, device, sockets []string
	var report int
	c := &cobra.Command{
		Use:    "confine [OPTION…] -- PROGRAM [ARG…]",
		Hidden: true,
		Args:   args(1, -1, "PROGRAM"),
		RunE: func(_ *cobra.Command, a []string) error {
			for _, path := range read {
				p.Files = append(p.Files, sandbox.File{Path: path})
			}
			for _, path := range exec {
				p.Files = append(p.Files, sandbox.File{Path: path, Exec: true})
			}
			for _, path := range device {
				p.Files = append(p.Files, sandbox.File{Path: path, Write: true})
			}
			for _, path := range sockets {
				p.Files = append(p.Files, sandbox.File{Path: path, Sockets: true})
			}
			return sandbox.Exec(p, func(r sandbox.Report) { tell(report, r) }, a, nil)
		},
	}
	f := c.Flags()
	f.SetInterspersed(false)
	f.BoolVar(&p.Own, "own-namespaces", false, "started in namespaces of its own")
	f.StringArrayVar(&read, "read", nil, "a path that stays, to be read")
	f.StringArrayVar(&exec, "exec", nil, "a path that stays, to be read and executed")
	f.StringArrayVar(&device, "device", nil, "a device that stays")
	f.StringArrayVar(&sockets, "sockets", nil, "a directory in which the program makes sockets")
	f.BoolVar(&p.KeepCapabilities, "keep-capabilities", false, "the program needs them, for a sandbox of its own")
	f.BoolVar(&p.KeepMounts, "keep-mounts", false, "the program mounts, for a sandbox of its own")
	f.BoolVar(&p.Network, "network", false, "the program uses the host's network")
	f.IntVar(&report, "report-fd", -1, "descriptor that gets a JSON line about the confinement")
	return c
}

// tell writes a report to the supervisor, for which nobody waits.
func tell(fd int, r sandbox.Report) {
	if fd < 0 {
		return
	}
	f := os.NewFile(uintptr(fd), "report")
	defer f.Close() // and not inherited by the program
	_ = json.NewEncoder(f).Encode(r)
}

// ownMounts reports whether this process has a mount namespace of its own: what
// it mounts must not appear on the host.
func ownMounts() bool {
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		return false
	}
	// From within a user namespace the parent cannot be looked at.
	parents, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", os.Getppid()))
	return err != nil || ours != parents
}
