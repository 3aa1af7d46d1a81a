package supervise

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/vm"
)

// folders makes directories, and returns the one that they are in, without links.
func makeFolders(t *testing.T, names ...string) string {
	t.Helper()
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.MkdirAll(filepath.Join(root, n), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// launchWithShares is a launch of a VM with these shares.
func (b *bench) launchWithShares(name string, texts ...string) vm.Launch {
	b.t.Helper()
	l := b.launch(name)
	l.StateDir = filepath.Join(b.bin, "state")
	for _, text := range texts {
		s, err := config.ParseShare(text)
		if err != nil {
			b.t.Fatal(err)
		}
		l.VM.Shares = append(l.VM.Shares, s)
	}
	return l
}

// try is a run of "true" in a VM that is gone afterwards: the next one starts anew.
func (b *bench) try(l vm.Launch) *session {
	b.t.Helper()
	s := b.now(b.with(l, "true"))
	if err := b.reg.WaitGone(b.t.Context(), l.VM.Name); err != nil {
		b.t.Error(err)
	}
	return s
}

func (b *bench) stopNow(s *session, name string) {
	b.t.Helper()
	if err := b.reg.Stop(b.t.Context(), name, false); err != nil {
		b.t.Error(err)
	}
	<-s.done
}

// No share lies in another that a guest can write to, nor holds one, of whatever VM, and
// whatever has been renamed since.
func TestSharesApart(t *testing.T) {
	b := newBench(t)
	root := makeFolders(t, "in/p/sub", "in/other", "ro/x/y", "far")
	s := b.goRun(b.with(b.launchWithShares("a", root+"/in/p:/p:rw", root+"/ro/x:/x"), "sleep", "1000"))
	b.state(s)
	refused := func(what, text string, l vm.Launch) {
		t.Helper()
		failure(t, b.try(l), vm.CodeVix, text, "one of the two is writable", "share separate folders")
		if t.Failed() {
			t.Log(what)
		}
	}
	fine := func(what string, l vm.Launch) {
		t.Helper()
		if s := b.try(l); s.fail != nil {
			t.Errorf("%s: %v", what, s.fail)
		}
	}
	refused("in it", "lies in "+root+"/in/p, a share of VM a", b.launchWithShares("b", root+"/in/p/sub:/s"))
	refused("around it", "holds "+root+"/in/p, a share of VM a", b.launchWithShares("b", root+"/in:/s"))
	refused("in a reader's", "lies in "+root+"/ro/x, a share of VM a", b.launchWithShares("b", root+"/ro/x/y:/s:rw"))
	refused("around a reader's", "holds "+root+"/ro/x, a share of VM a", b.launchWithShares("b", root+"/ro:/s:rw"))
	fine("beside it", b.launchWithShares("b", root+"/in/other:/s:rw"))
	fine("the same", b.launchWithShares("b", root+"/in/p:/s"))
	fine("only readers", b.launchWithShares("b", root+"/ro:/s", root+"/ro/x/y:/t"))

	// A running VM's.
	for text, want := range map[string]string{"/in/p/sub:/s": "lies in", "/in:/s": "holds", "/ro/x/y:/s:rw": "lies in"} {
		if _, err := b.reg.Mount(t.Context(), "a", root+text); err == nil || !strings.Contains(err.Error(), want+" "+root) {
			t.Errorf("mount %s: %v", text, err)
		}
	}
	// By whatever name.
	if err := errors.Join(os.Symlink(root+"/in/p", root+"/link"), os.Symlink("link/sub", root+"/far/deep")); err != nil {
		t.Fatal(err)
	}
	refused("by a link", "lies in "+root+"/in/p", b.launchWithShares("b", root+"/link/sub:/s"))
	if err := os.Rename(root+"/in", root+"/moved"); err != nil {
		t.Fatal(err)
	}
	refused("after a rename", "lies in "+root+"/", b.launchWithShares("b", root+"/moved/p/sub:/s"))
	refused("around, after a rename", "holds "+root+"/", b.launchWithShares("b", root+"/moved:/s"))
	fine("beside it, after a rename", b.launchWithShares("b", root+"/moved/other:/s:rw"))
	b.stopNow(s, "a")
	// What it has shared is free again, but for links.
	fine("after its end", b.launchWithShares("b", root+"/moved/p/sub:/s"))

	// One of the configuration, that does not run.
	l := b.launchWithShares("b", root+"/moved/p/sub:/s")
	l.Others = []vm.SharedFolder{{VM: "c", Host: root + "/no/such", Write: true}, {VM: "c", Host: root + "/moved/p", Write: true}}
	refused("in a configured one", "lies in "+root+"/moved/p, a share of VM c", l)
	// Two of one VM, that package config cannot know of.
	refused("by a link, of the same VM", "lies in "+root+"/moved/p, a share of VM d", b.launchWithShares("d", root+"/moved/p:/p:rw", root+"/moved/other/../p/sub:/s"))
}

// A link that a guest has made is not followed, by the same VM or another, at once or later.
func TestLinkOfAGuest(t *testing.T) {
	b := newBench(t)
	root := makeFolders(t, "p/sub", "secret", "mine")
	if s := b.try(b.launchWithShares("a", root+"/p:/p:rw")); s.fail != nil {
		t.Fatal(s.fail)
	}
	err := errors.Join(os.Remove(root+"/p/sub"), os.Symlink(root+"/secret", root+"/p/sub"), // as a's guest could
		os.Symlink(root+"/mine", root+"/link"), os.Symlink("p/sub", root+"/lazy")) // as the user may
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/p/sub", "/lazy"} {
		for _, name := range []string{"a", "b"} {
			failure(t, b.try(b.launchWithShares(name, root+path+":/s")), vm.CodeVix, "share "+root+path+": leads through a link in a folder that a VM could write to; name the folder itself")
		}
	}
	// Of a VM that was never started here, and of one that has no state directory.
	root2 := makeFolders(t, "p", "secret")
	if err := os.Symlink(root2+"/secret", root2+"/p/sub"); err != nil {
		t.Fatal(err)
	}
	l := b.launchWithShares("b", root2+"/p/sub:/s")
	l.StateDir, l.Others = "", []vm.SharedFolder{{VM: "a", Host: root2 + "/p", Write: true}}
	failure(t, b.try(l), vm.CodeVix, "leads through a link")

	// The user's own links are followed, once: the VM's state tells where to.
	s := b.goRun(b.with(b.launchWithShares("b", root+"/link:/s"), "sleep", "1000"))
	if st := b.state(s); len(st.Shares) != 1 || st.Shares[0].Host != root+"/mine" {
		t.Errorf("%+v", st.Shares)
	}
	b.stopNow(s, "b")
	// A root in disguise.
	if err := os.Symlink("/", root+"/all"); err != nil {
		t.Fatal(err)
	}
	failure(t, b.try(b.launchWithShares("b", root+"/all:/s")), vm.CodeVix, "every file of this machine")
}

// Vix's own directories are found whatever they are called, and before they are made.
func TestShareOfOurOwn(t *testing.T) {
	b := newBench(t)
	root := makeFolders(t, "home/.config/vix", "home/.local", "home/docs")
	if err := os.Symlink("home", root+"/me"); err != nil {
		t.Fatal(err)
	}
	for text, ours := range map[string]bool{
		"/home": true, "/me": true, "/me/.config": true, "/home/.config/vix": true, "": true, "/home/.local": true, "/home/docs": false, "/me/docs": false,
	} {
		for _, mode := range []string{"ro", "rw"} {
			l := b.launchWithShares("b", root+text+":/s:"+mode)
			l.Private = []string{root + "/me/.config/vix", root + "/home/.local/state/vix"} // the second is not there
			s := b.try(l)
			if !ours {
				if s.fail != nil {
					t.Errorf("%s: %v", text, s.fail)
				}
				continue
			}
			failure(t, s, vm.CodeVix, "is or holds one of Vix's own folders", "share another folder")
		}
	}
}

// What a VM is made of lies where no guest can write.
func TestPlaces(t *testing.T) {
	b := newBench(t)
	root := makeFolders(t, "p/tree", "mine")
	if err := errors.Join(os.WriteFile(root+"/p/disk", nil, 0o600), os.WriteFile(root+"/mine/kernel", nil, 0o600), os.Symlink("../p/disk", root+"/mine/link")); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		spoil func(*vm.Launch)
		want  string
	}{
		"root":   {func(l *vm.Launch) { l.VM.Root = root + "/p/tree" }, "root " + root + "/p/tree: is in " + root + "/p, which VM a can write to; move it"},
		"kernel": {func(l *vm.Launch) { l.VM.Kernel = root + "/p/disk" }, "kernel " + root + "/p/disk: is in "},
		"initrd": {func(l *vm.Launch) { l.VM.Initrd = root + "/mine/link" }, "initrd " + root + "/mine/link: is in "},
		"fine":   {func(l *vm.Launch) { l.VM.Root, l.VM.Kernel = root+"/mine", root+"/mine/kernel" }, ""},
	} {
		l := b.launchWithShares("b")
		l.Others = []vm.SharedFolder{{VM: "a", Host: root + "/p", Write: true}}
		c.spoil(&l)
		s := b.try(l)
		if c.want == "" {
			if s.fail != nil {
				t.Errorf("%s: %v", name, s.fail)
			}
			continue
		}
		failure(t, s, vm.CodeVix, c.want)
	}
}

// An image that has become something else than a file is not waited for.
func TestImageIsAFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "disk")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := openImage(pipe); err == nil || !strings.Contains(err.Error(), "not a file") {
		t.Error(err)
	}
}
