package vm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// A shelf is a registry and a store of their own.
type shelf struct {
	*Registry
	*Store
	dir string
}

func newShelf(t testing.TB) *shelf {
	t.Helper()
	// Short, for a socket's path; and in memory, where the copies' syncfs costs nothing.
	dir, err := os.MkdirTemp("/dev/shm", "vix")
	if err != nil {
		dir, err = os.MkdirTemp("", "vix")
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, _ error) error { return os.Chmod(path, 0o700) })
		os.RemoveAll(dir)
	})
	run := filepath.Join(dir, "run")
	if err := os.Mkdir(run, 0o700); err != nil {
		t.Fatal(err)
	}
	reg, err := OpenRegistry(run)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	store, err := OpenStore(filepath.Join(dir, "state"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { store.Close() })
	return &shelf{reg, store, dir}
}

// keep makes the kept state of a VM, and returns its home.
func (s *shelf) keep(t testing.TB, name string) string {
	t.Helper()
	k, err := s.Store.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	return k.Home()
}

// list describes a tree: names, kinds, permissions, contents, links, and which names are one
// file.
func list(t testing.TB, dir string) []string {
	t.Helper()
	first := map[uint64]string{}
	var lines []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		name, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := ""
		switch {
		case info.Mode()&fs.ModeSymlink != 0:
			what, err = os.Readlink(path)
			lines = append(lines, fmt.Sprintf("%s -> %s", name, what))
			return err
		case info.Mode().IsRegular():
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what = fmt.Sprintf("%q %d", b, info.ModTime().Unix())
			if st := info.Sys().(*syscall.Stat_t); st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = name
				}
				what += " as " + first[st.Ino]
			}
		}
		lines = append(lines, fmt.Sprintf("%s %v %s", name, info.Mode()&(fs.ModeType|0o777), what))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines
}

// TestBackup: whatever a home holds comes back from a backup, compressed or not, and in a
// clone; special files do not.
func TestBackup(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := newShelf(t)
		home := s.keep(t, "a")
		dirs, files := []string{"."}, []string{}
		for i := range rapid.IntRange(0, 20).Draw(rt, "entries") {
			dir := rapid.SampledFrom(dirs).Draw(rt, "in")
			name := filepath.Join(dir, fmt.Sprint(i, rapid.SampledFrom([]string{"x", " y", "ü", "\xff\xfe", "-n"}).Draw(rt, "name")))
			path := filepath.Join(home, name)
			mode := fs.FileMode(rapid.SampledFrom([]int{0o600, 0o644, 0o755, 0o700, 0o400}).Draw(rt, "mode"))
			var err error
			switch kind := rapid.IntRange(0, 4).Draw(rt, "kind"); {
			case kind == 0:
				err = os.Mkdir(path, mode|0o500)
				if err == nil && mode&0o200 != 0 {
					dirs = append(dirs, name)
				}
			case kind == 1:
				err = os.Symlink(rapid.SampledFrom([]string{"/etc/passwd", "../../..", "nowhere", "."}).Draw(rt, "to"), path)
			case kind == 2 && len(files) > 0:
				err = os.Link(filepath.Join(home, rapid.SampledFrom(files).Draw(rt, "file")), path)
			default:
				err = os.WriteFile(path, rapid.SliceOfN(rapid.Byte(), 0, 3000).Draw(rt, "content"), mode)
				files = append(files, name)
			}
			if err != nil {
				rt.Fatal(err)
			}
		}
		want := list(t, home)
		if err := unix.Mkfifo(filepath.Join(home, "pipe"), 0o600); err != nil {
			rt.Fatal(err)
		}
		var file, zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		if n, err := s.Backup(t.Context(), s.Store, "a", io.MultiWriter(&file, z)); n != 1 || errors.Join(err, z.Close()) != nil {
			rt.Fatalf("%d left out, %v", n, err)
		}
		for name, from := range map[string]io.Reader{"b": &file, "c": &zipped} {
			if _, err := s.Restore(t.Context(), s.Store, name, from); err != nil {
				rt.Fatalf("%s: %v", name, err)
			}
		}
		if n, err := s.Clone(t.Context(), s.Store, "a", "d", io.Discard); n != 1 || err != nil {
			rt.Fatalf("clone: %d, %v", n, err)
		}
		for _, name := range []string{"b", "c", "d"} {
			if got := list(t, s.HomePath(name)); !slices.Equal(got, want) {
				rt.Fatalf("%s is\n%s\nnot\n%s", name, strings.Join(got, "\n"), strings.Join(want, "\n"))
			}
		}
		// Each has a state of its own now, and no copy goes over one.
		if _, err := s.Restore(t.Context(), s.Store, "b", bytes.NewReader(nil)); len(want) > 0 && (err == nil || !strings.Contains(err.Error(), "VM b: has already kept something")) {
			rt.Fatal(err)
		}
	})
}

// tarOf makes a tar file.
func tarOf(t testing.TB, entries ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, h := range entries {
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(make([]byte, h.Size)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func hostileTars(t testing.TB) map[string][]byte {
	reg, dir, sym, hard := byte(tar.TypeReg), byte(tar.TypeDir), byte(tar.TypeSymlink), byte(tar.TypeLink)
	whole := tarOf(t, tar.Header{Typeflag: reg, Name: "f", Size: 4096})
	return map[string][]byte{
		"up":                    tarOf(t, tar.Header{Typeflag: reg, Name: "../evil", Size: 1}),
		"absolute":              tarOf(t, tar.Header{Typeflag: reg, Name: "/tmp/evil", Size: 1}),
		"up from below":         tarOf(t, tar.Header{Typeflag: dir, Name: "a/../../evil"}),
		"through a link":        tarOf(t, tar.Header{Typeflag: sym, Name: "out", Linkname: "/tmp"}, tar.Header{Typeflag: reg, Name: "out/evil", Size: 1}),
		"through two links":     tarOf(t, tar.Header{Typeflag: sym, Name: "a", Linkname: "b"}, tar.Header{Typeflag: sym, Name: "b", Linkname: "../../.."}, tar.Header{Typeflag: reg, Name: "a/evil", Size: 1}),
		"a link's own place":    tarOf(t, tar.Header{Typeflag: sym, Name: "out", Linkname: "../evil"}, tar.Header{Typeflag: reg, Name: "out", Size: 1}),
		"a hard link up":        tarOf(t, tar.Header{Typeflag: hard, Name: "f", Linkname: "../../a/vix.json"}),
		"a hard link to a link": tarOf(t, tar.Header{Typeflag: sym, Name: "l", Linkname: "/etc/passwd"}, tar.Header{Typeflag: hard, Name: "f", Linkname: "l/x"}),
		"twice":                 tarOf(t, tar.Header{Typeflag: reg, Name: "f", Size: 1}, tar.Header{Typeflag: reg, Name: "./f", Size: 2}),
		"a file is the home":    tarOf(t, tar.Header{Typeflag: reg, Name: ".", Size: 1}),
		"cut off":               whole[:1000],
		"no tar":                bytes.Repeat([]byte("no tar "), 1000),
		"gzip of nothing":       {0x1f, 0x8b, 8},
	}
}

// TestRestoreHostile: a tar file that leads out of the home, or is none, is refused, and
// nothing of it is left; what a home may not have is left away.
func TestRestoreHostile(t *testing.T) {
	for name, file := range hostileTars(t) {
		t.Run(name, func(t *testing.T) {
			s := newShelf(t)
			s.keep(t, "a")
			before := list(t, filepath.Join(s.dir, "state"))
			if _, err := s.Restore(t.Context(), s.Store, "b", bytes.NewReader(file)); err == nil {
				t.Error("restored")
			} else if text := err.Error(); strings.ContainsAny(text, "\n\x1b") {
				t.Errorf("%q", text)
			}
			if after := list(t, filepath.Join(s.dir, "state")); !slices.Equal(after, before) {
				t.Errorf("left:\n%s\nwas\n%s", strings.Join(after, "\n"), strings.Join(before, "\n"))
			}
		})
	}
	s := newShelf(t)
	file := tarOf(t, tar.Header{Typeflag: tar.TypeReg, Name: "suid", Mode: 0o6755}, tar.Header{Typeflag: tar.TypeDir, Name: "sticky/", Mode: 0o1777},
		tar.Header{Typeflag: tar.TypeChar, Name: "null", Devmajor: 1, Devminor: 3}, tar.Header{Typeflag: tar.TypeFifo, Name: "fifo"})
	if n, err := s.Restore(t.Context(), s.Store, "b", bytes.NewReader(file)); n != 2 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	for name, want := range map[string]fs.FileMode{"suid": 0o755, "sticky": fs.ModeDir | 0o777} {
		if st, err := os.Lstat(filepath.Join(s.HomePath("b"), name)); err != nil || st.Mode() != want {
			t.Errorf("%s: %v, %v", name, st.Mode(), err)
		}
	}
}

// Directories that their owner may not look into get their permissions from the inside out: an
// ordinary user does not reach what is in a closed one.
func TestRestoreClosed(t *testing.T) {
	dir := t.TempDir()
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // the thread ends with its user
		done <- func() error {
			user := os.Getuid()
			if user == 0 {
				user = 65534
			}
			if err := os.Chown(dir, user, -1); err != nil {
				return err
			}
			home, err := os.OpenRoot(dir)
			if err != nil {
				return err
			}
			defer home.Close()
			if err := unix.Setfsuid(user); err != nil {
				return err
			}
			file := tarOf(t, tar.Header{Typeflag: tar.TypeDir, Name: "a/", Mode: 0o100}, tar.Header{Typeflag: tar.TypeDir, Name: "a/b/", Mode: 0o600},
				tar.Header{Typeflag: tar.TypeDir, Name: "a/b/c/", Mode: 0o500}, tar.Header{Typeflag: tar.TypeDir, Name: "a/b/d/", Mode: 0o200})
			r := &tarReader{Reader: tar.NewReader(bytes.NewReader(file)), home: home, late: map[string]fs.FileMode{}}
			for {
				if err := r.next(); errors.Is(err, io.EOF) {
					return r.close()
				} else if err != nil {
					return err
				}
			}
		}()
	}()
	if err := <-done; err != nil {
		t.Error(err)
	}
	for name, want := range map[string]fs.FileMode{"a": 0o100, "a/b": 0o600, "a/b/c": 0o500, "a/b/d": 0o200} {
		if st, err := os.Lstat(filepath.Join(dir, name)); err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", name, st, err)
		}
	}
}

// A copy that is interrupted, wherever it is, leaves the VMs as they were, and one of a VM
// that is there or in use is refused.
func TestCopyInterrupted(t *testing.T) {
	s := newShelf(t)
	home := s.keep(t, "a")
	for i := range 20 {
		if err := os.WriteFile(filepath.Join(home, fmt.Sprint(i)), bytes.Repeat([]byte{byte(i)}, 10000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := list(t, filepath.Join(s.dir, "state"))
	for at := 0; at < 200_000; at += 7919 {
		ctx, cancel := context.WithCancelCause(t.Context())
		n := 0
		_, err := s.Clone(ctx, s.Store, "a", "b", writerFunc(func(p []byte) (int, error) {
			if n += len(p); n > at {
				cancel(errors.New("interrupted"))
			}
			return len(p), nil
		}))
		cancel(nil)
		if err == nil {
			t.Fatalf("after %d bytes: no error", at)
		}
		if after := list(t, filepath.Join(s.dir, "state")); !slices.Equal(after, before) {
			t.Fatalf("after %d bytes:\n%s\nwas\n%s", at, strings.Join(after, "\n"), strings.Join(before, "\n"))
		}
	}
	seat, err := s.Take(t.Context(), "a")
	if err != nil || seat == nil {
		t.Fatal(seat, err)
	}
	defer seat.Close()
	if _, err := s.Backup(t.Context(), s.Store, "none", io.Discard); err == nil || !strings.Contains(err.Error(), "VM none: has kept nothing") {
		t.Error(err)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// FuzzRestore holds that no file makes anything outside of the new home.
func FuzzRestore(f *testing.F) {
	for _, file := range hostileTars(f) {
		f.Add(file)
	}
	f.Add(tarOf(f, tar.Header{Typeflag: tar.TypeDir, Name: "d/"}, tar.Header{Typeflag: tar.TypeReg, Name: "d/f", Size: 5}, tar.Header{Typeflag: tar.TypeLink, Name: "l", Linkname: "d/f"}))
	f.Fuzz(func(t *testing.T, file []byte) {
		s := newShelf(t)
		_, err := s.Restore(t.Context(), s.Store, "b", io.LimitReader(bytes.NewReader(file), 1<<20))
		for _, line := range list(t, filepath.Join(s.dir, "state")) {
			name, _, _ := strings.Cut(line, " ")
			inside := strings.HasPrefix(name+"/", "vix/vms/b/")
			if !inside && !slices.Contains([]string{"vix", "vix/vms"}, name) || inside && err != nil {
				t.Fatalf("%s is there, %v", line, err)
			}
		}
	})
}
