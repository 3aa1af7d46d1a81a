package main

import (
	"math"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/desktop"
	"vix/internal/supervise"
)

// superviseCommand is the process that owns a VM. run starts it with its parameters on standard
// input, the VM's lock as descriptor 3 and its control socket as 4.
func superviseCommand(*env) *cobra.Command {
	return &cobra.Command{
		Use:    "supervise NAME",
		Hidden: true,
		Args:   args(1, 1, "NAME"),
		RunE: func(c *cobra.Command, _ []string) error {
			if !isKind(3, unix.S_IFREG) || !isKind(4, unix.S_IFSOCK) {
				return usagef("supervise: started only by vix run")
			}
			// A child that inherited the lock would hold it after our death; and the caller's other open
			// files do not concern the VM.
			if err := unix.CloseRange(3, math.MaxInt32, unix.CLOSE_RANGE_CLOEXEC); err != nil {
				return err
			}
			// QEMU holds a descriptor for each piece of display memory that a guest maps. The limit is
			// set here so that children inherit it.
			var files syscall.Rlimit
			if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err == nil {
				files.Cur = files.Max
				_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files) // the old limit is enough for a while
			}
			unix.Umask(0o077)
			signal.Ignore(unix.SIGINT, unix.SIGHUP, unix.SIGQUIT)
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGTERM)
			defer stop()
			return supervise.Run(ctx, os.Stdin, os.NewFile(3, "lock"), os.NewFile(4, "control socket"), supervise.Desktop{Place: desktop.Place, Tell: desktop.Tell, Await: desktop.Await})
		},
	}
}

// isKind reports whether fd is open and a file of this kind.
func isKind(fd int, kind uint32) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == kind
}
