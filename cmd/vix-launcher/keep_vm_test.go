package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// One VM has shares from its start and shares that come and go; then it runs on a disk image,
// with its kept data.
func TestVMKeepsAndShares(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	folder := filepath.Join(r.dir, "folder")
	err := errors.Join(os.Mkdir(folder, 0o755), os.WriteFile(folder+"/one", []byte("one\n"), 0o644),
		os.Symlink("/etc/hostname", folder+"/abs"), os.Symlink("../compositor", folder+"/up"), os.WriteFile(r.dir+"/outside", nil, 0o644))
	if err != nil {
		t.Fatal(err)
	}
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--vm", "t", "--share", folder+":/srv/f:rw", "--share", "staging", "sh", "-c", "echo up; read x")
	first.says("up\n")

	guest := func(t *testing.T, want, script string) {
		t.Helper()
		p := r.start(nil, "exec", "t", "--", "sh", "-c", script)
		p.t = t
		if p.code(); p.out.String() != want {
			t.Errorf("%s: %q %s, not %q", script, p.out.String(), p.err.String(), want)
		}
	}
	t.Run("share", func(t *testing.T) {
		guest(t, "one\n1000\n", "cat /srv/f/one; echo two >/srv/f/two; stat -c %u /srv/f/two")
		if b, err := os.ReadFile(folder + "/two"); string(b) != "two\n" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
		// The guest follows a link, and "..", wherever it starts, stays in the share.
		guest(t, "t\n", "cat /srv/f/abs; cat /srv/f/up /srv/f/../outside 2>/dev/null")
	})
	t.Run("staging", func(t *testing.T) {
		st := r.list()[0].Shares[1]
		guest(t, "", "ls "+st.Guest+"; echo x >"+st.Guest+"/x")
		if b, err := os.ReadFile(st.Host + "/x"); string(b) != "x\n" || err != nil {
			t.Errorf("%q, %v", b, err)
		}
	})
	t.Run("mount", func(t *testing.T) {
		for range 2 {
			r.vix(0, "mount", "t", folder+":/home/user/f")
			guest(t, "one\nread-only\n", "cat ~/f/one; echo x 2>/dev/null >~/f/new || echo read-only")
			r.vix(0, "umount", "t", "/home/user/f")
			guest(t, "", "ls ~/f")
		}
		r.vix(1, "umount", "t", "/home/user/f")
		r.vix(0, "mount", "t", folder+":/home/user/f")
		busy := r.start(nil, "exec", "t", "--", "sh", "-c", "cd f; echo in; exec sleep 1000")
		busy.says("in\n")
		if p := r.vix(1, "umount", "t", "/home/user/f"); !strings.Contains(p.err.String(), "in use; end what uses it") {
			t.Error(p.err.String())
		}
		r.vix(0, "umount", "--force", "t", "/home/user/f")
		_ = busy.Process.Kill()
	})
	t.Run("vanishes", func(t *testing.T) {
		gone := filepath.Join(r.dir, "gone")
		if err := errors.Join(os.Mkdir(gone, 0o755), os.WriteFile(gone+"/x", nil, 0o644)); err != nil {
			t.Fatal(err)
		}
		r.vix(0, "mount", "t", gone+":/srv/gone:rw")
		if err := os.RemoveAll(gone); err != nil {
			t.Fatal(err)
		}
		guest(t, "failed\nalive\n", "echo x 2>/dev/null >/srv/gone/new || echo failed; echo alive")
		r.vix(0, "umount", "t", "/srv/gone")
	})
	t.Run("kept", func(t *testing.T) {
		guest(t, "", "echo kept >~/kept; mkdir -m 700 ~/d; ln ~/kept ~/d/link; echo lost >/tmp/lost")
		r.vix(1, "reset", "--force", "t")
	})
	keep.Close()
	first.code()
	r.nothingLeft() // the VM ends after its last program
	staging, _ := os.ReadDir(filepath.Join(r.dir, ".local/state/vix/staging"))
	if len(staging) > 0 {
		t.Errorf("staging is left: %v", staging)
	}
	testImageRoots(t, r)
}
