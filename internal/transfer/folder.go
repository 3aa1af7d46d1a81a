package transfer

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// A folder is an open directory. Everything done once for each file goes through its
// descriptor, with names of one component, and a name that is a link is not followed.
// Through an os.Root a new file takes eleven system calls instead of five, and an
// emulated guest is slow at each.
type folder struct {
	*os.Root
	at *os.File
}

// openFolder opens the directory called name. It does not follow a link.
func openFolder(parent folder, name string) (folder, error) {
	dir, err := openDir(parent.Root, name)
	if err != nil {
		return folder{}, err
	}
	at, err := dir.Open(".")
	if err != nil {
		dir.Close()
	}
	return folder{dir, at}, err
}

func (f folder) Close() error { return errors.Join(f.at.Close(), f.Root.Close()) }

func (f folder) fd() int { return int(f.at.Fd()) }

// lstat describes name itself: a link, not its target.
func (f folder) lstat(name string) (st unix.Stat_t, err error) {
	err = unix.Fstatat(f.fd(), name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st, err
}

// open opens a file of the folder. It does not follow a link. Without O_NONBLOCK a pipe
// that has replaced the file would hang us.
func (f folder) open(name string) (fd int, st unix.Stat_t, err error) {
	fd, err = unix.Openat(f.fd(), name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, st, err
	}
	if err = unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
	}
	return fd, st, err
}

// create makes a file that did not exist.
func (f folder) create(name string) (fd int, err error) {
	return unix.Openat(f.fd(), name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
}

// setTime sets the time of name, of the link itself if it is one.
func (f folder) setTime(name string, mtime int64) error {
	ts := unix.NsecToTimespec(mtime)
	return unix.UtimesNanoAt(f.fd(), name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}

// setTime sets the time of an open file, which may have no name.
func setTime(f *os.File, mtime int64) error {
	ts := unix.NsecToTimespec(mtime)
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", f.Fd()), []unix.Timespec{ts, ts}, 0)
}

// read is read(2); a FUSE file system may interrupt it.
func read(fd int, p []byte) (int, error) {
	for {
		n, err := unix.Read(fd, p)
		if !errors.Is(err, unix.EINTR) {
			return max(n, 0), err
		}
	}
}

// writeAt writes all of p at an offset.
func writeAt(fd int, p []byte, at int64) error {
	for len(p) > 0 {
		n, err := unix.Pwrite(fd, p, at)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		p, at = p[n:], at+int64(n)
	}
	return nil
}
