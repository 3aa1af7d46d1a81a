package rootfs

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func none(DirID) bool { return false }

func openAt(t *testing.T, path string, written func(DirID) bool) *Folder {
	t.Helper()
	f, err := OpenFolder(path, written)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func idAt(t *testing.T, path string) DirID {
	t.Helper()
	id, err := openAt(t, path, none).ID()
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// tree makes directories below a new one without links, and returns that.
func tree(t *testing.T, dirs ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range dirs {
		if err := os.MkdirAll(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOpenFolder(t *testing.T) {
	root := tree(t, "a/b/c", "d")
	err := errors.Join(os.Symlink("a/b", root+"/rel"), os.Symlink(root+"/rel", root+"/abs"), os.Symlink("loop", root+"/loop"),
		os.Symlink("../../abs/c", root+"/a/b/up"), os.WriteFile(root+"/file", nil, 0o600), os.Symlink("nowhere", root+"/dangling"))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"": "", "/a/b": "/a/b", "/rel/c": "/a/b/c", "/abs//./c/": "/a/b/c", "/rel/up": "/a/b/c", "/a/b/../../d": "/d"} {
		if f := openAt(t, root+path, none); f.Path != root+want {
			t.Errorf("%s is %s", path, f.Path)
		}
	}
	for path, want := range map[string]error{
		root + "/file": ErrNotDir, root + "/file/x": ErrNotDir, root + "/no": unix.ENOENT, root + "/loop": unix.ELOOP, root + "/dangling": unix.ENOENT,
		"relative": nil, "/proc/self/fd/0": nil,
	} {
		if f, err := OpenFolder(path, none); err == nil || want != nil && !errors.Is(err, want) {
			t.Errorf("%s: %+v, %v", path, f, err)
		}
	}
	// Of a file, where it lies.
	if err := errors.Join(os.WriteFile(root+"/a/b/f", nil, 0o600), os.Symlink("../a/b/f", root+"/d/to-f")); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/d/to-f": "/a/b", "/a/b/f": "/a/b", "/abs": "/a/b"} {
		f, err := OpenParent(root+path, none)
		if err != nil || f.Path != root+want {
			t.Errorf("%s is in %+v, %v", path, f, err)
			continue
		}
		f.Close()
	}
	if f, err := OpenParent(root+"/a/b/f/x", none); !errors.Is(err, ErrNotDir) {
		t.Errorf("%+v, %v", f, err)
	}
	// The way includes where links led through.
	f := openAt(t, root+"/abs/c", none)
	for dir, want := range map[string]bool{"/": true, root: true, root + "/a": true, root + "/a/b": true, root + "/a/b/c": false, root + "/d": false} {
		if f.Passes(idAt(t, dir)) != want {
			t.Errorf("through %s: %v", dir, !want)
		}
	}
}

// In and below a folder that a guest could write to, no link is followed, wherever it leads.
func TestOpenFolderLinks(t *testing.T) {
	root := tree(t, "p/sub/deep", "secret", "q")
	err := errors.Join(os.Symlink("../secret", root+"/p/evil"), os.Symlink("deep", root+"/p/sub/own"), os.Symlink("p", root+"/mine"), os.Symlink("../p/evil", root+"/q/to-evil"),
		os.Symlink("/", root+"/p/root"))
	if err != nil {
		t.Fatal(err)
	}
	p := idAt(t, root+"/p")
	written := func(id DirID) bool { return id == p }
	for _, path := range []string{"/p", "/p/sub/deep", "/mine", "/mine/sub", "/secret"} {
		openAt(t, root+path, written)
	}
	for _, path := range []string{"/p/evil", "/p/sub/own", "/mine/evil", "/q/to-evil/", "/p/root/etc"} {
		if _, err := OpenFolder(root+path, written); !errors.Is(err, ErrLink) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Where a folder lies is told of its descriptor, after renames too.
func TestAbove(t *testing.T) {
	root := tree(t, "a/b/c", "d")
	f := openAt(t, root+"/a/b/c", none)
	above := func() []DirID {
		t.Helper()
		list, err := f.Above()
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	before := above()
	want := []DirID{idAt(t, root+"/a/b/c"), idAt(t, root+"/a/b"), idAt(t, root+"/a"), idAt(t, root)}
	if !slices.Equal(before[:4], want) || before[len(before)-1] != idAt(t, "/") {
		t.Errorf("%v, want %v …", before, want)
	}
	b := idAt(t, root+"/a/b")
	if err := os.Rename(root+"/a/b", root+"/d/x"); err != nil {
		t.Fatal(err)
	}
	if now := above(); now[1] != b || now[2] != idAt(t, root+"/d") {
		t.Errorf("after a rename: %v", now)
	}
	if path, err := fdPath(int(f.File.Fd())); err != nil || !strings.HasSuffix(path, "/d/x/c") {
		t.Error(path, err)
	}
	if id, err := f.ID(); err != nil || id != want[0] {
		t.Error(id, err)
	}
}
