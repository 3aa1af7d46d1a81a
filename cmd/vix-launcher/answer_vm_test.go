package main

import (
	"io"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Clients leave at any moment of a start, while the guest listens and while QEMU is stopped;
// and the verbs report a VM that does not answer.
func TestVMAbandonedAndStopped(t *testing.T) {
	r := newRig(t)
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	for range 40 {
		p := r.start(nil, "exec", "t", "--", "echo", "hi")
		kill := time.AfterFunc(time.Duration(10+rand.IntN(500))*time.Millisecond, func() { _ = p.Process.Signal(unix.SIGTERM) })
		p.code()
		kill.Stop()
	}
	if p := r.vix(0, "exec", "t", "--", "echo", "here"); p.out.String() != "here\n" {
		t.Errorf("after forty: %q", p.out.String())
	}

	qemu := r.list()[0].PIDs.QEMU
	signal := func(sig syscall.Signal) {
		t.Helper()
		if err := unix.Kill(qemu, sig); err != nil {
			t.Fatal(err)
		}
	}
	running := r.start(nil, "exec", "t", "--", "sh", "-c", "echo up; exec sleep 1000")
	running.says("up\n")
	signal(unix.SIGSTOP)
	p := r.start(nil, "exec", "t", "--", "true")
	time.AfterFunc(time.Second, func() { _ = p.Process.Signal(unix.SIGTERM) })
	if c := p.code(); c != 143 {
		t.Errorf("interrupted before the program ran: %d: %s", c, p.err.String())
	}
	waits := r.start(nil, "exec", "t", "--", "echo", "late")
	waits.saysOn(&waits.err, "VM t: does not answer")
	if p := r.vix(0, "list"); !strings.Contains(p.out.String(), "not answering") {
		t.Error(p.out.String())
	}
	if p := r.vix(0, "status", "t"); !strings.Contains(p.out.String(), "not answering") {
		t.Error(p.out.String())
	}
	began := time.Now()
	_ = running.Process.Signal(unix.SIGINT)
	_ = running.Process.Signal(unix.SIGTERM) // two waiting signals of one kind count as one
	if c := running.code(); c != 130 && c != 143 || !strings.Contains(running.err.String(), "VM t: does not answer; left sh") {
		t.Errorf("left with %d: %s", c, running.err.String())
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Errorf("left after %v", d)
	}
	signal(unix.SIGCONT)
	if c := waits.code(); c != 0 || waits.out.String() != "late\n" || strings.Count(waits.err.String(), "\n") != 1 {
		t.Errorf("%d, %q, %q", c, waits.out.String(), waits.err.String())
	}
	if p := r.vix(0, "exec", "t", "--", "echo", "here"); p.out.String() != "here\n" {
		t.Errorf("afterwards: %q", p.out.String())
	}
	keep.Close()
	if c := first.code(); c != 0 && c != 1 { // the status of read at the end of file
		t.Errorf("the VM's first program: %d: %s", c, first.err.String())
	}
	r.nothingLeft()
}
