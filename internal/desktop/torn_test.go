package desktop

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// tornBy has what a power cut has left of a file that was not written durably.
var tornBy = map[string]func([]byte) []byte{
	"empty":       func([]byte) []byte { return nil },
	"zeroed":      func(b []byte) []byte { return make([]byte, len(b)) },
	"half":        func(b []byte) []byte { return b[:len(b)/2] },
	"few bytes":   func(b []byte) []byte { return b[:min(len(b), 9)] },
	"first line":  func(b []byte) []byte { return b[:min(len(b), len(madeBy)+1)] },
	"half zeroed": func(b []byte) []byte { return append(bytes.Clone(b[:len(b)/2]), make([]byte, len(b)-len(b)/2)...) },
}

// Every file of ours, torn in every way, is made again, and removed when it is not wanted.
func TestSyncTorn(t *testing.T) {
	want := hostileFile(t).Files(map[int][]byte{48: []byte("an icon"), 128: []byte("another one")}, "vix-dbus.service")
	for how, tear := range tornBy {
		for i, f := range want {
			data := tree(t, nil)
			spoil := func() {
				t.Helper()
				if _, err := Sync(data, want, false); err != nil {
					t.Fatal(err)
				}
				if err := data.WriteFile(f.Path, tear(f.Bytes), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			spoil()
			_ = List(data)
			changes, err := Sync(data, want, false)
			if b, rerr := data.ReadFile(f.Path); err != nil || rerr != nil || !bytes.Equal(b, f.Bytes) || len(changes) > 1 {
				t.Errorf("%s, %s: %v, %v, %q", how, f.Path, changes, err, b)
			}
			spoil()
			if _, err := Sync(data, append(want[:i:i], want[i+1:]...), false); err != nil {
				t.Errorf("%s, %s: %v", how, f.Path, err)
			}
			if _, err := data.Lstat(f.Path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s, %s: not removed: %v", how, f.Path, err)
			}
		}
	}
}

// On a full disk each entry is the old one or the new, and the error says why.
func TestSyncFull(t *testing.T) {
	path := t.TempDir()
	if err := unix.Mount("small", path, "tmpfs", 0, "size=128k"); err != nil {
		t.Skip("lacks: leave to mount a tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	data, err := os.OpenRoot(path)
	if err != nil {
		t.Fatal(err)
	}
	defer data.Close()
	want := hostileFile(t).Files(map[int][]byte{48: []byte("old")}, "")
	if _, err := Sync(data, want, false); err != nil {
		t.Fatal(err)
	}
	larger := hostileFile(t).Files(map[int][]byte{48: make([]byte, 256<<10)}, "vix-dbus.service")
	_, err = Sync(data, larger, false)
	if !errors.Is(err, unix.ENOSPC) {
		t.Error(err)
	}
	for i, f := range want {
		b, err := data.ReadFile(f.Path)
		if err != nil || !bytes.Equal(b, f.Bytes) && !bytes.Equal(b, larger[i].Bytes) {
			t.Errorf("%s: %d bytes, %v", f.Path, len(b), err)
		}
	}
}
