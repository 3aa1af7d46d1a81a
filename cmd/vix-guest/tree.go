package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// treesDir holds a control group for each program that the host has started: what the
// program forks stays in it, whichever sessions and parents that makes for itself.
const treesDir = "/sys/fs/cgroup/programs"

// trees makes the control groups (cgroup v2).
type trees struct {
	mu     sync.Mutex
	lastID int
	ended  map[string]bool // their program has ended; what that left behind may still run
}

// A tree is a program with everything that descends from it.
type tree struct {
	of  *trees
	dir string
	fd  int // of dir, until the program is started
}

// plant makes an empty tree. The program enters it as it is made (clone3(2),
// CLONE_INTO_CGROUP): there is no moment in which it could fork outside.
func (ts *trees) plant(attr *syscall.SysProcAttr) (*tree, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for dir := range ts.ended {
		if unix.Rmdir(dir) == nil { // else something in it still runs
			delete(ts.ended, dir)
		}
	}
	ts.lastID++
	t := &tree{of: ts, dir: filepath.Join(treesDir, strconv.Itoa(ts.lastID))}
	if err := os.MkdirAll(t.dir, 0o755); err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	var err error
	if t.fd, err = unix.Open(t.dir, unix.O_DIRECTORY|unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("control group: %w", err)
	}
	attr.UseCgroupFD, attr.CgroupFD = true, t.fd
	return t, nil
}

// planted is called when the program has been started, or has not.
func (t *tree) planted() { _ = unix.Close(t.fd) }

// signal returns what sends a signal to the program, whose process group gets group's:
// but SIGKILL, which leaves no chance to end children, goes to the whole tree.
func (t *tree) signal(group func(syscall.Signal) error) func(syscall.Signal) error {
	return func(sig syscall.Signal) error {
		if sig == unix.SIGKILL && os.WriteFile(filepath.Join(t.dir, "cgroup.kill"), []byte("1"), 0) == nil {
			return nil
		}
		return group(sig)
	}
}

// fell is called when the program itself has ended.
func (t *tree) fell() {
	if unix.Rmdir(t.dir) == nil {
		return
	}
	t.of.mu.Lock()
	defer t.of.mu.Unlock()
	t.of.ended[t.dir] = true
}
