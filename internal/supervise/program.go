package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/vm"
)

// enter counts a run in, unless the VM is stopping. first says that it is the VM's first
// run, for which the VM was started.
func (s *supervisor) enter() (ok, first bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx.Err() != nil || s.state.State == vm.StateStopping {
		return false, false
	}
	s.users++
	s.running.Add(1)
	s.once.Do(func() {
		first = true
		close(s.first)
	})
	return true, first
}

// leave counts a run out. The last one ends the VM. Its client hears of the program's end
// only afterwards, so that a client which then asks for another program finds a VM that
// ends. The run still has to send its last reply (running).
func (s *supervisor) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.users == 0 {
		s.cancel(errIdle)
	}
}

// serveRun starts one program, and passes its streams, signals and status.
func (s *supervisor) serveRun(c *vm.Control, req vm.Request, files []*os.File) {
	asked := time.Now()
	ok, first := s.enter()
	if !ok {
		s.tell(c, vm.Reply{Leaving: true})
		return
	}
	defer s.running.Done()
	leave := sync.OnceFunc(s.leave)
	defer leave()
	if refusal := s.refuseRun(req, len(files)); refusal != nil {
		s.tell(c, vm.Reply{Fail: refusal})
		return
	}
	ctx, cancel := context.WithCancelCause(s.ctx)
	defer cancel(nil)
	words := make(chan vm.Request, 8)
	hangUp := cancel
	if req.Detached {
		hangUp = func(error) {} // the program is to start, whatever becomes of the client
	}
	go readWords(c, words, hangUp) // it ends with the connection
	s.joinSession(c, req.Session)
	if text := s.root.lookAtPrograms(); text != "" {
		s.tell(c, vm.Reply{Note: text})
	}
	follow := s.follow(ctx, c, first)
	defer follow.stop()

	if err := s.awaitReady(ctx); err != nil {
		follow.stop()
		s.tell(c, vm.Reply{Fail: s.runFailure(err)})
		return
	}
	for _, text := range req.Wants.Shares {
		if err := s.shares.want(text); err != nil {
			follow.stop()
			s.tell(c, vm.Reply{Fail: s.failure(err)})
			return
		}
	}
	s.guest.probe()
	s.expectWindow(req.Token)
	awaited := s.awaitWindow(req, asked)
	defer awaited()
	spawn := req.Spawn()
	spawn.Zone = readZone(s.launch.Parts.System)
	p, err := s.guest.agent.Spawn(ctx, spawn)
	if err != nil {
		s.tell(c, vm.Reply{Fail: s.runFailure(err)})
		return
	}
	if p.OtherTerm {
		s.tell(c, vm.Reply{Note: fmt.Sprintf("VM %s: neither its root nor this machine has a terminfo entry for this terminal; TERM is %s there", s.launch.VM.Name, agent.FallbackTerm)})
	}
	prog := s.addProgram(req.How.Shown(req.Argv))
	s.tell(c, vm.Reply{Started: &prog})
	var exit *vm.Exit
	trouble := ""
	if req.Background {
		exit, trouble, err = s.runBackground(c, p, prog.Argv[0], leave)
	} else {
		exit, err = s.runForeground(ctx, c, req, p, files, words)
	}
	if err != nil {
		// The channel has ended under the program; its cause is known in a moment.
		<-s.ctx.Done()
		exit = &vm.Exit{Code: vm.CodeVix}
		follow.stop()
		s.tell(c, vm.Reply{Fail: s.runFailure(context.Cause(s.ctx))})
	} else {
		follow.stop()
		leave()
		s.tell(c, vm.Reply{Exit: exit})
	}
	s.update(func(st *vm.State) { st.EndProgram(prog.ID, exit) })
	awaited()
	if trouble != "" && !req.Quiet {
		s.guest.notifyNow(vm.EndedSummary(s.launch.VM.Name, prog.Argv[0]), trouble)
	}
}

// refuseRun says why a run cannot be one of this VM's.
func (s *supervisor) refuseRun(req vm.Request, streams int) *vm.Failure {
	name := s.launch.VM.Name
	switch {
	case streams != 3 && !req.Background:
		return vm.Failf("VM %s: run without its three streams", name)
	case req.Disposable && s.launch.VM.State == "home":
		return vm.Failf("VM %s: is already running, and keeps its home; for a disposable VM use another name, such as --vm %.28s-tmp", name, name)
	case req.GUI && s.launch.VM.NoGUI:
		return vm.Failf("VM %s: is already running, without a display; stop it first, or use another VM", name)
	}
	if lacks := s.lacks(req.Wants); len(lacks) > 0 {
		return vm.Failf("VM %s: is already running, and cannot change: %s; stop it first (vix stop %s), or use another VM", name, strings.Join(lacks, ", "), name)
	}
	return nil
}

// lacks lists the options of a run that the VM does not meet, and cannot from now on.
func (s *supervisor) lacks(w vm.Wanted) (list []string) {
	v := s.launch.VM
	if w.Memory != 0 && w.Memory != v.Memory {
		list = append(list, fmt.Sprintf("--memory %s (it has %s)", w.Memory, v.Memory))
	}
	if w.CPUs != 0 && w.CPUs != v.CPUs {
		list = append(list, fmt.Sprintf("--cpus %d (it has %d)", w.CPUs, v.CPUs))
	}
	if w.NoGUI && !v.NoGUI {
		list = append(list, "--no-gui (it has a display)")
	}
	if w.Net != "" && w.Net != v.Net {
		list = append(list, fmt.Sprintf("--net %s (it has %s)", plain.Clip(w.Net), v.Net))
	}
	for _, port := range w.Publish {
		if !slices.ContainsFunc(v.Publish, func(p config.Publish) bool { return p.String() == port }) {
			list = append(list, "--publish "+plain.Clip(port))
		}
	}
	return list
}

// expectWindow tells who places windows, and the display, that a run with an activation
// token is to have one; "" is none. It comes before the program can have a window.
func (s *supervisor) expectWindow(token string) {
	if token == "" {
		return
	}
	if s.placer != nil {
		s.placer.ask()
	}
	s.display.activate(token)
}

var errHungUp = errors.New("the client is gone")

// readWords passes on the client's signals and sizes until the client goes away: then the
// run is over, or its program is hung up.
func readWords(c *vm.Control, words chan<- vm.Request, gone context.CancelCauseFunc) {
	defer gone(errHungUp)
	for {
		var req vm.Request
		if err := c.Recv(&req, vm.MaxRequest); err != nil {
			return
		}
		if req.Size == nil && (req.Signal < 1 || req.Signal > 64) {
			return
		}
		select {
		case words <- req:
		default: // nobody presses Ctrl-C that often
		}
	}
}

// A follower sends every stage and note to a client, the past ones too. Only the VM's first
// client gets the notes of its start.
type follower struct {
	cancel context.CancelFunc
	done   sync.WaitGroup
}

// stop returns when the client has got everything up to now.
func (f *follower) stop() {
	f.cancel()
	f.done.Wait()
}

func (s *supervisor) follow(ctx context.Context, c *vm.Control, first bool) *follower {
	ctx, cancel := context.WithCancel(ctx)
	f := &follower{cancel: cancel}
	stages, notes, silent := 0, 0, false
	if !first {
		notes = len(s.snapshot().Notes)
	}
	f.done.Go(func() {
		for last := false; ; {
			st, changed := s.watchState()
			if !first && st.State == vm.StateStarting {
				notes = len(st.Notes)
			}
			for _, x := range st.Stages[stages:] {
				s.tell(c, vm.Reply{Stage: &x})
			}
			for _, x := range st.Notes[notes:] {
				s.tell(c, vm.Reply{Note: x})
			}
			stages, notes = len(st.Stages), len(st.Notes)
			if last {
				return
			}
			if now := st.State == vm.StateNotAnswering; now != silent {
				if silent = now; now {
					s.tell(c, vm.Reply{Silent: true})
				}
			}
			select {
			case <-changed:
			case <-ctx.Done():
				last = true
			}
		}
	})
	return f
}

// awaitReady waits until programs can start.
func (s *supervisor) awaitReady(ctx context.Context) error {
	for {
		st, changed := s.watchState()
		if st.State == vm.StateRunning || st.State == vm.StateNotAnswering {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// runFailure makes the end of a run a line with an exit status.
func (s *supervisor) runFailure(err error) *vm.Failure {
	name := s.launch.VM.Name
	var spawn *agent.SpawnError
	switch {
	case errors.As(err, &spawn):
		return &vm.Failure{Code: spawn.Code, Text: "VM " + name + ": " + spawn.Error()}
	case errors.Is(err, agent.ErrClosed):
		<-s.ctx.Done() // its cause says more
		return s.runFailure(context.Cause(s.ctx))
	case errors.Is(err, errStop), errors.Is(err, errForced), errors.Is(err, context.Canceled):
		return vm.Failf("VM %s: was stopped", name)
	}
	return s.failure(err)
}

func (s *supervisor) addProgram(argv []string) vm.Program {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lastID++
	p := vm.Program{ID: s.lastID, Argv: vm.ShownArgv(argv), State: "running"}
	s.state.AddProgram(p)
	s.changedLocked()
	return p
}

// earlyLimit is how long a client in the background waits to learn whether its program ends
// at once: for want of a library, a display, or descriptors.
const earlyLimit = 500 * time.Millisecond

// soonLimit is how long a program in the background may have run for its failure to be
// news: later it was of use, or somebody has seen it.
const soonLimit = 10 * time.Second

// runBackground waits for a program whose output goes to the VM's log. It tells the client
// if the program fails at once, and lets the client go. leave counts the run out, which
// comes before its client is told of the end. trouble is what the user should hear of the
// program's end, when nobody waits for it any more: it failed soon, without a window.
func (s *supervisor) runBackground(c *vm.Control, p *agent.Process, name string, leave func()) (exit *vm.Exit, trouble string, err error) {
	began, windows := time.Now(), s.windowsOpened()
	_ = p.Stdin.Close()
	source := plain.Text(filepath.Base(name), vm.MaxTitle, plain.OneLine)
	words := &finalLine{ended: make(chan struct{})}
	go proc.EachLine(p.Stdout, func(line string) { s.log.Add(source, line) })
	go func() {
		defer close(words.ended)
		proc.EachLine(p.Stderr, func(line string) {
			s.log.Add(source, line)
			words.add(line)
		})
	}()
	early := time.NewTimer(earlyLimit)
	defer early.Stop()
	told := false
	select {
	case <-p.Exited():
		if st, err := p.Wait(); err == nil {
			x := exitOf(st)
			if x.Status() != 0 {
				x.Words = words.last()
			}
			leave()
			told = s.tell(c, vm.Reply{Exit: x})
		}
	case <-early.C:
		s.tell(c, vm.Reply{Done: true})
	}
	c.Conn.Close()
	st, err := p.Wait()
	if err != nil {
		return nil, "", err
	}
	s.log.Printf("vix", "%s ended: %v", source, st)
	exit = exitOf(st)
	if exit.Status() != 0 && !told && s.ctx.Err() == nil && time.Since(began) < soonLimit && s.windowsOpened() == windows {
		trouble = vm.EndedText(s.launch.VM.Name, name, &vm.Exit{Code: exit.Code, Signal: exit.Signal, Words: words.last()})
	}
	return exit, trouble, nil
}

// windowsOpened returns how many windows the VM has ever opened.
func (s *host) windowsOpened() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.opened
}

// A finalLine is the last line of a program's standard error.
type finalLine struct {
	ended chan struct{} // closed at the end of the stream

	mu   sync.Mutex
	line string
}

func (w *finalLine) add(line string) {
	line = plain.Text(strings.TrimSpace(line), vm.MaxTitle, plain.OneLine)
	w.mu.Lock()
	defer w.mu.Unlock()
	if line != "" {
		w.line = line
	}
}

// last returns the line, once the program has ended; a descendant may hold the stream open.
func (w *finalLine) last() string {
	t := time.NewTimer(lingerLimit)
	defer t.Stop()
	select {
	case <-w.ended:
	case <-t.C:
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}

func exitOf(st agent.Status) *vm.Exit { return &vm.Exit{Code: st.Code, Signal: int(st.Signal)} }

// runForeground passes streams and signals until the program has ended and the client has
// taken its output. A client that goes away is like a closed terminal: the program gets
// SIGHUP, and the end of all its streams.
func (s *supervisor) runForeground(ctx context.Context, c *vm.Control, req vm.Request, p *agent.Process, files []*os.File, words <-chan vm.Request) (*vm.Exit, error) {
	var in, out sync.WaitGroup
	in.Go(func() {
		pour(p.Stdin, files[0])
		_ = p.Stdin.Close()
	})
	stdout, stderr := newDrain(p.Stdout, files[1]), newDrain(p.Stderr, files[2])
	out.Go(stdout.run)
	out.Go(stderr.run)
	signs, stop := context.WithCancel(s.ctx)
	hungUp := ctx.Done()
	for waiting := true; waiting; {
		select {
		case w := <-words:
			passOn(w, p)
			if w.Signal > 0 {
				out.Go(func() { s.confirmSignal(signs, c) })
			}
		case <-hungUp:
			hungUp = nil
			if s.ctx.Err() == nil {
				proc.CloseFiles(files) // first: the client gets no answer to the hang-up
				hangUp(req, p)
			}
		case <-p.Exited():
			waiting = false
		}
	}
	stop()
	files[0].Close()
	stdout.noteExit()
	stderr.noteExit()
	in.Wait()
	out.Wait()
	st, err := p.Wait()
	if err != nil {
		return nil, err
	}
	return exitOf(st), nil
}

// confirmSignal waits until the client's signal has reached the guest, and tells the client.
func (s *supervisor) confirmSignal(ctx context.Context, c *vm.Control) {
	if s.guest.agent.Ping(ctx) == nil {
		s.tell(c, vm.Reply{Heard: true})
	}
}

// pour copies a client's input to a program, one frame's payload at a time: io.Copy's 32 KiB
// would make every second frame one of nine bytes.
func pour(dst io.Writer, src io.Reader) {
	buf := make([]byte, agent.MaxData)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// lingerLimit bounds the wait for output after its program has ended. The guest sends what
// the program wrote at once, then the end of the stream, unless a descendant of the program
// holds it: a run does not wait for descendants, as a shell does not.
const lingerLimit = 300 * time.Millisecond

// A drain copies one output stream to the client. It loses nothing, however long the client
// takes; only the wait for more output ends.
type drain struct {
	src io.ReadCloser
	dst *os.File

	mu      sync.Mutex
	reading bool
	timer   *time.Timer // runs while reading after the program's end
	ended   bool
}

func newDrain(src io.ReadCloser, dst *os.File) *drain { return &drain{src: src, dst: dst} }

// lastWords is how many bytes a program may still write after its client is gone, before
// writing kills it.
const lastWords = 1 << 20

func (d *drain) run() {
	defer d.dst.Close()
	defer d.src.Close()
	buf := make([]byte, 32<<10)
	for left := lastWords; left > 0; {
		d.setReading(true)
		n, err := d.src.Read(buf)
		d.setReading(false)
		if n > 0 {
			if _, err := d.dst.Write(buf[:n]); err != nil {
				left -= n
			}
		}
		if err != nil {
			return
		}
	}
}

func (d *drain) setReading(on bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reading = on
	d.armLocked()
}

// noteExit notes that the program has ended.
func (d *drain) noteExit() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.ended = true
	d.armLocked()
}

func (d *drain) armLocked() {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if d.ended && d.reading {
		d.timer = time.AfterFunc(lingerLimit, func() { _ = d.src.Close() })
	}
}

// passOn passes a client's signal or size on to its program.
func passOn(r vm.Request, p *agent.Process) {
	if r.Size != nil {
		_ = p.Resize(r.Size.Rows, r.Size.Cols)
		return
	}
	_ = p.Kill(syscall.Signal(r.Signal))
}

// hangUp ends a program whose client is gone. A stopped program has to continue to notice.
// A program's outputs stay open, as its last words would kill it; a terminal ends, which
// its other process groups notice.
func hangUp(r vm.Request, p *agent.Process) {
	_ = p.Kill(syscall.SIGHUP)
	_ = p.Kill(syscall.SIGCONT)
	if r.How.TTY {
		_ = p.Stdout.Close()
	}
}
