// Package logtest keeps what VMs and processes said for the test that failed.
//
//	Watch ─► RUNTIME/vix/NAME/log appears (inotify): it is opened, so that it can
//	         still be read when the VM has ended and its directory is gone
//	Save  ─► files in testing.T.ArtifactDir: they stay with `go test -artifacts`,
//	         in a directory of their own for each try of a test
//
// It serves tests alone and looks into no log.
package logtest

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// maxFiles bounds the logs that are open at once, of 2 MiB at most (internal/proc): a
// test that starts VMs all day keeps the latest, and a small disk (e2e/soak) has room.
const maxFiles = 16

// T is what a test needs to have logs; a *testing.T keeps files besides.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

type keeper interface {
	Failed() bool
	ArtifactDir() string
}

// Save keeps text as a file for a test that has failed. Files of the same name get a
// number. Empty text is not kept.
func Save(t T, name, text string) {
	t.Helper()
	k, ok := t.(keeper)
	if !ok || !k.Failed() || text == "" {
		return
	}
	dir, ext := k.ArtifactDir(), filepath.Ext(name)
	for i := 1; ; i++ {
		path := filepath.Join(dir, fmt.Sprintf("%s-%d%s", name[:len(name)-len(ext)], i, ext))
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err == nil {
			_, err = f.WriteString(text)
			err = errors.Join(err, f.Close())
		}
		if err != nil {
			t.Logf("keeping %s: %v", name, err)
		}
		return
	}
}

// Logs are the logs of all VMs of one runtime directory.
type Logs struct {
	runtime string
	inotify *os.File
	done    chan struct{} // closed when watch has returned

	mu    sync.Mutex
	files []log
}

type log struct {
	vm   string
	file *os.File
}

// Watch watches the VMs of a runtime directory (XDG_RUNTIME_DIR) until t ends, and
// saves their logs if it has failed. The test's VMs have to be stopped by a later
// Cleanup, so that the logs are whole.
func Watch(t T, runtime string) *Logs {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		t.Fatalf("watching %s: %v", runtime, err)
	}
	l := &Logs{runtime: runtime, inotify: os.NewFile(uintptr(fd), "inotify"), done: make(chan struct{})}
	l.look()
	go l.watch()
	t.Cleanup(func() {
		l.Save(t)
		l.close()
	})
	return l
}

// watch looks again whenever a name appears: what an event says of it does not matter.
func (l *Logs) watch() {
	defer close(l.done)
	var events [4096]byte
	for {
		if _, err := l.inotify.Read(events[:]); err != nil {
			return // closed
		}
		l.look()
	}
}

// look opens the logs that are new. A directory is watched before it is read, so that
// what appears in between brings an event. Whatever goes meanwhile is passed over.
func (l *Logs) look() {
	if l.add(l.runtime) != nil {
		return
	}
	vix := filepath.Join(l.runtime, "vix")
	if l.add(vix) != nil {
		return
	}
	vms, _ := os.ReadDir(vix)
	for _, vm := range vms {
		dir := filepath.Join(vix, vm.Name())
		if l.add(dir) == nil {
			l.open(vm.Name(), filepath.Join(dir, "log"))
		}
	}
}

func (l *Logs) add(dir string) error {
	conn, err := l.inotify.SyscallConn()
	if err != nil {
		return err
	}
	var added error
	err = conn.Control(func(fd uintptr) {
		_, added = unix.InotifyAddWatch(int(fd), dir, unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_ONLYDIR|unix.IN_DONT_FOLLOW)
	})
	return errors.Join(err, added)
}

func (l *Logs) open(vm, path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	st, err := f.Stat()
	for _, known := range l.files {
		if old, oldErr := known.file.Stat(); err != nil || oldErr == nil && os.SameFile(st, old) {
			f.Close()
			return
		}
	}
	if len(l.files) == maxFiles {
		l.files[0].file.Close()
		l.files = l.files[1:]
	}
	l.files = append(l.files, log{vm: vm, file: f})
}

// Save keeps the logs so far if t has failed; it serves a test that shares VMs with
// others.
func (l *Logs) Save(t T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, log := range l.files {
		text, err := io.ReadAll(io.NewSectionReader(log.file, 0, 1<<30))
		if err != nil {
			t.Logf("reading the log of VM %s: %v", log.vm, err)
		}
		Save(t, "vm-"+log.vm+".log", string(text))
	}
}

func (l *Logs) close() {
	l.inotify.Close()
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, log := range l.files {
		log.file.Close()
	}
}
