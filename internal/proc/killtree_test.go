package proc

import (
	"bufio"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// A supervisor that does not answer takes with it what it has started, which may be stopped,
// and have children.
func TestKillTree(t *testing.T) {
	// A shell with a child and a grandchild, none of which ends with it.
	cmd := exec.Command("sh", "-c", `sh -c 'sleep 1000 & echo $!; wait' & echo $!; wait`)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait() //nolint:errcheck // it is killed
	var fds []*os.File
	open := func(pid int) *os.File {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "process")
		fds = append(fds, f)
		t.Cleanup(func() {
			_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
			f.Close()
		})
		return f
	}
	top := open(cmd.Process.Pid)
	lines := bufio.NewScanner(out)
	for range 2 {
		if !lines.Scan() {
			t.Fatal(lines.Err())
		}
		pid, err := strconv.Atoi(strings.TrimSpace(lines.Text()))
		if err != nil {
			t.Fatal(err)
		}
		open(pid)
	}
	for _, f := range fds[1:] {
		if err := unix.PidfdSendSignal(int(f.Fd()), unix.SIGSTOP, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := KillTree(top); err != nil {
		t.Fatal(err)
	}
	for i, f := range fds {
		poll := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}
		if n, err := unix.Poll(poll, 10_000); n != 1 || err != nil {
			t.Errorf("process %d lives on: %v", i, err)
		}
	}
}
