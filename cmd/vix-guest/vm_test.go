package main

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
	"vix/internal/boot"
	"vix/internal/rootfs"
)

// A vm is a real guest: QEMU, virtiofsd over this machine's own root, and the host's end of the
// agent channel. It has no GPU.
type vm struct {
	host    *agent.Host
	qemu    *exec.Cmd
	off     chan error // QEMU's end
	ran     chan error // the channel's
	conn    net.Conn   // to break the channel
	started time.Time
	console string
}

var testBoot = agent.Boot{
	Hostname: "testvm", User: agent.User{Name: "user", UID: 1000, GID: 1000},
	Env: []string{"VIX_TEST=boot"},
}

// startVM boots a guest and returns when its agent channel runs. The only share has the tag
// "root".
func startVM(t *testing.T, rootTag string) *vm {
	t.Helper()
	return startVMBy(t, rootTag, serialChannel)
}

// A channel is a transport for the agent's channel: QEMU's arguments for it, a word of the
// kernel's command line, and a function that returns the host's end once the guest runs.
type channel struct {
	args   []string
	word   string
	file   *os.File // QEMU's descriptor 3
	accept func() (net.Conn, error)
}

// serialChannel is a virtio-serial port on a socketpair.
func serialChannel(t *testing.T) channel {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "agent of qemu")
	conn, err := net.FileConn(ours)
	_ = ours.Close()
	return channel{
		args: []string{
			"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,fd=3",
			"-device", "virtserialport,chardev=agent,name=" + agent.PortName,
		},
		file: theirs, accept: func() (net.Conn, error) { return conn, err },
	}
}

// startVMBy is startVM with a choice of channel.
func startVMBy(t *testing.T, rootTag string, by func(*testing.T) channel) *vm {
	t.Helper()
	qemu, virtiofsd, files := needVM(t)
	dir := t.TempDir()
	console := filepath.Join(dir, "console")
	t.Cleanup(func() {
		if t.Failed() {
			b, _ := os.ReadFile(console)
			t.Logf("console:\n%s", b)
		}
	})
	fs := filepath.Join(dir, "fs.sock")
	serveView(t, virtiofsd, fs)

	ch := by(t)
	args := []string{
		"-nodefaults", "-no-user-config", "-no-reboot", "-display", "none",
		"-machine", "q35,memory-backend=mem,usb=off,sata=off,smbus=off,vmport=off,i8042=off",
		"-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off,fzrm=off,fsrs=off", "-smp", "2", "-m", "512M",
		"-object", "memory-backend-memfd,id=mem,size=512M,share=on",
		"-kernel", files.Kernel, "-initrd", files.Initrd,
		"-append", "console=ttyS0 panic=-1 quiet mitigations=off nokaslr no_timer_check tsc=reliable audit=0 cryptomgr.notests 8250.nr_uarts=1 vix.root=" + rootTag + ch.word,
		"-serial", "file:" + console,
		"-chardev", "socket,id=fs,path=" + fs, "-device", "vhost-user-fs-pci,chardev=fs,tag=root",
	}
	args = append(args, ch.args...)
	v := &vm{off: make(chan error, 1), ran: make(chan error, 1), console: console, started: time.Now()}
	v.qemu = command(qemu, args...)
	if ch.file != nil {
		v.qemu.ExtraFiles = []*os.File{ch.file}
	}
	v.qemu.Stderr = os.Stderr
	if err := v.qemu.Start(); err != nil {
		t.Fatal(err)
	}
	_ = ch.file.Close()
	go func() { v.off <- v.qemu.Wait() }()
	conn, err := ch.accept()
	if err != nil {
		_ = v.qemu.Process.Kill()
		t.Fatal(err)
	}
	v.conn = conn
	v.host = agent.NewHost(conn, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	go func() { v.ran <- v.host.Run(ctx) }()
	t.Cleanup(func() {
		_ = v.qemu.Process.Kill()
		cancel()
		<-v.host.Done()
	})
	if err := v.host.Boot(testBoot); err != nil {
		t.Fatal(err)
	}
	return v
}

// ready waits until the guest can start programs, and logs the stages.
func (v *vm) ready(t *testing.T) *vm {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	if err := v.host.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	t.Logf("ready %.2f s after qemu's start", time.Since(v.started).Seconds())
	for {
		select {
		case s := <-v.host.Stages():
			t.Logf("stage %s %s: guest uptime %.2f s", s.Name, s.State, float64(s.Uptime)/1000)
		default:
			return v
		}
	}
}

// serveView starts virtiofsd on the view of this machine's root, as the launcher does for
// root "host". The test binary is the child that becomes virtiofsd.
func serveView(t *testing.T, virtiofsd, socket string) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"--socket-path", socket, "--shared-dir", dir, "--readonly", "--no-announce-submounts",
		"--cache", "always", "--sandbox", "namespace", "--log-level", "error"}
	if os.Getuid() != 0 {
		args = append(args, "--translate-uid", "host:65534:0:1", "--translate-gid", "host:65534:0:1")
	}
	c := exec.Command("/proc/self/exe", append([]string{dir, virtiofsd}, args...)...)
	c.Env = append(os.Environ(), viewEnv+"=1")
	c.Stderr = os.Stderr
	c.SysProcAttr = rootfs.ViewAttr(os.Getuid(), os.Getgid())
	c.SysProcAttr.Pdeathsig = syscall.SIGKILL
	start(t, c)
	waitFor(t, socket)
}

const viewEnv = "VIX_GUEST_TEST_VIEW"

// command makes a child that cannot outlive the test binary.
func command(name string, args ...string) *exec.Cmd {
	c := exec.Command(name, args...)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return c
}

func start(t *testing.T, c *exec.Cmd) {
	t.Helper()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = c.Process.Kill()
		_ = c.Wait()
	})
}

// waitFor waits for a socket that another process makes.
func waitFor(t *testing.T, path string) {
	t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if _, err := unix.InotifyAddWatch(fd, filepath.Dir(path), unix.IN_CREATE); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4096)
	for {
		if _, err := os.Stat(path); err == nil {
			return
		}
		if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 10_000); n == 0 && err == nil {
			t.Fatalf("%s did not appear", path)
		}
		_, _ = unix.Read(fd, buf)
	}
}

var prepared struct {
	once  sync.Once
	why   string // reason to skip the test
	err   error
	files boot.Files
}

// needVM skips the test, with the reason, if this machine cannot run a VM.
func needVM(t *testing.T) (qemu, virtiofsd string, files boot.Files) {
	t.Helper()
	if testing.Short() {
		t.Skip("boots a VM: not with -short")
	}
	qemu, err := exec.LookPath("qemu-system-x86_64")
	if err != nil {
		t.Skip("lacks: qemu-system-x86_64")
	}
	out, err := exec.Command(qemu, "--version").Output()
	if m := regexp.MustCompile(`version (\d+)`).FindSubmatch(out); err != nil || m == nil {
		t.Skipf("lacks: qemu that works: %s --version: %v", qemu, err)
	} else if major, _ := strconv.Atoi(string(m[1])); major < 11 {
		t.Skipf("lacks: QEMU 11 (this is %d)", major)
	}
	for _, p := range []string{"/usr/libexec/virtiofsd", "/usr/lib/virtiofsd", "/usr/lib/qemu/virtiofsd"} {
		if _, err := os.Stat(p); err == nil {
			virtiofsd = p
		}
	}
	if virtiofsd == "" {
		t.Skip("lacks: virtiofsd")
	}
	kernel, err := boot.FindKernel("/")
	if err != nil {
		t.Skipf("lacks: a kernel: %v", err)
	}
	prepared.once.Do(func() { prepared.files, prepared.err = prepare(kernel) })
	if prepared.err != nil {
		t.Fatal(prepared.err)
	}
	return qemu, virtiofsd, prepared.files
}

var scratch string // for files that all tests share

func TestMain(m *testing.M) {
	if os.Getenv(viewEnv) != "" {
		err := rootfs.MountView("/", os.Args[1])
		if err == nil {
			err = unix.Exec(os.Args[2], os.Args[2:], os.Environ())
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	dir, err := os.MkdirTemp("", "vix-guest-test")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	scratch = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

func prepare(kernel boot.Kernel) (boot.Files, error) {
	guest := filepath.Join(scratch, "vix-guest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", guest, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return boot.Files{}, fmt.Errorf("build: %w\n%s", err, out)
	}
	return boot.Prepare(context.Background(), boot.Config{Kernel: kernel, Guest: guest, CacheDir: filepath.Join(scratch, "cache"), Vsock: true})
}

// output runs a program to its end.
func (v *vm) output(t *testing.T, stdin string, s agent.Spawn) (out, errOut string, st agent.Status) {
	t.Helper()
	p, err := v.host.Spawn(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	var wg sync.WaitGroup
	wg.Go(func() { _, _ = stdout.ReadFrom(p.Stdout) })
	wg.Go(func() { _, _ = stderr.ReadFrom(p.Stderr) })
	wg.Go(func() {
		_, _ = strings.NewReader(stdin).WriteTo(p.Stdin)
		_ = p.Stdin.Close()
	})
	st, err = p.Wait()
	if err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	return stdout.String(), stderr.String(), st
}

func sh(script string, args ...string) agent.Spawn {
	return agent.Spawn{Argv: append([]string{"sh", "-c", script, "sh"}, args...)}
}
