package supervise

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/boot"
	"vix/internal/proc"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// The test binary doubles as every process of a VM, chosen by the name it is
// called by (a symbolic link): the deaths and the bookkeeping of processes are
// tested with real ones, in milliseconds. That real VMs behave alike is tested
// in cmd/vix-launcher.
func TestMain(m *testing.M) {
	// Under nohup SIGHUP is ignored, and programs inherit that; one that is caught is not.
	signal.Notify(make(chan os.Signal, 1), unix.SIGHUP)
	real := prepareBoot
	prepareBoot = func(ctx context.Context, l vm.Launch, vsock bool, progress func(string)) (boot.Files, error) {
		if filepath.Base(l.Parts.System) == "test" {
			return boot.Files{Kernel: "vmlinux", Initrd: "initrd"}, nil
		}
		return real(ctx, l, vsock, progress)
	}
	watchClock = func(ctx context.Context, jumped func()) error {
		woken := make(chan os.Signal, 1)
		signal.Notify(woken, unix.SIGUSR1)
		for {
			select {
			case <-woken:
				jumped()
			case <-ctx.Done():
				return nil
			}
		}
	}
	findDrivers = func(vm.Launch, []string) ([]boot.Driver, error) { return nil, nil } // the fake guest has no kernel
	fakes := map[string]func() error{
		"vix-launcher": fakeLauncher, "qemu": fakeQEMU, "virtiofsd": fakeVirtiofsd, "vix-waylandproxy": fakeDisplay,
	}
	fake, ok := fakes[filepath.Base(os.Args[0])]
	if !ok {
		os.Exit(m.Run())
	}
	err := fake()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fake:", err)
		syscall.Exit(1)
	}
	syscall.Exit(0) // os.Exit lingers for a second under the race detector
}

// fakeLauncher is the real supervisor, but for the kernel.
func fakeLauncher() error {
	switch os.Args[1] {
	case "supervise":
		if behave("vix-launcher") == "crowded" {
			fakeCrowded()
		}
		if behave("vix-launcher") == "panic" {
			fmt.Fprintln(os.Stderr, "panic: as told\n\ngoroutine 1 [running]:")
			syscall.Exit(2)
		}
		if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
			return err
		}
		return Run(context.Background(), os.Stdin, os.NewFile(3, "lock"), os.NewFile(4, "listener"), Desktop{Tell: fakeTell})
	case "confine":
		return fakeConfine()
	}
	return errors.New("unknown verb")
}

// fakeTell shows a notification by a file beside the fakes.
func fakeTell(_ context.Context, _ vm.Launch, summary, text string) error {
	f, err := os.OpenFile(filepath.Join(filepath.Dir(os.Args[0]), "told"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprintf(f, "%s\n%s\n\n", summary, text)
	return err
}

// fakeConfine says what the real one would, and becomes the program unconfined.
func fakeConfine() error {
	fd, err := strconv.Atoi(os.Args[len(os.Args)-1])
	if err != nil {
		return err
	}
	f := os.NewFile(uintptr(fd), "specification")
	spec, err := sandbox.ReadSpec(f)
	if err != nil {
		return err
	}
	fmt.Fprintln(f, `{"measures":["as told"],"weaker":["nothing\u001b[31m"]}`)
	f.Close()
	return syscall.Exec(spec.Argv[0], spec.Argv, nil)
}

// behave makes a fake fail as the test asked for, by a file beside it.
func behave(name string) string {
	b, _ := os.ReadFile(filepath.Join(filepath.Dir(os.Args[0]), name+".do"))
	return string(b)
}

func fakeVirtiofsd() error {
	if behave("virtiofsd") == "fail" {
		return errors.New("no such share")
	}
	ln, err := net.FileListener(os.NewFile(3, "listener"))
	if err != nil {
		return err
	}
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	_, _ = io.Copy(conn, conn)
	return nil
}

// fakeCrowded ends as Go's runtime does where the kernel makes no more threads: root, who
// may run the tests, has no limit of processes.
func fakeCrowded() {
	fmt.Fprintln(os.Stderr, "runtime: failed to create new OS thread (have 5 already; errno=11)\nruntime: may need to increase max user processes (ulimit -u)\nfatal error: newosproc\n\nruntime stack:\n\ngoroutine 1 [running]:\n\tproc.go:283 +0x7c")
	syscall.Exit(2)
}

func fakeDisplay() error {
	fmt.Fprintln(os.NewFile(4, "events"), `{"event":"ready"}`)
	fmt.Fprintln(os.NewFile(4, "events"), `{"event":"window","id":1,"title":"[t] x\u001b[31m","app_id":"vix.t.x"}`)
	fmt.Fprintln(os.Stderr, "the display speaks")
	switch behave("vix-waylandproxy") {
	case "fail":
		return errors.New("no compositor")
	case "crowded":
		fakeCrowded()
	case "forbidden": // what the kernel kills for
		sandbox.Confine(sandbox.Profile{Calls: sandbox.DisplayCalls(false, false)})
		return syscall.Exec("/bin/true", []string{"true"}, nil)
	case "unlisted": // what ends in a crash that names the call
		sandbox.Confine(sandbox.Profile{Calls: sandbox.DisplayCalls(false, false)})
		return syscall.Acct("")
	}
	go fakeTrace(os.NewFile(5, "control"))
	vhost := os.NewFile(3, "vhost")
	_, _ = io.Copy(struct{ io.Writer }{vhost}, vhost)
	return nil
}

// fakeTrace answers each request of the control channel with what it was.
func fakeTrace(f *os.File) {
	c, err := net.FileConn(f)
	if err != nil {
		return
	}
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	if n, err := c.Read(buf); err != nil || !strings.HasPrefix(string(buf[:n]), `{"request":"policy","policy":{`) {
		fmt.Fprintln(os.Stderr, "fake: no policy comes first")
		return
	}
	for {
		n, on, _, _, err := c.(*net.UnixConn).ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		files, err := proc.ParseFiles(oob[:on])
		if err != nil || len(files) != 1 {
			return
		}
		fmt.Fprintf(files[0], "%s\n", buf[:n])
		files[0].Close()
	}
}

// chardevFile is the descriptor behind a character device of the command line.
func chardevFile(id string) *os.File {
	for _, arg := range os.Args {
		if fd, ok := strings.CutPrefix(arg, "socket,id="+id+",fd="); ok {
			n, _ := strconv.Atoi(fd)
			return os.NewFile(uintptr(n), id)
		}
	}
	return nil
}

func fakeQEMU() error {
	do := behave("qemu")
	if do == "refuse" {
		return errors.New("qemu-system-x86_64: -device vhost-user-test-device-pci: no such device")
	}
	os.Setenv("PATH", "/usr/bin:/bin")
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		return err
	}
	go fakeQMP(os.NewFile(3, "qmp"), do)
	// As QEMU does, wait for both back ends to answer.
	for _, chardev := range []string{"display", "root"} {
		f := chardevFile(chardev)
		defer f.Close() // and not when it is collected: that ends the back end
		_, err := f.Write([]byte{1})
		if err == nil {
			_, err = f.Read(make([]byte, 1))
		}
		if err != nil {
			return fmt.Errorf("vhost-user back end: %w", err)
		}
	}
	fmt.Println("console speaks \x1b[31mred\x07")
	switch do {
	case "panic":
		fmt.Println("Kernel panic - not syncing: VFS")
		return nil
	case "hang":
		select {}
	case "garbage":
		_, _ = chardevFile("agent").Write([]byte{0xff, 1, 0, 0, 0, 0})
		select {}
	}
	booted := make(chan struct{})
	g := agent.NewGuest(chardevFile("agent"), agent.GuestConfig{
		Log: slog.New(slog.DiscardHandler), Kernel: "fake",
		Boot: func(m agent.Boot) {
			if len(m.Search) > 0 {
				fmt.Println("search list:", m.Search)
			}
			close(booted)
		},
		Start: fakeSpawn,
		Clock: func(ns int64) { fmt.Println("clock set to", time.Unix(0, ns).UTC().Year()) },
	})
	go func() {
		<-booted // hello has been said before
		for _, stage := range []string{"init", "root", "proxy"} {
			g.Stage(stage, "", time.Second)
		}
		if do == "noproxy" {
			g.Fail("vix-waylandproxy ended: signal killed")
			select {} // to switch itself off takes a guest for ever
		}
		g.Ready(2 * time.Second)
		if script := behave("names"); script != "" {
			go fakeNames(g, script)
		}
		if do == "nowindows" {
			g.WindowLoss("signal \x1b[31mkilled", 3, 2*time.Second)
		}
		if do == "lostproxy" {
			g.Fail("vix-waylandproxy ended: signal killed")
		}
	}()
	err := g.Run(context.Background())
	if do == "stubborn" {
		select {} // it does not switch off
	}
	return err
}

// fakeNames calls for names, and has a script ask, again and again.
func fakeNames(g *agent.Guest, script string) {
	for failure := ""; ; failure = "the script \x1b[2J has ended" {
		conn, err := g.Call(context.Background(), agent.Call{Names: &agent.NamesCall{Failure: failure}})
		if err != nil {
			fmt.Println("names:", err)
			return
		}
		cmd := exec.Command("sh", "-c", script)
		answers, _ := cmd.StdinPipe()
		cmd.Stdout = conn
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = io.Copy(answers, conn)
			_ = answers.Close()
			_, _ = io.Copy(io.Discard, conn)
		}()
		_ = cmd.Run()
		_ = conn.CloseWrite()
		<-ended // so that it is over before the next
		_ = conn.Close()
	}
}

func fakeQMP(f *os.File, do string) {
	c, err := net.FileConn(f)
	if err != nil {
		return
	}
	conn := &fdReader{UnixConn: c.(*net.UnixConn)}
	fmt.Fprintln(conn, `{"QMP": {"version": {"qemu": {"micro": 0, "minor": 1, "major": 11}}, "capabilities": []}}`)
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		fmt.Fprintln(conn, `{"event": "NOISE", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}`)
		if do == "nodevice" && strings.Contains(lines.Text(), "device_add") {
			fmt.Fprintln(conn, `{"error": {"class": "GenericError", "desc": "no such bus"}}`)
			continue
		}
		switch {
		case do == "stops" && strings.Contains(lines.Text(), "query-balloon"):
			fmt.Fprintln(os.Stderr, "KVM internal error. Suberror: 1\nextra data[0]: 0x0\nRAX=0 RBX=0\nRIP=0\nCode=00")
			fmt.Fprintln(conn, `{"event": "STOP", "data": {}, "timestamp": {"seconds": 1, "microseconds": 2}}`)
		case strings.Contains(lines.Text(), "query-status"):
			fmt.Fprintln(conn, `{"return": {"status": "internal-error", "running": false}}`)
			continue
		}
		fmt.Fprintln(conn, `{"return": {}}`)
		var c struct {
			Execute   string
			Arguments struct{ ID string }
		}
		if json.Unmarshal(lines.Bytes(), &c) == nil && c.Execute == "device_del" && do != "clings" {
			fmt.Fprintf(conn, `{"event": "DEVICE_DELETED", "data": {"device": %q}, "timestamp": {"seconds": 1, "microseconds": 2}}`+"\n", c.Arguments.ID)
		}
		if c.Execute == "remove-fd" {
			proc.CloseFiles(conn.files)
			conn.files = nil
		}
		if strings.Contains(lines.Text(), "quit") && do != "stubborn" {
			syscall.Exit(0)
		}
	}
}

// An fdReader keeps the descriptors that come beside what it reads.
type fdReader struct {
	*net.UnixConn
	files []*os.File
}

func (r *fdReader) Read(b []byte) (int, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := r.ReadMsgUnix(b, oob)
	if files, err := proc.ParseFiles(oob[:on]); err == nil {
		r.files = append(r.files, files...)
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// fakeSpawn runs a program of this machine.
func fakeSpawn(_ context.Context, s agent.Spawn) (*agent.Program, error) {
	if s.Kind == agent.KindRequest { // to mount, which "true" does as well
		s.Argv = []string{"sh", "-c", "true " + strings.Join(s.Request.Words(), " ") + ";" + behave("mounter")}
	}
	cmd := exec.Command(s.Argv[0], s.Argv[1:]...)
	in, _ := cmd.StdinPipe()
	outR, outW, _ := os.Pipe()
	errR, errW, _ := os.Pipe()
	cmd.Stdout, cmd.Stderr = outW, errW
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err := cmd.Start()
	outW.Close()
	errW.Close()
	if err != nil {
		return nil, &agent.SpawnError{Program: s.Argv[0], Code: 127, Text: "not found"}
	}
	return &agent.Program{
		PID: cmd.Process.Pid, Stdin: in, Stdout: outR, Stderr: errR,
		Signal: func(sig syscall.Signal) error { return syscall.Kill(-cmd.Process.Pid, sig) },
		Wait: func() agent.Status {
			st, _ := cmd.Process.Wait()
			ws := st.Sys().(syscall.WaitStatus)
			if ws.Signaled() {
				return agent.Status{Signal: ws.Signal()}
			}
			return agent.Status{Code: ws.ExitStatus()}
		},
	}, nil
}

// A bench is a runtime directory and the fakes.
type bench struct {
	t   *testing.T
	dir string // XDG_RUNTIME_DIR
	bin string
	reg *vm.Registry
}

func newBench(t *testing.T) *bench {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// Not t.TempDir: a socket's path has 108 bytes.
	dir, err := os.MkdirTemp("", "vixtest")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{t: t, dir: filepath.Join(dir, "run"), bin: filepath.Join(dir, "bin")}
	for _, d := range []string{b.dir, b.bin} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"vix-launcher", "qemu", "virtiofsd", "vix-waylandproxy"} {
		if err := os.Symlink(self, filepath.Join(b.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	if b.reg, err = vm.OpenRegistry(b.dir); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.reg.Close() })
	t.Cleanup(b.nothingLeft)
	return b
}

// do tells a fake how to behave from now on.
func (b *bench) do(fake, what string) {
	b.t.Helper()
	if err := os.WriteFile(filepath.Join(b.bin, fake+".do"), []byte(what), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) launch(name string) vm.Launch {
	in := func(n string) string { return filepath.Join(b.bin, n) }
	return vm.Launch{
		VM:         config.VM{Name: name, Memory: 512 << 20, CPUs: 1, Tag: name, Color: "#123456", Root: b.bin, Accel: "tcg"},
		RuntimeDir: b.dir, CacheDir: b.dir, Wayland: "/nowhere",
		Parts: vm.Parts{Self: in("vix-launcher"), QEMU: in("qemu"), Virtiofsd: in("virtiofsd"), Proxy: in("vix-waylandproxy"), System: "test"},
	}
}

// nothingLeft fails the test if a process of the bench lives, or a file of a
// VM is there.
func (b *bench) nothingLeft() {
	b.t.Helper()
	if _, err := b.reg.List(context.Background()); err != nil {
		b.t.Error(err)
	}
	b.waitFor("no process", func() bool { return len(b.processes()) == 0 })
	entries, err := os.ReadDir(filepath.Join(b.dir, "vix"))
	if err != nil {
		b.t.Error(err)
	}
	for _, e := range entries {
		if e.Name() != "lock" {
			b.t.Errorf("left behind: %s", e.Name())
		}
	}
}

// processes returns the fakes that run, by what they are.
func (b *bench) processes() map[string]int {
	found := map[string]int{}
	paths, _ := filepath.Glob("/proc/[0-9]*/cmdline")
	for _, p := range paths {
		line, err := os.ReadFile(p)
		if err != nil || !strings.HasPrefix(string(line), b.bin) {
			continue
		}
		stat, err := os.ReadFile(filepath.Join(filepath.Dir(p), "stat"))
		if err != nil || strings.Contains(string(stat), ") Z ") {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(p)))
		name, _, _ := strings.Cut(strings.TrimPrefix(string(line), b.bin+"/"), "\x00")
		found[name] = pid
	}
	return found
}

// waitFor waits for something that has no event to wait for: the end of
// processes that are nobody's children.
func (b *bench) waitFor(what string, ok func() bool) {
	b.t.Helper()
	limit := time.Now().Add(20 * time.Second)
	for !ok() {
		if time.Now().After(limit) {
			b.t.Fatalf("%s: not within twenty seconds: %v", what, b.processes())
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// A session is one foreground run.
type session struct {
	run     vm.Run
	out     strings.Builder
	err     strings.Builder
	signals chan os.Signal
	started chan vm.Program
	stages  []string
	notes   []string
	done    chan struct{}
	exit    *vm.Exit
	fail    error
}

func (b *bench) start(name string, argv ...string) *session {
	s := &session{signals: make(chan os.Signal, 1), started: make(chan vm.Program, 1), done: make(chan struct{})}
	s.run = vm.Run{
		VM: name, Launch: func() (vm.Launch, error) { return b.launch(name), nil }, Argv: argv,
		Stdin: strings.NewReader(""), Stdout: &s.out, Stderr: &s.err, Signals: s.signals,
		OnStage: func(st vm.Stage) { s.stages = append(s.stages, st.Name) },
		OnNote:  func(n string) { s.notes = append(s.notes, n) },
		OnStart: func(p vm.Program) { s.started <- p },
	}
	return s
}

func (b *bench) goRun(s *session) *session {
	go func() {
		defer close(s.done)
		s.exit, s.fail = b.reg.Run(b.t.Context(), s.run)
	}()
	return s
}

func (b *bench) runNow(name string, argv ...string) *session {
	s := b.goRun(b.start(name, argv...))
	<-s.done
	return s
}

// state waits for the program to run and returns the VM's state.
func (b *bench) state(s *session) vm.State {
	b.t.Helper()
	select {
	case <-s.started:
	case <-s.done:
		b.t.Fatalf("run ended: %v", s.fail)
	}
	st, err := b.reg.State(b.t.Context(), s.run.VM)
	if err != nil {
		b.t.Fatal(err)
	}
	return st
}

func failure(t *testing.T, s *session, code int, want ...string) {
	t.Helper()
	var f *vm.Failure
	if !errors.As(s.fail, &f) || f.Code != code {
		t.Fatalf("got %v, exit %+v; want a failure with %d", s.fail, s.exit, code)
	}
	if strings.Contains(f.Text, "\n") {
		t.Errorf("not one line: %q", f.Text)
	}
	for _, w := range want {
		if !strings.Contains(f.Text, w) {
			t.Errorf("%q does not say %q", f.Text, w)
		}
	}
}

func goroutines() int { return runtime.NumGoroutine() }

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
