// Package durable writes files so that a name always has its old content or its new one,
// complete, even after a power cut.
//
// A file is made without a name (O_TMPFILE), and gets its name when it is complete and on disk.
// So a killed process leaves nothing. Two cases need a temporary name: a file system without
// O_TMPFILE (virtiofs), and a name in use, which only a rename replaces. A temporary name
// begins with Prefix, and the process that makes the file holds a lock (flock) on it. A file
// without a lock belongs to a dead process, and Sweep removes it.
//
//	New ─► write ─► Sync ─► Place        unfinished files: Sweep
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

// Prefix begins the names of unfinished files.
const Prefix = ".vix-new-"

// TempName returns a name that no file has had.
func TempName() string { return Prefix + strings.ToLower(rand.Text()[:12]) }

// Replace writes b to the file called name, and replaces an existing file. When it fails, an
// existing file is unchanged.
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

// ReplaceFile is Replace for a path. It also removes unfinished files from the directory.
func ReplaceFile(name string, perm fs.FileMode, b []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return err
	}
	defer dir.Close()
	SweepFiles(dir, ".")
	return Replace(dir, filepath.Base(name), perm, b)
}

// SyncDir writes the names in a directory to disk, if its file system supports that.
func SyncDir(dir *os.File) error {
	if err := dir.Sync(); !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOTSUP) {
		return err
	}
	return nil
}

// SyncAll writes the whole file system that holds f to disk.
func SyncAll(f *os.File) error { return os.NewSyscallError("syncfs", unix.Syncfs(int(f.Fd()))) }

// An Unplaced is a file in a directory that does not have its own name yet.
type Unplaced struct {
	*os.File
	dir  *os.File
	temp string // its temporary name; "" if none
}

var tmpfile = unix.O_TMPFILE // 0 in a test: no file system without it is available

// New makes a file in dir. dir stays open as long as the file has no name.
func New(dir *os.File, perm fs.FileMode) (*Unplaced, error) {
	at, mode := int(dir.Fd()), uint32(perm.Perm())
	fd, err := unix.Openat(at, ".", unix.O_WRONLY|tmpfile|unix.O_CLOEXEC, mode)
	if err == nil {
		return &Unplaced{os.NewFile(uintptr(fd), dir.Name()), dir, ""}, nil
	}
	// If O_TMPFILE was not the cause of the error, this loop meets the error again.
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

// Hold protects f, which was just made in dir under a TempName, from Sweep until f is closed.
// It returns false if a Sweep was faster: f is then lost, and the caller makes another file.
// Where locks do not work, Sweep removes nothing.
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

// isNamed reports whether name in dir is f.
func isNamed(dir *os.File, name string, f *os.File) bool {
	var is, at unix.Stat_t
	err := errors.Join(unix.Fstat(int(f.Fd()), &is), unix.Fstatat(int(dir.Fd()), name, &at, unix.AT_SYMLINK_NOFOLLOW))
	return err == nil && is.Dev == at.Dev && is.Ino == at.Ino
}

// Locked makes an empty file that is locked (flock) before it has its name. Closing it unlocks
// it.
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

// Place gives the file its name. If the name exists, it is replaced if over is set; otherwise
// Place returns fs.ErrExist. The caller must have synchronised what has to be on disk.
func (u *Unplaced) Place(name string, over bool) error {
	at := int(u.dir.Fd())
	if u.temp == "" {
		err := u.link(name)
		if err == nil || !over || !errors.Is(err, unix.EEXIST) {
			return u.failure(name, err)
		}
		_ = lock(u.File) // before it has a name, so that no Sweep is faster
		temp := TempName()
		if err := u.link(temp); err != nil {
			return u.failure(name, err)
		}
		u.temp = temp
	}
	if !over { // not every file system has a rename that replaces nothing
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

// link names a file that has no name.
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

// Close closes the file. A file without a place is deleted.
func (u *Unplaced) Close() error { return errors.Join(u.drop(), u.File.Close()) }

// lately is the time after a change in which Sweep spares a file, locked or not: another
// kernel may be writing it through a share, and its locks are invisible here.
const lately = 10 * time.Second

// Sweep calls remove for each unfinished file in dir, unless a process still writes it.
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
	if st.Mode&unix.S_IFMT == unix.S_IFLNK { // a link has no lock, and keeps a temporary name only briefly
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

// SweepFiles is Sweep for a directory that has only files made in it.
func SweepFiles(root *os.Root, name string) {
	dir, err := root.Open(name)
	if err != nil {
		return
	}
	defer dir.Close()
	Sweep(dir, func(name string) { _ = unix.Unlinkat(int(dir.Fd()), name, 0) })
}

// openAt opens name itself, not a link's target. Without O_NONBLOCK a pipe would hang us.
func openAt(dir *os.File, name string) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}
