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

// treesDir holds a control group for each program that the host has started. The program's
// descendants stay in it, whatever sessions and parents they get.
const treesDir = "/sys/fs/cgroup/programs"

// trees makes and removes the control groups (cgroup v2).
type trees struct {
	mu     sync.Mutex
	lastID int
	ended  map[string]bool // groups whose program has ended; its descendants may still run
}

// A tree is a program and all its descendants.
type tree struct {
	of  *trees
	dir string
	fd  int // of dir, until the program is started
}

// plant makes an empty tree. The program is born in it (clone3(2), CLONE_INTO_CGROUP), so it
// can never fork outside.
func (ts *trees) plant(attr *syscall.SysProcAttr) (*tree, error) {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	for dir := range ts.ended {
		if unix.Rmdir(dir) == nil { // otherwise a process in it still runs
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

// planted is called when the program has started or failed to start.
func (t *tree) planted() { _ = unix.Close(t.fd) }

// signal returns the function that signals the program: SIGKILL, which leaves no chance to
// end children, goes to the whole tree, and other signals go to group.
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
