package packaging

import (
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func sum(t *testing.T, path string) string {
	t.Helper()
	s := sha256.Sum256([]byte(read(t, path)))
	return hex.EncodeToString(s[:])
}

// deb builds the package; env adds to the environment.
func deb(t *testing.T, env ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("builds everything")
	}
	lacks(t, "make", "go")
	if err := built(); err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(output(t, env, "packaging/deb/build", t.TempDir()))
}

// The same sources give the same package, which holds what is installed.
func TestDebIsReproducible(t *testing.T) {
	a, b := deb(t, "TZ=UTC"), deb(t, "TZ=Asia/Tokyo", "TMPDIR="+t.TempDir(), "LC_ALL=C.UTF-8")
	if sum(t, a) != sum(t, b) {
		t.Error("two builds differ")
	}
	lacks(t, "dpkg-deb")
	dir := t.TempDir()
	output(t, nil, "dpkg-deb", "--raw-extract", a, dir)
	want := strings.Fields(output(t, []string{"PREFIX=/usr", "ZSHDIR=share/zsh/vendor-completions"}, "packaging/install", "--list"))
	for i, path := range want {
		if strings.HasPrefix(path, "share/man/") {
			want[i] += ".gz"
		}
		if path == "share/doc/vix/CHANGELOG.md" {
			want[i] = "share/doc/vix/changelog.gz"
		}
	}
	want = append(want, "share/doc/vix/changelog.Debian.gz", "share/doc/vix/copyright", "share/lintian/overrides/vix")
	slices.Sort(want)
	if got := tree(t, filepath.Join(dir, "usr")); !slices.Equal(got, want) {
		t.Errorf("holds %q\nwant  %q", got, want)
	}
	output(t, nil, "sh", "-c", `cd "$1" && md5sum --quiet -c DEBIAN/md5sums`, "sh", dir)
	if control := read(t, filepath.Join(dir, "DEBIAN/control")); strings.Contains(control, "@") != strings.Contains(control, "maintainers@") || strings.Contains(control, " @") {
		t.Errorf("a placeholder is left: %s", control)
	}
}

// The package is installed into a throw-away copy of the system root (an overlay:
// nothing is written into the root itself), a VM shows the program there, and
// nothing is left when it is removed.
func TestDebInstalled(t *testing.T) {
	path := deb(t)
	root := strings.TrimSpace(output(t, nil, "scripts/sysroot", "--path"))
	if _, err := os.Stat(filepath.Join(root, "var/lib/dpkg/status")); root == "/" || err != nil {
		t.Skip("this machine has all parts itself: there is no system root to copy")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	user := []string{}
	if os.Getuid() != 0 {
		user = append(user, "--map-root-user")
	}
	cmd := exec.Command("unshare", slices.Concat(user, []string{"--mount", "--propagation", "private", "bash", "packaging/testdata/installed.sh", root, path, t.TempDir(), self})...)
	cmd.Dir = project(t)
	cmd.Env = append(os.Environ(), "VIX_IN_ROOT=")
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"installed", "doctor: done", "man: done", "--- PASS: TestInside", "left: nothing"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q was not said", want)
		}
	}
}
