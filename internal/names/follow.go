package names

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// maxLinks bounds a chain of links, as the kernel does.
const maxLinks = 40

// follow calls changed at once, and again after every change in a folder of the file, of its
// link targets, or where they may appear, until ctx ends or the host can watch no more.
//
// Each round makes new watches before it looks: so no change between the two is missed, and
// no watch stays for a link that leads elsewhere now.
func follow(ctx context.Context, file string, changed func()) {
	for ctx.Err() == nil {
		notes, err := watchPlaces(file)
		changed()
		if err != nil {
			return // the next question reads the file
		}
		unhook := context.AfterFunc(ctx, func() { notes.Close() })
		_, err = notes.Read(make([]byte, 4096)) // the kind of change does not matter
		unhook()
		notes.Close()
		if err != nil {
			return
		}
	}
}

// watchPlaces watches the file's folder and, if the file is a link, the folders along its
// chain of targets.
func watchPlaces(file string) (*os.File, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, os.NewSyscallError("inotify", err)
	}
	notes := os.NewFile(uintptr(fd), "inotify")
	for range maxLinks {
		if err := watchFolder(fd, filepath.Dir(file)); err != nil {
			notes.Close()
			return nil, err
		}
		target, err := os.Readlink(file)
		if err != nil {
			break // not a link, or missing
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(file), target)
		}
		file = target
	}
	return notes, nil
}

// watchFolder watches a folder or, if it is missing, the nearest one in which it may be made.
func watchFolder(fd int, dir string) error {
	const changes = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MOVE | unix.IN_CLOSE_WRITE | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF
	for {
		_, err := unix.InotifyAddWatch(fd, dir, changes|unix.IN_ONLYDIR)
		parent := filepath.Dir(dir)
		if err == nil || parent == dir {
			return os.NewSyscallError("inotify", err)
		}
		dir = parent
	}
}
