package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/rootfs"
)

// A package and its dependencies are added to a VM without a network, whose root is a real
// Debian: the system root that the tests run in.
func TestVMAdd(t *testing.T) {
	r := newRig(t)
	tree := os.Getenv("VIX_IN_ROOT")
	if tree == "" || os.Getuid() != 0 {
		t.Skip("there is no system root here that could be mounted as a built one")
	}
	d := rootfs.Debian{Suite: "trixie", CacheDir: filepath.Join(cacheDir(), "vix", "roots")}
	if err := os.MkdirAll(d.Dir(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount(tree, d.Dir(), "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.Dir(), unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		_ = os.Remove(d.Dir())
	})
	r.configure("[vm.t]\nroot = \"debian:trixie\"\nstate = \"none\"\n")
	if mirror := os.Getenv("VIX_MIRROR"); mirror != "" {
		r.env = append(r.env, "VIX_MIRROR="+mirror)
	}
	stdin, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	first := r.start(stdin, "run", "--vm", "t", "--no-gui", "sh", "-c", "echo up; read x")
	first.says("up\n")
	r.vix(127, "exec", "t", "--", "jq", "--version")
	p := r.vix(0, "add", "t", "jq")
	if p.out.String() != "packages = [\"jq\"]\n" || !strings.Contains(p.err.String(), "packages until it stops") {
		t.Errorf("%q, %q", p.out.String(), p.err.String())
	}
	if got := r.start(strings.NewReader(`{"a": [1, 2]}`), "exec", "t", "--", "jq", "-c", ".a"); got.code() != 0 || got.out.String() != "[1,2]\n" {
		t.Errorf("%q, %s", got.out.String(), got.err.String())
	}
	if p := r.vix(1, "add", "t", "no-such-package"); !strings.Contains(p.err.String(), "Unable to locate package no-such-package") {
		t.Error(p.err.String())
	}
	if p := r.vix(0, "add", "t", "dpkg"); !strings.Contains(p.err.String(), "its root already has dpkg") {
		t.Error(p.err.String())
	}
	if _, err := os.Stat(filepath.Join(tree, "usr/bin/jq")); err == nil {
		t.Error("the shared root was written to")
	}
	keep.Close()
	first.code()
	stdin.Close()
	r.nothingLeft()
}
