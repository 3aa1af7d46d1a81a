package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// installDeb builds version n of a package with a program, and installs it in the tree.
func installDeb(t *testing.T, dir, tree string, n int) {
	t.Helper()
	pkg := filepath.Join(dir, fmt.Sprintf("hello-%d", n))
	control := fmt.Sprintf("Package: hello\nVersion: %d\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: a test\n", n)
	for path, text := range map[string]string{
		"DEBIAN/control":                     control,
		"usr/bin/hello":                      fmt.Sprintf("#!/bin/sh\necho hello %d\n", n),
		fmt.Sprintf("usr/bin/only-in-%d", n): "#!/bin/sh\n",
	} {
		path = filepath.Join(pkg, path)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	for _, argv := range [][]string{
		{"dpkg-deb", "--build", "--root-owner-group", pkg, pkg + ".deb"},
		{"dpkg", "--root=" + tree, "--force-not-root", "--force-bad-path", "--install", pkg + ".deb"},
	} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%q: %v: %s", argv, err, out)
		}
	}
}

// dpkg upgrades a package in the VM's root while the VM runs: a program's start, and a list of
// VMs, report this; and when the VM starts again, it has the new version.
func TestVMOutdated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, name := range []string{"dpkg", "dpkg-deb"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
	tree := smallSystem(t, r.dir)
	for _, dir := range []string{"info", "updates", "triggers"} {
		if err := os.MkdirAll(filepath.Join(tree, "var/lib/dpkg", dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(tree, "var/lib/dpkg/status"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	installDeb(t, r.dir, tree, 1)
	r.configure("[vm.t]\nroot = \"" + tree + "\"\nmemory = \"256M\"\nstate = \"none\"\n")

	note := "VM t: programs of its root " + tree + " have changed since it started"
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	all := func() (text string) {
		for _, args := range [][]string{{"list"}, {"exec", "t", "--", "hello"}, {"run", "--no-gui", "--vm", "t", "hello"}} {
			text += r.vix(0, args...).err.String()
		}
		return text
	}
	if text := all(); strings.Contains(text, "changed") || r.list()[0].Outdated {
		t.Errorf("told of an upgrade that there was not: %s", text)
	}
	installDeb(t, r.dir, tree, 2)
	if text := all(); strings.Count(text, note) != 3 || !r.list()[0].Outdated {
		t.Errorf("not told three times: %s", text)
	}
	// Not found: it did not exist when the VM first looked.
	if p := r.start(nil, "exec", "t", "--", "only-in-2"); p.code() != 0 && !strings.Contains(p.err.String(), note) {
		t.Errorf("a new program is not found, and nothing says why: %s", p.err.String())
	}
	if text := r.vix(0, "status", "t").out.String(); !strings.Contains(text, "have changed since the VM started") {
		t.Error(text)
	}
	if text := r.vix(0, "logs", "t").out.String(); strings.Count(text, note) != 1 {
		t.Errorf("the log says it not once: %s", text)
	}
	keep.Close()
	first.code()
	r.vix(0, "stop", "--all")
	if p := r.vix(0, "run", "--no-gui", "--vm", "t", "hello"); p.out.String() != "hello 2\n" || strings.Contains(p.err.String(), "changed") {
		t.Errorf("started again: %q %s", p.out.String(), p.err.String())
	}
}
