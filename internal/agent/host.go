package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"vix/internal/plain"
)

// A Host is the host's end of one channel. Its life:
//
//	NewHost ─► Run(ctx) pumps in a goroutine of the caller
//	           Boot ─► Stages … ─► Ready ─► Spawn, Spawn, … ─► PowerOff
//
// All methods may be called from several goroutines.
type Host struct {
	// OnShortage, if set before Run, is called for each program that the guest's kernel has
	// killed for want of memory, as reported by the guest and without a bound on how often.
	// The call comes before later frames of the guest are handled. It must not wait for the guest.
	OnShortage func(Shortage)
	// OnWindowLoss is the same for each end of the guest's windows.
	OnWindowLoss func(WindowLoss)

	log    *slog.Logger
	l      *link
	stages chan Stage
	ready  chan struct{} // closed when the guest is ready
	done   chan struct{} // closed when Run has returned
	failed chan *GuestError

	traffic atomic.Pointer[Traffic] // nil: no report from the guest yet

	// Used by the reader alone:
	greeted bool
	isReady bool
	nStages int
	failure *GuestError

	mu     sync.Mutex
	boot   *Boot // waits for the guest's hello, or has been sent
	met    bool  // the guest's hello has come
	result error // of Run, once done

	// Guarded by l.mu, like each run's course: a run's phase and its place in procs change
	// together.
	pinged uint64        // the last ping
	ponged uint64        // the last ping that was answered
	signs  chan struct{} // closed and replaced at every pong
	lastID uint32
	procs  map[uint32]*Process // programs that are not over; nil once Run has ended

	lastCall uint32
	calls    map[uint32]*Caller // calls that are not over
	desks    map[CallKind]*desk // handlers by kind; set before Run
	callsCtx context.Context    // the context of handlers; set by Run
	serving  sync.WaitGroup     // handlers that run
}

// NewHost returns the host's end over rw. It owns rw, and Run closes it. A pending Read of
// rw must end when rw is closed (a net.Conn, an *os.File).
func NewHost(rw io.ReadWriteCloser, log *slog.Logger) *Host {
	return &Host{
		log:    log,
		l:      newLink(rw),
		stages: make(chan Stage, MaxStages),
		ready:  make(chan struct{}),
		done:   make(chan struct{}),
		failed: make(chan *GuestError, 1),
		signs:  make(chan struct{}),
		procs:  map[uint32]*Process{},
		calls:  map[uint32]*Caller{},
		desks:  map[CallKind]*desk{},
	}
}

// A GuestError is a guest's reason for failing to boot or for giving up. Its text comes
// from the guest, and is made fit for a terminal.
type GuestError struct{ Text string }

func (e *GuestError) Error() string { return "guest: " + e.Text }

// A SpawnError is the reason why a program did not start. Code is what a shell would
// return: 127 when there is no such program, 126 when it cannot be executed, 125 when
// the guest itself failed.
type SpawnError struct {
	Program string
	Code    int
	Text    string
}

func (e *SpawnError) Error() string { return e.Program + ": " + e.Text }

// Run pumps until the guest is off (nil), the guest reports its failure (a *GuestError),
// it breaks the protocol (ErrProtocol), or ctx ends. Then every program's streams and Wait
// end, handlers have returned, Stages is closed, and no goroutine of Run is left.
func (h *Host) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { h.l.fail(context.Cause(ctx)) })
	defer stop()
	calls, cancelCalls := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelCalls()
	h.callsCtx = calls
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := h.l.writeLoop(); err != nil {
			// The reader learns of the end too, after the guest's last frames.
			h.log.Debug("agent channel: write failed", "err", err)
		}
	})
	err := h.l.readLoop(h.handle)
	h.l.fail(err)
	cancelCalls()
	writer.Wait()
	h.serving.Wait()

	err = h.l.cause()
	switch {
	case errors.Is(err, ErrProtocol) || ctx.Err() != nil:
	case h.failure != nil:
		err = h.failure
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		// A machine that switches itself off may cut a frame short.
		err = nil
	}
	h.finish(err)
	return err
}

func (h *Host) finish(err error) {
	h.mu.Lock()
	h.result = err
	h.mu.Unlock()
	h.l.mu.Lock()
	procs := h.procs
	h.procs = nil
	h.l.mu.Unlock()
	if err == nil {
		err = ErrClosed
	}
	for _, p := range procs {
		p.fail(err)
	}
	close(h.stages)
	close(h.done)
}

// ended returns the error for operations after the channel's end.
func (h *Host) ended() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cmp.Or(h.result, ErrClosed)
}

// Boot sends the guest its identity once its hello has come, with the time of that moment
// (b.Time is not used): the guest's kernel takes seconds to come up. Boot returns at
// once; Stages and Ready report the progress.
func (h *Host) Boot(b Boot) error {
	if err := b.check(); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boot != nil {
		return errors.New("boot: said twice")
	}
	h.boot = &b
	return h.sendBootLocked()
}

func (h *Host) sendBootLocked() error {
	if h.boot == nil || !h.met {
		return nil
	}
	b := *h.boot
	b.Time = time.Now().UnixNano()
	return h.l.send(b)
}

// SetClock sends the guest the host's current time, unless the boot message, with a later
// time, is still to come.
func (h *Host) SetClock() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boot == nil || !h.met {
		return nil
	}
	return h.l.send(Clock{Time: time.Now().UnixNano()})
}

// onHello handles the guest's first frame.
func (h *Host) onHello(m Hello) error {
	h.greeted = true
	if m.Version != Version {
		return violation("the guest speaks version %d, the host %d", m.Version, Version)
	}
	h.log.Debug("guest says hello", "kernel", plain.Text(m.Kernel, maxText, plain.OneLine))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.met = true
	return h.sendBootLocked()
}

// Stages yields the stages of the boot as they are done, at most MaxStages of them, and is
// closed when Run returns. It need not be read.
func (h *Host) Stages() <-chan Stage { return h.stages }

// Traffic returns what the guest's network card has carried, as reported by the guest; zero
// before its first report.
func (h *Host) Traffic() Traffic {
	if t := h.traffic.Load(); t != nil {
		return *t
	}
	return Traffic{}
}

// Ping asks the guest for a sign of life, and waits for it. The guest has then handled
// everything that it was sent before.
func (h *Host) Ping(ctx context.Context) error {
	h.l.mu.Lock()
	h.pinged++
	n, err := h.pinged, h.l.sendLocked(Ping{N: h.pinged})
	for err == nil && h.ponged < n {
		signs := h.signs
		h.l.mu.Unlock()
		select {
		case <-signs:
		case <-h.done:
			err = h.ended()
		case <-ctx.Done():
			err = fmt.Errorf("the guest does not answer: %w", ctx.Err())
		}
		h.l.mu.Lock()
	}
	h.l.mu.Unlock()
	return err
}

func (h *Host) onPong(m Pong) error {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if m.N <= h.ponged || m.N > h.pinged {
		return violation("pong %d, after %d of %d", m.N, h.ponged, h.pinged)
	}
	h.ponged = m.N
	close(h.signs)
	h.signs = make(chan struct{})
	return nil
}

// Ready waits until the guest can start programs, or the channel or ctx has ended.
func (h *Host) Ready(ctx context.Context) error {
	select {
	case <-h.ready:
		return nil
	case <-h.done:
		return h.ended()
	case <-ctx.Done():
		return fmt.Errorf("guest is not ready: %w", ctx.Err())
	}
}

// Done is closed when Run has returned.
func (h *Host) Done() <-chan struct{} { return h.done }

// PowerOffGrace is the time that programs have between SIGTERM and SIGKILL.
const PowerOffGrace = time.Second

// PowerOff asks the guest to end its programs and to switch itself off, and waits until
// the channel has ended. When ctx ends first, the caller has to end the machine.
func (h *Host) PowerOff(ctx context.Context) error {
	if err := h.l.send(PowerOff{Grace: PowerOffGrace.Milliseconds()}); err != nil {
		select {
		case <-h.done:
			return nil
		default:
			return err
		}
	}
	select {
	case <-h.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("guest did not power off: %w", ctx.Err())
	}
}

// Spawn starts a program as the guest's user and returns when it runs. Spawn chooses the
// ID. A guest's refusal is a *SpawnError. If ctx ends first, the program is not started
// when the guest has not been asked yet, and is killed at its start otherwise.
func (h *Host) Spawn(ctx context.Context, s Spawn) (*Process, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name(), err)
	}
	p, err := h.ask(&s)
	if err != nil {
		return nil, err
	}
	select {
	case err := <-p.started:
		if err != nil {
			return nil, err
		}
		return p, nil
	case <-ctx.Done():
		err := fmt.Errorf("%s: %w", p.name, ctx.Err())
		h.abandon(p, err)
		return nil, err
	}
}

// abandon ends a run whose caller no longer waits. The run keeps its place until the guest
// reports its end.
func (h *Host) abandon(p *Process, why error) {
	h.l.mu.Lock()
	takenBack := h.l.takeBackLocked(false, p.id)
	if takenBack {
		delete(h.procs, p.id)
	}
	h.l.mu.Unlock()
	if takenBack {
		p.fail(why)
		return
	}
	_ = p.Kill(syscall.SIGKILL)
	_ = p.Stdout.Close()
	_ = p.Stderr.Close()
}

// name is the program's name in messages.
func (m Spawn) name() string {
	switch {
	case m.Request != nil:
		return m.Request.Name()
	case m.Kind == KindShell:
		return "login shell"
	case len(m.Argv) == 0:
		return "program"
	}
	return m.Argv[0]
}

// ask queues a spawn and gives it a place.
func (h *Host) ask(s *Spawn) (*Process, error) {
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	if h.procs == nil {
		return nil, ErrClosed
	}
	if len(h.procs) >= MaxProcesses {
		return nil, fmt.Errorf("the guest already runs %d programs, the most there can be", MaxProcesses)
	}
	s.ID = h.lastID + 1
	if err := s.check(); err != nil {
		return nil, err
	}
	if err := h.l.sendLocked(*s); err != nil {
		return nil, err
	}
	h.lastID++
	p := &Process{
		h: h, id: s.ID, name: s.name(), course: course{phase: asked},
		started: make(chan error, 1), exited: make(chan struct{}),
	}
	p.in = newOutboxLocked(h.l, s.ID, Stdin, nil)
	p.out, p.err = newInboxLocked(h.l, s.ID, Stdout, &p.course), newInboxLocked(h.l, s.ID, Stderr, &p.course)
	p.Stdin, p.Stdout, p.Stderr = p.in, p.out, p.err
	h.procs[s.ID] = p
	return p, nil
}

// handle handles one frame of the guest.
func (h *Host) handle(t Type, payload []byte) error {
	m, err := Parse(t, payload)
	if err != nil {
		return err
	}
	if hello, ok := m.(Hello); ok != !h.greeted {
		return violation("%s out of order", t)
	} else if ok {
		return h.onHello(hello)
	}
	switch m := m.(type) {
	case Stage:
		return h.onStage(m)
	case Ready:
		if h.isReady {
			return violation("ready twice")
		}
		h.isReady = true
		close(h.ready)
		return nil
	case Traffic:
		h.traffic.Store(&m)
		return nil
	case Shortage:
		if h.OnShortage != nil {
			m.Program = plain.Text(m.Program, maxName, plain.OneLine)
			h.OnShortage(m)
		}
		return nil
	case WindowLoss:
		if h.OnWindowLoss != nil {
			m.How = plain.Text(strings.TrimSpace(m.How), maxText, plain.OneLine)
			h.OnWindowLoss(m)
		}
		return nil
	case Pong:
		return h.onPong(m)
	case Error:
		if m.ID == 0 {
			h.onFailure(m)
			return nil
		}
	}
	if k, _ := keyOf(m); k.call && t != TypeAccept && t != TypeRefuse && t != TypeDown {
		return h.onCall(m)
	}
	if _, ok := fromGuest[t]; !ok {
		return violation("%s from a guest", t)
	}
	return h.onRun(m)
}

func (h *Host) onStage(s Stage) error {
	if h.nStages++; h.nStages > MaxStages {
		return violation("more than %d stages", MaxStages)
	}
	h.stages <- s // has room for MaxStages
	return nil
}

func (h *Host) onFailure(e Error) {
	if h.failure == nil {
		h.failure = &GuestError{Text: plain.Text(strings.TrimSpace(e.Text), maxText, plain.OneLine)}
		h.log.Warn("guest gives up", "why", h.failure.Text)
		h.failed <- h.failure // the only one
	}
}

// Failed yields Run's later error as soon as the guest has reported its failure: the guest
// then takes seconds to switch itself off.
func (h *Host) Failed() <-chan *GuestError { return h.failed }

// onRun handles a frame about a run: states.go defines what may come when.
func (h *Host) onRun(m Message) error {
	k, _ := keyOf(m)
	h.l.mu.Lock()
	p := h.procs[k.id]
	if p == nil {
		h.l.mu.Unlock()
		return violation("%s of program %d, which is %s", m.Type(), k.id, unknown)
	}
	err := p.course.moveLocked(k.id, m.Type())
	if err == nil {
		err = p.takeLocked(m)
	}
	if err == nil && p.course.phase == unknown {
		delete(h.procs, p.id) // before anybody can learn of the end
		h.l.takeBackLocked(false, p.id)
	}
	h.l.mu.Unlock()
	if err == nil {
		p.tell(m)
	}
	return err
}

// takeLocked applies a frame to the run's streams.
func (p *Process) takeLocked(m Message) error {
	switch m := m.(type) {
	case Data:
		if m.Stream == Stderr {
			return p.err.feedLocked(m.Bytes)
		}
		return p.out.feedLocked(m.Bytes)
	case Credit:
		if m.Stream != Stdin {
			return violation("credit for stream %d, which the host does not send", m.Stream)
		}
		return p.in.grantLocked(m.N)
	case Hangup:
		if m.Stream != Stdin {
			return violation("hangup of stream %d, which the host does not send", m.Stream)
		}
		p.in.hangupLocked()
	case Exit:
		p.in.cutLocked()
	case Error:
		p.in.cutLocked()
		p.out.endLocked()
		p.err.endLocked()
	}
	return nil
}

// tell wakes those who wait for the run.
func (p *Process) tell(m Message) {
	switch m := m.(type) {
	case Spawned:
		p.PID, p.OtherTerm = m.PID, m.OtherTerm
		p.started <- nil
	case Error:
		code := m.Code
		if code != 126 && code != 127 {
			code = 125
		}
		p.fail(&SpawnError{Program: p.name, Code: code, Text: plain.Text(strings.TrimSpace(m.Text), maxText, plain.OneLine)})
	case Exit:
		p.exit(Status{Code: m.Code, Signal: syscall.Signal(m.Signal)}, nil)
	}
}

// A Process is a program in the guest, as the host sees it.
//
// Stdout and Stderr end when no process of the guest holds them any more, which may be long
// after the program's own end (a program may fork a daemon). Closing one tells the guest
// that its reader is gone. An unread stream blocks the program after Window bytes. With a
// TTY, Stderr is empty.
type Process struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.ReadCloser
	PID            int // in the guest: hostile, for display only
	// OtherTerm: the guest says that its TERM is FallbackTerm, and not what was asked for.
	OtherTerm bool

	h       *Host
	id      uint32
	name    string
	in      *outbox
	out     *inbox
	err     *inbox
	started chan error // Spawn's result: nil once the program runs; capacity 1
	course  course     // guarded by h.l.mu

	once    sync.Once
	exited  chan struct{}
	status  Status
	waitErr error
}

// A Status is how a program ended: by an exit code, or by a signal.
type Status struct {
	Code   int
	Signal syscall.Signal // 0 when it exited
}

// ExitCode returns the status as a shell does: 128 + n for signal n.
func (s Status) ExitCode() int {
	if s.Signal != 0 {
		return 128 + int(s.Signal)
	}
	return s.Code
}

func (s Status) String() string {
	if s.Signal != 0 {
		return "signal " + strings.ToLower(s.Signal.String())
	}
	return fmt.Sprintf("exit status %d", s.Code)
}

// Wait waits until the program itself has ended. If the channel ended first, it returns the
// channel's error.
func (p *Process) Wait() (Status, error) {
	<-p.exited
	return p.status, p.waitErr
}

// Exited is closed when Wait would return.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Kill sends a signal to the program and its process group; SIGKILL goes to all its
// descendants. A program that has ended gets none.
func (p *Process) Kill(sig syscall.Signal) error {
	return p.say(Kill{ID: p.id, Signal: int(sig)})
}

// Resize sets the size of the program's TTY, in characters.
func (p *Process) Resize(rows, cols uint16) error {
	return p.say(Resize{ID: p.id, Rows: rows, Cols: cols})
}

// say sends a message about the program, unless it has ended.
func (p *Process) say(m Message) error {
	p.h.l.mu.Lock()
	defer p.h.l.mu.Unlock()
	if v := fromHost[m.Type()][p.course.phase]; v == crosses && p.h.l.err == nil {
		return nil
	}
	return p.h.l.sendLocked(m)
}

func (p *Process) exit(s Status, err error) {
	p.once.Do(func() {
		p.status, p.waitErr = s, err
		close(p.exited)
	})
}

// fail ends a program that did not start, or whose channel is gone.
func (p *Process) fail(err error) {
	select {
	case p.started <- err:
	default:
	}
	p.h.l.drop(p.in, p.out, p.err)
	p.exit(Status{}, err)
}
