package rootfs

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A DirID identifies a directory, whatever its name and wherever it is moved, as long as it
// exists.
type DirID struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// A Folder is a host directory that was opened once. Decisions about it, and their
// execution, go by its descriptor: its name may lead elsewhere by then.
//
//	path ─ OpenFolder: one component at a time, links followed here and never again ─► File
//	File ─ Above: "..", "..", … up to the root, compared by DirID ─► may it be shared?
//	File ─► virtiofsd's view (MountShare)
type Folder struct {
	File *os.File // O_PATH
	Path string   // its name when it was opened, without links
	// Way has the directories that the given path led through, with those behind links and
	// without the Folder itself.
	Way []DirID
}

// Errors of OpenFolder.
var (
	ErrNotDir = errors.New("not a directory")
	// ErrLink: the path has a link at a place where somebody else may have put it.
	ErrLink = errors.New("leads through a link in a folder that a VM could write to")
)

// maxFolderLinks is Linux's own limit of links in a path.
const maxFolderLinks = 40

// OpenFolder opens the directory at path, which is absolute. It follows links, for they are
// the user's, but not in or below a directory that a guest could write to, as written says:
// such a link is ErrLink.
func OpenFolder(path string, written func(DirID) bool) (*Folder, error) {
	return openWalk(&walk{written: written, rest: split(path)}, path)
}

// OpenParent opens the directory that holds the file at path, after its links; if path is a
// directory, it opens that itself.
func OpenParent(path string, written func(DirID) bool) (*Folder, error) {
	return openWalk(&walk{written: written, rest: split(path), file: true}, path)
}

func openWalk(w *walk, path string) (*Folder, error) {
	if !filepath.IsAbs(path) {
		return nil, fmt.Errorf("%s: not an absolute path", path)
	}
	if err := w.enter(unix.AT_FDCWD, "/"); err != nil {
		return nil, err
	}
	for len(w.rest) > 0 {
		if err := w.step(); err != nil {
			w.close()
			return nil, err
		}
	}
	real, err := fdPath(w.at)
	if err != nil {
		w.close()
		return nil, err
	}
	return &Folder{File: os.NewFile(uintptr(w.at), real), Path: real, Way: w.way[:len(w.way)-1]}, nil
}

// FolderOf returns the Folder of an open directory of our own, and owns the file from then on.
func FolderOf(f *os.File) (*Folder, error) {
	real, err := fdPath(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return &Folder{File: f, Path: real}, nil
}

// fdPath returns the present path of a descriptor.
func fdPath(fd int) (string, error) {
	path, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err == nil && !filepath.IsAbs(path) {
		err = errors.New("not in the file system")
	}
	return path, err
}

// A walk is a path on its way to a directory.
type walk struct {
	written func(DirID) bool
	at      int // the directory that it has reached, if opened
	opened  bool
	way     []DirID
	rest    []string
	links   int
	closed  bool // it has come into a directory of written
	file    bool // the path may end at a file: then the walk stays in its directory
}

func split(path string) []string { return strings.Split(filepath.ToSlash(path), "/") }

func (w *walk) close() {
	if w.opened {
		unix.Close(w.at)
		w.opened = false
	}
}

// enter goes into a directory that is no link.
func (w *walk) enter(at int, name string) error {
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	id, err := idOf(fd)
	if err != nil {
		unix.Close(fd)
		return err
	}
	w.close()
	w.at, w.opened = fd, true
	w.way = append(w.way, id)
	w.closed = w.closed || w.written(id)
	return nil
}

// step takes one component.
func (w *walk) step() error {
	name := w.rest[0]
	w.rest = w.rest[1:]
	if name == "" || name == "." {
		return nil
	}
	// Look before opening: it must be no magic link, and trigger no automounter.
	fd, err := unix.Openat(w.at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		return w.enter(fd, ".")
	case unix.S_IFLNK:
		return w.follow(fd)
	}
	if w.file && len(w.rest) == 0 {
		return nil
	}
	return ErrNotDir
}

func (w *walk) follow(link int) error {
	if w.closed {
		return ErrLink
	}
	if w.links++; w.links > maxFolderLinks {
		return unix.ELOOP
	}
	b := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(link, "", b)
	if err != nil {
		return err
	}
	target := string(b[:n])
	w.rest = append(split(target), w.rest...)
	if !filepath.IsAbs(target) {
		return nil
	}
	return w.enter(unix.AT_FDCWD, "/")
}

func idOf(fd int) (DirID, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return DirID{}, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		return DirID{}, ErrNotDir
	}
	return DirID{st.Dev, st.Ino}, nil
}

// ID returns the Folder's own ID.
func (f *Folder) ID() (DirID, error) { return idOf(int(f.File.Fd())) }

// maxAbove is far more than a path can be deep.
const maxAbove = unix.PathMax

// Above returns the Folder's ID and those of the directories that it lies in now, up to the
// root, after any rename or move.
func (f *Folder) Above() ([]DirID, error) {
	fd, err := unix.Openat(int(f.File.Fd()), ".", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { unix.Close(fd) }()
	var list []DirID
	for len(list) < maxAbove {
		id, err := idOf(fd)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 && list[len(list)-1] == id {
			return list, nil // the root's ".." is the root
		}
		list = append(list, id)
		up, err := unix.Openat(fd, "..", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		unix.Close(fd)
		fd = up
	}
	return nil, unix.ENAMETOOLONG
}

// Passes reports whether the path that was opened led through a directory.
func (f *Folder) Passes(id DirID) bool { return slices.Contains(f.Way, id) }

// Close closes the descriptor.
func (f *Folder) Close() error { return f.File.Close() }
