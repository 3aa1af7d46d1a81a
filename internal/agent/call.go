package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"vix/internal/plain"
)

// A Conn is one end of an accepted call: two byte streams, each with a window, as a
// program's streams have. Its methods may be called from several goroutines.
type Conn struct {
	in  *inbox
	out *outbox
}

// Read returns what the peer has written, and io.EOF after its end.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write blocks while the peer has no room, and fails with io.ErrClosedPipe when the peer
// has stopped reading.
func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// CloseWrite ends this end's output.
func (c *Conn) CloseWrite() error { return c.out.Close() }

// Close ends both directions: pending output is still sent, and no more input is read.
func (c *Conn) Close() error { return errors.Join(c.out.Close(), c.in.Close()) }

func (c *Conn) closeLocked() {
	c.out.closeLocked()
	_ = c.in.closeLocked() // fails only after the link's end, when nothing needs to be sent
}

// A call is one end's state of a call. The link's mutex guards it.
type call struct {
	l     *link
	id    uint32
	phase phase
	ends  int   // streams that have ended
	conn  *Conn // nil until it is accepted
}

// openLocked makes the streams: this end reads in and writes out. It calls over, with the
// lock held, when both have ended.
func (c *call) openLocked(in, out Stream, over func()) {
	c.phase = running
	o := &callEnds{c, over}
	c.conn = &Conn{newInboxLocked(c.l, c.id, in, o), newOutboxLocked(c.l, c.id, out, o)}
}

// takeLocked applies a frame to the call's streams.
func (c *call) takeLocked(m Message) error {
	if c.conn == nil { // the call is refused, and the guest's hangup may have crossed the refusal
		if m != (Hangup{ID: c.id, Stream: Down}) {
			return violation("call %d: %s, and it was refused", c.id, m.Type())
		}
		return nil
	}
	switch m := m.(type) {
	case Data:
		return c.conn.in.feedLocked(m.Bytes)
	case Credit:
		if m.Stream != c.conn.out.stream {
			return violation("call %d: credit for stream %d", c.id, m.Stream)
		}
		return c.conn.out.grantLocked(m.N)
	case Hangup:
		if m.Stream != c.conn.out.stream {
			return violation("call %d: hangup of stream %d", c.id, m.Stream)
		}
		c.conn.out.hangupLocked()
	}
	return nil
}

// callEnds counts the ends of a call's streams.
type callEnds struct {
	c    *call
	over func()
}

func (e *callEnds) talksLocked() bool { return e.c.phase == running }

func (e *callEnds) streamEndedLocked() {
	if e.c.ends++; e.c.ends == 2 {
		e.c.phase = ended
		e.over()
	}
}

// The host's end.

// A Handler answers the calls of one kind, within bounds that hold whatever the guest does.
type Handler struct {
	// Open bounds the calls that have a place. A call keeps its place until the guest has
	// reported that it is over, and Serve has returned too: a guest that leaves a call has no
	// second one served beside it.
	Open int
	Pace Pace // of new calls
	// Serve answers one call, by Accept or Refuse, in a goroutine of its own. When it
	// returns, an unanswered call is refused and an accepted one is closed. ctx ends with the
	// channel, and when the guest gives up the call before the answer; Serve returns then.
	Serve func(ctx context.Context, c *Caller)
}

// A desk receives the calls of one kind. The link's mutex guards it.
type desk struct {
	Handler
	open int // calls that have a place
}

// A Caller is a guest that waits for an answer to its call.
type Caller struct {
	// Call is the guest's request. Its texts have been made fit for a terminal.
	Call Call

	h      *Host
	desk   *desk // nil for a call that Serve never got
	holds  int   // the guest and Serve, as long as each has to do with the call
	call   call
	cancel context.CancelFunc // ends Serve's context; nil if Serve does not run
	hung   bool               // the guest has given up the call; guarded by the link's mutex
}

// Handle lets d answer the calls of a kind. Kinds without a handler are refused. Handle is
// called before Run.
func (h *Host) Handle(kind CallKind, d Handler) { h.desks[kind] = &desk{Handler: d} }

// onCall handles a frame about a call: states.go defines what may come when.
func (h *Host) onCall(m Message) error {
	k, _ := keyOf(m)
	h.l.mu.Lock()
	defer h.l.mu.Unlock()
	c, at := h.calls[k.id], unknown
	if c != nil {
		at = c.call.phase
	}
	if callFromGuest[m.Type()][at] != acts {
		return violation("call %d: %s while it is %s", k.id, m.Type(), at)
	}
	switch m := m.(type) {
	case Call:
		return h.takeCallLocked(m)
	case Over:
		delete(h.calls, m.ID)
		c.letGoLocked()
		return nil
	case Hangup:
		if at == asked {
			return c.giveUpLocked(m)
		}
	}
	return c.call.takeLocked(m)
}

// takeCallLocked gives a call a place, until it is over.
func (h *Host) takeCallLocked(m Call) error {
	switch {
	case m.ID <= h.lastCall:
		return violation("call %d after %d", m.ID, h.lastCall)
	case len(h.calls) >= MaxCalls:
		return violation("more than %d calls that are not over", MaxCalls)
	}
	h.lastCall = m.ID
	c := &Caller{Call: m.plain(), h: h, call: call{l: h.l, id: m.ID, phase: asked}}
	h.calls[m.ID] = c
	d := h.desks[m.Kind()]
	if why := d.objectionLocked(); why != "" {
		c.refuseLocked(why)
		return nil
	}
	c.desk, c.holds = d, 2
	d.open++
	ctx, cancel := context.WithCancel(h.callsCtx)
	c.cancel = cancel
	h.serving.Go(func() {
		defer cancel()
		d.Serve(ctx, c)
		c.finish()
	})
	return nil
}

// objectionLocked says why a call is refused without asking its handler; "" if it is not.
func (d *desk) objectionLocked() string {
	switch {
	case d == nil:
		return "the host takes no such calls"
	case d.open >= d.Open:
		return fmt.Sprintf("%d of the kind are open, the most there can be", d.open)
	case !d.Pace.Admits(time.Now()):
		return "too many of the kind came in a short time"
	}
	return ""
}

// letGoLocked gives the call's place back, when the guest and Serve have let go of it.
func (c *Caller) letGoLocked() {
	if c.holds--; c.holds == 0 {
		c.desk.open--
	}
}

// giveUpLocked notes that the guest no longer waits. The call keeps its place until its answer.
func (c *Caller) giveUpLocked(m Hangup) error {
	if m.Stream != Down {
		return violation("call %d: hangup of stream %d", m.ID, m.Stream)
	}
	c.hung = true
	if c.cancel != nil {
		c.cancel()
	}
	return nil
}

// errAnswered is the error of a second answer to a call.
var errAnswered = errors.New("the call is answered already")

// Accept opens the call.
func (c *Caller) Accept() (*Conn, error) {
	l := c.h.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.call.phase != asked {
		return nil, errAnswered
	}
	if err := l.sendLocked(Accept{ID: c.call.id}); err != nil {
		return nil, err
	}
	c.call.openLocked(Up, Down, func() {}) // the guest reports when it is over
	if c.hung {
		c.call.conn.out.hangupLocked()
	}
	return c.call.conn, nil
}

// Refuse refuses the call with a reason, unless it has been answered.
func (c *Caller) Refuse(why string) {
	c.h.l.mu.Lock()
	defer c.h.l.mu.Unlock()
	if c.call.phase == asked {
		c.refuseLocked(why)
	}
}

func (c *Caller) refuseLocked(why string) {
	c.call.phase = ended
	// It fails when the channel has ended.
	_ = c.h.l.sendLocked(Refuse{ID: c.call.id, Text: plain.Text(why, maxText, plain.OneLine)})
}

// finish is the end of Serve: it refuses a call that has no answer, or closes the call.
func (c *Caller) finish() {
	c.h.l.mu.Lock()
	defer c.h.l.mu.Unlock()
	switch {
	case c.call.phase == asked:
		c.refuseLocked("nobody takes it")
	case c.call.conn != nil:
		c.call.conn.closeLocked()
	}
	c.letGoLocked()
}

// The guest's end.

// A RefusalError is the host's reason for refusing a call.
type RefusalError struct{ Text string }

func (e *RefusalError) Error() string { return "refused by the host: " + e.Text }

// A guestCall is a call that is not over.
type guestCall struct {
	call
	answer chan error // nil means accepted; capacity 1
	left   bool       // the caller no longer waits
}

// endedLocked wakes the caller when the link ends.
func (c *guestCall) endedLocked() { c.tell(c.l.endLocked()) }

func (c *guestCall) tell(err error) {
	select {
	case c.answer <- err:
	default: // it has an answer
	}
}

// Call calls the host and waits for the answer; a refusal is a *RefusalError. Call chooses
// the ID. If ctx ends first, there is no call. The caller closes the Conn.
func (g *Guest) Call(ctx context.Context, m Call) (*Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	c, err := g.dial(m)
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	select {
	case err = <-c.answer:
	case <-ctx.Done():
		g.leave(c)
		err = ctx.Err()
	}
	g.l.drop(c)
	if err != nil {
		return nil, fmt.Errorf("call: %w", err)
	}
	return c.conn, nil
}

// dial queues a call and gives it a place.
func (g *Guest) dial(m Call) (*guestCall, error) {
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	if len(g.calls) >= MaxCalls {
		return nil, fmt.Errorf("%d calls are not over, the most there can be", MaxCalls)
	}
	m = m.plain()
	m.ID = g.lastCall + 1
	if err := g.l.sendLocked(m); err != nil {
		return nil, err
	}
	g.lastCall++
	c := &guestCall{call: call{l: g.l, id: m.ID, phase: asked}, answer: make(chan error, 1)}
	g.calls[m.ID] = c
	g.l.streams[c] = struct{}{}
	return c, nil
}

// leave ends a call whose caller no longer waits. If the host has not been sent the call,
// it is taken back; otherwise it keeps its place until the host answers.
func (g *Guest) leave(c *guestCall) {
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	c.left = true
	switch {
	case g.l.takeBackLocked(true, c.id):
		delete(g.calls, c.id)
	case c.phase == asked:
		_ = g.l.sendLocked(Hangup{ID: c.id, Stream: Down}) // it fails when the link has ended
	case c.conn != nil:
		c.conn.closeLocked()
	}
}

// onCall handles the host's frame about a call: states.go defines its effect.
func (g *Guest) onCall(m Message) error {
	k, _ := keyOf(m)
	g.l.mu.Lock()
	defer g.l.mu.Unlock()
	c := g.calls[k.id]
	if c == nil || callFromHost[m.Type()][c.phase] != acts {
		return nil
	}
	switch m := m.(type) {
	case Accept:
		c.openLocked(Down, Up, func() { g.overLocked(c) })
		if c.left {
			c.conn.closeLocked()
		}
		c.tell(nil)
		return nil
	case Refuse:
		g.overLocked(c)
		c.tell(&RefusalError{cmp.Or(strings.TrimSpace(m.Text), "it does not say why")})
		return nil
	}
	return c.takeLocked(m)
}

// overLocked ends a call that was refused or whose streams have ended.
func (g *Guest) overLocked(c *guestCall) {
	delete(g.calls, c.id)
	_ = g.l.sendLocked(Over{ID: c.id}) // it fails when the link has ended
}
