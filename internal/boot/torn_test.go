package boot

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// An entry of the boot cache that is torn, turned or longer is made again.
func TestPrepareDamaged(t *testing.T) {
	for how, spoil := range map[string]func([]byte) []byte{
		"empty":     func([]byte) []byte { return nil },
		"truncated": func(b []byte) []byte { return b[:len(b)-1] },
		"half":      func(b []byte) []byte { return b[:len(b)/2] },
		"zeroed":    func(b []byte) []byte { return make([]byte, len(b)) },
		"a bit":     func(b []byte) []byte { b[len(b)/2] ^= 4; return b },
		"longer":    func(b []byte) []byte { return append(b, 0) },
	} {
		t.Run(how, func(t *testing.T) {
			c := testConfig(t)
			f, err := Prepare(t.Context(), c)
			if err != nil {
				t.Fatal(err)
			}
			for _, path := range []string{f.Kernel, f.Initrd} {
				want, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, spoil(bytes.Clone(want)), 0o600); err != nil {
					t.Fatal(err)
				}
				var output []string
				c.Progress = func(s string) { output = append(output, s) }
				again, err := Prepare(t.Context(), c)
				if got, rerr := os.ReadFile(path); err != nil || rerr != nil || again != f || len(output) != 1 || !bytes.Equal(got, want) {
					t.Errorf("%s: %+v, %v, %v, said %q", filepath.Base(path), again, err, rerr, output)
				}
			}
			if entries, _ := os.ReadDir(c.CacheDir); len(entries) != 2 {
				t.Errorf("the cache holds %v", entries)
			}
		})
	}
}

// A complete cache is only read; one that is not complete and cannot be written to is one
// line that says so.
func TestPrepareReadOnly(t *testing.T) {
	c := testConfig(t)
	f, err := Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	mount := func() {
		t.Helper()
		err := unix.Mount(c.CacheDir, c.CacheDir, "", unix.MS_BIND, "")
		if err != nil {
			t.Skip("lacks: leave to mount: ", err)
		}
		if err := unix.Mount("", c.CacheDir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Error(err)
		}
	}
	unmount := func() {
		t.Helper()
		if err := unix.Unmount(c.CacheDir, 0); err != nil {
			t.Error(err)
		}
	}
	mount()
	again, err := Prepare(t.Context(), c)
	unmount()
	if err != nil || again != f {
		t.Errorf("%+v, %v", again, err)
	}
	if err := os.Truncate(f.Initrd, 10); err != nil {
		t.Fatal(err)
	}
	mount()
	_, err = Prepare(t.Context(), c)
	unmount()
	if err == nil || !strings.Contains(err.Error(), c.CacheDir+": cannot be written to: read-only file system; ") || strings.Contains(err.Error(), "\n") {
		t.Error(err)
	}
}

// On a full disk nothing that is whole is lost, and nothing half-made is left.
func TestPrepareFull(t *testing.T) {
	c := testConfig(t)
	if err := os.MkdirAll(c.CacheDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", c.CacheDir, "tmpfs", 0, "size=12k,mode=0700"); err != nil {
		t.Skip("lacks: leave to mount a tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(c.CacheDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	f, err := Prepare(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	c.Guest = write(t, c.Guest+"-large", append(makeELF(1, []byte("guest")), make([]byte, 64<<10)...))
	_, err = Prepare(t.Context(), c)
	if !errors.Is(err, unix.ENOSPC) || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "make room there") {
		t.Error(err)
	}
	entries, _ := os.ReadDir(c.CacheDir)
	if len(entries) != 2 {
		t.Errorf("%v", entries)
	}
	if _, err := os.Stat(f.Initrd); err != nil {
		t.Error(err)
	}
}
