package desktoptest

import (
	"context"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// A watcher waits for a name to appear in a directory.
type watcher struct {
	f    *os.File
	path string
}

func watch(dir, name string) (*watcher, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_CREATE|unix.IN_MOVED_TO); err != nil {
		f.Close()
		return nil, err
	}
	return &watcher{f: f, path: filepath.Join(dir, name)}, nil
}

// wait returns when the path exists.
func (w *watcher) wait(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { w.f.Close() })
	defer stop()
	var buf [4096]byte
	for {
		if _, err := os.Lstat(w.path); err == nil {
			return nil
		}
		if _, err := w.f.Read(buf[:]); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
}

func (w *watcher) Close() { w.f.Close() }
