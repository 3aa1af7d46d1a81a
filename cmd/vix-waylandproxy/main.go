// Command vix-waylandproxy carries Wayland between a VM and the host's
// compositor. Each verb is one process:
//
//	host   the vhost-user virtio-gpu device of one VM, and the filter behind it
//	guest  the Wayland socket inside a VM whose connections go to the host
//	local  the filter alone, between two sockets of one machine
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// version is set by the Makefile.
var version = "devel"

// errUsage marks mistakes of the command line: exit status 2.
var errUsage = errors.New("usage")

func main() {
	// The name in ps, for a process started by a descriptor.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGINT, unix.SIGTERM)
	defer stop()
	err := command().ExecuteContext(ctx)
	if err == nil {
		return
	}
	fmt.Fprintf(os.Stderr, "vix-waylandproxy: %v\n", err)
	if errors.Is(err, errUsage) {
		os.Exit(2)
	}
	os.Exit(1)
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:           "vix-waylandproxy",
		Short:         "carry Wayland between a VM and the host's compositor",
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown verb %q; try host, guest or local", args[0])
			}
			return nil
		},
		RunE: func(*cobra.Command, []string) error { return usagef("a verb is missing; try host, guest or local") },
	}
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%s: %v; see %s --help", c.Name(), err, c.CommandPath())
	})
	root.AddCommand(hostCommand(), guestCommand(), localCommand())
	for _, c := range root.Commands() {
		c.Args = func(c *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("%s: unexpected argument %q; see %s --help", c.Name(), args[0], c.CommandPath())
			}
			return nil
		}
	}
	return root
}

func usagef(format string, a ...any) error {
	return &usageError{fmt.Sprintf(format, a...)}
}

type usageError struct{ text string }

func (e *usageError) Error() string        { return e.text }
func (e *usageError) Is(target error) bool { return target == errUsage }

// logger writes lines for the VM's log to standard error.
func logger(debug bool) *slog.Logger {
	level := slog.LevelInfo
	if debug {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
}

// compositor finds the compositor's socket: the flag, or what WAYLAND_DISPLAY
// names, as libwayland does.
func compositor(flag string) (string, error) {
	name := flag
	if name == "" {
		name = os.Getenv("WAYLAND_DISPLAY")
	}
	if name == "" {
		return "", usagef("no compositor: WAYLAND_DISPLAY is not set; start a Wayland session or name its socket")
	}
	if filepath.IsAbs(name) {
		return name, nil
	}
	dir := os.Getenv("XDG_RUNTIME_DIR")
	if dir == "" {
		return "", usagef("compositor %s: XDG_RUNTIME_DIR is not set; give the socket's whole path", name)
	}
	return filepath.Join(dir, name), nil
}

func dialer(path string) func() (wayland.Transport, error) {
	return func() (wayland.Transport, error) { return wayland.Dial(path) }
}

// listen makes a Wayland socket that only its user can open, as libwayland does
// (wl_display_add_socket): the holder of the lock beside it may replace the socket. The
// lock lasts as long as the process; its file stays.
func listen(path string) (*net.UnixListener, error) {
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	lock, err := unix.Open(path+".lock", unix.O_CREAT|unix.O_CLOEXEC|unix.O_RDWR|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %s.lock: %w", path, path, err)
	}
	if err := unix.Flock(lock, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = unix.Close(lock)
		return nil, fmt.Errorf("listen on %s: somebody serves it already; choose another --listen", path)
	}
	if st, err := os.Lstat(path); err == nil && st.Mode()&os.ModeSocket != 0 {
		_ = os.Remove(path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		_ = unix.Close(lock)
		return nil, fmt.Errorf("listen on %s: %w", path, errors.Unwrap(err))
	}
	return l, nil
}

// ready tells the parent that a socket listens.
func ready(fd int) error {
	if fd < 0 {
		return nil
	}
	f := os.NewFile(uintptr(fd), "ready")
	_, err := f.Write([]byte{1})
	return errors.Join(err, f.Close())
}
