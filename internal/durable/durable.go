// Package durable puts files into directories so that at any moment, also after a power
// cut, a name has its old content or its new one, whole.
//
// A file is made without a name (O_TMPFILE), and gets its own when it is whole and on
// disk. So whoever is killed leaves nothing. Two cases need a name before: a file system
// that cannot do that (virtiofs), and a name that is taken, which only a rename
// replaces. Such a name begins with Prefix, and is locked (flock) by who makes what it
// names: one that nobody has locked is a dead process's, and Sweep removes it.
//
//	New ─► write ─► Sync ─► Place        what was half-made: Sweep
package durable

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Prefix begins the names of what is half-made.
const Prefix = ".vix-new-"

// TempName returns a name that nothing has had.
func TempName() string { return Prefix + strings.ToLower(rand.Text()[:12]) }

// Replace puts a file of these bytes in the place of what root has by that name, if
// anything. When it fails, that is as it was.
func Replace(root *os.Root, name string, perm fs.FileMode, b []byte) error {
	dir, err := root.Open(path.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := New(dir, perm)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Place(path.Base(name), true); err != nil {
		return err
	}
	return SyncDir(dir)
}

// ReplaceFile is Replace by a path, whose directory it frees of what was left half-made
// there before.
func ReplaceFile(name string, perm fs.FileMode, b []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	SweepFiles(dir, ".")
	return Replace(dir, filepath.Base(name), perm, b)
}

// SyncDir writes the names that were given in a directory to disk, where its file system
// knows of that.
func SyncDir(dir *os.File) error {
	if err := dir.Sync(); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// SyncAll writes everything of the file system that holds f to disk.
func SyncAll(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) }

// An Unplaced is a file in a directory that has no name of its own yet.
type Unplaced struct {
	*os.File
	dir  *os.File
	temp string // the name that it has meanwhile; "" is none
}

var tmpfile = unix.O_TMPFILE // 0 in a test: no file system without it is at hand

// New makes a file in dir, which stays open as long as the file has no name.
func New(dir *os.File, perm fs.FileMode) (*Unplaced, error) {
	at, mode := int(dir.Fd()), uint32(perm.Perm())
	fd, err := unix.Openat(at, ".", unix.O_WRONLY|tmpfile|unix.O_CLOEXEC, mode)
	if err == nil {
		return &Unplaced{os.NewFile(uintptr(fd), dir.Name()), dir, ""}, nil
	}
	// Whatever was wrong: if it is not O_TMPFILE, this says it.
	for {
		name := TempName()
		fd, err := unix.Openat(at, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode)
		if err != nil {
			return nil, &fs.PathError{Op: "create", Path: dir.Name(), Err: err}
		}
		f := os.NewFile(uintptr(fd), dir.Name())
		if Hold(dir, name, f) {
			return &Unplaced{f, dir, name}, nil
		}
		f.Close()
	}
}

// Hold keeps a Sweep from f, which was just made in dir under a TempName, until f is
// closed. It reports false if a Sweep was faster: f is lost then, and another has to be
// made. Where nothing can be locked, nothing is swept.
func Hold(dir *os.File, name string, f *os.File) bool {
	switch err := lock(f); {
	case errors.Is(err, unix.EWOULDBLOCK):
		return false
	case err != nil:
		return true
	}
	return isNamed(dir, name, f)
}

func lock(f *os.File) error {
	for {
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// isNamed reports whether dir has f by that name.
func isNamed(dir *os.File, name string, f *os.File) bool {
	var is, at unix.Stat_t
	err := errors.Join(unix.Fstat(int(f.Fd()), &is), unix.Fstatat(int(dir.Fd()), name, &at, unix.AT_SYMLINK_NOFOLLOW))
	return err == nil && is.Dev == at.Dev && is.Ino == at.Ino
}

// Locked makes an empty file that is locked (flock) before it has its name. It is unlocked
// when it is closed.
func Locked(dir *os.File, name string) (*os.File, error) {
	u, err := New(dir, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lock(u.File); err != nil {
		return nil, errors.Join(&fs.PathError{Op: "lock", Path: name, Err: err}, u.Close())
	}
	if err := u.Place(name, false); err != nil {
		return nil, errors.Join(err, u.Close())
	}
	return u.File, nil
}

// Place gives the file its name: over what has it, or else with fs.ErrExist if anything
// does. What has to be on disk before was synchronised.
func (u *Unplaced) Place(name string, over bool) error {
	at := int(u.dir.Fd())
	if u.temp == "" {
		err := u.link(name)
		if err == nil || !over || !errors.Is(err, unix.EEXIST) {
			return u.failure(name, err)
		}
		_ = lock(u.File) // before it has a name: no Sweep is faster
		temp := TempName()
		if err := u.link(temp); err != nil {
			return u.failure(name, err)
		}
		u.temp = temp
	}
	if !over { // a rename that replaces nothing is not known to every file system
		if err := unix.Linkat(at, u.temp, at, name, 0); err != nil {
			return u.failure(name, err)
		}
		return u.failure(name, u.drop())
	}
	if err := unix.Renameat(at, u.temp, at, name); err != nil {
		return u.failure(name, err)
	}
	u.temp = ""
	return nil
}

// link gives a file without a name one.
func (u *Unplaced) link(name string) error {
	return unix.Linkat(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", u.Fd()), int(u.dir.Fd()), name, unix.AT_SYMLINK_FOLLOW)
}

func (u *Unplaced) failure(name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: "place", Path: name, Err: err}
}

func (u *Unplaced) drop() error {
	if u.temp == "" {
		return nil
	}
	err := unix.Unlinkat(int(u.dir.Fd()), u.temp, 0)
	u.temp = ""
	return err
}

// Close closes the file. One that was not placed is gone.
func (u *Unplaced) Close() error { return errors.Join(u.drop(), u.File.Close()) }

// lately is how long what changes is left alone, locked or not: through a share, another
// kernel may be making it, whose locks are not seen here.
const lately = 10 * time.Second

// Sweep has what was half-made in dir removed, by name, unless somebody is making it.
func Sweep(dir *os.File, remove func(name string)) {
	list, err := openAt(dir, ".")
	if err != nil {
		return
	}
	defer list.Close()
	for {
		names, err := list.Readdirnames(1024)
		for _, name := range names {
			if strings.HasPrefix(name, Prefix) {
				sweep(dir, name, remove)
			}
		}
		if err != nil {
			return
		}
	}
}

func sweep(dir *os.File, name string, remove func(name string)) {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil || time.Since(time.Unix(st.Mtim.Unix())).Abs() < lately {
		return
	}
	if st.Mode&unix.S_IFMT == unix.S_IFLNK { // has no lock, and is under such a name for a moment only
		remove(name)
		return
	}
	f, err := openAt(dir, name)
	if err != nil {
		return
	}
	defer f.Close()
	if lock(f) == nil && isNamed(dir, name, f) {
		remove(name)
	}
}

// SweepFiles is Sweep of a directory in which only files are made.
func SweepFiles(root *os.Root, name string) {
	dir, err := root.Open(name)
	if err != nil {
		return
	}
	defer dir.Close()
	Sweep(dir, func(name string) { _ = unix.Unlinkat(int(dir.Fd()), name, 0) })
}

// openAt opens what name itself is. Without O_NONBLOCK a pipe would hang us.
func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
