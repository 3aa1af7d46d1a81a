package vm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A tree's use is that of its blocks: a file with two names counts once, a hole not at all, a
// link's target never; what cannot be looked at is told.
func TestMeasureDisk(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	ctx := t.Context()
	write := func(name string, n int) {
		t.Helper()
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), make([]byte, n), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	blocksAt := func(name string) uint64 {
		t.Helper()
		st, err := root.Lstat(name)
		if err != nil {
			t.Fatal(err)
		}
		return uint64(st.Sys().(*syscall.Stat_t).Blocks) * 512
	}
	write("h/a/file", 1<<20)
	write("h/sparse", 0)
	write("outside", 8<<20)
	for _, err := range []error{
		os.Link(filepath.Join(dir, "h/a/file"), filepath.Join(dir, "h/b")),
		os.Truncate(filepath.Join(dir, "h/sparse"), 1<<30),
		os.Symlink(dir, filepath.Join(dir, "h/up")),
		os.Symlink("../outside", filepath.Join(dir, "h/out")),
		syscall.Mkfifo(filepath.Join(dir, "h/pipe"), 0o600), // a reader of it would wait for ever
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := blocksAt("h") + blocksAt("h/a") + blocksAt("h/a/file") + blocksAt("h/up") + blocksAt("h/out") + blocksAt("h/sparse")
	if u := MeasureDisk(ctx, root, "h"); u != (DiskUse{want, true}) || u.Bytes < 1<<20 || u.Bytes > 2<<20 {
		t.Errorf("%+v, want %d", u, want)
	}
	if u := MeasureDisk(ctx, root, "outside"); u != (DiskUse{blocksAt("outside"), true}) {
		t.Errorf("a file: %+v", u)
	}
	if u := MeasureDisk(ctx, root, "none"); u != (DiskUse{0, true}) {
		t.Errorf("nothing: %+v", u)
	}
	// A link in place of the tree is counted itself.
	if err := os.Symlink("h", filepath.Join(dir, "l")); err != nil {
		t.Fatal(err)
	}
	if u := MeasureDisk(ctx, root, "l"); u.Bytes > 4096 {
		t.Errorf("a link: %+v", u)
	}
	over, cancel := context.WithCancel(ctx)
	cancel()
	if u := MeasureDisk(over, root, "h"); u.Whole {
		t.Errorf("in no time: %+v", u)
	}
	deep := filepath.Join(dir, "h")
	for range maxDiskDepth + 2 {
		deep = filepath.Join(deep, "d")
	}
	if err := os.MkdirAll(deep, 0o700); err != nil {
		t.Fatal(err)
	}
	if u := MeasureDisk(ctx, root, "h"); u.Whole || u.Bytes < want {
		t.Errorf("a deep tree: %+v", u)
	}
}

// A use is noted at the start and at the end, not by a look or by another verb.
func TestLastUsed(t *testing.T) {
	store, err := OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if u := store.LastUsed("t"); !u.IsZero() {
		t.Error(u)
	}
	past := time.Now().Add(-time.Hour).Truncate(time.Second)
	age := func() {
		t.Helper()
		if err := store.root.Chtimes("vms/t/used", past, past); err != nil {
			t.Fatal(err)
		}
	}
	k, err := store.Open("t")
	if err != nil {
		t.Fatal(err)
	}
	if u := store.LastUsed("t"); time.Since(u) > time.Minute {
		t.Errorf("started: %s", u)
	}
	age()
	if err := k.Close(); err != nil || time.Since(store.LastUsed("t")) > time.Minute {
		t.Errorf("ended: %s, %v", store.LastUsed("t"), err)
	}
	age()
	if k, err = store.openExisting("t"); err != nil || k.Close() != nil || !store.LastUsed("t").Equal(past) {
		t.Errorf("a verb: %s, %v", store.LastUsed("t"), err)
	}
}
