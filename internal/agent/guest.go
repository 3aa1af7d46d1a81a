package agent

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"syscall"
	"time"

	"vix/internal/plain"
)

// A GuestConfig holds the functions by which a Guest acts on its machine. They may be
// called from several goroutines.
type GuestConfig struct {
	Log    *slog.Logger
	Kernel string // uname -r, for the hello

	// Boot is called once, with the host's boot message.
	Boot func(Boot)
	// Clock is called with the host's time after the host's clock has jumped.
	Clock func(ns int64)
	// Start starts a program as the guest's user. A *SpawnError carries the code that a shell
	// would return. Start may block until ctx ends.
	Start func(ctx context.Context, s Spawn) (*Program, error)
}

// A Program is a program that Start has started. The Guest owns its streams.
type Program struct {
	PID    int
	Stdin  io.WriteCloser
	Stdout io.ReadCloser
	Stderr io.ReadCloser // nil with a TTY
	// Signal signals the program and its process group; SIGKILL goes to all its descendants.
	Signal func(syscall.Signal) error
	// Resize sets the TTY's size; nil without one.
	Resize func(rows, cols uint16) error
	// Wait returns when the program itself has ended. It is called once.
	Wait func() Status
	// OtherTerm: its TERM is FallbackTerm, as nobody has an entry for the one in the Spawn.
	OtherTerm bool
}

// A Guest is the guest's end of the channel.
type Guest struct {
	cfg GuestConfig
	l   *link

	booted  bool            // used by the reader alone
	lastID  uint32          // the last spawn's; used by the reader alone
	ctx     context.Context // for Start: ends with the grace period
	cancel  context.CancelFunc
	running sync.WaitGroup

	// Guarded by l.mu:
	lastCall uint32
	calls    map[uint32]*guestCall // calls that are not over

	mu      sync.Mutex
	procs   map[uint32]*guestProc
	closing bool
	empty   chan struct{} // closed when the guest is closing and no program is left
}

// NewGuest returns the guest's end over rw. It owns rw, and Run closes it.
func NewGuest(rw io.ReadWriteCloser, cfg GuestConfig) *Guest {
	g := &Guest{cfg: cfg, l: newLink(rw), procs: map[uint32]*guestProc{}, calls: map[uint32]*guestCall{}, empty: make(chan struct{})}
	// Hello is queued here, so that it is the first frame whatever else is sent before Run.
	g.say(Hello{Version: Version, Kernel: plain.Text(cfg.Kernel, maxText, plain.OneLine)})
	return g
}

// errPowerOff ends the read loop when the host has requested power off.
var errPowerOff = errors.New("power off")

// Run serves until the host requests power off (nil), the channel ends, or ctx does. Before
// it returns, it ends every program (SIGTERM, then SIGKILL after the host's grace period)
// and writes their remaining output and status. The caller switches the machine off.
func (g *Guest) Run(ctx context.Context) error {
	g.ctx, g.cancel = context.WithCancel(ctx)
	defer g.cancel()
	stop := context.AfterFunc(ctx, func() { g.l.fail(context.Cause(ctx)) })
	defer stop()
	var loops sync.WaitGroup
	loops.Go(func() {
		if err := g.l.writeLoop(); err != nil {
			g.l.fail(err)
		}
	})
	power := make(chan PowerOff, 1)
	failed := make(chan error, 1)
	loops.Go(func() {
		failed <- g.l.readLoop(func(t Type, p []byte) error { return g.handle(t, p, power) })
	})
	var err error
	select {
	case p := <-power:
		// The reader goes on: the output of ending programs needs its credit.
		g.end(time.Duration(p.Grace) * time.Millisecond)
		g.l.flush(flushLimit)
		g.l.fail(errPowerOff)
	case err = <-failed:
		g.l.fail(err)
		g.end(0)
	}
	loops.Wait()
	g.running.Wait()
	if err != nil {
		return g.l.cause()
	}
	return nil
}

// flushLimit bounds the wait for a host that does not read.
const flushLimit = 500 * time.Millisecond

// Stage reports a stage of the boot; state is "" when it is done.
func (g *Guest) Stage(name, state string, uptime time.Duration) {
	g.say(Stage{Name: name, State: state, Uptime: uptime.Milliseconds()})
}

// Ready reports that the guest can start programs.
func (g *Guest) Ready(uptime time.Duration) { g.say(Ready{Uptime: uptime.Milliseconds()}) }

// Traffic reports the bytes that the network card has carried since the start.
func (g *Guest) Traffic(received, sent uint64) { g.say(Traffic{received, sent}) }

// Shortage reports that the kernel has killed a program for want of memory; count includes it.
func (g *Guest) Shortage(program string, count uint64) {
	g.say(Shortage{Program: plain.Text(program, maxName, plain.OneLine), Count: count})
}

// WindowLoss reports that the Wayland proxy has ended. count includes this end; pause is
// the time until the next proxy starts.
func (g *Guest) WindowLoss(how string, count uint64, pause time.Duration) {
	g.say(WindowLoss{How: plain.Text(how, maxText, plain.OneLine), Count: count, Pause: pause.Milliseconds()})
}

// Fail reports why the guest is about to power off, and waits until the report is written.
// The caller then ends Run's context.
func (g *Guest) Fail(text string) {
	g.say(Error{Text: plain.Text(text, maxText, plain.OneLine)})
	g.l.flush(flushLimit)
}

func (g *Guest) say(m Message) {
	if err := g.l.send(m); err != nil {
		g.cfg.Log.Debug("agent channel: cannot send", "message", m.Type(), "err", err)
	}
}

// handle handles one frame of the host. It ignores a frame that it does not understand:
// the host is trusted, and may be newer.
func (g *Guest) handle(t Type, payload []byte, power chan<- PowerOff) error {
	m, err := Parse(t, payload)
	if err != nil {
		g.cfg.Log.Warn("frame ignored", "err", err)
		return nil
	}
	switch m := m.(type) {
	case Boot:
		if !g.booted {
			g.booted = true
			g.cfg.Boot(m)
		}
	case Clock:
		if g.cfg.Clock != nil {
			g.cfg.Clock(m.Time)
		}
	case Ping:
		g.say(Pong(m))
	case Spawn:
		g.spawn(m)
	case PowerOff:
		select {
		case power <- m:
		default:
		}
	default:
		on := g.onRun
		if k, _ := keyOf(m); k.call {
			on = g.onCall
		}
		if err := on(m); err != nil {
			g.cfg.Log.Warn("frame ignored", "err", err)
		}
	}
	return nil
}

// onRun handles a frame about a run that the host has spawned: states.go defines its
// effect. A frame that crossed the guest's own has none.
func (g *Guest) onRun(m Message) error {
	k, _ := keyOf(m)
	p := g.find(k.id)
	if p == nil {
		return nil
	}
	g.l.mu.Lock()
	v := fromHost[m.Type()][p.course.phase]
	g.l.mu.Unlock()
	if v != acts && v != keeps {
		return nil
	}
	switch m := m.(type) {
	case Kill:
		p.kill(syscall.Signal(m.Signal))
	case Resize:
		p.resize(m)
	default:
		return p.onStream(m)
	}
	return nil
}

// onStream handles a frame about one of the run's streams.
func (p *guestProc) onStream(m Message) error {
	l := p.g.l
	switch m := m.(type) {
	case Data:
		l.mu.Lock()
		defer l.mu.Unlock()
		return p.in.feedLocked(m.Bytes)
	case Credit:
		if m.Stream == Stdin {
			return violation("credit for stdin")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		return p.outbox(m.Stream).grantLocked(m.N)
	case Hangup:
		if m.Stream == Stdin {
			return violation("hangup of stdin")
		}
		p.hangup(m.Stream)
	}
	return nil
}

func (g *Guest) find(id uint32) *guestProc {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.procs[id]
}

// spawn starts a program in a goroutine of its own: reading the program from the shared
// root takes a while, and the streams of others continue meanwhile.
func (g *Guest) spawn(s Spawn) {
	if s.ID <= g.lastID {
		g.cfg.Log.Warn("frame ignored", "err", violation("program %d spawned twice", s.ID))
		return
	}
	g.lastID = s.ID
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		g.say(Error{ID: s.ID, Code: 125, Text: "the guest is powering off"})
		return
	}
	p := newGuestProc(g, s.ID)
	g.procs[s.ID] = p
	g.mu.Unlock()
	g.running.Go(func() {
		p.run(s)
		g.forget(p)
	})
}

func (g *Guest) forget(p *guestProc) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.procs, p.id)
	if g.closing && len(g.procs) == 0 {
		close(g.empty)
	}
}

// end asks every program to end, then kills it. It returns when all are gone, with their
// output drained unless the grace period ended first.
func (g *Guest) end(grace time.Duration) {
	g.mu.Lock()
	g.closing = true
	procs := make([]*guestProc, 0, len(g.procs))
	for _, p := range g.procs {
		procs = append(procs, p)
	}
	if len(procs) == 0 {
		close(g.empty)
	}
	g.mu.Unlock()
	if grace > 0 {
		for _, p := range procs {
			p.kill(syscall.SIGTERM)
		}
		t := time.NewTimer(grace)
		defer t.Stop()
		select {
		case <-g.empty:
			return
		case <-t.C:
		}
	}
	g.cancel()
	for _, p := range procs {
		p.kill(syscall.SIGKILL)
		p.abandon()
	}
	<-g.empty
}

// A guestProc joins a program to the channel:
//
//	stdin frames ─► in ─► Program.Stdin      (one goroutine each)
//	Program.Stdout ─► out ─► stdout frames
//	Program.Stderr ─► err ─► stderr frames
type guestProc struct {
	g      *Guest
	id     uint32
	course course // guarded by g.l.mu
	in     *inbox
	out    *outbox
	err    *outbox
	ctx    context.Context // for its start
	cancel context.CancelFunc

	mu        sync.Mutex
	prog      *Program
	signals   []syscall.Signal // signals that wait for the program's start; each once
	size      *Resize          // a size that waits for the program's start
	hung      [3]bool          // streams whose reader left before the program's start
	abandoned bool
}

func newGuestProc(g *Guest, id uint32) *guestProc {
	p := &guestProc{g: g, id: id, course: course{phase: asked}}
	p.ctx, p.cancel = context.WithCancel(g.ctx)
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	p.in = newInboxLocked(g.l, id, Stdin, nil)
	p.out, p.err = newOutboxLocked(g.l, id, Stdout, &p.course), newOutboxLocked(g.l, id, Stderr, &p.course)
	return p
}

// say advances the run, and sends m to the host.
func (p *guestProc) say(m Message) {
	l := p.g.l
	l.mu.Lock()
	defer l.mu.Unlock()
	err := p.course.moveLocked(p.id, m.Type())
	if err == nil {
		if m.Type() == TypeExit {
			p.in.endLocked() // no frame about it may follow
		}
		err = l.sendLocked(m)
	}
	if err != nil {
		p.g.cfg.Log.Debug("agent channel: cannot send", "message", m.Type(), "err", err)
		return
	}
	p.out.readyLocked() // output that waited for the program's start
	p.err.readyLocked()
}

func (p *guestProc) outbox(s Stream) *outbox {
	if s == Stderr {
		return p.err
	}
	return p.out
}

// run starts the program, and returns when it and its streams have ended.
func (p *guestProc) run(s Spawn) {
	prog, err := p.g.cfg.Start(p.ctx, s)
	p.cancel()
	if err != nil {
		code := 125
		if se := (*SpawnError)(nil); errors.As(err, &se) {
			code = cmp.Or(se.Code, code)
			err = errors.New(se.Text)
		}
		p.g.l.drop(p.in, p.out, p.err)
		p.say(Error{ID: p.id, Code: code, Text: plain.Text(err.Error(), maxText, plain.OneLine)})
		return
	}
	p.say(Spawned{ID: p.id, PID: prog.PID, OtherTerm: prog.OtherTerm})
	p.adopt(prog)

	var streams sync.WaitGroup
	streams.Go(func() { pumpOut(p.out, prog.Stdout) })
	if prog.Stderr != nil {
		streams.Go(func() { pumpOut(p.err, prog.Stderr) })
	} else {
		_ = p.err.Close()
	}
	streams.Go(func() { p.pumpIn(prog.Stdin) })
	st := prog.Wait()
	p.mu.Lock()
	prog.Signal = func(syscall.Signal) error { return syscall.ESRCH } // another process may have the pid now
	p.mu.Unlock()
	p.say(Exit{ID: p.id, Code: st.Code, Signal: int(st.Signal)})
	_ = prog.Stdin.Close()
	streams.Wait()
}

// adopt applies what arrived before the program's start.
func (p *guestProc) adopt(prog *Program) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prog = prog
	if p.size != nil {
		p.resizeLocked(*p.size)
	}
	for s, hung := range p.hung {
		if hung {
			p.closeOutputLocked(Stream(s))
		}
	}
	for _, sig := range p.signals {
		p.signalLocked(sig)
	}
	if p.abandoned {
		p.abandonLocked()
	}
}

func (p *guestProc) kill(sig syscall.Signal) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prog != nil {
		p.signalLocked(sig)
		return
	}
	// The last signal of a number counts: a stop and a later continue keep their order.
	p.signals = append(slices.DeleteFunc(p.signals, func(s syscall.Signal) bool { return s == sig }), sig)
	if sig == syscall.SIGKILL {
		p.cancel() // a start that blocks is abandoned
	}
}

func (p *guestProc) signalLocked(sig syscall.Signal) {
	if err := p.prog.Signal(sig); err != nil {
		p.g.cfg.Log.Debug("signal not sent", "id", p.id, "signal", sig, "err", err)
	}
}

func (p *guestProc) resize(m Resize) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prog == nil {
		p.size = &m
		return
	}
	p.resizeLocked(m)
}

func (p *guestProc) resizeLocked(m Resize) {
	if p.prog.Resize != nil {
		_ = p.prog.Resize(m.Rows, m.Cols)
	}
}

// hangup handles the loss of the host's reader: the program gets EPIPE.
func (p *guestProc) hangup(s Stream) {
	p.hangupOutput(s)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hung[s] = true
	if p.prog != nil {
		p.closeOutputLocked(s)
	}
}

func (p *guestProc) hangupOutput(s Stream) {
	p.g.l.mu.Lock()
	defer p.g.l.mu.Unlock()
	p.outbox(s).hangupLocked()
}

// closeOutputLocked closes an output of the program.
func (p *guestProc) closeOutputLocked(s Stream) {
	switch {
	case s == Stdout:
		_ = p.prog.Stdout.Close()
	case p.prog.Stderr != nil:
		_ = p.prog.Stderr.Close()
	}
}

// abandon closes output that a descendant of the program still holds.
func (p *guestProc) abandon() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.abandoned = true
	if p.prog != nil {
		p.abandonLocked()
	}
}

func (p *guestProc) abandonLocked() {
	for _, s := range []Stream{Stdout, Stderr} {
		p.hangupOutput(s)
		p.closeOutputLocked(s)
	}
}

// pumpOut sends the program's output, as fast as the host takes it.
func pumpOut(o *outbox, r io.ReadCloser) {
	buf := make([]byte, MaxData)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, werr := o.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			break
		}
	}
	_ = r.Close()
	_ = o.Close()
}

// pumpIn writes the host's data to the program.
func (p *guestProc) pumpIn(w io.WriteCloser) {
	buf := make([]byte, MaxData)
	for {
		n, err := p.in.Read(buf)
		if n > 0 {
			if _, werr := w.Write(buf[:n]); werr != nil {
				_ = p.in.Close() // tells the host
				break
			}
		}
		if err != nil {
			break
		}
	}
	_ = w.Close()
}
