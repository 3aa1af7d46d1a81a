package supervise

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"vix/internal/vm"
)

// A watcher is a Watch whose events the test takes one by one.
type watcher struct {
	t      *testing.T
	events chan vm.Event
	stop   context.CancelFunc
	done   chan error
}

func (b *bench) watch(name string) *watcher {
	ctx, cancel := context.WithCancel(b.t.Context())
	w := &watcher{t: b.t, events: make(chan vm.Event), stop: cancel, done: make(chan error, 1)}
	go func() {
		w.done <- b.reg.Watch(ctx, name, func(e vm.Event) error {
			select {
			case w.events <- e:
			case <-ctx.Done():
			}
			return nil
		})
	}()
	return w
}

// until returns the first event that is as wanted, and what came before it.
func (w *watcher) until(what string, ok func(vm.Event) bool) (vm.Event, []vm.Event) {
	w.t.Helper()
	limit := time.After(30 * time.Second)
	var before []vm.Event
	for {
		select {
		case e := <-w.events:
			if ok(e) {
				return e, before
			}
			before = append(before, e)
		case err := <-w.done:
			w.t.Fatalf("%s: the watch ended: %v", what, err)
		case <-limit:
			w.t.Fatalf("%s: did not come; before: %+v", what, before)
		}
	}
}

func (w *watcher) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.done; err != nil {
		w.t.Errorf("the watch ended with %v", err)
	}
}

func isReady(e vm.Event) bool { return e.Event == vm.EventReady }

func hasEnded(name string) func(vm.Event) bool {
	return func(e vm.Event) bool { return e.Event == vm.EventEnded && e.Name == name }
}

func isIn(name, state string) func(vm.Event) bool {
	return func(e vm.Event) bool { return e.Event == vm.EventState && e.Name == name && e.State.State == state }
}

// A VM's whole life is seen, and that of another of the same name; what is not asked
// for is not told.
func TestWatch(t *testing.T) {
	b := newBench(t)
	all, one := b.watch(""), b.watch("u")
	if _, before := all.until("ready", isReady); len(before) != 0 {
		t.Errorf("of nothing: %+v", before)
	}
	one.until("ready", isReady)
	for round := range 2 {
		s := b.goRun(b.start("t", "sleep", "60"))
		e, before := all.until("the program", func(e vm.Event) bool {
			return e.Event == vm.EventState && len(e.State.Programs) == 1 && len(e.State.Windows) == 1
		})
		if e.Name != "t" || e.State.State != vm.StateRunning || e.State.Programs[0].Argv[0] != "sleep" {
			t.Errorf("round %d: %+v", round, e.State)
		}
		if len(before) == 0 || before[0].State.State != vm.StateStarting {
			t.Errorf("round %d: begins with %+v", round, before)
		}
		late := b.watch("")
		if _, before := late.until("ready", isReady); len(before) != 1 || before[0].Name != "t" {
			t.Errorf("who comes late is told %+v", before)
		}
		late.end()
		if err := b.reg.Stop(t.Context(), "t", true); err != nil {
			t.Error(err)
		}
		<-s.done
		if _, before := all.until("the end", hasEnded("t")); round == 1 && slices.ContainsFunc(before, func(e vm.Event) bool { return e.Event == vm.EventReady }) {
			t.Error("ready twice")
		}
	}
	s := b.goRun(b.start("u", "true"))
	<-s.done
	if _, before := one.until("the end", hasEnded("u")); slices.ContainsFunc(before, func(e vm.Event) bool { return e.Name != "u" }) {
		t.Errorf("of u: %+v", before)
	}
	all.end()
	one.end()
}

func TestWatchOfDeadAndHangingSupervisors(t *testing.T) {
	b := newBench(t)
	w := b.watch("t")
	s := b.goRun(b.start("t", "sleep", "60"))
	pid := b.state(s).PIDs.Supervisor
	w.until("running", isIn("t", vm.StateRunning))
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	// All of its threads: one that runs on may answer once more.
	b.waitFor("the supervisor stops", func() bool {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
		if err != nil || len(threads) == 0 {
			t.Fatal("no supervisor")
		}
		return !slices.ContainsFunc(threads, func(path string) bool {
			stat, err := os.ReadFile(path)
			return err == nil && !bytes.Contains(stat, []byte(") T "))
		})
	})
	second := b.watch("")
	second.until("unresponsive", isIn("t", vm.StateUnresponsive))
	second.until("ready", isReady)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	second.until("running again", isIn("t", vm.StateRunning))
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	w.until("the end", hasEnded("t"))
	second.until("the end", hasEnded("t"))
	<-s.done
	w.end()
	second.end()
}

// Who is slow is told of what is, not of all that was.
func TestSlowWatcherGetsTheNewest(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	w := b.watch("t")
	w.until("the program", isIn("t", vm.StateRunning))
	const programs = 30
	for i := range programs {
		if s := b.runNow("t", "sh", "-c", fmt.Sprint("exit ", i)); s.fail != nil {
			t.Fatal(s.fail)
		}
	}
	_, before := w.until("the last program", func(e vm.Event) bool {
		if e.Event != vm.EventState {
			return false
		}
		last := e.State.Programs[len(e.State.Programs)-1]
		return last.ID == programs+1 && last.Exit != nil && last.Exit.Code == programs-1
	})
	if len(before) > 4 {
		t.Errorf("%d programs came and went, and %d events before the last state", programs, len(before))
	}
	w.end()
	if err := b.reg.Stop(t.Context(), "t", true); err != nil {
		t.Error(err)
	}
	<-s.done
}

func TestWatchEndsAndLeavesNothing(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	routines, files := goroutines(), openFiles(t)
	enough := errors.New("enough")
	for range 3 {
		if err := b.reg.Watch(t.Context(), "", func(vm.Event) error { return enough }); !errors.Is(err, enough) {
			t.Errorf("%v", err)
		}
	}
	b.waitFor("no goroutine", func() bool { return goroutines() <= routines })
	b.waitFor("no open file", func() bool { return openFiles(t) <= files })
	if err := b.reg.Watch(t.Context(), "../x", nil); err == nil {
		t.Error("a watch of ../x")
	}
	if err := b.reg.Stop(t.Context(), "t", true); err != nil {
		t.Error(err)
	}
	<-s.done
}
