package scripts

import (
	"bufio"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// The mirror comes from whichever form the machine's apt sources have.
func TestMirror(t *testing.T) {
	dir := t.TempDir()
	list := filepath.Join(dir, "mirrors.list")
	if err := os.WriteFile(list, []byte("# ours\nhttp://list.example/debian\tpriority:1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, file, text, want string }{
		{"one line", "sources.list", "deb-src http://src.example/debian bookworm main\ndeb http://one.example/debian/ bookworm main contrib\n", "http://one.example/debian"},
		{"options", "sources.list", " deb [arch=amd64 signed-by=/k] http://opt.example/pub/debian bookworm main\n", "http://opt.example/pub/debian"},
		{"other vendors", "sources.list.d/x.list", "deb http://other.example/apt stable main\ndeb http://sec.example/debian-security bookworm-security main\ndeb http://fine.example/debian bookworm main\n", "http://fine.example/debian"},
		{"deb822", "sources.list.d/x.sources", "# comment\nTypes: deb deb-src\n# URIs: http://no.example/debian\nURIs: http://a.example/debian-security http://b.example/debian\nSuites: bookworm\nComponents: main\n", "http://b.example/debian"},
		{"disabled", "sources.list.d/x.sources", "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: x\nComponents: main\n\nTypes: deb\nURIs: http://on.example/debian\nSuites: x\nComponents: main\n", "http://on.example/debian"},
		{"sources only", "sources.list.d/x.sources", "Types: deb-src\nURIs: http://src.example/debian\nSuites: x\nComponents: main\n", ""},
		{"mirror list", "sources.list.d/x.sources", "Types: deb\nURIs: mirror+file://" + list + "\nSuites: x\nComponents: main\n", "http://list.example/debian"},
		{"another system", "sources.list", "deb http://archive.example/ubuntu noble main\n", ""},
		{"none", "sources.list", "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			apt := t.TempDir()
			if err := os.Mkdir(filepath.Join(apt, "sources.list.d"), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(apt, c.file), []byte(c.text), 0o644); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command("./sysroot", "--mirror")
			cmd.Env = append(os.Environ(), "VIX_APT_DIR="+apt, "VIX_MIRROR=")
			out, err := cmd.Output()
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.TrimSpace(string(out)); got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// A machine on which nothing answers is told in one line, and keeps nothing half made.
func TestNoMirror(t *testing.T) {
	cache := t.TempDir()
	cmd := exec.Command("./sysroot")
	cmd.Env = append(os.Environ(), "VIX_APT_DIR="+t.TempDir(), "VIX_MIRROR=", "XDG_CACHE_HOME="+cache, "VIX_SYSROOT=")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Skip("this machine has all parts: no root is made")
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; !strings.Contains(last, "VIX_MIRROR") {
		t.Errorf("last line %q", last)
	}
	if left, err := filepath.Glob(filepath.Join(cache, "vix/sysroot-*")); err != nil || len(left) > 0 {
		t.Errorf("left %v (%v)", left, err)
	}
}

// outside skips a test of in-root where that would only exec.
func outside(t *testing.T) string {
	t.Helper()
	if os.Getenv("VIX_IN_ROOT") != "" {
		t.Skip("runs in the system root already")
	}
	out, err := exec.Command("./sysroot", "--path").Output()
	if err != nil {
		t.Skip("lacks: a system root; run scripts/sysroot")
	}
	root := strings.TrimSpace(string(out))
	if root == "/" {
		t.Skip("this machine has all parts: nothing is entered")
	}
	return root
}

func TestInRoot(t *testing.T) {
	root := outside(t)
	mark := filepath.Join(t.TempDir(), "mark")
	out, err := exec.Command("./in-root", "sh", "-c", `id -u; pwd; qemu-system-x86_64 --version | head -n 1
		touch /usr/x 2>/dev/null && echo writable; mkdir /mnt-point; : >"$1"; exit 7`, "sh", mark).Output()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.ExitCode() != 7 {
		t.Fatalf("%v: %s", err, out)
	}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(out), "\n")
	if len(lines) != 4 || lines[0] != strconv.Itoa(os.Getuid()) || lines[1] != wd || !strings.Contains(lines[2], "version 1") {
		t.Errorf("output %q", lines)
	}
	if _, err := os.Stat(mark); err != nil {
		t.Errorf("what it wrote in /tmp is not here: %v", err)
	}
	if _, err := os.Stat(filepath.Join(root, "mnt-point")); err == nil {
		t.Error("it wrote into the system root")
	}
}

// Whatever ends in-root, nothing that ran in it is left.
func TestInRootKilled(t *testing.T) {
	outside(t)
	cmd := exec.Command("./in-root", "sh", "-c", "sleep 1000 & setsid sleep 1000 & echo begun; wait")
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(pipe)
	if line, err := r.ReadString('\n'); line != "begun\n" {
		t.Fatal(line, err)
	}
	if err := cmd.Process.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	end := make(chan error, 1)
	go func() {
		_, err := r.ReadByte() // every process in it holds the pipe
		end <- err
	}()
	select {
	case err := <-end:
		if err == nil {
			t.Error("output after the end")
		}
	case <-time.After(5 * time.Second):
		t.Error("something that ran in it is left")
	}
	_ = cmd.Wait() // it was killed
}
