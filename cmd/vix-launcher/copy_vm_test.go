package main

import (
	"crypto/rand"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// In a kept home a file has a name before it is complete (virtiofs). A copy whose VM is killed
// leaves nothing under its final name, and a later copy removes its remains.
func TestVMCopyKilled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	home := filepath.Join(r.dir, ".local/state/vix/vms/t/home")
	big, small := filepath.Join(r.dir, "big"), filepath.Join(r.dir, "small")
	f, err := os.Create(big)
	if err == nil {
		_, err = io.CopyN(f, rand.Reader, 64<<20)
	}
	if err := errors.Join(err, f.Close(), os.WriteFile(small, []byte("small"), 0o644)); err != nil {
		t.Fatal(err)
	}
	hidden := func() []string {
		names, _ := filepath.Glob(home + "/.vix-new-*")
		return names
	}
	start := func() *launched {
		p := r.start(nil, "run", "--vm", "t", "sh", "-c", "echo up; exec sleep 1000")
		p.says("up\n")
		return p
	}
	first := start()
	r.vix(0, "cp", small, "t:big") // this file is replaced
	up := r.start(nil, "cp", big, "t:big")
	for limit := time.Now().Add(2 * time.Minute); len(hidden()) == 0; time.Sleep(5 * time.Millisecond) { // the start of a file has no event
		if time.Now().After(limit) {
			t.Fatal("the copy does not begin, or virtiofs can make files without a name")
		}
	}
	r.vix(0, "stop", "--force", "t")
	up.code()
	first.code()
	left := hidden()
	if b, err := os.ReadFile(home + "/big"); string(b) != "small" || len(left) != 1 {
		t.Fatalf("%d bytes, %v; left %q: %s", len(b), err, left, up.err.String())
	}
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(left[0], old, old); err != nil {
		t.Fatal(err)
	}
	again := start()
	r.vix(0, "cp", small, "t:small")
	if b, err := os.ReadFile(home + "/small"); string(b) != "small" || len(hidden()) != 0 {
		t.Errorf("%q, %v; left %q", b, err, hidden())
	}
	r.vix(0, "stop", "--force", "t")
	again.code()
}
