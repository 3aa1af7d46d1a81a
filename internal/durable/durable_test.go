package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// both calls f with a directory that supports files without a name, and with one that does not.
func both(t *testing.T, f func(t *testing.T, path string)) {
	t.Run("unnamed", func(t *testing.T) { f(t, t.TempDir()) })
	t.Run("named", func(t *testing.T) {
		defer func() { tmpfile = unix.O_TMPFILE }()
		tmpfile = 0
		f(t, t.TempDir())
	})
}

func open(t *testing.T, path string) *os.Root {
	t.Helper()
	root, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { root.Close() })
	return root
}

func names(t *testing.T, path string) string {
	t.Helper()
	entries, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, e := range entries {
		list = append(list, e.Name())
	}
	return strings.Join(list, " ")
}

func TestReplace(t *testing.T) {
	both(t, func(t *testing.T, path string) {
		root := open(t, path)
		for _, want := range []string{"old", "newer and longer", ""} {
			if err := Replace(root, "f", 0o600, []byte(want)); err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(path + "/f"); string(b) != want || err != nil || names(t, path) != "f" {
				t.Fatalf("%q, %v; %s", b, err, names(t, path))
			}
		}
		if err := Replace(root, "none/f", 0o600, nil); !errors.Is(err, fs.ErrNotExist) {
			t.Error(err)
		}
		_ = os.Mkdir(path+"/d", 0o700)
		if err := Replace(root, "d", 0o600, nil); err == nil {
			t.Error("a directory was replaced")
		}
		if n := names(t, path); strings.Contains(n, Prefix) {
			t.Error(n)
		}
	})
}

// ReplaceFile replaces a file by its path, and removes unfinished files beside it.
func TestReplaceFile(t *testing.T) {
	path := t.TempDir()
	half, old := path+"/"+TempName(), time.Now().Add(-time.Hour)
	if err := errors.Join(os.WriteFile(half, nil, 0o600), os.Chtimes(half, old, old)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"old", "newer and longer"} {
		if err := ReplaceFile(path+"/f", 0o600, []byte(want)); err != nil {
			t.Fatal(err)
		}
		if b, err := os.ReadFile(path + "/f"); string(b) != want || err != nil || names(t, path) != "f" {
			t.Fatalf("%q, %v; %s", b, err, names(t, path))
		}
	}
	if err := ReplaceFile(path+"/none/f", 0o600, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// Place replaces a link without following it, and refuses a name in use.
func TestPlace(t *testing.T) {
	path := t.TempDir()
	root := open(t, path)
	err := errors.Join(os.WriteFile(path+"/precious", []byte("precious"), 0o600), os.Symlink("precious", path+"/link"))
	if err != nil {
		t.Fatal(err)
	}
	if err := Replace(root, "link", 0o600, []byte("new")); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(path + "/precious"); string(b) != "precious" {
		t.Errorf("%q", b)
	}
	dir, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, temp := range []bool{false, true} {
		u, err := New(dir, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if temp { // as on a file system that needs a name
			u.temp = TempName()
			if err := u.link(u.temp); err != nil {
				t.Fatal(err)
			}
		}
		if err := u.Place("link", false); !errors.Is(err, fs.ErrExist) {
			t.Error(err)
		}
		if err := u.Close(); err != nil {
			t.Error(err)
		}
	}
	if n := names(t, path); n != "link precious" {
		t.Error(n)
	}
}

// On a full disk the old content stays complete, and no unfinished file is left.
func TestFull(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("small", path, "tmpfs", 0, "size=64k,nr_inodes=64"); err != nil {
		t.Skip("lacks: leave to mount a tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	root := open(t, path)
	if err := Replace(root, "f", 0o600, []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := Replace(root, "f", 0o600, make([]byte, 128<<10)); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	for i := range 64 { // no free inodes
		_ = os.WriteFile(fmt.Sprintf("%s/x%d", path, i), nil, 0o600)
	}
	if err := Replace(root, "f", 0o600, []byte("new")); !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	if b, err := os.ReadFile(path + "/f"); string(b) != "old" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	if n := names(t, path); strings.Contains(n, Prefix) {
		t.Error(n)
	}
}

// Sweep removes a killed process's files; those of a live process, or perhaps of another
// kernel, stay.
func TestSweep(t *testing.T) {
	path := t.TempDir()
	root := open(t, path)
	dir, err := root.Open(".")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	old := time.Now().Add(-time.Hour)
	make := func(name string) {
		t.Helper()
		if err := errors.Join(os.WriteFile(filepath.Join(path, name), nil, 0o600), os.Chtimes(filepath.Join(path, name), old, old)); err != nil {
			t.Fatal(err)
		}
	}
	dead, held := TempName(), TempName()
	make(dead)
	make(held)
	make("mine")
	if err := os.WriteFile(filepath.Join(path, Prefix+"young"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(path, held))
	if err != nil {
		t.Fatal(err)
	}
	if !Hold(dir, held, f) {
		t.Fatal("not held")
	}
	SweepFiles(root, ".")
	if n := names(t, path); strings.Contains(n, dead) || !strings.Contains(n, held) || !strings.Contains(n, "mine") || !strings.Contains(n, "young") {
		t.Error(n)
	}
	f.Close()
	SweepFiles(root, ".")
	if n := names(t, path); strings.Contains(n, held) {
		t.Error(n)
	}
	// Hold notices that a Sweep was faster.
	gone := TempName()
	make(gone)
	if f, err = os.Open(filepath.Join(path, gone)); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	SweepFiles(root, ".")
	if Hold(dir, gone, f) {
		t.Error("a file that is gone is held")
	}
}

// A process killed at any moment leaves the old content or the new, and a Sweep removes its
// other files.
func TestKilled(t *testing.T) {
	if at := os.Getenv("VIX_DURABLE_DIR"); at != "" {
		if os.Getenv("VIX_DURABLE_NAMED") != "" {
			tmpfile = 0
		}
		root, _ := os.OpenRoot(at)
		fmt.Println("begins")
		for i := 0; ; i++ {
			if err := Replace(root, "f", 0o600, content(i)); err != nil {
				panic(err)
			}
		}
	}
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	both(t, func(t *testing.T, path string) {
		root := open(t, path)
		for range 15 {
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), "VIX_DURABLE_DIR="+path)
			if tmpfile == 0 {
				cmd.Env = append(cmd.Env, "VIX_DURABLE_NAMED=1")
			}
			out, err := cmd.StdoutPipe()
			if err = errors.Join(err, cmd.Start()); err != nil {
				t.Fatal(err)
			}
			_, _ = out.Read(make([]byte, 64))
			<-time.After(time.Duration(r.IntN(20_000)) * time.Microsecond) // at any moment
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			b, err := os.ReadFile(path + "/f")
			if errors.Is(err, fs.ErrNotExist) {
				continue // killed before its first file
			}
			if err != nil || len(b) == 0 || string(b) != string(content(int(b[0]))) {
				t.Fatalf("%d bytes, %v", len(b), err)
			}
		}
		old := time.Now().Add(-time.Hour)
		for _, n := range strings.Fields(names(t, path)) {
			if err := os.Chtimes(filepath.Join(path, n), old, old); err != nil {
				t.Fatal(err)
			}
		}
		t.Logf("left by 15 kills: %s", names(t, path))
		SweepFiles(root, ".")
		if n := names(t, path); strings.Contains(n, Prefix) {
			t.Error(n)
		}
	})
}

func content(i int) []byte {
	b := make([]byte, 1000+int(byte(i)))
	for k := range b {
		b[k] = byte(i)
	}
	return b
}
