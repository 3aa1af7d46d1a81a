package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vix/internal/boot"
	"vix/internal/logtest"
	"vix/internal/vm"
)

// These tests run real VMs. They need a machine that passes doctor's checks, except for the
// compositor: a socket is enough as long as no program opens a window. Package e2e tests
// windows.

// A rig is a user's environment, and the programs.
type rig struct {
	t   testing.TB
	dir string
	bin string // unique to this rig: a supervisor has no environment, and is identified by its program's path
	env []string
	// pressure is the file that vix-launcher reads as the host's memory pressure, in all rigs: a
	// test that writes it runs alone.
	pressure string
	// host is the network in which vix-launcher starts; nil: this machine's.
	host *hostNet
}

var build = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "vixbin")
	if err != nil {
		return "", err
	}
	// A test decides whether the rig's host is short of memory, not the machine's own state.
	pressure := "-X main.pressureFile=" + filepath.Join(dir, "pressure")
	cmd := exec.Command("go", "build", "-tags", "vixtest", "-ldflags", pressure, "-o", dir, "vix/cmd/vix-launcher", "vix/cmd/vix-waylandproxy", "vix/cmd/vix-guest")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return dir, fmt.Errorf("go build: %w: %s", err, out)
	}
	return dir, nil
})

func newRig(t testing.TB) *rig {
	t.Helper()
	if testing.Short() {
		t.Skip("lacks: time (-short)")
	}
	e := osEnv()
	for _, name := range []string{"go", qemuName} {
		if _, err := exec.LookPath(name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
	if _, err := e.look("virtiofsd", virtiofsdPlaces...); err != nil {
		t.Skip("lacks: virtiofsd")
	}
	if _, err := boot.FindKernel("/"); err != nil {
		t.Skipf("lacks: a kernel: %v", err)
	}
	built, err := build()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "vix") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	bin, err := linked(built)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(bin) })
	if err := os.Mkdir(filepath.Join(dir, "run"), 0o700); err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(dir, "compositor"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	}()
	r := &rig{t: t, dir: dir, bin: bin, pressure: filepath.Join(built, "pressure")}
	r.env = []string{
		"PATH=/usr/bin:/bin", "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir + "/run", "XDG_CACHE_HOME=" + cacheDir(),
		"WAYLAND_DISPLAY=" + dir + "/compositor", "LANG=C.UTF-8",
	}
	logtest.Watch(t, filepath.Join(dir, "run"))
	t.Cleanup(r.nothingLeft)
	return r
}

// linked makes a directory with links to the programs.
func linked(built string) (string, error) {
	bin, err := os.MkdirTemp("", "vixbin")
	for _, name := range []string{"vix-launcher", "vix-waylandproxy", "vix-guest"} {
		if err == nil {
			err = os.Link(filepath.Join(built, name), filepath.Join(bin, name))
		}
	}
	if err == nil {
		err = os.Symlink("vix-launcher", filepath.Join(bin, "vix"))
	}
	return bin, err
}

// All tests share cacheDir, so that a kernel is unpacked only once.
var cacheDir = sync.OnceValue(func() string {
	dir, _ := os.MkdirTemp("", "vixcache")
	return dir
})

// A launched is one run of vix-launcher.
type launched struct {
	*exec.Cmd
	t        testing.TB
	out, err lines
	done     chan struct{}
	patience time.Duration // limit of a wait for output; 0: two minutes
}

// lines is output that a test can wait for.
type lines struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	more chan struct{}
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf.Write(p)
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return len(p), nil
}

func (l *lines) text() (string, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.buf.String(), l.more
}

func (l *lines) String() string { s, _ := l.text(); return s }

func (r *rig) start(stdin io.Reader, args ...string) *launched {
	r.t.Helper()
	p := &launched{Cmd: exec.Command(filepath.Join(r.bin, "vix-launcher"), args...), t: r.t, done: make(chan struct{})}
	p.Env, p.Stdin, p.Stdout, p.Stderr = r.env, stdin, &p.out, &p.err
	start := p.Start
	if r.host != nil {
		start = func() (err error) { r.host.do(func() { err = p.Start() }); return err }
	}
	if err := start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		logtest.Save(r.t, args[0]+".txt", fmt.Sprintf("%q\n%s%s", args, p.out.String(), p.err.String()))
	})
	go func() {
		_ = p.Wait() // its ProcessState is used
		close(p.done)
	}()
	return p
}

// says waits until the program has printed want.
func (p *launched) says(want string) {
	p.t.Helper()
	p.saysOn(&p.out, want)
}

func (p *launched) saysOn(l *lines, want string) {
	p.t.Helper()
	patience := cmp.Or(p.patience, 2*time.Minute)
	limit := time.After(patience)
	for {
		text, more := l.text()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-more:
		case <-p.done:
			if !strings.Contains(l.String(), want) {
				p.t.Fatalf("ended without saying %q: %s", want, p.err.String())
			}
		case <-limit:
			p.t.Fatalf("does not say %q: %s %s", want, text, p.err.String())
		}
	}
}

func (p *launched) code() int {
	p.t.Helper()
	select {
	case <-p.done:
		return p.ProcessState.ExitCode()
	case <-time.After(2 * time.Minute):
		_ = p.Process.Kill()
		p.t.Fatalf("%v does not end: %s", p.Args, p.err.String())
		return -1
	}
}

// vix runs vix-launcher to its end, and expects a status.
func (r *rig) vix(code int, args ...string) *launched {
	r.t.Helper()
	p := r.start(nil, args...)
	if got := p.code(); got != code {
		r.t.Errorf("%v: status %d, want %d: %s", args, got, code, p.err.String())
	}
	return p
}

func (r *rig) list() []vm.State {
	r.t.Helper()
	p := r.vix(0, "list", "--json")
	var vms []vm.State
	if err := json.Unmarshal([]byte(p.out.String()), &vms); err != nil {
		r.t.Fatal(err)
	}
	return vms
}

// processes returns the processes with this rig in their command line.
func (r *rig) processes() []string {
	var found []string
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, path := range paths {
		line, _ := os.ReadFile(path)
		env, _ := os.ReadFile(filepath.Join(filepath.Dir(path), "environ"))
		if bytes.Contains(line, []byte(r.dir)) || bytes.Contains(line, []byte("supervise")) && bytes.HasPrefix(line, []byte(r.bin)) || bytes.Contains(env, []byte(r.dir)) {
			found = append(found, strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	return found
}

// nothingLeft checks that no process is left after two seconds, no file, and no mount.
func (r *rig) nothingLeft() {
	r.t.Helper()
	limit := time.Now().Add(2 * time.Second)
	for len(r.processes()) > 0 {
		if time.Now().After(limit) {
			r.t.Fatalf("left behind: %v", r.processes())
		}
		time.Sleep(10 * time.Millisecond) // the end of an orphan has no event
	}
	r.vix(0, "list")
	entries, _ := os.ReadDir(filepath.Join(r.dir, "run", "vix"))
	for _, e := range entries {
		if e.Name() != "lock" {
			r.t.Errorf("left behind: %s", e.Name())
		}
	}
	if mounts, _ := os.ReadFile("/proc/self/mountinfo"); bytes.Contains(mounts, []byte(r.dir)) {
		r.t.Error("a mount is left behind")
	}
}

// One VM is used in every way that run has.
func TestVM(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--timings", "--vm", "t", "sh", "-c", "echo up; read x; echo got $x; exit 7")
	first.says("up\n")
	for _, stage := range []string{"prepared", "qemu", "init", "root", "proxy", "ready"} {
		if !strings.Contains(first.err.String(), "stage "+stage) {
			t.Errorf("no stage %s: %s", stage, first.err.String())
		}
	}
	t.Log(first.err.String())

	t.Run("joins", func(t *testing.T) {
		p := r.vix(0, "run", "--vm", "t", "sh", "-c", "id -un; uname -n; echo to stderr >&2")
		if p.out.String() != "user\nt\n" || p.err.String() != "to stderr\n" {
			t.Errorf("%q, %q", p.out.String(), p.err.String())
		}
	})
	t.Run("statuses", func(t *testing.T) {
		for code, argv := range map[int][]string{
			0: {"true"}, 1: {"false"}, 42: {"sh", "-c", "exit 42"}, 137: {"sh", "-c", "kill -9 $$"},
			127: {"no-such-program"}, 126: {"/etc/passwd"},
		} {
			p := r.vix(code, append([]string{"run", "--vm", "t"}, argv...)...)
			if n := strings.Count(p.err.String(), "\n"); code >= 126 && code < 128 && n != 1 {
				t.Errorf("%v: %d lines: %s", argv, n, p.err.String())
			}
		}
	})
	t.Run("list", func(t *testing.T) {
		vms := r.list()
		if len(vms) != 1 || vms[0].Name != "t" || vms[0].State != "running" || vms[0].Programs[0].Argv[0] != "sh" {
			t.Fatalf("%+v", vms)
		}
		for _, pid := range []int{vms[0].PIDs.Supervisor, vms[0].PIDs.QEMU, vms[0].PIDs.Display, vms[0].PIDs.Virtiofsd} {
			if err := syscall.Kill(pid, 0); err != nil {
				t.Errorf("process %d: %v", pid, err)
			}
		}
	})
	t.Run("confinement", func(t *testing.T) { checkConfined(t, r, r.list()[0]) })
	t.Run("signals", func(t *testing.T) {
		p := r.start(nil, "run", "--vm", "t", "sh", "-c", "trap 'exit 9' INT; echo ready; while :; do sleep 0.1; done")
		p.says("ready\n")
		_ = p.Process.Signal(syscall.SIGINT)
		if c := p.code(); c != 9 {
			t.Errorf("trapped: %d", c)
		}
		p = r.start(nil, "run", "--vm", "t", "sh", "-c", "echo ready; exec sleep 1000")
		p.says("ready\n")
		_ = p.Process.Signal(syscall.SIGTERM)
		if c := p.code(); c != 143 {
			t.Errorf("not trapped: %d", c)
		}
	})
	t.Run("killed run hangs up", func(t *testing.T) {
		p := r.start(nil, "run", "--vm", "t", "sh", "-c", "trap 'echo gone >/tmp/hup; exit' HUP; echo ready; while :; do sleep 0.1; done")
		p.says("ready\n")
		_ = p.Process.Kill()
		r.vix(0, "run", "--vm", "t", "sh", "-c", "until [ -s /tmp/hup ]; do sleep 0.1; done")
	})
	t.Run("streams", func(t *testing.T) {
		in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<16)
		p := r.start(bytes.NewReader(in), "run", "--vm", "t", "cat")
		if p.code() != 0 || p.out.String() != string(in) {
			t.Errorf("cat gave back %d of %d bytes", len(p.out.String()), len(in))
		}
	})
	t.Run("reader goes first", func(t *testing.T) {
		sh := exec.Command("sh", "-c", `"$0" run --vm t yes | head -n 1`, filepath.Join(r.bin, "vix-launcher"))
		sh.Env = r.env
		out, err := sh.Output()
		if string(out) != "y\n" || err != nil {
			t.Errorf("%q, %v", out, err)
		}
	})
	t.Run("background", func(t *testing.T) {
		r.vix(0, "run", "--vm", "t", "--background", "sh", "-c", "echo from the background")
		logs := r.start(nil, "logs", "-f", "t")
		logs.says("[sh] from the background\n")
		_ = logs.Process.Signal(syscall.SIGINT)
		if c := logs.code(); c != 0 {
			t.Errorf("logs -f, interrupted: %d", c)
		}
	})
	fmt.Fprintln(keep, "something")
	keep.Close() // exec.Cmd waits until its stdin is closed
	if code := first.code(); code != 7 || !strings.HasSuffix(first.out.String(), "got something\n") {
		t.Errorf("status %d, %q", code, first.out.String())
	}
	r.nothingLeft()
}

// checkConfined inspects the processes of a running VM, by doctor and in /proc.
func checkConfined(t *testing.T, r *rig, state vm.State) {
	t.Helper()
	p := r.start(nil, "doctor", "--json")
	p.code() // 1: the socket does not belong to a compositor
	var report struct {
		Checks []check      `json:"checks"`
		VMs    []confinedVM `json:"vms"`
	}
	if err := json.Unmarshal([]byte(p.out.String()), &report); err != nil || len(report.VMs) != 1 {
		t.Fatalf("%v: %s", err, p.out.String())
	}
	i := slices.IndexFunc(report.Checks, func(c check) bool { return c.Name == "confinement" })
	everything := report.Checks[i].Status == "ok" // whether this machine has every measure
	seen := map[string]bool{}
	for _, p := range report.VMs[0].Processes {
		st := p.Status
		seen[p.Process] = true
		if !st.NoNewPrivs || st.Limits["Max core file size"] != "0" {
			t.Errorf("%s: %+v", p.Process, st)
		}
		if p.Process != "display" && p.Process != "qemu" {
			continue
		}
		if st.Seccomp != "filter" || strings.Trim(st.CapEff, "0") != "" || everything && (len(p.Weaker) > 0 || st.Namespaces["net"] != "own" || st.Namespaces["pid"] != "own") {
			t.Errorf("%s: %+v", p.Process, p)
		}
		checkThreads(t, p.Process, st.PID)
	}
	for _, name := range []string{"supervisor", "display", "qemu", "virtiofsd"} {
		if !seen[name] {
			t.Errorf("doctor does not show %s", name)
		}
	}
	if os.Getuid() == 0 && everything { // only root can see it
		if entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/root", state.PIDs.Display)); err != nil || len(entries) > 0 {
			t.Errorf("the display's root: %v, %v", entries, err)
		}
		for _, path := range []string{"home", "root", "run", "var"} {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", state.PIDs.QEMU, path)); err == nil {
				t.Errorf("QEMU sees /%s", path)
			}
		}
	}
}

// checkThreads checks that a measure holds for every thread.
func checkThreads(t *testing.T, name string, pid int) {
	t.Helper()
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if len(tasks) == 0 {
		t.Errorf("%s has no threads", name)
	}
	for _, path := range tasks {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		for _, want := range []string{"NoNewPrivs:\t1\n", "Seccomp:\t2\n", "CapEff:\t0000000000000000\n", "CapPrm:\t0000000000000000\n", "CapAmb:\t0000000000000000\n"} {
			if !bytes.Contains(b, []byte(want)) {
				t.Errorf("%s: %s has no %q", name, path, want)
			}
		}
	}
}

// Concurrent runs make one VM.
func TestVMRunsAtOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var runs []*launched
	for range 3 {
		runs = append(runs, r.start(nil, "run", "--vm", "t", "sh", "-c", "cat /proc/sys/kernel/random/boot_id; sleep 1"))
	}
	var boots []string
	for _, p := range runs {
		if p.code() != 0 {
			t.Error(p.err.String())
		}
		boots = append(boots, p.out.String())
	}
	if len(slices.Compact(boots)) != 1 {
		t.Errorf("boots %q", boots)
	}
}

// A stop returns when everything is gone, even while a guest boots.
func TestVMStop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, args := range [][]string{{"stop", "t"}, {"stop", "--force", "--all"}} {
		p := r.start(nil, "run", "--vm", "t", "sh", "-c", "echo up; exec sleep 1000")
		p.says("up\n")
		r.vix(0, args...)
		if vms := r.list(); len(vms) != 0 {
			t.Errorf("after %v: %+v", args, vms)
		}
		if c := p.code(); c != 143 && c != 125 {
			t.Errorf("run after %v: %d", args, c)
		}
		t.Logf("%v: run said %q", args, p.err.String())
	}
	p := r.start(nil, "run", "--timings", "--vm", "t", "true")
	p.saysOn(&p.err, "stage qemu")
	r.vix(0, "stop", "t")
	if c := p.code(); c != 125 || !strings.Contains(p.err.String(), "was stopped") {
		t.Errorf("stopped while starting: %d, %s", c, p.err.String())
	}
	r.vix(1, "stop", "t")
}

// A root that is a directory is shared unchanged: here one with a shell, the C library, and a
// file.
func TestVMDirectoryRoot(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tree := filepath.Join(r.dir, "tree")
	const libc = "/lib/x86_64-linux-gnu/libc.so.6"
	for _, path := range []string{"/bin/sh", "/lib64/ld-linux-x86-64.so.2", libc} {
		b, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			t.Skip("lacks: " + path)
		}
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(tree+path), 0o755), os.WriteFile(tree+path, b, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	conf := filepath.Join(r.dir, ".config", "vix")
	err := errors.Join(os.Mkdir(tree+"/etc", 0o755), os.WriteFile(tree+"/motto", []byte("as it is\n"), 0o644), os.Chmod(tree+"/motto", 0o666), os.MkdirAll(conf, 0o700),
		os.WriteFile(filepath.Join(conf, "config.toml"), []byte("[vm.t]\nroot = \""+tree+"\"\nmemory = \"256M\"\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	p := r.vix(0, "run", "--vm", "t", "sh", "-c", "read line </motto; echo $line; read _ kib _ </proc/meminfo; [ $kib -lt 262144 ] && echo small; echo mine >/motto; read line </motto; echo $line")
	if p.out.String() != "as it is\nsmall\nmine\n" {
		t.Errorf("%q %s", p.out.String(), p.err.String())
	}
	if b, err := os.ReadFile(tree + "/motto"); string(b) != "as it is\n" || err != nil {
		t.Errorf("the directory was written to: %q, %v", b, err)
	}
}
