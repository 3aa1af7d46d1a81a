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

// A Conn is one end of a call that was accepted: two byte streams, with a window each as
// those of a program have. Its methods may be called from several goroutines.
type Conn struct {
	in  *inbox
	out *outbox
}

// Read returns what the peer has written, and io.EOF after its end.
func (c *Conn) Read(p []byte) (int, error) { return c.in.Read(p) }

// Write blocks while the peer has no room, and fails with io.ErrClosedPipe when the peer
// reads no more.
func (c *Conn) Write(p []byte) (int, error) { return c.out.Write(p) }

// CloseWrite ends what this end writes.
func (c *Conn) CloseWrite() error { return c.out.Close() }

// Close ends both directions: what was written is still sent, nothing more is read.
func (c *Conn) Close() error { return errors.Join(c.out.Close(), c.in.Close()) }

func (c *Conn) closeLocked() {
	c.out.closeLocked()
	_ = c.in.closeLocked() // it fails when the link has ended, and nothing is owed then
}

// A call is what either end knows of one. It is guarded by its link's mutex.
type call struct {
	l     *link
	id    uint32
	phase phase
	ends  int   // of its two streams
	conn  *Conn // nil until it is accepted
}

// openLocked makes the streams: in is what this end reads, out what it writes. over is
// called, with the lock held, when both have ended.
func (c *call) openLocked(in, out Stream, over func()) {
	c.phase = running
	o := &callEnds{c, over}
	c.conn = &Conn{newInboxLocked(c.l, c.id, in, o), newOutboxLocked(c.l, c.id, out, o)}
}

// takeLocked does what a frame does to the call's streams.
func (c *call) takeLocked(m Message) error {
	if c.conn == nil { // it is refused; giving it up may have crossed that
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

// callEnds hears of the ends of a call's streams.
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
	Open  int           // calls that are not over, at most
	Burst int           // calls that may come at once,
	Pace  time.Duration // and then one in
	// Serve answers one call, by Accept or Refuse, in a goroutine of its own. When it
	// returns, a call that it has not answered is refused, and one that it has accepted is
	// closed. ctx ends with the channel, and when the guest gives the call up that was not
	// answered yet; Serve returns then.
	Serve func(ctx context.Context, c *Caller)
}

// A desk is where the calls of one kind come in. It is guarded by the link's mutex.
type desk struct {
	Handler
	free time.Time // when all of the burst may come again
}

// admits reports whether a call may come now.
func (d *desk) admits(now time.Time) bool {
	if d.free.Before(now) {
		d.free = now
	}
	if d.free.Sub(now) > time.Duration(d.Burst-1)*d.Pace {
		return false
	}
	d.free = d.free.Add(d.Pace)
	return true
}

// A Caller is a guest that waits for an answer to its call.
type Caller struct {
	// Call is what the guest says. Its texts have been made fit for a terminal.
	Call Call

	h      *Host
	kind   CallKind
	call   call
	cancel context.CancelFunc // of Serve's context; nil if nobody serves it
	hung   bool               // the guest has given the call up; under the link's mutex
}

// Handle has the calls of a kind answered by d; those of other kinds are refused. It is
// called before Run.
func (h *Host) Handle(kind CallKind, d Handler) { h.desks[kind] = &desk{Handler: d} }

// onCall takes a frame about a call: states.go says which may come when.
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
	c := &Caller{Call: m.plain(), h: h, kind: m.Kind(), call: call{l: h.l, id: m.ID, phase: asked}}
	d := h.desks[c.kind]
	why := h.objectionLocked(d, c.kind)
	h.calls[m.ID] = c
	if why != "" {
		c.refuseLocked(why)
		return nil
	}
	ctx, cancel := context.WithCancel(h.callsCtx)
	c.cancel = cancel
	h.serving.Go(func() {
		defer cancel()
		d.Serve(ctx, c)
		c.Refuse("nobody takes it")
		c.hangUp()
	})
	return nil
}

// objectionLocked says why nobody is asked to answer a call.
func (h *Host) objectionLocked(d *desk, kind CallKind) string {
	if d == nil {
		return "the host takes no such calls"
	}
	open := 0
	for _, c := range h.calls {
		if c.kind == kind && (c.call.phase == asked || c.call.conn != nil) {
			open++
		}
	}
	switch {
	case open >= d.Open:
		return fmt.Sprintf("%d of the kind are open, the most there can be", open)
	case !d.admits(time.Now()):
		return "too many of the kind came in a short time"
	}
	return ""
}

// giveUpLocked: the guest waits no more. The call keeps its place until it is answered.
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

// errAnswered is what a call is refused for here that has its answer.
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
	c.call.openLocked(Up, Down, func() {}) // the guest says when it is over
	if c.hung {
		c.call.conn.out.hangupLocked()
	}
	return c.call.conn, nil
}

// Refuse says why there is no call, unless it is answered.
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

// hangUp closes a call that was accepted.
func (c *Caller) hangUp() {
	c.h.l.mu.Lock()
	defer c.h.l.mu.Unlock()
	if c.call.conn != nil {
		c.call.conn.closeLocked()
	}
}

// The guest's end.

// A RefusalError is why the host has not taken a call.
type RefusalError struct{ Text string }

func (e *RefusalError) Error() string { return "refused by the host: " + e.Text }

// A guestCall is a call that is not over.
type guestCall struct {
	call
	answer chan error // nil: it was accepted; capacity 1
	left   bool       // the caller is gone
}

// endedLocked wakes the caller when the link ends.
func (c *guestCall) endedLocked() { c.tell(c.l.endLocked()) }

func (c *guestCall) tell(err error) {
	select {
	case c.answer <- err:
	default: // it was told
	}
}

// Call calls the host, and waits for its answer: a *RefusalError says why not. The ID is
// chosen here. When ctx ends first there is no call. The Conn is the caller's to close.
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

// dial queues a call, and gives it a place.
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

// leave ends a call for which nobody waits any more: it is taken back if the host has not
// been sent it, or keeps its place until the host answers.
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

// onCall takes a frame of the host about a call: states.go says what it does when.
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

// overLocked ends a call that was refused, or whose streams have ended.
func (g *Guest) overLocked(c *guestCall) {
	delete(g.calls, c.id)
	_ = g.l.sendLocked(Over{ID: c.id}) // it fails when the link has ended
}
