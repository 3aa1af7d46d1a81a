package supervise

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"vix/internal/agent"
	"vix/internal/proc"
	"vix/internal/vm"
)

func TestRun(t *testing.T) {
	b := newBench(t)
	s := b.start("t", "sh", "-c", "cat; echo err >&2; exit 3")
	s.run.Stdin = strings.NewReader("hello\n")
	b.goRun(s)
	<-s.done
	if s.fail != nil || s.exit.Code != 3 || s.out.String() != "hello\n" || s.err.String() != "err\n" {
		t.Errorf("exit %+v, %v, out %q, err %q", s.exit, s.fail, s.out.String(), s.err.String())
	}
	for _, want := range []string{"prepared", "qemu", "init", "root", "proxy", "ready"} {
		if !slices.Contains(s.stages, want) {
			t.Errorf("stages %v: no %s", s.stages, want)
		}
	}
}

func TestSignalEndsTheProgram(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	s.signals <- syscall.SIGTERM
	<-s.done
	if s.fail != nil || s.exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("%+v, %v", s.exit, s.fail)
	}
}

func TestSignalBeforeTheProgramRuns(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "hang")
	s := b.start("t", "true")
	s.run.OnStage = func(st vm.Stage) {
		if st.Name == "qemu" {
			s.signals <- syscall.SIGINT
		}
	}
	b.goRun(s)
	<-s.done
	failure(t, s, 130, "before true ran")
}

func TestProgramCannotStart(t *testing.T) {
	b := newBench(t)
	failure(t, b.runNow("t", "/no/such/program"), vm.CodeNotFound, "VM t", "/no/such/program")
}

func TestState(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(s)
	procs := b.processes()
	if st.State != vm.StateRunning || st.PIDs != (vm.PIDs{Supervisor: procs["vix-launcher"], QEMU: procs["qemu"], Display: procs["vix-waylandproxy"], Virtiofsd: procs["virtiofsd"], Network: 0}) || st.Channel != (vm.ChannelState{Kind: "serial", By: "qemu"}) {
		t.Errorf("%+v; processes %v", st, procs)
	}
	if len(st.Programs) != 1 || st.Programs[0].Argv[0] != "sleep" || st.Programs[0].State != "running" {
		t.Errorf("programs %+v", st.Programs)
	}
	if len(st.Windows) != 1 || st.Windows[0].Title != "[t] x[31m" || st.Windows[0].AppID != "vix.t.x" {
		t.Errorf("windows %+v", st.Windows)
	}
	list, err := b.reg.List(t.Context())
	if err != nil || len(list) != 1 || list[0].Name != "t" {
		t.Errorf("list %+v, %v", list, err)
	}
	var log strings.Builder
	if err := b.reg.Logs(t.Context(), "t", false, &log); err != nil {
		t.Error(err)
	}
	for _, want := range []string{"[console] console speaks [31mred\n", "[display] the display speaks\n", "[qmp] NOISE"} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("log has no %q:\n%s", want, log.String())
		}
	}
	var trace strings.Builder
	if err := b.reg.Trace(t.Context(), "t", "input,shell", &trace); err != nil || trace.String() != `{"request":"trace","classes":"input,shell"}`+"\n" {
		t.Errorf("trace %q, %v", trace.String(), err)
	}
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
	if s.fail != nil || s.exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("after stop: %+v, %v", s.exit, s.fail)
	}
	if err := b.reg.Stop(t.Context(), "t", false); err == nil || err.Error() != "VM t: not running" {
		t.Errorf("second stop: %v", err)
	}
}

// Each process is killed in turn. The others end within two seconds, the run
// gets one clear line and 125, nothing is left, and a new run works at once.
func TestKill(t *testing.T) {
	for victim, want := range map[string]string{
		"qemu":             "QEMU ended: signal: killed",
		"vix-waylandproxy": "the display process ended: signal: killed",
		"virtiofsd":        "virtiofsd ended: signal: killed",
		"vix-launcher":     "its supervisor was killed",
	} {
		t.Run(victim, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			for range 2 {
				s := b.goRun(b.start("t", "sleep", "60"))
				b.state(s)
				if err := syscall.Kill(b.processes()[victim], syscall.SIGKILL); err != nil {
					t.Fatal(err)
				}
				<-s.done
				failure(t, s, vm.CodeVix, "VM t: "+want)
				b.nothingLeft()
				if list, err := b.reg.List(t.Context()); err != nil || len(list) != 0 {
					t.Errorf("list: %v, %v", list, err)
				}
			}
			if s := b.runNow("t", "true"); s.fail != nil {
				t.Errorf("afterwards: %v", s.fail)
			}
		})
	}
}

func TestFailedStart(t *testing.T) {
	for _, tt := range []struct{ fake, do, want string }{
		{"qemu", "refuse", "VM t: QEMU ended: exit status 1: fake: qemu-system-x86_64: -device vhost-user-test-device-pci: no such device"},
		{"qemu", "panic", "VM t: the guest switched itself off: exit status 0: console speaks [31mred | Kernel panic - not syncing: VFS"},
		{"qemu", "noproxy", "VM t: guest: vix-waylandproxy ended: signal killed"},
		{"qemu", "garbage", "VM t: agent protocol violated"},
		{"vix-launcher", "panic", "VM t: its supervisor crashed: panic: as told"},
		{"vix-launcher", "crowded", "VM t: its supervisor crashed: " + proc.NoThreadText},
		{"vix-waylandproxy", "crowded", "VM t: the display process ended: exit status 2: " + proc.NoThreadText + "; run it again"},
		{"virtiofsd", "fail", "VM t: virtiofsd ended: exit status 1: fake: no such share"},
		{"vix-waylandproxy", "fail", "VM t: the display process ended: exit status 1: the display speaks | fake: no compositor"},
		{"vix-waylandproxy", "forbidden", "VM t: display broke its confinement by a forbidden system call"},
		{"vix-waylandproxy", "unlisted", "VM t: display broke its confinement by system call 163; the VM was ended"},
	} {
		t.Run(tt.fake+" "+tt.do, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.do(tt.fake, tt.do)
			failure(t, b.runNow("t", "true"), vm.CodeVix, tt.want)
			b.nothingLeft()
		})
	}
}

// A guest that says that it has lost its proxy may go on for seconds, and is not
// waited for.
func TestGuestFails(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "lostproxy")
	began := time.Now()
	failure(t, b.runNow("t", "sleep", "60"), vm.CodeVix, "VM t: guest: vix-waylandproxy ended: signal killed")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
}

// Where the machine forbids namespaces, a child runs without, and is not told that it
// has some.
func TestWithoutNamespaces(t *testing.T) {
	b := newBench(t)
	reg, err := b.reg.Root.OpenRoot(".")
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if err := reg.Mkdir("t", 0o700); err != nil {
		t.Fatal(err)
	}
	dir, err := reg.OpenRoot("t")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	j, err := proc.OpenJournal(dir, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	defer j.Close()
	n := proc.NewNest("")
	go n.Run()
	defer n.Close()
	for forbidden, want := range map[bool]string{true: "verb last", false: "verb --own-namespaces last"} {
		own := &syscall.SysProcAttr{}
		if forbidden {
			own.Chroot = "/no/such/root"
		}
		var output []string
		c, err := proc.Start(n, j, proc.Command{
			Name: "x", Path: "/bin/echo", Args: []string{"verb", "last"}, Own: own,
			Stdout: func(line string) { output = append(output, line) },
		})
		if err != nil {
			t.Fatal(err)
		}
		<-c.Done
		if len(output) != 1 || output[0] != want {
			t.Errorf("forbidden %v: %q", forbidden, output)
		}
	}
}

// What the processes say of their confinement is in the state, and cannot forge a
// line of the log.
func TestConfinementIsTold(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(s)
	if c := st.Confinement["qemu"]; c.PID != st.PIDs.QEMU || !slices.Equal(c.Measures, []string{"as told"}) || !slices.Equal(c.Weaker, []string{"nothing[31m"}) {
		t.Errorf("%+v", st.Confinement)
	}
	if c := st.Confinement["supervisor"]; !slices.Contains(c.Measures, "not dumpable") {
		t.Errorf("%+v", c)
	}
	if err := b.reg.Stop(t.Context(), "t", true); err != nil {
		t.Error(err)
	}
	<-s.done
}

func TestMissingPart(t *testing.T) {
	for what, change := range map[string]func(*vm.Launch){
		"qemu: cannot be started":      func(l *vm.Launch) { l.Parts.QEMU = "/no/qemu" },
		"virtiofsd: cannot be started": func(l *vm.Launch) { l.Parts.Virtiofsd = "/no/virtiofsd" },
		"display: cannot be started":   func(l *vm.Launch) { l.Parts.Proxy = "/no/proxy" },
		"root /no/root: no such file":  func(l *vm.Launch) { l.VM.Root = "/no/root" },
		"no kernel image found":        func(l *vm.Launch) { l.Parts.System = l.RuntimeDir },
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			s := b.start("t", "true")
			s.run.Launch = func() (vm.Launch, error) {
				l := b.launch("t")
				change(&l)
				return l, nil
			}
			b.goRun(s)
			<-s.done
			failure(t, s, vm.CodeVix, what)
			b.nothingLeft()
		})
	}
}

func TestTwoRunsMakeOneVM(t *testing.T) {
	b := newBench(t)
	var runs []*session
	for range 8 {
		runs = append(runs, b.goRun(b.start("t", "sh", "-c", "echo $PPID")))
	}
	parents := map[string]bool{}
	for _, s := range runs {
		<-s.done
		if s.fail != nil {
			t.Error(s.fail)
		}
		parents[s.out.String()] = true
	}
	// A run that comes when the others' programs have ended starts a new VM:
	// there may be two VMs one after the other, but never one for each run.
	if len(parents) > 3 {
		t.Errorf("%d VMs for 8 runs at once", len(parents))
	}
}

// A run that meets a VM on its way out waits for its end and starts it anew.
func TestRunWhileStopping(t *testing.T) {
	b := newBench(t)
	for range 5 {
		if s := b.runNow("t", "true"); s.fail != nil {
			t.Fatal(s.fail)
		}
	}
}

func TestStopByForce(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "stubborn")
	s := b.goRun(b.start("t", "sh", "-c", "trap '' TERM; sleep 60"))
	b.state(s)
	begin := time.Now()
	if err := b.reg.Stop(t.Context(), "t", true); err != nil {
		t.Fatal(err)
	}
	<-s.done
	failure(t, s, vm.CodeVix, "VM t: was stopped")
	if d := time.Since(begin); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
}

// A supervisor that does not answer is killed by force, and its VM with it.
func TestStopOfAStuckSupervisor(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(s)
	if err := syscall.Kill(st.PIDs.Supervisor, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	b.waitFor("every thread is stopped", func() bool {
		tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", st.PIDs.Supervisor))
		return !slices.ContainsFunc(tasks, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !strings.Contains(string(stat), ") T ")
		})
	})
	list, err := b.reg.List(t.Context())
	if err != nil || len(list) != 1 || list[0].State != vm.StateUnresponsive {
		t.Errorf("list: %+v, %v", list, err)
	}
	if err := b.reg.Stop(t.Context(), "t", true); err != nil {
		t.Error(err)
	}
	<-s.done
	failure(t, s, vm.CodeVix, "its supervisor was killed")
}

// A stop while the guest boots does not wait for it.
func TestStopWhileStarting(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "hang")
	s := b.start("t", "true")
	up := make(chan struct{})
	s.run.OnStage = func(st vm.Stage) {
		if st.Name == "qemu" {
			close(up)
		}
	}
	b.goRun(s)
	<-up
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
	failure(t, s, vm.CodeVix, "VM t: was stopped")
}

// A client that is gone hangs up its program; without programs the VM ends.
func TestClientGone(t *testing.T) {
	b := newBench(t)
	s := b.start("t", "sleep", "60")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(s.done)
		s.exit, s.fail = b.reg.Run(ctx, s.run)
	}()
	b.state(s)
	cancel()
	<-s.done
	b.nothingLeft()
}

func TestBackground(t *testing.T) {
	b := newBench(t)
	s := b.start("t", "sh", "-c", "echo from the program; sleep 60")
	s.run.Background = true
	b.goRun(s)
	<-s.done
	if s.fail != nil || s.exit != nil {
		t.Fatalf("%+v, %v", s.exit, s.fail)
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.reg.Logs(t.Context(), "t", true, w)) }()
	var stopping sync.WaitGroup
	defer stopping.Wait()
	proc.EachLine(r, func(line string) {
		if strings.HasSuffix(line, "[sh] from the program") {
			stopping.Go(func() {
				if err := b.reg.Stop(context.Background(), "t", false); err != nil {
					t.Error(err)
				}
			})
		}
	}) // ends with the VM
}

// A program in the background that dies at once is not one that runs.
func TestBackgroundDies(t *testing.T) {
	b := newBench(t)
	for code, script := range map[int]string{7: "exit 7", 0: "exit 0"} {
		s := b.start("t", "sh", "-c", script)
		s.run.Background = true
		b.goRun(s)
		<-s.done
		if s.fail != nil || s.exit == nil || s.exit.Code != code {
			t.Errorf("%s: %+v, %v", script, s.exit, s.fail)
		}
	}
}

// A program in the background that fails when its client has gone is told of, with its last
// words, unless it has had a window, was told to be quiet, or is ended with its VM.
func TestBackgroundFailureIsTold(t *testing.T) {
	b := newBench(t)
	keep := b.goRun(b.start("t", "sleep", "600"))
	b.state(keep)
	run := func(quiet bool, script string) {
		t.Helper()
		s := b.start("t", "/bin/sh", "-c", script)
		s.run.Background, s.run.Quiet = true, quiet
		b.goRun(s)
		<-s.done
		if s.fail != nil || s.exit != nil {
			t.Fatalf("%s: %+v, %v", script, s.exit, s.fail)
		}
		started := <-s.started
		b.waitFor("its end", func() bool {
			st, err := b.reg.State(t.Context(), "t")
			return err == nil && slices.ContainsFunc(st.Programs, func(p vm.Program) bool { return p.ID == started.ID && p.Exit != nil })
		})
	}
	told := func() string {
		text, _ := os.ReadFile(filepath.Join(b.bin, "told"))
		return string(text)
	}
	run(true, "sleep 1; exit 4")
	run(false, "sleep 1; echo all is well")
	run(false, "sleep 1; echo first >&2; printf 'cannot \\033[31mopen display\\n\\n' >&2; exit 3")
	const want = "sh failed in t\ncannot [31mopen display\nsh ended with status 3; see vix logs t\n\n"
	b.waitFor("the notification", func() bool { return told() != "" })
	s := b.start("t", "sleep", "600")
	s.run.Background = true
	b.goRun(s)
	<-s.done
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-keep.done
	if got := told(); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	// The client that is still there hears the words itself; nobody else is told.
	s = b.start("t", "sh", "-c", "echo no library >&2; exit 127")
	s.run.Background = true
	b.goRun(s)
	<-s.done
	if s.fail != nil || s.exit == nil || *s.exit != (vm.Exit{Code: 127, Words: "no library"}) {
		t.Errorf("%+v, %v", s.exit, s.fail)
	}
	b.nothingLeft()
	if got := told(); got != want {
		t.Errorf("then %q", got)
	}
}

// Output that nobody takes stops the program and not the VM: the signal still
// arrives. Output that is taken late is complete.
func TestSlowReader(t *testing.T) {
	b := newBench(t)
	s := b.start("t", "sh", "-c", "head -c 3000000 /dev/zero; echo done >&2")
	r, w := io.Pipe()
	s.run.Stdout = w
	b.goRun(s)
	b.state(s)
	fast := b.runNow("t", "true") // another program is not held up
	if fast.fail != nil {
		t.Error(fast.fail)
	}
	n, err := io.CopyN(io.Discard, r, 3000000)
	if err != nil {
		t.Fatal(err)
	}
	<-s.done
	if n != 3000000 || s.err.String() != "done\n" {
		t.Errorf("%d bytes, %q", n, s.err.String())
	}
}

// A descendant that holds the output does not hold the run.
func TestDaemonHoldsOutput(t *testing.T) {
	b := newBench(t)
	s := b.runNow("t", "sh", "-c", "(setsid sleep 3 &) ; echo out; exit 4")
	if s.fail != nil || s.exit.Code != 4 || s.out.String() != "out\n" {
		t.Errorf("%+v, %v, %q", s.exit, s.fail, s.out.String())
	}
}

func TestTooLongArguments(t *testing.T) {
	b := newBench(t)
	for _, arg := range []string{strings.Repeat("x", vm.MaxRequest), strings.Repeat("x", agent.MaxPayload), strings.Repeat("\xff", agent.MaxPayload*3/4)} {
		failure(t, b.runNow("t", "echo", arg), vm.CodeVix, "arguments and environment", "at most 65536")
	}
	if names, err := b.reg.Names(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("VMs were started for it: %q, %v", names, err)
	}
}

// What is not a VM of this user is refused in one line.
func TestOpenRegistry(t *testing.T) {
	dir := t.TempDir()
	if err := os.Symlink("/tmp", filepath.Join(dir, "vix")); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.OpenRegistry(dir); err == nil || !strings.Contains(err.Error(), "not a directory of yours alone") {
		t.Errorf("a symbolic link: %v", err)
	}
	open := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(open, "vix"), 0o777), os.Chmod(filepath.Join(open, "vix"), 0o777)); err != nil {
		t.Fatal(err)
	}
	if _, err := vm.OpenRegistry(open); err == nil || !strings.Contains(err.Error(), "not a directory of yours alone") {
		t.Errorf("open to others: %v", err)
	}
	if _, err := vm.OpenRegistry("/no/such"); err == nil || !strings.Contains(err.Error(), "XDG_RUNTIME_DIR") {
		t.Errorf("missing: %v", err)
	}
	if _, err := vm.OpenRegistry("/" + strings.Repeat("x", 100)); err == nil || !strings.Contains(err.Error(), "too long") {
		t.Errorf("long: %v", err)
	}
}

func TestBadNames(t *testing.T) {
	b := newBench(t)
	for _, name := range []string{"../x", "-rf", "", strings.Repeat("a", 300), "ü", "a/b", "A", "."} {
		if err := b.reg.Stop(t.Context(), name, true); err == nil || !strings.Contains(err.Error(), "VM") {
			t.Errorf("stop %q: %v", name, err)
		}
		if err := b.reg.Logs(t.Context(), name, false, io.Discard); err == nil {
			t.Errorf("logs %q: no error", name)
		}
		if err := b.reg.Trace(t.Context(), name, "", io.Discard); err == nil {
			t.Errorf("trace %q: no error", name)
		}
		if s := b.runNow(name, "true"); s.fail == nil {
			t.Errorf("run in %q: no error", name)
		}
	}
}

// Nothing of a supervisor is left in a process that goes on: no goroutine, no
// descriptor.
func TestNoLeak(t *testing.T) {
	b := newBench(t)
	cycle := func(i int) {
		name := fmt.Sprintf("t%d", i)
		seat, err := b.reg.Take(t.Context(), name)
		if err != nil || seat == nil {
			t.Fatal(seat, err)
		}
		var done sync.WaitGroup
		done.Go(func() {
			spec, _ := json.Marshal(b.launch(name))
			if err := Run(t.Context(), bytes.NewReader(spec), seat.Lock, seat.Listener, Desktop{}); err != nil {
				t.Error(err)
			}
		})
		s := b.start(name, "true")
		s.run.Launch = nil
		if _, err := b.reg.Run(t.Context(), s.run); err != nil {
			t.Error(err)
		}
		done.Wait()
	}
	cycle(0)
	before, fds := goroutines(), openFiles(t)
	for i := range 3 {
		cycle(i + 1)
	}
	defer func() {
		if t.Failed() {
			buf := make([]byte, 1<<20)
			t.Logf("before %d, now\n%s", before, buf[:runtime.Stack(buf, true)])
		}
	}()
	b.waitFor("goroutines end", func() bool { return goroutines() <= before })
	if now := openFiles(t); now > fds {
		t.Errorf("%d descriptors, before %d", now, fds)
	}
}

// A peer of another user is refused.
func TestCheckPeer(t *testing.T) {
	b := newBench(t)
	seat, err := b.reg.Take(t.Context(), "t")
	if err != nil {
		t.Fatal(err)
	}
	defer seat.Close()
	conn, pid, err := b.reg.Dial("t")
	if err != nil || pid != os.Getpid() {
		t.Fatalf("pid %d, %v", pid, err)
	}
	defer conn.Close()
	if _, err := vm.CheckPeer(conn, os.Getuid()+1); err == nil || !strings.Contains(err.Error(), "the peer is user") {
		t.Errorf("another user: %v", err)
	}
}

// What the display process tells of windows is a guest's: bounded, and fit for
// a terminal.
func TestWindowEvents(t *testing.T) {
	b := newBench(t)
	if err := os.Mkdir(b.dir+"/vix/t", 0o700); err != nil {
		t.Fatal(err)
	}
	s, err := newSupervisor(b.launch("t"), Desktop{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.reg.Close()
	defer s.dir.Close()
	var in strings.Builder
	in.WriteString("not JSON\n{\"event\":\"window\",\"id\":\"x\"}\n{\"event\":\"ready\"}\n{\"event\":\"unknown\",\"id\":7}\n")
	for i := range 2 * vm.MaxWindows {
		fmt.Fprintf(&in, `{"event":"window","id":%d,"title":"\u001b[31m\u202e%s","app_id":"%s"}`+"\n", i, strings.Repeat("ü", 1000), strings.Repeat("a", 1000))
	}
	in.WriteString("{\"event\":\"window-closed\",\"id\":3}\n{\"event\":\"window-closed\",\"id\":99999}\n")
	in.WriteString(strings.Repeat("x", 100<<10) + "\n")
	s.display.readEvents(strings.NewReader(in.String()), 1)
	st := s.snapshot()
	if len(st.Windows) != vm.MaxWindows-1 {
		t.Errorf("%d windows", len(st.Windows))
	}
	for _, w := range st.Windows {
		if len(w.Title) > vm.MaxTitle+10 || len(w.AppID) > vm.MaxTitle+10 || strings.ContainsAny(w.Title, "\x1b\u202e") {
			t.Fatalf("%q %q", w.Title, w.AppID)
		}
	}
	if len(st.Stages) != 1 || st.Stages[0].Name != "window" {
		t.Errorf("stages %+v", st.Stages)
	}
	if err := s.log.Close(); err != nil {
		t.Error(err)
	}
}
