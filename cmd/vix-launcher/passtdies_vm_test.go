package main

import (
	"fmt"
	"io"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// Killing passt, during the VM's start or later, ends no program and no VM: another passt
// replaces it, with the published ports.
func TestVMPasstKilled(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(passtName); err != nil {
		t.Skip("lacks: passt")
	}
	host := newHostNet(t) // outlives the rig
	r := newRig(t)
	r.host = host
	at := fmt.Sprintf("http://%s:%d/", hostAddr, host.serve(t, hostAddr, "reached"))
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--timings", "--vm", "t", "--net", "nat", "sh", "-c", "curl -sS -m 60 "+at+"; echo up; read x; echo ends")
	kill := func() {
		t.Helper()
		pid := r.list()[0].PIDs.Network
		if pid == 0 {
			t.Fatal("there is no passt")
		}
		if err := unix.Kill(pid, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	first.saysOn(&first.err, "stage qemu")
	kill()
	first.says("up\n")
	if got := first.out.String(); got != "reached\nup\n" {
		t.Fatalf("killed while the VM started: %q, %s", got, first.err.String())
	}
	const another = "passt ended: signal: killed; another one serves the network"
	logs := r.start(nil, "logs", "-f", "t")
	defer func() { _ = logs.Process.Kill() }()
	logs.says(another)
	kill()
	// This repeats; the test waits for the second line.
	r.until(t, "another passt", func(st vm.State) bool {
		return st.PIDs.Network != 0 && !st.Net.Down && strings.Count(strings.Join(st.Notes, "\n"), another) == 2
	})
	if p := r.vix(0, "exec", "t", "--", "sh", "-c", "until curl -sS -m 5 "+at+"; do sleep 0.1; done"); p.out.String() != "reached\n" {
		t.Errorf("killed later: %q, %s", p.out.String(), p.err.String())
	}
	fmt.Fprintln(keep, "done")
	keep.Close()
	if code := first.code(); code != 0 || !strings.HasSuffix(first.out.String(), "ends\n") {
		t.Errorf("status %d: %s", code, first.err.String())
	}
}

// until waits until f accepts the state of the only VM.
func (r *rig) until(t *testing.T, what string, f func(vm.State) bool) {
	t.Helper()
	for range 200 { // each try is a process of its own
		if list := r.list(); len(list) == 1 && f(list[0]) {
			return
		}
	}
	t.Fatalf("%s: not within 200 lists: %+v", what, r.list())
}
