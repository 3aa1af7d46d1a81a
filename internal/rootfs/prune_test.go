package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// What some VM's root needs stays, whatever stands beside it; the rest goes, read-only
// directories too, but nothing goes while somebody builds.
func TestUnneeded(t *testing.T) {
	dir := t.TempDir()
	keep := []Debian{{Suite: "trixie", Packages: []string{"foot"}, CacheDir: dir}, {Suite: "sid", CacheDir: dir}}
	old := Debian{Suite: "trixie", Packages: []string{"gone"}, CacheDir: dir}
	used := Debian{Suite: "bookworm", CacheDir: dir}
	for _, name := range []string{
		keep[0].Dir(), keep[1].Dir(), old.Dir() + "/usr/share", used.Dir(), dir + "/.new-ABCDEFGH/root",
		dir + "/apt-trixie", dir + "/apt-bookworm", dir + "/apt-woody", dir + "/mine",
	} {
		if err := os.MkdirAll(name, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{keep[0].Dir() + ".log", old.Dir() + ".log", dir + "/debian-woody-000000000000.log", dir + "/lock", old.Dir() + "/usr/share/f"} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(old.Dir()+"/usr/share", 0o500); err != nil {
		t.Fatal(err)
	}
	got, err := Unneeded(dir, keep, []string{"bookworm"})
	base := filepath.Base(old.Dir())
	want := []string{".new-ABCDEFGH", "apt-woody", base, base + ".log", "debian-woody-000000000000.log"}
	if slices.Sort(want); err != nil || !slices.Equal(got, want) {
		t.Fatalf("%q, want %q: %v", got, want, err)
	}

	lock, err := os.OpenFile(dir+"/lock", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if err := Drop(dir, base); !errors.Is(err, errBusy) || !old.Built() {
		t.Errorf("while one is built: %v", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	for _, name := range got {
		if err := Drop(dir, name); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	var left []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want = []string{"apt-bookworm", "apt-trixie", "lock", "mine"}
	for _, d := range []Debian{keep[0], keep[1], used} {
		want = append(want, filepath.Base(d.Dir()))
	}
	want = append(want, filepath.Base(keep[0].Dir())+".log")
	if slices.Sort(want); err != nil || !slices.Equal(left, want) {
		t.Errorf("%q is left, want %q: %v", left, want, err)
	}
	if got, err := Unneeded(dir+"/none", keep, nil); len(got) > 0 || err != nil {
		t.Errorf("without a cache: %q, %v", got, err)
	}
}
