// Package packaging holds the tests of what is installed. They run on the machine
// itself, where make and git are, and go into the system root for shells, nix,
// systemd and the rest (scripts/in-root).
package packaging

import (
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"vix/config"
)

// project is the path of the checkout.
func project(t *testing.T) string {
	t.Helper()
	dir, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

// lacks skips a test on a machine without these programs.
func lacks(t *testing.T, programs ...string) {
	t.Helper()
	for _, name := range programs {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
}

// output runs a command in the checkout, and returns what it prints; env adds
// to the environment.
func output(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Dir = project(t)
	cmd.Env = append(os.Environ(), env...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v: %s%s", strings.Join(argv, " "), err, out, stderr.String())
	}
	return string(out)
}

// inRoot runs a script of bash where the tools are, with arguments $1, $2, ...
func inRoot(t *testing.T, script string, args ...string) string {
	t.Helper()
	return output(t, nil, append([]string{"scripts/in-root", "bash", "-euc", script, "test"}, args...)...)
}

// built makes what packaging/install and packaging/deb/build need, once.
var built = sync.OnceValue(func() error {
	out, err := exec.Command("make", "-C", "..", "--no-print-directory", "docs").CombinedOutput()
	if err != nil {
		return fmt.Errorf("make docs: %w: %s", err, out)
	}
	return nil
})

// installed lays Vix down below a temporary directory, with PREFIX=/usr.
func installed(t *testing.T) string {
	t.Helper()
	lacks(t, "make", "go")
	if err := built(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	output(t, []string{"PREFIX=/usr", "DESTDIR=" + dir}, "packaging/install")
	return dir
}

// tree lists the files and links below a directory, by their paths in it.
func tree(t *testing.T, dir string) []string {
	t.Helper()
	var list []string
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rel, _ := filepath.Rel(dir, path)
			list = append(list, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(list)
	return list
}

func TestExampleConfig(t *testing.T) {
	root, err := os.OpenRoot("examples")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	c, err := config.Load(root, "config.toml", "examples/config.toml")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.VMs) < 3 || len(c.Errors) > 0 {
		t.Errorf("%d VMs, %v", len(c.VMs), c.Errors.Lines())
	}
}

// What is laid down is the list, no more and no less, with no placeholder left;
// and uninstalling leaves what it found.
func TestInstall(t *testing.T) {
	if testing.Short() {
		t.Skip("builds everything")
	}
	dir := installed(t)
	env := []string{"PREFIX=/usr", "DESTDIR=" + dir}
	want := strings.Fields(output(t, env, "packaging/install", "--list"))
	slices.Sort(want)
	if got := tree(t, filepath.Join(dir, "usr")); !slices.Equal(got, want) {
		t.Errorf("installed %q\nlisted    %q", got, want)
	}
	for _, path := range tree(t, dir) {
		full := filepath.Join(dir, path)
		st, err := os.Stat(full) // of a link too: none may dangle
		if err != nil {
			t.Error(err)
			continue
		}
		inBin := strings.Contains(path, "/bin/") || strings.Contains(path, "/libexec/")
		if exec := st.Mode().Perm() == 0o755; exec != inBin || !exec && st.Mode().Perm() != 0o644 {
			t.Errorf("%s: mode %o", path, st.Mode().Perm())
		}
		if text, err := os.ReadFile(full); err != nil || !inBin && strings.Contains(string(text), "dir@") {
			t.Errorf("%s: %v, or a placeholder", path, err)
		}
	}
	version := strings.TrimSpace(output(t, nil, "scripts/version"))
	for _, name := range []string{"vix", "vix-launcher", "vix-waylandproxy"} {
		if got := output(t, nil, filepath.Join(dir, "usr/bin", name), "--version"); !strings.HasSuffix(got, " "+version+"\n") {
			t.Errorf("%s: version %q, want %q", name, got, version)
		}
	}
	mine := filepath.Join(dir, "usr/share/man/man1/mine.1")
	if err := os.WriteFile(mine, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	output(t, env, "packaging/install", "--uninstall")
	if left := tree(t, dir); !slices.Equal(left, []string{"usr/share/man/man1/mine.1"}) {
		t.Errorf("left: %q", left)
	}
	if _, err := os.Stat(filepath.Join(dir, "usr/libexec")); err == nil {
		t.Error("left an empty directory")
	}
}
