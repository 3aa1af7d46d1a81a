package vm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/rootfs"
)

// A DiskUse is what a tree takes of its file system.
type DiskUse struct {
	Bytes uint64 `json:"bytes"` // allocated blocks, each file once, however many names it has
	Whole bool   `json:"whole"` // false: there is more, which could not be looked at, or not in time
}

// Add adds what another tree takes.
func (u *DiskUse) Add(v DiskUse) { u.Bytes, u.Whole = u.Bytes+v.Bytes, u.Whole && v.Whole }

// Limits of a count. A guest has made the tree of its home: it may be deeper than this
// process has descriptors for, and have any number of names for its files.
const (
	maxDiskDepth = 200
	maxDiskLinks = 1 << 18 // files with several names that are remembered
	diskBatch    = 512     // names that are read at once
)

// MeasureDisk counts what the file or directory name below root takes. It follows no link,
// crosses no mount, opens nothing but directories, and ends with ctx.
func MeasureDisk(ctx context.Context, root *os.Root, name string) DiskUse {
	st, err := root.Lstat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return DiskUse{Whole: true}
	case err != nil:
		return DiskUse{}
	case !st.IsDir():
		u := DiskUse{Whole: true}
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			u.Bytes = blocks(sys.Blocks)
		}
		return u
	}
	dir, err := openBelow(root, name, diskFlags, 0)
	if err != nil {
		return DiskUse{}
	}
	defer dir.Close()
	c := diskCount{use: DiskUse{Whole: true}, seen: map[rootfs.DirID]bool{}}
	var at unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &at); err != nil {
		return DiskUse{}
	}
	c.use.Bytes = blocks(at.Blocks)
	c.walk(ctx, dir, 0)
	return c.use
}

const diskFlags = os.O_RDONLY | unix.O_DIRECTORY | unix.O_NONBLOCK

// blocks returns how many bytes n blocks of stat(2) are.
func blocks(n int64) uint64 { return uint64(max(n, 0)) * 512 }

type diskCount struct {
	use  DiskUse
	seen map[rootfs.DirID]bool // files with several names
}

func (c *diskCount) walk(ctx context.Context, dir *os.File, depth int) {
	for {
		names, err := dir.Readdirnames(diskBatch)
		if ctx.Err() != nil {
			c.use.Whole = false
			return
		}
		for _, name := range names {
			c.entry(ctx, dir, name, depth)
		}
		if err != nil {
			c.use.Whole = c.use.Whole && errors.Is(err, io.EOF)
			return
		}
	}
}

func (c *diskCount) entry(ctx context.Context, dir *os.File, name string, depth int) {
	var st unix.Stat_t
	switch err := unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return // removed meanwhile
	case err != nil:
		c.use.Whole = false
		return
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		if st.Nlink > 1 {
			id := rootfs.DirID{Dev: st.Dev, Ino: st.Ino}
			if c.seen[id] {
				return
			}
			if len(c.seen) == maxDiskLinks {
				c.use.Whole = false
				return
			}
			c.seen[id] = true
		}
		c.use.Bytes += blocks(st.Blocks)
		return
	}
	if depth == maxDiskDepth {
		c.use.Whole = false
		return
	}
	how := unix.OpenHow{Flags: uint64(diskFlags | unix.O_NOFOLLOW | unix.O_CLOEXEC), Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_XDEV}
	fd, err := unix.Openat2(int(dir.Fd()), name, &how)
	switch {
	case errors.Is(err, unix.EXDEV), errors.Is(err, unix.ENOENT):
		return // what is mounted there is something else's
	case err != nil: // a directory without permissions, of a guest's
		c.use.Bytes += blocks(st.Blocks)
		c.use.Whole = false
		return
	}
	sub := os.NewFile(uintptr(fd), name)
	defer sub.Close()
	c.use.Bytes += blocks(st.Blocks)
	c.walk(ctx, sub, depth+1)
}

// usedName is an empty file of a VM's kept state: its time is that of the VM's last start,
// or end. Versions before it made none.
const usedName = "used"

// touch notes that the VM name is used now. A state that cannot be written to has no such
// note, and works all the same.
func (s *Store) touch(name string) {
	f, err := openBelow(s.root, filepath.Join(VMsName, name, usedName), os.O_WRONLY|os.O_CREATE|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return
	}
	defer f.Close()
	now := unix.NsecToTimeval(time.Now().UnixNano())
	_ = unix.Futimes(int(f.Fd()), []unix.Timeval{now, now})
}

// LastUsed returns when the VM name was started or ended last; zero if nothing has noted it.
func (s *Store) LastUsed(name string) time.Time {
	st, err := s.root.Lstat(filepath.Join(VMsName, name, usedName))
	if err != nil || !st.Mode().IsRegular() {
		return time.Time{}
	}
	return st.ModTime()
}

// HomeUse counts what the VM's kept home takes on the disk, until ctx ends.
func (s *Store) HomeUse(ctx context.Context, name string) DiskUse {
	return MeasureDisk(ctx, s.root, filepath.Join(VMsName, name, HomeName))
}

// HomePath returns the path of the VM's home, whether or not it is there.
func (s *Store) HomePath(name string) string { return filepath.Join(s.path, VMsName, name, HomeName) }
