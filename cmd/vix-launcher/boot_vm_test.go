package main

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// The booted files are complete: a boot cache that a disk has torn or corrupted is made again,
// and a complete one need not be writable.
func TestVMBootCache(t *testing.T) {
	r := newRig(t)
	cache := filepath.Join(r.dir, "cache")
	if err := os.Mkdir(cache, 0o700); err != nil {
		t.Fatal(err)
	}
	r.env = append(r.env, "XDG_CACHE_HOME="+cache)
	run := func(what string) {
		t.Helper()
		if p := r.vix(0, "run", "--vm", "t", "echo", "up"); p.out.String() != "up\n" {
			t.Errorf("%s: %q %s", what, p.out.String(), p.err.String())
		}
		r.nothingLeft()
	}
	run("new")
	for pattern, spoil := range map[string]func([]byte) []byte{
		"vmlinux-*": func(b []byte) []byte { return b[:len(b)/2] },
		"initrd-*":  func(b []byte) []byte { b[len(b)/3] ^= 0x10; return b },
	} {
		paths, _ := filepath.Glob(filepath.Join(cache, "vix/boot", pattern))
		if len(paths) != 1 {
			t.Fatalf("%s: %q", pattern, paths)
		}
		b, err := os.ReadFile(paths[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(paths[0], spoil(b), 0o600); err != nil {
			t.Fatal(err)
		}
		run(pattern)
	}
	if err := unix.Mount(cache, cache, "", unix.MS_BIND, ""); err != nil {
		t.Skip("lacks: leave to mount: ", err)
	}
	defer func() {
		if err := unix.Unmount(cache, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	if err := unix.Mount("", cache, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	if p := r.vix(0, "run", "--vm", "t", "echo", "up"); p.out.String() != "up\n" {
		t.Errorf("read-only: %q %s", p.out.String(), p.err.String())
	}
}
