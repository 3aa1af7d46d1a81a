package sandbox

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// The rights of a File, among those that Landlock knows.
const (
	readRights  = landlocksys.AccessFSReadFile | landlocksys.AccessFSReadDir
	execRights  = landlocksys.AccessFSExecute
	writeRights = landlocksys.AccessFSWriteFile | landlocksys.AccessFSIoctlDev
	fileRights  = landlocksys.AccessFSReadFile | execRights | writeRights
)

// restrictFiles puts every thread under Landlock, and returns Landlock's version. The process
// can then reach only files, send nothing by TCP (unless network is set), and send no signal
// to the outside.
func restrictFiles(files []File, network bool) (abi int, err error) {
	if abi, err = landlocksys.LandlockGetABIVersion(); err != nil {
		return 0, errors.New("the kernel has none")
	}
	if err := allThreads(unix.SYS_GETPID); err != nil {
		return abi, err
	}
	var rules []landlock.Rule
	for _, f := range files {
		st, err := os.Stat(f.Path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return abi, err
		}
		rights := landlock.AccessFSSet(readRights)
		if f.Exec {
			rights |= execRights
		}
		if f.Write {
			rights |= writeRights
		}
		if f.Remove {
			rights = landlocksys.AccessFSRemoveFile
		}
		if !st.IsDir() {
			rights &= fileRights
		}
		rules = append(rules, landlock.PathAccess(rights, f.Path))
	}
	if network {
		return abi, errors.Join(landlock.V7.BestEffort().RestrictPaths(rules...), landlock.V7.BestEffort().RestrictScoped())
	}
	return abi, landlock.V7.BestEffort().Restrict(rules...)
}

// emptyRoot makes an empty read-only directory the root of our mount namespace, and drops
// everything else.
func emptyRoot() error { return fileRoot(nil) }

// fileRoot does the same with a directory that holds files, at their own paths, read-only
// except where sockets are made.
func fileRoot(files []File) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mounts: %w", err)
	}
	pieces, err := detach(files)
	defer func() {
		for _, p := range pieces {
			p.close()
		}
	}()
	if err != nil {
		return err
	}
	// Any directory can hold the new root while it is assembled: only this process sees the
	// mount.
	place := "/"
	for _, dir := range []string{"/usr", "/tmp", "/run"} {
		if st, err := os.Stat(dir); err == nil && st.IsDir() {
			place = dir
			break
		}
	}
	if err := unix.Mount("root", place, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=1m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	for _, p := range pieces {
		if err := p.attach(place); err != nil {
			return fmt.Errorf("%s: %w", p.path, err)
		}
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY | unix.MOUNT_ATTR_NOSUID}
	if err := unix.MountSetattr(unix.AT_FDCWD, place, unix.AT_RECURSIVE, &attr); err != nil {
		return fmt.Errorf("read-only: %w", err)
	}
	// The old root is mounted over the new one, and removed.
	if err := os.Chdir(place); err != nil {
		return err
	}
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("pivot_root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("the old root: %w", err)
	}
	return os.Chdir("/")
}

// A piece is a part of the old root that moves into the new one: a link, or a detached copy
// of its mount.
type piece struct {
	path  string
	dir   bool
	link  string // the target of a symbolic link
	mount int    // or the copy
}

func (p piece) close() {
	if p.link == "" {
		_ = unix.Close(p.mount)
	}
}

// detach opens all files while they can be reached. It leaves out files that do not exist.
func detach(files []File) ([]piece, error) {
	var pieces []piece
	for _, f := range files {
		p, err := detachFile(f)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return pieces, fmt.Errorf("%s: %w", f.Path, err)
		}
		pieces = append(pieces, p)
	}
	return pieces, nil
}

// detachFile inspects a file through a descriptor, so that it copies what it inspected.
func detachFile(f File) (p piece, err error) {
	fd, err := unix.Open(f.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return p, err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return p, err
	}
	kind := st.Mode & unix.S_IFMT
	p = piece{path: f.Path, dir: kind == unix.S_IFDIR}
	if kind == unix.S_IFLNK {
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", b)
		p.link = string(b[:max(n, 0)])
		return p, err
	}
	// Recursive: in a user namespace a copy may not uncover what lies below
	// another mount.
	p.mount, err = unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return p, fmt.Errorf("open_tree: %w", err)
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID}
	if kind == unix.S_IFCHR { // a device node works as a device only if it is listed by name
		attr.Attr_set |= unix.MOUNT_ATTR_NOEXEC
	} else {
		attr.Attr_set |= unix.MOUNT_ATTR_NODEV
	}
	if err := unix.MountSetattr(p.mount, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &attr); err != nil {
		p.close()
		return p, fmt.Errorf("mount_setattr: %w", err)
	}
	return p, nil
}

// attach puts p below root. Where an earlier directory already shows p, p is mounted over
// itself.
func (p piece) attach(root string) error {
	target := filepath.Join(root, p.path)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	_, err := os.Lstat(target)
	missing := errors.Is(err, fs.ErrNotExist)
	switch {
	case p.link != "" && missing:
		return os.Symlink(p.link, target)
	case p.link != "":
		return nil
	case missing && p.dir:
		err = os.Mkdir(target, 0o755)
	case missing:
		err = os.WriteFile(target, nil, 0o644)
	}
	if err != nil {
		return err
	}
	return unix.MoveMount(p.mount, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}
