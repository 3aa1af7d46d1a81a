package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A host is a part's view of the supervisor: it starts confined children, keeps the VM's
// state and log, and collects troubles. Its goroutines are the pumps; end waits for them.
type host struct {
	launch vm.Launch
	reg    *vm.Registry
	dir    *os.Root
	log    *proc.Journal
	nest   *proc.Nest
	uid    int

	ctx    context.Context // ends when the VM has to end; its cause says why
	cancel context.CancelCauseFunc

	troubles chan trouble // ends of children and of the agent channel
	pumps    sync.WaitGroup

	saveMu sync.Mutex // held while state.json is written; taken before mu

	mu    sync.Mutex
	state vm.State
	// traffic returns the guest's last word about its network; nil before the agent runs.
	traffic func() agent.Traffic
	silent  bool          // the guest does not answer
	lastID  int           // of the last program that was started
	opened  int           // windows that the VM has ever opened
	changed chan struct{} // closed and replaced at every change of state

	console proc.Tail // the last lines that the guest printed
}

// lastProgram returns the id of the last program that was started.
func (s *host) lastProgram() (int, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lastID, s.changed
}

// A trouble is the end of something that the VM cannot live without.
type trouble struct {
	rank int // the most telling first; see settle
	err  *vm.Failure
}

// Ranks of troubles. One death brings others: when QEMU is killed, the display
// process and virtiofsd end as they should; when the guest switches itself off,
// all three do. A bad end explains the good ones.
const (
	rankKilled     = iota // a child was killed
	rankGuest             // the guest said why, or broke the agent's protocol
	rankStopped           // QEMU has stopped the machine, and said why
	rankFailed            // a back end ended with an error
	rankQEMUFailed        // QEMU ended with an error: its own fault, if no back end failed
	rankQEMUEnded         // QEMU ended as if all were well
	rankOther             // something ended as if all were well
)

// settle waits a moment for what else ends, and returns the failure that explains the rest.
// What ended as if all were well explains nothing: QEMU's end, or a back end's, is about to.
func (s *host) settle(first trouble) error {
	best := first
	limit := func() time.Duration {
		if best.rank == rankOther {
			return explainLimit
		}
		return settleLimit
	}
	t := time.NewTimer(limit())
	defer t.Stop()
	for {
		select {
		case next := <-s.troubles:
			if next.rank < best.rank {
				best = next
				t.Reset(limit())
			}
		case <-t.C:
			return best.err
		case <-s.ctx.Done(): // the VM ends in any case
			return best.err
		}
	}
}

func (s *host) report(t trouble) {
	select {
	case s.troubles <- t:
	default: // eight troubles explain enough
	}
}

// wait waits for a step of the start, but no longer than the start may go on.
func (s *host) wait(done <-chan error) error {
	select {
	case err := <-done:
		if err == nil {
			return nil
		}
		// A child's death, where there is one, explains a broken channel better.
		return s.settle(trouble{rankOther, s.failure(err)})
	case t := <-s.troubles:
		return s.settle(t)
	case <-s.ctx.Done():
		return context.Cause(s.ctx)
	}
}

// failure makes err a line about this VM.
func (s *host) failure(err error) *vm.Failure {
	var f *vm.Failure
	if errors.As(err, &f) {
		return f
	}
	return vm.Failf("VM %s: %v", s.launch.VM.Name, err)
}

// update changes the state, wakes whoever waits for a change, and saves it. It calls f
// with s.mu held.
func (s *host) update(f func(*vm.State)) {
	s.mu.Lock()
	f(&s.state)
	s.changedLocked()
	s.mu.Unlock()
	s.saveMu.Lock()
	defer s.saveMu.Unlock()
	s.mu.Lock()
	snapshot := s.cloneLocked() // at least as new as what another update has written meanwhile
	s.mu.Unlock()
	if err := vm.SaveState(s.dir, snapshot); err != nil {
		s.log.Printf("vix", "%s: %v", vm.StateName, err)
	}
}

func (s *host) changedLocked() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// stage notes that a stage of the start is done.
func (s *host) stage(name string, uptime time.Duration) {
	st := vm.Stage{Name: name, Seconds: time.Since(s.state.Started).Seconds(), Uptime: uptime.Seconds()}
	s.log.Printf("vix", "stage %s", name)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.state.Stages) < vm.MaxVMStages {
		s.state.Stages = append(s.state.Stages, st)
		s.changedLocked()
	}
}

func (s *host) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	s.log.Add("vix", text)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state.Notes = append(s.state.Notes, text)
	s.changedLocked()
}

// slogger returns a logger that writes to the VM's log under source.
func (s *host) slogger(source string) *slog.Logger {
	return slog.New(slog.NewTextHandler(proc.LineWriter(func(line string) { s.log.Add(source, line) }),
		&slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{} // the log has its own
			}
			return a
		}}))
}

// tell sends a reply. It gives up on a client that is gone, or does not take the reply
// within answerLimit, and reports whether the reply was sent.
func (s *host) tell(c *vm.Control, r vm.Reply) bool {
	_ = c.Conn.SetWriteDeadline(time.Now().Add(answerLimit))
	return c.Send(r) == nil
}

func (s *host) snapshot() vm.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cloneLocked()
}

// cloneLocked returns the present state. New traffic of the guest's network is in it, but
// wakes nobody as a change.
func (s *host) cloneLocked() vm.State {
	if s.traffic != nil {
		s.state.Net.Traffic(s.traffic())
	}
	st := s.state.Clone()
	if s.silent && st.State == vm.StateRunning {
		st.State = vm.StateNotAnswering
	}
	if s.ctx != nil && s.ctx.Err() != nil { // end is about to say so
		st.State = vm.StateStopping
	}
	return st
}

func (s *host) watchState() (vm.State, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cloneLocked(), s.changed
}

// noteConfinement notes how a process is confined. Weaker measures than possible become a
// line in the log, once for each process.
func (s *host) noteConfinement(name string, pid int, r sandbox.Report) {
	for i, m := range r.Measures {
		r.Measures[i] = plain.Text(m, proc.MaxLogLine, plain.OneLine)
	}
	for i, w := range r.Weaker {
		r.Weaker[i] = plain.Text(w, proc.MaxLogLine, plain.OneLine)
	}
	if len(r.Weaker) > 0 {
		s.log.Printf("vix", "%s is confined less than it could be: %s", name, strings.Join(r.Weaker, "; "))
	}
	s.update(func(st *vm.State) {
		c := map[string]vm.Confinement{name: {PID: pid, Report: r}}
		for k, v := range st.Confinement { // copied: snapshots share the old one
			if k != name {
				c[k] = v
			}
		}
		st.Confinement = c
	})
}

// startConfined starts a process that carries out spec (vix-launcher's verb confine). cmd
// has its name, descriptors, namespaces and outputs; the socket that brings spec becomes
// the last descriptor. startConfined closes cmd.Files, also when it fails.
func (s *host) startConfined(cmd proc.Command, spec sandbox.Spec) (*proc.Child, error) {
	ours, theirs, err := spec.Offer()
	if err != nil {
		proc.CloseFiles(cmd.Files)
		return nil, err
	}
	cmd.Files = append(cmd.Files, theirs)
	cmd.Path, cmd.Args = s.launch.Parts.Self, sandbox.Verb(2+len(cmd.Files), false)
	c, err := proc.Start(s.nest, s.log, cmd)
	if err != nil {
		ours.Close()
		return nil, err
	}
	s.pumps.Go(func() { s.readReport(cmd.Name, c, ours) })
	return c, nil
}

// readReport waits for the report of a process that startConfined started, and closes f.
func (s *host) readReport(name string, c *proc.Child, f *os.File) {
	defer f.Close()
	r, err := sandbox.ReadReport(f)
	if err != nil {
		if !errors.Is(err, io.EOF) { // it ended first: its death says why
			s.log.Printf("vix", "%s: report: %v", name, err)
		}
		return
	}
	s.noteConfinement(name, c.Cmd.Process.Pid, r)
}

// own makes the end of a child a trouble of the VM. pid selects the state's field for its
// process id. The part that has started the child still has to end it.
func (s *host) own(c *proc.Child, what string, pid func(*vm.PIDs) *int) {
	s.update(func(st *vm.State) { *pid(&st.PIDs) = c.Cmd.Process.Pid })
	s.pumps.Go(func() {
		<-c.Done
		s.update(func(st *vm.State) { *pid(&st.PIDs) = 0 })
		s.report(s.death(c, what))
	})
}

// endChild ends a child, which may be nil, for a part that stops.
func endChild(c *proc.Child, graceful bool) {
	switch {
	case c == nil:
	case graceful:
		c.End(endLimit)
	default:
		c.Kill()
	}
}

// death describes how a child ended, with its last words. When QEMU ended well, the last
// words are the guest's, from its console.
func (s *host) death(c *proc.Child, what string) trouble {
	rank, last := rankOther, c.Last.String()
	if call, ok := c.Broken(); ok {
		s.log.Printf("vix", "%s broke its confinement: %s", c.Name, call)
		return trouble{rankKilled, vm.Failf("VM %s: %s broke its confinement by %s; the VM was ended, because it can no longer be trusted", s.launch.VM.Name, c.Name, call)}
	}
	switch {
	case c.Killed():
		rank = rankKilled
	case c.Err != nil && c.Name == qemuChild:
		rank = rankQEMUFailed
	case c.Err != nil:
		rank = rankFailed
	case c.Name == qemuChild:
		rank, what, last = rankQEMUEnded, "the guest switched itself off", s.console.String()
	}
	if c.Crowded() {
		last = proc.NoThreadText
	}
	text := fmt.Sprintf("VM %s: %s: %s", s.launch.VM.Name, what, c.Status())
	if last != "" {
		text += ": " + last
	}
	return trouble{rank, &vm.Failure{Code: vm.CodeVix, Text: text + `; run it again; if it fails again, see vix doctor`}}
}
