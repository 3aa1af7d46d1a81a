package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// KillTree kills a supervisor and its children. They would end with it (PDEATHSIG), but for
// a program that has changed its user since, as passt does for root.
func KillTree(supervisor *os.File) error {
	top, err := pidOf(supervisor)
	if err != nil {
		return err
	}
	// A stopped process starts no other while we look.
	if err := unix.PidfdSendSignal(int(supervisor.Fd()), unix.SIGSTOP, nil, 0); err != nil {
		return err
	}
	var below []*os.File
	for _, pid := range descendants("/proc", top) {
		// The number stays this process's until its parent waits for it, and the parent is stopped.
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			below = append(below, os.NewFile(uintptr(fd), "process"))
		}
	}
	defer CloseFiles(below)
	if err := unix.PidfdSendSignal(int(supervisor.Fd()), unix.SIGKILL, nil, 0); err != nil {
		return err
	}
	for _, p := range below {
		_ = unix.PidfdSendSignal(int(p.Fd()), unix.SIGKILL, nil, 0) // an error: it has ended
	}
	return nil
}

// pidOf returns the process id of a pidfd.
func pidOf(pidfd *os.File) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd.Fd()))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if pid, ok := strings.CutPrefix(line, "Pid:"); ok {
			if n, err := strconv.Atoi(strings.TrimSpace(pid)); err == nil && n > 0 {
				return n, nil
			}
		}
	}
	return 0, unix.ESRCH
}

// descendants are the processes below one, by proc_pid_stat(5).
func descendants(proc string, top int) []int {
	children := map[int][]int{}
	paths, _ := filepath.Glob(filepath.Join(proc, "[0-9]*", "stat"))
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		var state byte
		var parent int
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil {
			continue
		}
		// The name, in brackets, may have anything in it.
		if _, err := fmt.Sscanf(string(b[bytes.LastIndexByte(b, ')')+1:]), " %c %d", &state, &parent); err == nil {
			children[parent] = append(children[parent], pid)
		}
	}
	list := slices.Clone(children[top])
	for i := 0; i < len(list); i++ {
		list = append(list, children[list[i]]...)
	}
	return list
}
