package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// A marker that a power cut has torn does not lock the person out of the home, in any
// verb; one of a newer version does.
func TestTornMarker(t *testing.T) {
	const whole = `{"version":1}` + "\n"
	half := whole[:len(whole)/2]
	for name, content := range map[string]string{
		"empty": "", "zeroed": strings.Repeat("\x00", len(whole)), "half": half, "half zeroed": half + strings.Repeat("\x00", len(whole)-len(half)),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			l := b.launchWithHome("t")
			store, err := vm.OpenStore(l.StateDir)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			dir := filepath.Join(l.StateDir, "vix/vms/t")
			file := filepath.Join(dir, vm.MarkerName)
			tear := func(f string) {
				t.Helper()
				if err := os.WriteFile(f, []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := os.MkdirAll(filepath.Join(dir, vm.HomeName), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, vm.HomeName, "precious"), []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
			tear(file)
			if s := b.now(b.with(l, "true")); s.fail != nil {
				t.Fatal(s.fail)
			}
			if got, err := os.ReadFile(file); string(got) != whole || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if got, err := os.ReadFile(filepath.Join(dir, vm.HomeName, "precious")); string(got) != "precious" || err != nil {
				t.Errorf("%q, %v", got, err)
			}
			if err := b.reg.WaitGone(t.Context(), "t"); err != nil {
				t.Fatal(err)
			}
			tear(file)
			if err := b.reg.Rename(t.Context(), store, "t", "u"); err != nil {
				t.Fatal(err)
			}
			tear(filepath.Join(l.StateDir, "vix/vms/u", vm.MarkerName))
			if err := errors.Join(b.reg.Reset(t.Context(), store, "u"), b.reg.Remove(t.Context(), store, "u")); err != nil {
				t.Error(err)
			}
		})
	}
}

// On a full disk a run that keeps its home ends with one line, or works; what was there
// is whole, and the verbs that make room work.
func TestFullStore(t *testing.T) {
	b := newBench(t)
	l := b.launchWithHome("t")
	if err := os.MkdirAll(l.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", l.StateDir, "tmpfs", 0, "size=64k,nr_inodes=40,mode=0700"); err != nil {
		t.Skip("lacks: leave to mount a tmpfs: ", err)
	}
	defer func() {
		if err := unix.Unmount(l.StateDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	}()
	store, err := vm.OpenStore(l.StateDir)
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	k, err := store.Open("t")
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(); err != nil {
		t.Fatal(err)
	}
	for i := 0; ; i++ { // every block and inode
		f := filepath.Join(k.Home(), strings.Repeat("x", i+1))
		if err := os.WriteFile(f, make([]byte, 4096), 0o600); errors.Is(err, unix.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for os.WriteFile(filepath.Join(k.Home(), "e"+strings.Repeat("x", len(entriesOf(t, k.Home())))), nil, 0o600) == nil {
		continue
	}
	before := len(entriesOf(t, k.Home()))
	if s := b.now(b.with(l, "true")); s.fail != nil {
		t.Error("a home that is there: ", s.fail)
	}
	failure(t, b.now(b.with(b.launchWithHome("other"), "true")), vm.CodeVix, "no space left on device; free some, or run with --disposable")
	if after := len(entriesOf(t, k.Home())); after != before {
		t.Errorf("%d files, not %d", after, before)
	}
	if err := errors.Join(b.reg.WaitGone(t.Context(), "t"), b.reg.Reset(t.Context(), store, "t")); err != nil {
		t.Error(err)
	}
	if err := b.reg.Remove(t.Context(), store, "t"); err != nil {
		t.Error(err)
	}
	if s := b.now(b.with(b.launchWithHome("other"), "true")); s.fail != nil {
		t.Error(s.fail)
	}
}

func entriesOf(t *testing.T, dir string) []os.DirEntry {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return list
}
