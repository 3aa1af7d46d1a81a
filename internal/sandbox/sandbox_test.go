package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// eachWay runs a test with namespaces of the probe's own, if the machine allows them, and
// without: each measure has to hold by itself.
func eachWay(t *testing.T, f func(t *testing.T, own bool)) {
	t.Run("shared namespaces", func(t *testing.T) { f(t, false) })
	t.Run("own namespaces", func(t *testing.T) {
		if err := canOwn(); err != nil {
			t.Skipf("this machine forbids namespaces: %v", err)
		}
		f(t, true)
	})
}

// sibling is a process of the same user that a probe may try to harm.
func sibling(t *testing.T) string {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(unix.SIGKILL); err != nil {
			t.Errorf("the sibling was harmed: %v", err)
		}
		var ee *exec.ExitError
		if err := cmd.Wait(); errors.As(err, &ee) && ee.Error() != "signal: killed" {
			t.Errorf("the sibling was harmed: %v", err)
		}
	})
	return fmt.Sprint(cmd.Process.Pid)
}

// The display process is refused each of these, in the expected way.
func TestDisplayIsRefused(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	eachWay(t, func(t *testing.T, own bool) {
		pid := sibling(t)
		for _, tt := range []struct {
			want string
			what []string
		}{
			{"EACCES", []string{"read", "/etc/passwd"}},
			{"EACCES", []string{"read", "/proc/self/maps"}},
			{"EACCES", []string{"write", filepath.Join(dir, "new")}},
			{"killed", []string{"exec", "/bin/true"}},
			{"killed", []string{"fork"}},
			{"killed", []string{"connect", filepath.Join(dir, "s")}},
			{"killed", []string{"connect", "@abstract"}},
			{"killed", []string{"tcp", "127.0.0.1:9"}},
			{"killed", []string{"ptrace", pid}},
			{"killed", []string{"kill", pid}},
			{"killed", []string{"tgkill", pid}},
			{"killed", []string{"readv", pid}},
			{"killed", []string{"mmap"}},
			{"killed", []string{"mprotect"}},
			{"killed", []string{"unshare"}},
			{"killed", []string{"mount"}},
			{"killed", []string{"call", fmt.Sprint(unix.SYS_IO_URING_SETUP)}},
			{"killed", []string{"call", fmt.Sprint(unix.SYS_BPF)}},
			{"killed", []string{"call", fmt.Sprint(unix.SYS_USERFAULTFD)}},
			{"EPERM", []string{"dumpable"}},
			{"EPERM", []string{"limit"}},
			{"trapped", []string{"owner"}},
			{"trapped", []string{"call", fmt.Sprint(unix.SYS_ACCT)}},
			{"EMFILE", []string{"files"}},
		} {
			if r := runProbe(t, own, append([]string{"display"}, tt.what...)...); r.word != tt.want {
				t.Errorf("%v: %s, want %s\n%s", tt.what, r.word, tt.want, r.stderr)
			}
		}
		// The x32 table of calls is refused, whatever its entry.
		if x32 {
			if r := runProbe(t, own, "display", "call", fmt.Sprint(x32Bit|1)); r.word != "killed" {
				t.Errorf("x32: %s", r.word)
			}
		}
	})
}

// TestMenuIsRefused checks a process that may read files, and nothing else.
func TestMenuIsRefused(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	pid := sibling(t)
	there := filepath.Join(dir, "there")
	if err := os.WriteFile(there, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		want string
		what []string
	}{
		{"done", []string{"read", "/etc/passwd"}},
		{"done", []string{"mmap"}},
		{"EACCES", []string{"write", filepath.Join(dir, "new")}},
		{"EACCES", []string{"write", there}},
		{"killed", []string{"exec", "/bin/true"}},
		{"killed", []string{"fork"}},
		{"killed", []string{"connect", filepath.Join(dir, "s")}},
		{"killed", []string{"connect", "@abstract"}},
		{"killed", []string{"tcp", "127.0.0.1:9"}},
		{"killed", []string{"ptrace", pid}},
		{"killed", []string{"kill", pid}},
		{"killed", []string{"readv", pid}},
		{"killed", []string{"unshare"}},
		{"killed", []string{"call", fmt.Sprint(unix.SYS_IO_URING_SETUP)}},
	} {
		if r := runProbe(t, false, append([]string{"menu"}, tt.what...)...); r.word != tt.want {
			t.Errorf("%v: %s, want %s\n%s", tt.what, r.word, tt.want, r.stderr)
		}
	}
}

// The error for a call that is not on the list says how to extend the list.
func TestTrapTellsTheCall(t *testing.T) {
	r := runProbe(t, false, "display", "call", fmt.Sprint(unix.SYS_ACCT))
	for _, want := range []string{"SIGSYS: bad system call", "goroutine 1", "sandbox.try", fmt.Sprintf("%#x", unix.SYS_ACCT)} {
		if !strings.Contains(r.stderr, want) {
			t.Errorf("the crash does not say %q:\n%s", want, r.stderr)
		}
	}
}

func TestDisplayWorks(t *testing.T) {
	eachWay(t, func(t *testing.T, own bool) {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		near, far := os.NewFile(uintptr(fds[0]), "near"), os.NewFile(uintptr(fds[1]), "far")
		c, err := net.FileConn(near)
		near.Close()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { // an echo
			b, oob := make([]byte, 8), make([]byte, unix.CmsgSpace(4))
			u := c.(*net.UnixConn)
			n, on, _, _, err := u.ReadMsgUnix(b, oob)
			if err == nil {
				_, _, _ = u.WriteMsgUnix(b[:n], oob[:on], nil)
				u.Close()
			}
		}()
		cmd := probeCommand(t, own, "display", "work")
		cmd.ExtraFiles = []*os.File{far}
		out, err := cmd.CombinedOutput()
		far.Close()
		if err != nil || !strings.Contains(string(out), "\ndone\n") {
			t.Errorf("%v: %s", err, out)
		}
		r := runProbe(t, own, "display", "panic")
		if r.word != "exit status 2" || !strings.Contains(r.stderr, "panic: as told") || !strings.Contains(r.stderr, "sandbox.try") {
			t.Errorf("a panic tells %s: %s", r.word, r.stderr)
		}
		r = runProbe(t, own, "display", "memory")
		if r.word != "exit status 2" || !strings.Contains(r.stderr, "out of memory") {
			t.Errorf("1 GiB of heap: %s: %.200s", r.word, r.stderr)
		}
	})
}

// The other measures must hold without the list of calls.
func TestWithoutSeccomp(t *testing.T) {
	dir := t.TempDir()
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	abstract, err := net.Listen("unix", "@vix-sandbox-test")
	if err != nil {
		t.Fatal(err)
	}
	defer abstract.Close()
	eachWay(t, func(t *testing.T, own bool) {
		pid := sibling(t)
		for _, tt := range []struct {
			shared, own string // results
			what        []string
		}{
			{"EACCES", "ENOENT", []string{"read", "/etc/passwd"}},
			{"EACCES", "EROFS", []string{"write", "/new"}},
			{"EACCES", "ENOENT", []string{"exec", "/bin/true"}},
			{"EPERM", "ECONNREFUSED", []string{"connect", "@vix-sandbox-test"}},
			{"EACCES", "EACCES", []string{"tcp", "127.0.0.1:9"}},
			{"EPERM", "ESRCH", []string{"kill", pid}},
			{"EPERM", "ESRCH", []string{"ptrace", pid}},
			{"EPERM", "EPERM", []string{"mount"}},
		} {
			want := tt.shared
			if own {
				want = tt.own
			}
			r := runProbe(t, own, append([]string{"nocalls"}, tt.what...)...)
			if r.word != want && (r.weaker == "" || own) {
				t.Errorf("%v: %s, want %s (%s)", tt.what, r.word, want, r.weaker)
			}
		}
		if own {
			if r := runProbe(t, own, "nocalls", "connect", filepath.Join(dir, "s")); r.word != "ENOENT" {
				t.Errorf("a socket by its path: %s", r.word)
			}
		}
	})
}

// A program started by Exec has its own files, and no others.
func TestExec(t *testing.T) {
	bin, err := probeBinary()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	yes, no := filepath.Join(dir, "yes"), filepath.Join(dir, "no")
	for _, f := range []string{yes, no} {
		if err := os.WriteFile(f, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	files, err := json.Marshal([]File{{Path: "/etc"}, {Path: bin, Exec: true}, {Path: yes}, {Path: "/dev/null", Write: true}, {Path: filepath.Join(dir, "missing")}})
	if err != nil {
		t.Fatal(err)
	}
	eachWay(t, func(t *testing.T, own bool) {
		pid := sibling(t)
		gone := "EACCES"
		if own {
			gone = "ENOENT"
		}
		for _, tt := range []struct {
			want string
			what []string
		}{
			{"done", []string{"read", yes}},
			{"done", []string{"write", "/dev/null"}},
			{"done", []string{"read", "/etc/passwd"}},
			{gone, []string{"read", no}},
			{gone, []string{"exec", "/bin/true"}},
			{"EACCES", []string{"exec", "/etc/passwd"}},
			{map[bool]string{false: "EACCES", true: "EROFS"}[own], []string{"listen", filepath.Join(dir, "s2")}},
			{map[bool]string{false: "EACCES", true: "EROFS"}[own], []string{"write", filepath.Join(dir, "new")}},
			{map[bool]string{false: "EACCES", true: "EROFS"}[own], []string{"write", yes}},
			{map[bool]string{false: "EPERM", true: "ESRCH"}[own], []string{"kill", pid}},
			{"EACCES", []string{"tcp", "127.0.0.1:9"}},
			{"EPERM", []string{"mount"}},
		} {
			r := runProbe(t, own, append([]string{"exec", string(files)}, tt.what...)...)
			if r.word != tt.want && (r.weaker == "" || own) {
				t.Errorf("%v: %s, want %s (%s) %s", tt.what, r.word, tt.want, r.weaker, r.stderr)
			}
		}
		if own {
			if r := runProbe(t, own, "exec", string(files), "connect", filepath.Join(dir, "s")); r.word != "ENOENT" {
				t.Errorf("a socket by its path: %s", r.word)
			}
			// Every mount is nosuid (2); all except a listed device are nodev (4).
			for path, want := range map[string]string{"/etc": "7", bin: "7", yes: "7", "/dev/null": "11", "/": "15"} {
				if r := runProbe(t, own, "exec", string(files), "mount options", path); r.word != "error: "+want {
					t.Errorf("%s: mounted with %s, want %s", path, r.word, want)
				}
			}
		}
	})
}

// The kernel's view of a confined process is as doctor shows it.
func TestStatus(t *testing.T) {
	eachWay(t, func(t *testing.T, own bool) {
		cmd := probeCommand(t, own, "display", "wait")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		line := make([]byte, 256)
		n, err := out.Read(line) // the process is confined once it has written
		if err != nil {
			t.Fatal(err)
		}
		s, err := ReadStatus(os.DirFS("/proc"), cmd.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		const none = "0000000000000000"
		if !s.NoNewPrivs || s.Seccomp != "filter" || s.CapEff != none || s.Limits["Max core file size"] != "0" || s.Limits["Max open files"] != "512" {
			t.Errorf("%+v", s)
		}
		if own && (s.Namespaces["net"] != "own" || s.Namespaces["pid"] != "own") || !own && s.Namespaces["pid"] != "shared" {
			t.Errorf("%+v", s.Namespaces)
		}
		if (own || os.Getuid() == 0) && s.CapBnd != none {
			t.Errorf("bounding set %s", s.CapBnd)
		}
		if weaker := string(line[:n]); own && weaker != "weaker: \n" {
			t.Errorf("on this machine: %s", weaker)
		}
		in.Close()
		_, _ = io.Copy(io.Discard, out)
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	})
}
