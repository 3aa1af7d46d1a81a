package main

import (
	"os"
	"os/signal"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// A child is a process that PID 1 itself has started.
type child struct {
	pid    int
	status chan agent.Status // yields once, when the process has ended
}

// A reaper waits for every process that ends: its own children, whose status it delivers, and
// the orphans that PID 1 inherits.
type reaper struct {
	// Held during the start of a process, so that run sees its end only after its entry is made
	// (and syscall.ForkExec can wait for its own failures).
	mu       sync.Mutex
	children map[int]*child
	ended    chan os.Signal
	before   func() // called before a child's status is delivered
}

func newReaper(before func()) *reaper {
	r := &reaper{children: map[int]*child{}, ended: make(chan os.Signal, 1), before: before}
	signal.Notify(r.ended, unix.SIGCHLD)
	return r
}

// run reaps processes for as long as the machine is on.
func (r *reaper) run() {
	for range r.ended {
		r.reap()
	}
}

func (r *reaper) reap() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return
		}
		c := r.children[pid]
		if c == nil {
			continue
		}
		delete(r.children, pid)
		r.before()
		if ws.Signaled() {
			c.status <- agent.Status{Signal: ws.Signal()}
		} else {
			c.status <- agent.Status{Code: ws.ExitStatus()}
		}
	}
}

// start starts a process.
func (r *reaper) start(path string, argv []string, attr *syscall.ProcAttr) (*child, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, attr)
	if err != nil {
		return nil, err
	}
	c := &child{pid: pid, status: make(chan agent.Status, 1)}
	r.children[pid] = c
	return c, nil
}
