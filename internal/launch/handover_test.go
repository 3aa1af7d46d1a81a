package launch

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A file is handed over as it was when it was opened, by a link or by its name; what is
// no file is not.
func TestHandOver(t *testing.T) {
	home := t.TempDir()
	at := func(name string) string { return filepath.Join(home, name) }
	if err := errors.Join(os.WriteFile(at("a file"), []byte("mine"), 0o600), os.Symlink("a file", at("link")), os.Mkdir(at("dir"), 0o700)); err != nil {
		t.Fatal(err)
	}
	place := t.TempDir()
	dir, err := os.OpenRoot(place)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for i, path := range []string{at("a file"), at("link"), "file://" + at("link")} {
		name, err := handOver(path, dir, i)
		if err != nil || !strings.HasSuffix(name, "a file") {
			t.Fatalf("%s: %q, %v", path, name, err)
		}
		was, err1 := os.Stat(at("a file"))
		is, err2 := os.Lstat(filepath.Join(place, name))
		if errors.Join(err1, err2) != nil || !os.SameFile(was, is) {
			t.Errorf("%s: another file: %v %v", path, err1, err2)
		}
	}
	for path, want := range map[string]string{at("dir"): "not a file", at("none"): "no such file or directory", "/dev/null": "not a file"} {
		if name, err := handOver(path, dir, 7); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %q, %v", path, name, err)
		}
	}
	// Of another file system it is a copy.
	if shm, err := os.MkdirTemp("/dev/shm", "vix"); err == nil {
		defer os.RemoveAll(shm)
		far, err := os.OpenRoot(shm)
		if err != nil {
			t.Fatal(err)
		}
		defer far.Close()
		if name, err := handOver(at("link"), far, 0); err != nil {
			t.Error(err)
		} else if b, err := far.ReadFile(name); string(b) != "mine" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	}
}
