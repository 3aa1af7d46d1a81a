package rootfs

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Whatever installs a program changes the stamp; what programs themselves do does not.
func TestStamp(t *testing.T) {
	dir := t.TempDir()
	make := func(rel, text string) {
		t.Helper()
		path := filepath.Join(dir, rel)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
	}
	link := func(to, rel string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, rel)), 0o755); err != nil {
			t.Fatal(err)
		}
		_ = os.Remove(filepath.Join(dir, rel))
		if err := os.Symlink(to, filepath.Join(dir, rel)); err != nil {
			t.Fatal(err)
		}
	}
	for _, rel := range []string{"usr/bin", "usr/lib/x", "var/lib/pacman/local/a-1", "home/me", "var/log"} {
		if err := os.MkdirAll(filepath.Join(dir, rel), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// Long ago, so that a change within the clock's tick is one.
	old := time.Unix(1_000_000_000, 0)
	age := func() {
		for _, rel := range stampPaths {
			_ = os.Chtimes(filepath.Join(dir, rel), old, old)
		}
	}
	make("var/lib/dpkg/status", "one")
	link("/nix/store/1", "nix/var/nix/profiles/system")
	for _, c := range []struct {
		what    string
		do      func()
		changes bool
	}{
		{"dpkg", func() { make("var/lib/dpkg/status", "two") }, true},
		{"pacman", func() { make("var/lib/pacman/local/b-1", "") }, true},
		{"nix", func() { link("/nix/store/2", "nix/var/nix/profiles/system") }, true},
		{"rpm, for the first time", func() { make("usr/lib/sysimage/rpm/rpmdb.sqlite", "x") }, true},
		{"make install", func() { make("usr/bin/new", "x") }, true},
		{"a program's own files", func() { make("home/me/file", "x"); make("var/log/x", "y"); make("usr/lib/x/cache", "z") }, false},
		{"reading", func() { _, _ = os.ReadDir(filepath.Join(dir, "usr/bin")) }, false},
	} {
		age()
		before := Stamp(Root{View: true}, dir)
		if again := Stamp(Root{Dir: dir}, "/"); again != before {
			t.Errorf("a directory and the host differ: %q, %q", before, again)
		}
		c.do()
		if after := Stamp(Root{Dir: dir}, "/"); after != before != c.changes {
			t.Errorf("%s: changed: %v, want %v", c.what, after != before, c.changes)
		}
	}
	make("image", "x")
	before := Stamp(Root{Disk: filepath.Join(dir, "image")}, "/")
	make("image", "xy")
	if Stamp(Root{Disk: filepath.Join(dir, "image")}, "/") == before {
		t.Error("another image has the same stamp")
	}
}

func BenchmarkStamp(b *testing.B) {
	for b.Loop() {
		Stamp(Root{View: true}, "/")
	}
}
