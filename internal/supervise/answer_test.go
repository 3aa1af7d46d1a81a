package supervise

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/proc"
	"vix/internal/vm"
)

// A machine that QEMU has stopped is ended, with QEMU's own line as the cause.
func TestQEMUStops(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "stops")
	began := time.Now()
	failure(t, b.runNow("t", "sleep", "60"), vm.CodeVix, "VM t: QEMU has stopped it: internal-error: KVM internal error. Suberror: 1; run it again")
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v", took)
	}
}

// A VM that stands still: list says so, who waits is told once, a second signal leaves, and
// when it goes on all is as before.
func TestStandsStill(t *testing.T) {
	b := newBench(t)
	first := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(first)
	silent := make(chan struct{}, 8)
	in := b.exec(vm.How{}, "sh", "-c", "trap 'echo int' INT; echo up; while :; do sleep 0.05; done")
	up := make(chan string, 8)
	in.run.Stdout = proc.LineWriter(func(text string) { up <- text })
	heard := make(chan struct{}, 8)
	in.run.OnHeard = func() { heard <- struct{}{} }
	in.run.OnSilent = func() { silent <- struct{}{} }
	b.goRun(in)
	b.state(in)
	// A program may take as many signals as it likes, while the VM answers.
	for _, want := range []string{"up", "int", "int", "int"} {
		if got := <-up; !strings.HasPrefix(got, want) {
			t.Fatalf("%q, not %q", got, want)
		}
		if want != "up" {
			<-heard
		}
		in.signals <- syscall.SIGINT
	}
	<-up
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waiting := b.exec(vm.How{}, "echo", "late")
	b.goRun(waiting)
	<-silent
	list, err := b.reg.List(t.Context())
	if err != nil || len(list) != 1 || list[0].State != vm.StateNotAnswering {
		t.Errorf("list: %+v, %v", list, err)
	}
	began := time.Now()
	in.signals <- syscall.SIGINT
	in.signals <- syscall.SIGINT
	<-in.done
	failure(t, in, 130, "VM t: does not answer; left sh")
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("left after %v", d)
	}
	if err := syscall.Kill(st.PIDs.QEMU, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-waiting.done
	if waiting.fail != nil || waiting.out.String() != "late\n" {
		t.Errorf("afterwards: %v, %q", waiting.fail, waiting.out.String())
	}
	b.waitFor("running again", func() bool {
		list, err := b.reg.List(t.Context())
		return err == nil && slices.ContainsFunc(list, func(s vm.State) bool { return s.State == vm.StateRunning })
	})
	if len(silent) > 0 {
		t.Error("told more than once")
	}
	first.signals <- syscall.SIGTERM
	<-first.done
}
