package supervise

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/agent"
	"vix/internal/proc"
	"vix/internal/vm"
)

// exec is a run without a launch.
func (b *bench) exec(how vm.How, argv ...string) *session {
	s := b.start("t", argv...)
	s.run.Launch, s.run.How = nil, how
	return s
}

func TestExec(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.exec(vm.How{}, "true"))
	<-s.done
	failure(t, s, vm.CodeVix, "VM t: not running; start it with vix run --vm t PROGRAM")
	if entries, _ := os.ReadDir(b.dir + "/vix/t"); entries != nil {
		t.Error("an exec has made a VM")
	}

	first := b.goRun(b.start("t", "sleep", "60"))
	b.state(first)
	in := b.exec(vm.How{}, "sh", "-c", "cat; exit 3")
	in.run.Stdin = strings.NewReader("hello\n")
	b.goRun(in)
	<-in.done
	if in.fail != nil || in.exit.Code != 3 || in.out.String() != "hello\n" {
		t.Errorf("%+v, %v, %q", in.exit, in.fail, in.out.String())
	}
	// A size is a word like a signal; one that comes before the program waits.
	sizes := make(chan vm.Size, 1)
	sizes <- vm.Size{Rows: 30, Cols: 100}
	sized := b.exec(vm.How{TTY: true, Size: vm.Size{Rows: 24, Cols: 80}}, "sh", "-c", "trap 'exit 9' WINCH; echo up; while :; do sleep 0.05; done")
	sized.run.Sizes = sizes
	b.goRun(sized)
	b.state(sized)
	sizes <- vm.Size{Rows: 31, Cols: 101} // taken: the connection is alive
	sized.signals <- syscall.SIGTERM
	<-sized.done
	if sized.fail != nil || sized.exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("%+v, %v", sized.exit, sized.fail)
	}
	// It is one of the VM's programs, and the VM stays for it: it waits for the end of
	// its standard input, which comes when the VM's first program has ended.
	stdin, end := io.Pipe()
	waits := b.exec(vm.How{User: "root"}, "sh", "-c", "read x; exit 4")
	waits.run.Stdin = stdin
	long := b.goRun(waits)
	if st := b.state(long); !slices.ContainsFunc(st.Programs, func(p vm.Program) bool { return p.Argv[0] == "sh" && p.State == "running" }) {
		t.Errorf("%+v", st.Programs)
	}
	first.signals <- syscall.SIGTERM
	<-first.done
	_ = end.Close()
	<-long.done
	if long.exit == nil || long.exit.Code != 4 {
		t.Errorf("%+v, %v", long.exit, long.fail)
	}
}

// A client that is gone: its program hears of it, stopped or not, and can still say
// something; what it says kills it no sooner.
func TestHangUp(t *testing.T) {
	b := newBench(t)
	first := b.goRun(b.start("t", "sleep", "60"))
	b.state(first)
	for name, script := range map[string]string{
		"words":   "trap 'echo out; echo err >&2; echo yes >$0; exit' HUP; echo up; while :; do sleep 0.05; done",
		"stopped": "trap 'echo yes >$0; exit' HUP; echo up; kill -STOP $$; while :; do sleep 0.05; done",
	} {
		heard := filepath.Join(b.dir, name)
		ctx, cancel := context.WithCancel(t.Context())
		s := b.exec(vm.How{}, "sh", "-c", script, heard)
		up := make(chan struct{})
		s.run.Stdout = proc.LineWriter(func(string) { close(up) })
		go func() {
			defer close(s.done)
			s.exit, s.fail = b.reg.Run(ctx, s.run)
		}()
		<-up
		cancel()
		<-s.done
		b.waitFor(name, func() bool { text, _ := os.ReadFile(heard); return string(text) == "yes\n" })
	}
	first.signals <- syscall.SIGTERM
	<-first.done
}

// Clients that are gone at any moment of a start, before, while and after the guest hears
// of it, or while it does not listen: the VM and its programs go on.
func TestAbandonedExec(t *testing.T) {
	b := newBench(t)
	first := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(first)
	abandon := func(after time.Duration) {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		defer cancel()
		s := b.exec(vm.How{}, "echo", "hi")
		_, _ = b.reg.Run(ctx, s.run)
	}
	for i := range 60 {
		abandon(time.Duration(i) * 300 * time.Microsecond)
	}
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGSTOP); err != nil {
		<-first.done
		t.Fatal(err, first.fail)
	}
	for range 20 {
		abandon(10 * time.Millisecond)
	}
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	s := b.goRun(b.exec(vm.How{}, "echo", "here"))
	<-s.done
	if s.fail != nil || s.out.String() != "here\n" {
		t.Errorf("afterwards: %v, %q", s.fail, s.out.String())
	}
	first.signals <- syscall.SIGTERM
	<-first.done
	if first.fail != nil || first.exit.Signal != int(syscall.SIGTERM) {
		t.Errorf("the VM's first program: %+v, %v", first.exit, first.fail)
	}
}

func TestHow(t *testing.T) {
	request := &agent.Request{Send: &agent.Send{Paths: []string{"a", "b"}}}
	for want, h := range map[string]vm.How{
		"ls": {}, "(shell) ls": {Kind: agent.KindShell}, "(cp)": {Kind: agent.KindRequest}, "(cp) send a b": {Kind: agent.KindRequest, Request: request},
	} {
		if got := strings.Join(h.Shown([]string{"ls"}), " "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (vm.Request{How: vm.How{Kind: agent.KindRequest, Request: request}}).Spawn(); got.Request != request || got.Kind != agent.KindRequest {
		t.Errorf("%+v", got)
	}
	got := vm.Request{Argv: []string{"a"}, Env: []string{"K=V"}, How: vm.How{Kind: agent.KindShell, User: "root", Cwd: "/", TTY: true, Size: vm.Size{Rows: 1, Cols: 2}}}.Spawn()
	if got.Kind != agent.KindShell || got.User != "root" || got.Cwd != "/" || !got.TTY || got.Rows != 1 || got.Cols != 2 || got.Argv[0] != "a" || got.Env[0] != "K=V" {
		t.Errorf("%+v", got)
	}
}
