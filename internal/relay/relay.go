// Package relay is the Wayland engine of both sides of a VM: it stands between
// one client and one server, knows every object of the connection, translates
// ids, and calls hooks. What passes by no hook is forwarded from the receive
// buffer itself: decoded, checked, its ids rewritten in place, and sent.
//
//	client ⇄ [ requests pump → ] ⇄ server
//	         [ ← events pump   ]
//
// The flow of a batch, in each direction:
//
//  1. Recv appends bytes to the pump's buffer, and descriptors to its queue.
//  2. Under Conn.mu every whole message is handled (request, event): object and
//     opcode looked up, arguments checked against the table, descriptors taken,
//     the hook called, ids translated. Untouched messages stay where they are (the
//     span); what a hook drops or writes cuts the span.
//  3. The span, or the cut pieces put together, is sent in one call: before the batch
//     ends where hooks have written much (pieceSize).
//
// Ids differ on the two sides, because a hook may own objects on the server that
// the client does not know, and may keep objects of the client from the server.
//
// The engine enforces the protocol, not a policy: globals are offered by
// Config.Globals, and hooks do the rest (package guestproxy's on the guest's side,
// package filter's on the host's).
package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// Limits of one connection. A peer beyond one of them loses the connection.
const (
	// MaxObjects bounds the objects of each side. A browser with 50 tabs has
	// some thousands.
	MaxObjects = 1 << 16
	// MaxGlobals bounds what a server may announce.
	MaxGlobals = 4096
	// maxAhead bounds the descriptors that are left when all whole messages have been
	// handled: those of a message that has not come to its end, and of the ones after
	// it. They travel with the first byte of what a peer writes at once, which has
	// MaxDescs at most. A guest's stay in its ledger meanwhile.
	maxAhead = wayland.MaxDescs
	// pieceSize is how much is put together before it is sent, and about how much is
	// sent at once: what a batch has from the other side alone fits. More comes of
	// hooks that write many messages for one.
	pieceSize = bufSize
	// maxOutbox bounds what a hook may write for one message. A hundred popups' frames
	// are some KiB, the kinds of a selection 128 KiB at most for each device.
	maxOutbox = 4 << 20
	// writtenWorth is how many bytes count as one request where hooks write more to the
	// server than the client sent: about a message's.
	writtenWorth = 20
	// bufSize is a pump's receive buffer: large enough that a system call is
	// little beside the messages it brings, small enough for many connections.
	bufSize = 32 << 10
)

// Config is what a connection is relayed by.
type Config struct {
	Hooks *Hooks
	// Globals returns the version of a global to offer to the client, 0 to hide
	// it. It is asked with the lower of the server's and the table's version. Nil
	// offers everything in the tables.
	Globals func(i *wayland.Interface, version uint32) uint32
	// Room, when set, is asked for room for n more objects of either side, and
	// given it back with a negative n; false refuses. Called with locks held.
	Room func(n int) bool
	// MaxOf, when set, bounds the objects of each interface, by Interface.Index.
	MaxOf []int32
	// Pace, when set, is told how many requests a batch held, or was worth when hooks
	// wrote more in their place (writtenWorth), and says how long
	// to wait before more are received (see Conn.Delay).
	Pace func(requests int) time.Duration
	// State is the hooks' own, found again as Conn.State.
	State any
	// Woken, when set, is called after Conn.Wake, as a hook is.
	Woken func(c *Conn)
	// ID names the connection towards the tap.
	ID uint64
	// Tap, when set, may be given a Tap at any time.
	Tap *TapSwitch
	Log *slog.Logger
}

// A Tap sees messages before they are handled: checked against the table, with
// the client's id of their object, 0 for one that the client does not know.
type Tap interface {
	Message(conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body []byte)
}

// A Spanner is a Tap that also wants to know what took a while: the copies of
// pixels.
type Spanner interface {
	Span(conn uint64, name string, begin, end time.Time)
}

// A FenceTap is a Tap that also wants to know of a transport's fences: what they
// were for, and how long they were waited for.
type FenceTap interface {
	Fence(conn uint64, what string, begin, end time.Time)
}

// A Fencer is a transport that can tell of its fences: a cross-domain context.
type Fencer interface {
	OnFence(tell func(what string, begin, end time.Time))
}

// watchFences lets a tap that is there when the connection begins see the fences of t.
func (c *Conn) watchFences(t wayland.Transport) {
	f, ok := t.(Fencer)
	if !ok {
		return
	}
	if _, ok := c.cfg.Tap.load().(FenceTap); !ok {
		return
	}
	f.OnFence(func(what string, begin, end time.Time) {
		if tap, ok := c.cfg.Tap.load().(FenceTap); ok {
			tap.Fence(c.cfg.ID, what, begin, end)
		}
	})
}

// Spanner returns what tells the tap of something that took a while, nil when no tap
// wants to know. It is a hook's, for the time of its call.
func (c *Conn) Spanner() func(name string, begin, end time.Time) {
	tap, ok := c.current.tap.(Spanner)
	if !ok {
		return nil
	}
	return func(name string, begin, end time.Time) { tap.Span(c.cfg.ID, name, begin, end) }
}

// A TapSwitch turns a Tap on and off while connections run. They look at it
// before each batch.
type TapSwitch struct{ tap atomic.Pointer[Tap] }

// Set gives all connections t, nil for none.
func (s *TapSwitch) Set(t Tap) {
	if t == nil {
		s.tap.Store(nil)
	} else {
		s.tap.Store(&t)
	}
}

func (s *TapSwitch) load() Tap {
	if s == nil {
		return nil
	}
	if t := s.tap.Load(); t != nil {
		return *t
	}
	return nil
}

// A Conn is one relayed connection.
type Conn struct {
	cfg    Config
	client side
	server side

	// mu guards everything below; the pumps hold it while they handle a batch,
	// never while they receive or send. Before it is released, the send locks of
	// the sides that get something are taken, so that what is sent goes out in
	// the order in which it was handled.
	mu      sync.Mutex
	objs    objects
	globals map[uint32]global
	State   any
	current *pump         // the pump whose batch is being handled
	failed  error         // why the connection ends
	rest    time.Duration // asked for by Delay in this batch

	done   chan struct{} // closed when the connection ends
	ending sync.Once
	waker  waker
}

// A side is one end of the connection.
type side struct {
	t      wayland.Transport
	sendMu sync.Mutex
	// inject is what hooks of the other direction wrote to this side, guarded by
	// Conn.mu until it is sent.
	inject outbox
}

// An outbox is bytes and descriptors to be sent.
type outbox struct {
	wayland.Encoder
	descs []wayland.Desc
	// spill is written to, and dropped, when there is more than maxOutbox.
	spill *outbox
}

func (b *outbox) empty() bool { return len(b.B) == 0 }

// open returns where a hook may write: the outbox, unless that is full. Then the
// connection is going to end, when the hook returns.
func (b *outbox) open() *outbox {
	if len(b.B) <= maxOutbox {
		return b
	}
	if b.spill == nil {
		b.spill = &outbox{}
	}
	b.spill.B = b.spill.B[:0]
	return b.spill
}

var errFlood = fmt.Errorf("hooks wrote more than %d bytes for one message", maxOutbox)

// send sends what was put together in pieces that a peer, or what holds descriptors on
// the way, can take: pieceSize bytes and MaxDescs descriptors. Descriptors come with
// or before the last byte of their message, of which the shortest has HeaderSize
// bytes: so those beyond MaxDescs are sent that much ahead.
func (s *side) send(data []byte, ds []wayland.Desc) error {
	for len(ds) > wayland.MaxDescs && len(data) > wayland.HeaderSize {
		if err := s.t.Send(data[:wayland.HeaderSize], ds[:wayland.MaxDescs:wayland.MaxDescs]); err != nil {
			wayland.CloseAll(ds[wayland.MaxDescs:])
			return err
		}
		data, ds = data[wayland.HeaderSize:], ds[wayland.MaxDescs:]
	}
	for len(data) > 2*pieceSize {
		if err := s.t.Send(data[:pieceSize], ds); err != nil {
			return err
		}
		data, ds = data[pieceSize:], nil
	}
	return s.t.Send(data, ds)
}

// A ProtocolError is the client's fault. It reaches the client as
// wl_display.error before the connection is closed.
type ProtocolError struct {
	Object uint32 // the client's id
	Code   uint32
	Text   string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("protocol error %d on object %d: %s", e.Code, e.Object, e.Text)
}

// Codes of wl_display.error (wayland.xml).
const (
	ErrInvalidObject  = 0
	ErrInvalidMethod  = 1
	ErrNoMemory       = 2
	ErrImplementation = 3
)

// Fail makes the error that a hook returns for a client's mistake.
func Fail(o *Object, code uint32, format string, a ...any) error {
	return &ProtocolError{Object: o.ID, Code: code, Text: fmt.Sprintf(format, a...)}
}

// New returns a connection between a client and a server. It owns both
// transports from now on; Run must be called.
func New(client, server wayland.Transport, cfg Config) *Conn {
	if cfg.Hooks == nil {
		cfg.Hooks = NewHooks()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	c := &Conn{cfg: cfg, globals: map[uint32]global{}, State: cfg.State, done: make(chan struct{})}
	c.client.t, c.server.t = client, server
	c.objs.init(&c.cfg)
	c.watchFences(client)
	c.watchFences(server)
	return c
}

// Run relays until one side ends, the protocol is broken, or ctx is done. The
// error says why, nil when a side closed its end. When it returns, both
// transports are closed and every descriptor and object is gone.
func (c *Conn) Run(ctx context.Context) error {
	stop := context.AfterFunc(ctx, c.close)
	defer stop()
	var wg sync.WaitGroup
	for _, p := range []*pump{
		{c: c, from: &c.client, to: &c.server, handle: c.request, requests: true},
		{c: c, from: &c.server, to: &c.client, handle: c.event},
	} {
		wg.Go(func() {
			c.end(p.run())
		})
	}
	wg.Wait()
	c.waker.end()
	c.objs.releaseAll(c)
	wayland.CloseAll(c.client.inject.descs)
	wayland.CloseAll(c.server.inject.descs)
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return c.failed
}

// isGone tells that the other end of a socket was closed.
func isGone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// end closes the connection for the first reason given, telling the client. A
// side that is gone while we send to it is no reason yet: what it sent before is
// still to be read by the other pump, which sees the end.
func (c *Conn) end(err error) {
	if isGone(err) {
		return
	}
	c.mu.Lock()
	if c.failed == nil && err != nil && !errors.Is(err, wayland.ErrClosed) {
		c.failed = err
		var pe *ProtocolError
		if errors.As(err, &pe) {
			c.sendError(pe)
		}
	}
	c.mu.Unlock()
	c.close()
}

// errorPatience is how long a client that broke the protocol may take to make
// room for the error that says so.
const errorPatience = time.Second

// sendError is the last thing that the client hears. A client that does not
// read cannot delay the end for longer than errorPatience.
func (c *Conn) sendError(pe *ProtocolError) {
	var e wayland.Encoder
	text := strings.ReplaceAll(pe.Text[:min(len(pe.Text), 1024)], "\x00", "?")
	if e.Put(1, wayland.WlDisplayEvtError, pe.Object, pe.Code, text) != nil {
		return
	}
	guard := time.AfterFunc(errorPatience, c.close)
	defer guard.Stop()
	c.client.sendMu.Lock()
	defer c.client.sendMu.Unlock()
	_ = c.client.t.Send(e.B, nil) // the connection ends either way
}

// Delay slows the client down: once the requests in hand have been sent, d passes
// before more are received. What the client sends meanwhile stays in its socket, and
// in the end in the client. Events go on. It is for hooks of requests; of several
// calls for the same batch the longest counts, and the end of the connection
// ends it.
func (c *Conn) Delay(d time.Duration) { c.rest = max(c.rest, d) }

// Ended tells whether the connection has ended, or is about to.
func (c *Conn) Ended() bool {
	select {
	case <-c.done:
		return true
	default:
		return false
	}
}

func (c *Conn) close() {
	c.ending.Do(func() { close(c.done) })
	_ = c.client.t.Close()
	_ = c.server.t.Close()
}

// A pump carries one direction.
type pump struct {
	c        *Conn
	from, to *side
	handle   func(p *pump, msg []byte) error
	requests bool

	buf     []byte
	r, w    int            // buf[r:w] is received and not yet handled
	size    int            // of the message before r while it is being handled
	sent    int            // bytes of this batch
	span    int            // buf[span:r] is handled in place and not yet sent
	spanned []wayland.Desc // descriptors of the span and of out, in order
	queue   []wayland.Desc // received, not yet taken
	taken   int            // queue[:taken] is taken
	out     outbox         // what comes before the span when it was cut
	m       Msg
	tap     Tap // for this batch
}

// buffers are kept for the next connection: to clear a new one costs more than
// all else that a connection's start does.
var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

func (p *pump) run() error {
	buf := buffers.Get().(*[bufSize]byte)
	defer buffers.Put(buf)
	p.buf = buf[:]
	defer func() {
		wayland.CloseAll(p.queue[p.taken:])
		wayland.CloseAll(p.spanned)
	}()
	for {
		if err := p.fill(); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		rest, err := p.batch()
		if err != nil {
			return err
		}
		if rest > 0 {
			t := time.NewTimer(rest)
			select {
			case <-t.C:
			case <-p.c.done:
			}
			t.Stop()
		}
	}
}

// fill receives at least one more byte.
func (p *pump) fill() error {
	if len(p.queue) > maxAhead {
		return p.blame(fmt.Errorf("%d descriptors without messages", len(p.queue)))
	}
	copy(p.buf, p.buf[p.r:p.w])
	p.w -= p.r
	p.r, p.span = 0, 0
	n, q, err := p.from.t.Recv(p.buf[p.w:], p.queue)
	p.queue = q
	p.w += n
	return err
}

// batch handles every whole message in the buffer and sends the result. It
// returns how long the pump is to wait before it receives more.
func (p *pump) batch() (rest time.Duration, _ error) {
	c := p.c
	c.mu.Lock()
	c.current = p
	p.tap = c.cfg.Tap.load()
	var failed error
	n, begin := 0, p.r // messages
	p.sent = 0
	for ; failed == nil; n++ {
		_, _, size, err := wayland.Next(p.buf[p.r:p.w])
		if err != nil {
			failed = p.blame(err)
			break
		}
		if size == 0 {
			break
		}
		msg := p.buf[p.r : p.r+size : p.r+size]
		p.r += size
		p.size = size
		failed = p.handle(p, msg)
		if failed != nil {
			p.cutAt(p.r-size, p.r)
		} else if len(p.spanned) > wayland.MaxDescs-4 || len(p.out.B)+len(p.from.inject.B) > pieceSize {
			failed = p.flush() // before more than one Send should take
		}
	}
	p.requeue()
	if err := p.flush(); failed == nil {
		failed = err
	}
	c.current = nil
	if p.requests {
		if c.cfg.Pace != nil {
			more := p.sent - (p.r - begin)
			c.Delay(c.cfg.Pace(n + max(more, 0)/writtenWorth))
		}
		rest, c.rest = c.rest, 0
	}
	c.mu.Unlock()
	return rest, failed
}

// blame makes a malformed stream the client's error when it is the client's.
func (p *pump) blame(err error) error {
	if p.requests {
		return &ProtocolError{Object: 1, Code: ErrInvalidMethod, Text: err.Error()}
	}
	return fmt.Errorf("server: %w", err)
}

// requeue drops the taken descriptors from the queue.
func (p *pump) requeue() {
	if p.taken > 0 {
		n := copy(p.queue, p.queue[p.taken:])
		p.queue, p.taken = p.queue[:n], 0
	}
}

// cutAt takes buf[from:to] out of the span; what comes before goes to out.
func (p *pump) cutAt(from, to int) {
	if p.span < from {
		p.out.B = append(p.out.B, p.buf[p.span:from]...)
	}
	p.span = to
}

// flush sends what was handled, and what hooks wrote to the other side. It is
// called with c.mu held, and releases it while it sends.
func (p *pump) flush() error {
	c := p.c
	if p.out.spill != nil || p.from.inject.spill != nil || p.to.inject.spill != nil {
		return errFlood
	}
	data, descs := p.buf[p.span:p.r], p.spanned
	if !p.out.empty() {
		p.out.B = append(p.out.B, data...)
		data = p.out.B
	}
	p.span = p.r
	back := &p.from.inject
	ahead := &p.to.inject
	if len(data) == 0 && back.empty() && ahead.empty() {
		return nil
	}
	// Injections are moved out, because c.mu is not held while they are sent.
	var backB, aheadB outbox
	if !back.empty() {
		backB, *back = *back, outbox{}
		p.from.sendMu.Lock()
	}
	if !ahead.empty() {
		aheadB, *ahead = *ahead, outbox{}
	}
	p.sent += len(aheadB.B) + len(data)
	p.to.sendMu.Lock()
	c.mu.Unlock()
	var err error
	if !aheadB.empty() {
		err = p.to.send(aheadB.B, aheadB.descs)
	}
	if len(data) > 0 {
		if err == nil {
			err = p.to.send(data, descs)
		} else {
			wayland.CloseAll(descs)
		}
	}
	p.to.sendMu.Unlock()
	if !backB.empty() {
		// A side that is gone ends this pump when it next receives.
		if e := p.from.send(backB.B, backB.descs); !isGone(e) {
			err = errors.Join(err, e)
		}
		p.from.sendMu.Unlock()
	}
	c.mu.Lock()
	c.current = p
	p.spanned = p.spanned[:0]
	if p.out.B = p.out.B[:0]; cap(p.out.B) > 4*pieceSize {
		p.out.B = nil // a burst's memory is not kept
	}
	return err
}

// take removes n descriptors from the queue and gives them their kinds.
func (p *pump) take(kinds []wayland.Kind) ([]wayland.Desc, error) {
	n := len(kinds)
	if len(p.queue)-p.taken < n {
		return nil, wayland.ErrMissing
	}
	ds := p.queue[p.taken : p.taken+n : p.taken+n]
	p.taken += n
	for k := range ds {
		ds[k].Kind = kinds[k]
	}
	return ds, nil
}
