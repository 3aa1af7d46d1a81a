package main

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"vix/internal/rootfs"
	"vix/internal/sandbox"
)

// The process that becomes virtiofsd serves the folder that was opened outside, whatever its
// name leads to by now, on a mount without privileges; and it does not keep the descriptor,
// by which it could leave the folder.
func TestShareIsOfTheDescriptor(t *testing.T) {
	self, err := exec.LookPath("vix-launcher")
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	shared, secret, dir := filepath.Join(root, "p"), filepath.Join(root, "secret"), t.TempDir()
	if err := errors.Join(os.Mkdir(shared, 0o755), os.Mkdir(secret, 0o755), os.WriteFile(shared+"/mine", []byte("mine"), 0o644), os.WriteFile(secret+"/key", nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	f, err := rootfs.OpenFolder(shared, func(rootfs.DirID) bool { return false })
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := errors.Join(os.Rename(shared, shared+"-away"), os.Symlink(secret, shared)); err != nil {
		t.Fatal(err)
	}
	view := func(folder int) (string, error) {
		spec := sandbox.Spec{
			Tree: &sandbox.Tree{Dir: dir, Host: shared, Folder: folder}, KeepCapabilities: true, KeepMounts: true,
			Argv: []string{"/bin/sh", "-c", `ls "$0"; cat "$0/mine"; grep " $0 " /proc/self/mountinfo; for fd in /proc/self/fd/*; do echo "fd $(readlink $fd)"; done; exit 0`, dir},
		}
		report, theirs, err := spec.Offer()
		if err != nil {
			t.Fatal(err)
		}
		defer report.Close()
		defer theirs.Close()
		c := exec.Command(self, sandbox.Verb(4, false)...)
		c.Env = []string{}
		c.ExtraFiles = []*os.File{f.File, theirs}
		c.SysProcAttr = rootfs.ViewAttr(1000, 1000)
		c.SysProcAttr.UidMappings[0].HostID, c.SysProcAttr.GidMappings[0].HostID = os.Getuid(), os.Getgid()
		out, err := c.CombinedOutput()
		if strings.Contains(string(out), "operation not permitted") {
			t.Skipf("lacks: namespaces: %v %s", err, out)
		}
		return string(out), err
	}
	out, err := view(3)
	if err != nil || !strings.HasPrefix(out, "mine\nmine") || strings.Contains(out, "key") {
		t.Errorf("%v: %s", err, out)
	}
	if !strings.Contains(out, " ro,nosuid,nodev,noexec") {
		t.Errorf("mounted otherwise: %s", out)
	}
	if strings.Contains(out, "fd "+root) {
		t.Errorf("it has the descriptor: %s", out)
	}
	if out, err := view(9); err == nil || strings.Contains(out, "mine") {
		t.Errorf("without a descriptor: %v: %s", err, out)
	}
}

// A process that shares the host's mounts mounts nothing.
func TestConfineMountsOnItsOwn(t *testing.T) {
	self, err := exec.LookPath("vix-launcher")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	report, theirs, err := sandbox.Spec{Tree: &sandbox.Tree{Dir: dir, Host: "/"}, Argv: []string{"/bin/true"}}.Offer()
	if err != nil {
		t.Fatal(err)
	}
	defer report.Close()
	c := exec.Command(self, sandbox.Verb(3, false)...)
	c.Env, c.ExtraFiles = []string{}, []*os.File{theirs}
	out, err := c.CombinedOutput()
	theirs.Close()
	if entries, _ := os.ReadDir(dir); err == nil || len(entries) > 0 || !strings.Contains(string(out), "confine: mounts in a namespace of its own only") {
		t.Errorf("%v: %s%v", err, out, entries)
	}
	if _, err := sandbox.ReadReport(report); !errors.Is(err, io.EOF) {
		t.Errorf("it reported: %v", err)
	}
}
