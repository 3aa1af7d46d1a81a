package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
)

// Names of the files of a VM's directory.
const (
	lockName    = "lock" // of the registry too: no VM is called so (config.CheckName)
	controlName = "control.sock"
	StateName   = "state.json"
)

// A Registry is the directory of all VMs of one user.
type Registry struct {
	Path string
	Root *os.Root
	at   *os.File // the same directory
	// StateDir is $XDG_STATE_HOME, where the last log of a VM is kept; "" keeps none.
	StateDir string
}

// OpenRegistry opens dir/vix, and makes it if there is none. dir is the user's
// runtime directory. A directory that others could write to, or that is not
// the user's own, is refused.
func OpenRegistry(dir string) (*Registry, error) {
	path := filepath.Join(dir, "vix")
	if n := len(filepath.Join(path, string(make([]byte, config.MaxName)), controlName)); n > 107 {
		return nil, Failf("runtime directory %s: too long for a socket's path; set XDG_RUNTIME_DIR to a shorter one", dir)
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, Failf("runtime directory %s: %v; set XDG_RUNTIME_DIR to a directory of your own", dir, proc.Cause(err))
	}
	root, at, err := openOwn(path)
	if err != nil {
		return nil, Failf("%s: %v; remove it", path, err)
	}
	return &Registry{Path: path, Root: root, at: at}, nil
}

// openOwn opens the directory path, which must be this user's alone. It checks what it has
// opened, whatever takes the name meanwhile; a link would lead files that are made or
// removed in the directory elsewhere.
func openOwn(path string) (root *os.Root, at *os.File, err error) {
	fd, err := unix.Open(path, unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		return nil, nil, errNotOwn
	case err != nil:
		return nil, nil, err
	}
	at = os.NewFile(uintptr(fd), path)
	st, err := at.Stat()
	if err == nil {
		err = ownDir(st)
	}
	if err == nil { // by the descriptor, as os.OpenRoot takes only a name
		root, err = os.OpenRoot(fmt.Sprintf("/proc/self/fd/%d", fd))
	}
	if err != nil {
		return nil, nil, errors.Join(proc.Cause(err), at.Close())
	}
	return root, at, nil
}

// readBelow reads a file of root's, of which it takes no more than limit bytes.
func readBelow(root *os.Root, name string, limit int64) ([]byte, error) {
	f, err := openBelow(root, name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

// openBelow opens a file or directory of root's, with no link on the way or at its end:
// os.Root follows those that stay below it, O_NOFOLLOW or not.
func openBelow(root *os.Root, name string, flags int, perm os.FileMode) (*os.File, error) {
	top, err := root.Open(".")
	if err != nil {
		return nil, err
	}
	defer top.Close()
	how := unix.OpenHow{Flags: uint64(flags) | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	if flags&unix.O_CREAT != 0 {
		how.Mode = uint64(perm.Perm())
	}
	fd, err := unix.Openat2(int(top.Fd()), name, &how)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Close releases the directory.
func (r *Registry) Close() error { return errors.Join(r.Root.Close(), r.at.Close()) }

// lockAll takes the upper lock. It is held for moments only.
func (r *Registry) lockAll(ctx context.Context) (*os.File, error) {
	f, err := openBelow(r.Root, lockName, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, Failf("%s: %v", r.Path, proc.Cause(err))
	}
	if err := waitLock(ctx, f); err != nil {
		return nil, err
	}
	return f, nil
}

// waitLock takes f's lock as soon as it is free. It closes f if it fails.
func waitLock(ctx context.Context, f *os.File) error {
	got := make(chan error, 1)
	go func() {
		defer close(got)
		for {
			err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
			if !errors.Is(err, unix.EINTR) {
				got <- err
				return
			}
		}
	}()
	select {
	case err := <-got:
		if err != nil {
			f.Close()
		}
		return err
	case <-ctx.Done():
		// The blocked call cannot be taken back; it ends when the lock's holder
		// does, or with this process, and must not keep the lock then.
		go func() {
			for range got {
				f.Close()
			}
		}()
		return context.Cause(ctx)
	}
}

// TryLock takes f's lock if it is free.
func TryLock(f *os.File) (bool, error) {
	err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		return false, nil
	}
	return err == nil, err
}

// A Seat is what a new supervisor gets: the lock of its directory, and the socket on which
// clients may already be waiting.
type Seat struct {
	Lock     *os.File
	Listener *os.File
}

func (s *Seat) Close() {
	s.Lock.Close()
	s.Listener.Close()
}

// Take makes the directory of the VM name and takes its lock, both under the
// upper lock. It returns nil if the VM runs: its lock is taken.
func (r *Registry) Take(ctx context.Context, name string) (*Seat, error) {
	all, err := r.lockAll(ctx)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	switch lock, err := r.lockOf(name); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, Failf("%s: %v", filepath.Join(r.Path, name), proc.Cause(err))
	case lock == nil:
		return nil, nil
	default:
		lock.Close()
		// The new supervisor removes the remains of the group.
		if err := errors.Join(r.removeDead(name), r.Root.RemoveAll(name)); err != nil {
			return nil, Failf("%v", err)
		}
	}
	s, err := r.make(name)
	if err != nil {
		return nil, errors.Join(Failf("%s: %v", filepath.Join(r.Path, name), proc.Cause(err)), r.Root.RemoveAll(name))
	}
	return s, nil
}

// lockOf takes the lock of an existing directory. It returns nil if the lock
// is taken, and fs.ErrNotExist if there is no such directory.
func (r *Registry) lockOf(name string) (*os.File, error) {
	if _, err := r.Root.Lstat(name); err != nil {
		return nil, err
	}
	f, err := openBelow(r.Root, filepath.Join(name, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if ok, err := TryLock(f); !ok {
		f.Close()
		return nil, err
	}
	return f, nil
}

func (r *Registry) make(name string) (*Seat, error) {
	if err := r.Root.Mkdir(name, 0o700); err != nil {
		return nil, err
	}
	lock, err := r.lockOf(name)
	if err != nil {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", r.Socket(name, controlName))
	if err != nil {
		lock.Close()
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		lock.Close()
		return nil, err
	}
	return &Seat{Lock: lock, Listener: f}, nil
}

// Socket returns the address of a socket in a VM's directory, by the checked descriptor: it
// is in that directory, whatever has the name now.
func (r *Registry) Socket(name, file string) *net.UnixAddr {
	return &net.UnixAddr{Name: fmt.Sprintf("/proc/self/fd/%d/%s/%s", r.at.Fd(), name, file), Net: "unix"}
}

func (r *Registry) Control(name string) string {
	return filepath.Join(r.Path, name, controlName)
}

// remove removes the directory of the calling supervisor's VM. From then on a
// run makes a new one.
func (r *Registry) RemoveDir(ctx context.Context, name string) error {
	all, err := r.lockAll(ctx)
	if err != nil {
		return err
	}
	defer all.Close()
	return r.Root.RemoveAll(name)
}

// Names returns the VMs whose supervisors live, in order, and removes what
// dead ones left.
func (r *Registry) Names(ctx context.Context) ([]string, error) {
	all, err := r.lockAll(ctx)
	if err != nil {
		return nil, err
	}
	defer all.Close()
	entries, err := fs.ReadDir(r.Root.FS(), ".")
	if err != nil {
		return nil, Failf("%s: %v", r.Path, proc.Cause(err))
	}
	var live []string
	var errs []error
	for _, e := range entries {
		if !e.IsDir() || config.CheckName(e.Name()) != nil {
			continue
		}
		lock, err := r.lockOf(e.Name())
		switch {
		case err != nil:
			errs = append(errs, err)
		case lock == nil:
			live = append(live, e.Name())
		default:
			lock.Close()
			errs = append(errs, r.removeDead(e.Name()))
		}
	}
	slices.Sort(live)
	return live, errors.Join(errs...)
}

// removeDead removes the directory and the control group of a VM whose supervisor was
// killed; its log is kept. The VM's processes end at their parent's death, but not at once;
// until they have, the directory stays for the next caller.
func (r *Registry) removeDead(name string) error {
	r.keepLost(name)
	if st, err := LoadState(r.Root, name); err == nil && st.Scope != nil {
		if errors.Is(st.Scope.RemoveLeft(name), unix.EBUSY) {
			return nil
		}
	}
	return r.Root.RemoveAll(name)
}

// WaitGone returns when no supervisor of the VM name lives.
func (r *Registry) WaitGone(ctx context.Context, name string) error {
	f, err := r.Root.OpenFile(filepath.Join(name, lockName), os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, proc.Cause(err))
	}
	if err := waitLock(ctx, f); err != nil {
		return err
	}
	return f.Close()
}
