package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// If the guest's user may have no more processes or threads, each verb says so in one line,
// and the VM goes on.
func TestVMCrowded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	first := r.start(nil, "run", "--no-gui", "--vm", "t", "sh", "-c", "sleep 1000 & sleep 1000 & echo up; wait")
	first.says("up\n")
	file := filepath.Join(r.dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Programs inherit the limit of the guest's first process, which is exempt from it.
	limit := func(n string) {
		t.Helper()
		r.vix(0, "exec", "t", "--user", "root", "--", "prlimit", "--pid", "1", "--nproc="+n)
	}
	says := func(code int, want string, args ...string) {
		t.Helper()
		p := r.vix(code, args...)
		if text := p.err.String(); text != want+"\n" {
			t.Errorf("%v: %q, want %q", args, text, want)
		}
	}
	limit("2:100000")
	says(126, "vix: VM t: true: the guest's user has as many processes as it may; end some in the VM", "exec", "t", "--", "true")
	limit("5:100000")
	says(1, "vix: VM t: it has no room for another thread; end programs in the VM", "cp", file, "t:/tmp/file")
	limit("100000:100000")
	r.vix(0, "cp", file, "t:/tmp/file")
	if text := r.vix(0, "exec", "t", "--", "cat", "/tmp/file").out.String(); !strings.HasPrefix(text, "x") {
		t.Error(text)
	}
	r.vix(0, "stop", "t")
}
