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
//	NewHost ─► Run(ctx) pumps in a goroutine of the caller's
//	           Boot ─► Stages … ─► Ready ─► Spawn, Spawn, … ─► PowerOff
//
// All methods may be called from several goroutines.
type Host struct {
	log    *slog.Logger
	l      *link
	stages chan Stage
	ready  chan struct{} // closed when the guest is ready
	done   chan struct{} // closed when Run has returned
	failed chan *GuestError

	traffic atomic.Pointer[Traffic] // nil: the guest has said nothing

	// Touched by the reader alone.
	greeted bool
	isReady bool
	nStages int
	failure *GuestError

	mu     sync.Mutex
	boot   *Boot // waits for the guest's hello, or is sent
	met    bool  // the guest has said hello
	lastID uint32
	procs  map[uint32]*Process
	result error // of Run, once done
}

// NewHost returns the host's end over rw, which it owns: Run closes it. A
// pending Read of rw must end when rw is closed (a net.Conn, an *os.File).
func NewHost(rw io.ReadWriteCloser, log *slog.Logger) *Host {
	return &Host{
		log:    log,
		l:      newLink(rw),
		stages: make(chan Stage, MaxStages),
		ready:  make(chan struct{}),
		done:   make(chan struct{}),
		failed: make(chan *GuestError, 1),
		procs:  map[uint32]*Process{},
	}
}

// A GuestError is why a guest could not boot, or had to give up. Its text is
// the guest's own, made fit for a terminal.
type GuestError struct{ Text string }

func (e *GuestError) Error() string { return "guest: " + e.Text }

// A SpawnError is why a program did not start. Code is what a shell would
// return: 127 when there is no such program, 126 when it cannot be executed,
// 125 when the guest itself could not.
type SpawnError struct {
	Program string
	Code    int
	Text    string
}

func (e *SpawnError) Error() string { return e.Program + ": " + e.Text }

// Run pumps until the guest is off (nil), the guest says that it failed (a
// *GuestError), it breaks the protocol (ErrProtocol), or ctx ends. Then every
// program's streams and Wait end, Stages is closed, and nothing of it runs.
func (h *Host) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { h.l.fail(context.Cause(ctx)) })
	defer stop()
	var writer sync.WaitGroup
	writer.Go(func() {
		if err := h.l.writeLoop(); err != nil {
			// The reader learns of the end too, after what the guest still said.
			h.log.Debug("agent channel: write failed", "err", err)
		}
	})
	err := h.l.readLoop(h.handle)
	h.l.fail(err)
	writer.Wait()

	err = h.l.cause()
	switch {
	case errors.Is(err, ErrProtocol) || ctx.Err() != nil:
	case h.failure != nil:
		err = h.failure
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		// A machine that switches itself off may do so within a frame.
		err = nil
	}
	h.finish(err)
	return err
}

func (h *Host) finish(err error) {
	h.mu.Lock()
	h.result = err
	procs := h.procs
	h.procs = nil
	h.mu.Unlock()
	if err == nil {
		err = ErrClosed
	}
	for _, p := range procs {
		p.fail(err)
	}
	close(h.stages)
	close(h.done)
}

// ended returns the error of what can no longer be done.
func (h *Host) ended() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cmp.Or(h.result, ErrClosed)
}

// Boot tells the guest who it is, once it says hello, with the time of that
// moment (b.Time is not used): the guest's kernel takes seconds to come up. It
// returns at once; what the guest makes of it comes by Stages and Ready.
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

// SetClock gives the guest the host's time of this moment, unless its boot message is
// still to come, with a later one.
func (h *Host) SetClock() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.boot == nil || !h.met {
		return nil
	}
	return h.l.send(Clock{Time: time.Now().UnixNano()})
}

// onHello: the guest is there.
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

// Stages yields the stages of the boot as they are done, never more than
// MaxStages, and is closed when Run returns. It need not be read.
func (h *Host) Stages() <-chan Stage { return h.stages }

// Traffic returns what the guest's network card has carried, in the guest's words; the
// zero Traffic where it has said nothing.
func (h *Host) Traffic() Traffic {
	if t := h.traffic.Load(); t != nil {
		return *t
	}
	return Traffic{}
}

// Ready waits until programs can be spawned, or the channel or ctx has ended.
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

// PowerOffGrace is how long programs have to end at SIGTERM before SIGKILL.
const PowerOffGrace = time.Second

// PowerOff asks the guest to end its programs and to switch itself off, and
// waits until the channel has ended. When ctx ends first, the caller is left
// to end the machine itself.
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

// Spawn starts a program as the guest's user and returns when it runs. Its ID
// is chosen here. The error is a *SpawnError when the guest says why not; when
// ctx ends first, the program is killed as soon as it has started.
func (h *Host) Spawn(ctx context.Context, s Spawn) (*Process, error) {
	p, err := h.register(&s)
	if err != nil {
		return nil, err
	}
	if err := h.l.send(s); err != nil {
		p.fail(err)
		h.forget(p.id)
		return nil, err
	}
	select {
	case err := <-p.started:
		if err != nil {
			return nil, err
		}
		return p, nil
	case <-ctx.Done():
		_ = p.Kill(syscall.SIGKILL)
		_ = p.Stdout.Close()
		_ = p.Stderr.Close()
		return nil, fmt.Errorf("%s: %w", s.name(), ctx.Err())
	}
}

// name is what messages call the program.
func (m Spawn) name() string {
	switch m.Kind {
	case KindShell:
		return "login shell"
	case KindCopy:
		return "copy"
	}
	return m.Argv[0]
}

func (h *Host) register(s *Spawn) (*Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
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
	h.lastID++
	p := &Process{
		h: h, id: s.ID, name: s.name(),
		started: make(chan error, 1), exited: make(chan struct{}),
		in:  newOutbox(h.l, s.ID, Stdin),
		out: newInbox(h.l, s.ID, Stdout), err: newInbox(h.l, s.ID, Stderr),
	}
	p.Stdin, p.Stdout, p.Stderr = p.in, p.out, p.err
	h.procs[s.ID] = p
	return p, nil
}

func (h *Host) forget(id uint32) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.procs, id)
}

// handle takes one frame of the guest.
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
	case Error:
		if m.ID == 0 {
			h.onFailure(m)
			return nil
		}
		return h.onSpawnError(m)
	case Spawned:
		return h.onSpawned(m)
	case Data:
		return h.onData(m)
	case Exit:
		return h.onExit(m)
	case Credit:
		return h.onCredit(m)
	case Hangup:
		return h.onHangup(m)
	}
	return violation("%s from a guest", t)
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

// Failed gives what Run will return once the guest has said that it failed: it goes
// on to switch itself off, which takes it seconds.
func (h *Host) Failed() <-chan *GuestError { return h.failed }

// find returns the program that a frame is about; nil without an error when it
// has ended, in which case only what can cross its end on the way is allowed.
func (h *Host) find(id uint32, late bool) (*Process, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := h.procs[id]
	if p == nil && (!late || id == 0 || id > h.lastID) {
		return nil, violation("no program %d", id)
	}
	return p, nil
}

func (h *Host) onSpawned(m Spawned) error {
	p, err := h.find(m.ID, false)
	if err != nil {
		return err
	}
	if p.running {
		return violation("program %d spawned twice", m.ID)
	}
	p.running = true
	p.PID = m.PID
	p.started <- nil
	return nil
}

func (h *Host) onSpawnError(m Error) error {
	p, err := h.find(m.ID, false)
	if err != nil {
		return err
	}
	if p.running {
		return violation("program %d runs, and then could not start", m.ID)
	}
	code := m.Code
	if code != 126 && code != 127 {
		code = 125
	}
	h.forget(m.ID)
	p.fail(&SpawnError{Program: p.name, Code: code, Text: plain.Text(strings.TrimSpace(m.Text), maxText, plain.OneLine)})
	return nil
}

func (h *Host) onData(m Data) error {
	p, err := h.find(m.ID, false)
	if err != nil {
		return err
	}
	if !p.running {
		return violation("program %d: output before it started", m.ID)
	}
	in := p.out
	switch m.Stream {
	case Stdin:
		return violation("stdin from a guest")
	case Stderr:
		in = p.err
	}
	// The place is free before the reader can know of the end.
	if len(m.Bytes) == 0 {
		p.outputsEnded++
		h.forgetEnded(p)
	}
	return in.feed(m.Bytes)
}

func (h *Host) onExit(m Exit) error {
	p, err := h.find(m.ID, false)
	if err != nil {
		return err
	}
	if !p.running || p.ended {
		return violation("exit of program %d, which does not run", m.ID)
	}
	p.ended = true
	p.in.hangup()
	h.forgetEnded(p)
	p.exit(Status{Code: m.Code, Signal: syscall.Signal(m.Signal)}, nil)
	return nil
}

// forgetEnded frees a program's place once the guest can say no more about it.
func (h *Host) forgetEnded(p *Process) {
	if p.ended && p.outputsEnded == 2 {
		h.forget(p.id)
	}
}

func (h *Host) onCredit(m Credit) error {
	p, err := h.find(m.ID, true)
	if err != nil || p == nil {
		return err
	}
	if m.Stream != Stdin {
		return violation("credit for stream %d, which the host does not send", m.Stream)
	}
	return p.in.grant(m.N)
}

func (h *Host) onHangup(m Hangup) error {
	p, err := h.find(m.ID, true)
	if err != nil || p == nil {
		return err
	}
	if m.Stream != Stdin {
		return violation("hangup of stream %d, which the host does not send", m.Stream)
	}
	p.in.hangup()
	return nil
}

// A Process is a program in the guest, as the host sees it.
//
// Stdout and Stderr end when no process of the guest holds them any more, which
// may be long after the program itself has ended (a program that forked a
// daemon). Closing one tells the guest that nobody reads. Leaving them unread
// stops the program once it has written Window bytes. With a TTY, Stderr is
// empty.
type Process struct {
	Stdin          io.WriteCloser
	Stdout, Stderr io.ReadCloser
	PID            int // in the guest: hostile, for show only

	h       *Host
	id      uint32
	name    string
	in      *outbox
	out     *inbox
	err     *inbox
	started chan error

	// Touched by the Host's reader alone.
	running, ended bool
	outputsEnded   int

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

// ExitCode is the status as a shell's: 128 + n for signal n.
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

// Wait waits until the program itself has ended. The error is that of the
// channel, when it ended first.
func (p *Process) Wait() (Status, error) {
	<-p.exited
	return p.status, p.waitErr
}

// Exited is closed when Wait would return.
func (p *Process) Exited() <-chan struct{} { return p.exited }

// Kill sends a signal to the program and its process group; SIGKILL to all that descends
// from it.
func (p *Process) Kill(sig syscall.Signal) error {
	return p.h.l.send(Kill{ID: p.id, Signal: int(sig)})
}

// Resize sets the size of the program's TTY, in characters.
func (p *Process) Resize(rows, cols uint16) error {
	return p.h.l.send(Resize{ID: p.id, Rows: rows, Cols: cols})
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
