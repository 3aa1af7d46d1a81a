package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A process is one process of a VM, even if another gets its pid later.
type process struct {
	pid  int
	name string
	fd   int // a pidfd
}

// tree returns pid and then all its descendants.
func tree(t *testing.T, pid int) []process {
	t.Helper()
	below := map[int][]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// proc_pid_stat(5): pid (comm) state ppid
		after := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
		ppid, _ := strconv.Atoi(after[1])
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		below[ppid] = append(below[ppid], child)
	}
	var list []process
	var add func(int)
	add = func(pid int) {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			return
		}
		t.Cleanup(func() { unix.Close(fd) })
		line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		list = append(list, process{pid, strings.ReplaceAll(string(line), "\x00", " "), fd})
		for _, child := range below[pid] {
			add(child)
		}
	}
	add(pid)
	return list
}

func (p process) signal(sig unix.Signal) { _ = unix.PidfdSendSignal(p.fd, sig, nil, 0) }

// wait reports whether the process ends within limit.
func (p process) wait(limit time.Duration) bool {
	poll := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(poll, int(limit.Milliseconds()))
		if err != unix.EINTR {
			return n == 1
		}
	}
}

// servesHome reports whether the process is a virtiofsd of the home.
func (p process) servesHome() bool {
	return strings.Contains(p.name, "virtiofsd") && strings.Contains(p.name, "/home ")
}

// has reports whether the process has a file open whose path ends in end.
func (p process) has(end string) bool {
	paths, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid))
	return slices.ContainsFunc(paths, func(path string) bool {
		to, _ := os.Readlink(path)
		return strings.HasSuffix(to, end)
	})
}

// Whichever process of a VM hangs, a stop ends the VM, and nobody opens a home that is served.
func TestVMHungStops(t *testing.T) {
	r := newRig(t)
	home := process.servesHome
	all := func(process) bool { return true }
	for _, c := range []struct {
		name       string
		hangs      func(process) bool
		supervisor bool
		end        func(supervisor process)
	}{
		{"the home's server, stop", home, false, func(process) { r.vix(0, "stop", "t") }},
		{"the home's server, stop --force", home, false, func(process) { r.vix(0, "stop", "--force", "t") }},
		{"every child, stop", all, false, func(process) { r.vix(0, "stop", "t") }},
		{"every process, stop --force", all, true, func(process) { r.vix(0, "stop", "--force", "t") }},
		{"the home's server, the supervisor is killed", home, false, func(p process) { p.signal(unix.SIGKILL) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := *r
			r.t = t
			stdin, keep := io.Pipe()
			defer keep.Close()
			p := r.start(stdin, "run", "--net", "nat", "--vm", "t", "sh", "-c", "echo up; read x")
			p.says("up\n")
			procs := tree(t, r.list()[0].PIDs.Supervisor)
			// A test that fails leaves no stopped process.
			defer func() {
				for _, p := range procs {
					p.signal(unix.SIGKILL)
				}
			}()
			if servers := slices.DeleteFunc(slices.Clone(procs), func(p process) bool { return !p.servesHome() }); len(servers) == 0 {
				t.Fatalf("nobody serves the home: %v", procs)
			} else if last := servers[len(servers)-1]; !last.has("/vms/t/lock") {
				t.Error("what serves the home does not hold its lock")
			}
			for i, p := range procs {
				if c.hangs(p) && (i > 0 || c.supervisor) {
					p.signal(unix.SIGSTOP)
				}
			}
			began := time.Now()
			c.end(procs[0])
			t.Logf("ended after %v", time.Since(began))
			// The next start works at once, without a wait for the remaining processes.
			next := r.start(nil, "run", "--vm", "t", "sh", "-c", "echo again")
			if c := next.code(); c != 0 || next.out.String() != "again\n" {
				t.Errorf("the next run: %d, %q, %s", c, next.out.String(), next.err.String())
			}
			for _, p := range procs {
				if !p.wait(0) {
					t.Errorf("lives on: %d %s", p.pid, p.name)
				}
			}
			keep.Close() // exec.Cmd waits until its stdin is closed
			p.code()
		})
	}
}
