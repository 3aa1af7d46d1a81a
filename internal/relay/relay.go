// Package relay is the Wayland engine of both sides of a VM: it stands between
// one client and one server, knows every object of the connection, translates
// ids, and calls hooks. A message without a hook is forwarded from the receive
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
//     the hook called, ids translated. Untouched messages stay in place (the span); a
//     hook that drops or writes a message cuts the span.
//  3. One call sends the span, or the joined pieces; it comes before the end of the
//     batch where hooks have written much (pieceSize).
//
// Ids differ on the two sides, because a hook may own objects on the server that
// the client does not know, and may keep objects of the client from the server.
//
// The engine enforces the protocol, not a policy: Config.Globals chooses the globals to
// offer, and hooks do the rest (package guestproxy's on the guest's side, package
// filter's on the host's).
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
	// MaxObjects bounds the objects of each side. A browser with 50 tabs has a few
	// thousand.
	MaxObjects = 1 << 16
	// MaxGlobals bounds the globals that a server may announce.
	MaxGlobals = 4096
	// maxAhead bounds the descriptors left after all whole messages are handled: those of
	// an incomplete message, and of the ones after it. They travel with the first byte of
	// a peer's write, which has at most MaxDescs. A guest's stay in its ledger meanwhile.
	maxAhead = wayland.MaxDescs
	// pieceSize is how many bytes collect before a send, and about how many go out at
	// once. A batch fits, unless hooks write many messages for one.
	pieceSize = bufSize
	// maxOutbox bounds the bytes that a hook may write for one message. The frames of a
	// hundred popups take some KiB, a selection's kinds at most 128 KiB for each device.
	maxOutbox = 4 << 20
	// requestWorth is how many bytes count as one request where hooks write more to the
	// server than the client sent: about the size of a message.
	requestWorth = 20
	// bufSize is the size of a pump's receive buffer: large enough that a system call
	// costs little beside its messages, small enough for many connections.
	bufSize = 32 << 10
)

// Config configures the relay of a connection.
type Config struct {
	Hooks *Hooks
	// Globals returns the version of a global to offer to the client, 0 to hide
	// it. Its argument is the lower of the server's and the table's version. Nil
	// offers everything in the tables.
	Globals func(i *wayland.Interface, version uint32) uint32
	// Room, when set, reserves room for n more objects of either side, and releases it
	// with a negative n; false refuses. It is called with locks held.
	Room func(n int) bool
	// MaxOf, when set, bounds the objects of each interface, by Interface.Index.
	MaxOf []int32
	// Pace, when set, returns how long to wait before the next receive (see Conn.Delay).
	// Its argument is the number of requests in a batch, or their worth when hooks wrote
	// more in their place (requestWorth).
	Pace func(requests int) time.Duration
	// State is the initial Conn.State, which belongs to the hooks.
	State any
	// Woken, when set, is called after Conn.Wake, as a hook is.
	Woken func(c *Conn)
	// ID is the connection's number for the tap.
	ID uint64
	// Tap, when set, is the switch of the connection's Tap.
	Tap *TapSwitch
	Log *slog.Logger
}

// A Tap gets messages before they are handled: checked against the table, with
// the client's id of their object, 0 for one that the client does not know.
type Tap interface {
	Message(conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body []byte)
}

// A Spanner is a Tap that also gets the times of long steps: the copies of pixels.
type Spanner interface {
	Span(conn uint64, name string, begin, end time.Time)
}

// A FenceTap is a Tap that also gets a transport's fences: their purpose, and the time
// of the wait for them.
type FenceTap interface {
	Fence(conn uint64, what string, begin, end time.Time)
}

// A Fencer is a transport that reports its fences: a cross-domain context.
type Fencer interface {
	OnFence(tell func(what string, begin, end time.Time))
}

// watchFences reports the fences of t to the tap, if one is set when the connection begins.
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

// Spanner returns a function that reports a long step to the tap, nil without a Spanner.
// It is valid during the hook's call only.
func (c *Conn) Spanner() func(name string, begin, end time.Time) {
	tap, ok := c.current.tap.(Spanner)
	if !ok {
		return nil
	}
	return func(name string, begin, end time.Time) { tap.Span(c.cfg.ID, name, begin, end) }
}

// A TapSwitch turns a Tap on and off while connections run. They read it before each
// batch.
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
	// never while they receive or send. A pump takes the send locks of the sides that get
	// something before it releases mu, so that messages go out in the order in which they
	// were handled.
	mu      sync.Mutex
	objs    objects
	globals map[uint32]global
	State   any
	current *pump         // the pump that handles a batch
	cause   error         // why the connection ends
	rest    time.Duration // the longest Delay of this batch

	done    chan struct{} // closed when the connection ends
	endOnce sync.Once
	waker   waker
}

// A side is one end of the connection.
type side struct {
	t      wayland.Transport
	sendMu sync.Mutex
	// inject holds what hooks of the other direction wrote to this side. Conn.mu guards
	// it until it is sent.
	inject outbox
}

// An outbox holds bytes and descriptors to send.
type outbox struct {
	wayland.Encoder
	descs []wayland.Desc
	// spill takes, and drops, the bytes beyond maxOutbox.
	spill *outbox
}

func (b *outbox) empty() bool { return len(b.B) == 0 }

// open returns the outbox for a hook to write to, or the spill if it is full. Then the
// connection ends when the hook returns.
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

// send sends data in pieces that the peer, and the transport's queue of descriptors, can
// take: pieceSize bytes and MaxDescs descriptors. Descriptors come with or before the
// last byte of their message, and the shortest message has HeaderSize bytes: so those
// beyond MaxDescs go out that much ahead.
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
// transports; the caller must call Run.
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

// Run relays until one side ends, breaks the protocol, or ctx is done. The error is the
// cause, nil when a side closed its end. When Run returns, both transports are closed
// and every descriptor and object is gone.
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
	return c.cause
}

// isGone tells whether the other end of a socket was closed.
func isGone(err error) bool { return errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) }

// end closes the connection and tells the client; the first cause counts. A side that
// is gone while we send to it is no cause yet: the other pump still has to read its last
// messages, and then sees the end.
func (c *Conn) end(err error) {
	if isGone(err) {
		return
	}
	c.mu.Lock()
	if c.cause == nil && err != nil && !errors.Is(err, wayland.ErrClosed) {
		c.cause = err
		var pe *ProtocolError
		if errors.As(err, &pe) {
			c.sendError(pe)
		}
	}
	c.mu.Unlock()
	c.close()
}

// errorPatience is how long a client that broke the protocol may take to read until
// there is room for the error.
const errorPatience = time.Second

// sendError sends the client its last message. A client that does not read can delay
// the end by errorPatience at most.
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

// Delay slows the client down: after the present batch is sent, d passes before the
// next receive. Meanwhile the client's messages stay in its socket, and then in the
// client. Events go on. Hooks of requests may call it; the longest delay of a batch
// counts, and the end of the connection ends it.
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
	c.endOnce.Do(func() { close(c.done) })
	_ = c.client.t.Close()
	_ = c.server.t.Close()
}

// A pump carries one direction.
type pump struct {
	c        *Conn
	from, to *side
	handle   func(p *pump, msg []byte) error
	requests bool

	buf        []byte
	r, w       int            // buf[r:w] is received and not handled yet
	size       int            // the length of the message before r while it is handled
	batchBytes int            // the number of bytes of this batch
	span       int            // buf[span:r] is handled in place and not yet sent
	spanDescs  []wayland.Desc // descriptors of the span and of out, in order
	queue      []wayland.Desc // descriptors received, with the taken ones first
	takenDescs int            // queue[:taken] is taken
	out        outbox         // the bytes before a cut span
	m          Msg
	tap        Tap // the tap during this batch
}

// buffers holds buffers for the next connection: to clear a new one costs more than the
// rest of a connection's start.
var buffers = sync.Pool{New: func() any { return new([bufSize]byte) }}

func (p *pump) run() error {
	buf := buffers.Get().(*[bufSize]byte)
	defer buffers.Put(buf)
	p.buf = buf[:]
	defer func() {
		wayland.CloseAll(p.queue[p.takenDescs:])
		wayland.CloseAll(p.spanDescs)
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
// returns how long the pump has to wait before the next receive.
func (p *pump) batch() (rest time.Duration, _ error) {
	c := p.c
	c.mu.Lock()
	c.current = p
	p.tap = c.cfg.Tap.load()
	var failed error
	n, begin := 0, p.r // messages
	p.batchBytes = 0
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
		} else if len(p.spanDescs) > wayland.MaxDescs-4 || len(p.out.B)+len(p.from.inject.B) > pieceSize {
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
			more := p.batchBytes - (p.r - begin)
			c.Delay(c.cfg.Pace(n + max(more, 0)/requestWorth))
		}
		rest, c.rest = c.rest, 0
	}
	c.mu.Unlock()
	return rest, failed
}

// blame makes the error of a malformed stream of the client a ProtocolError.
func (p *pump) blame(err error) error {
	if p.requests {
		return &ProtocolError{Object: 1, Code: ErrInvalidMethod, Text: err.Error()}
	}
	return fmt.Errorf("server: %w", err)
}

// requeue drops the taken descriptors from the queue.
func (p *pump) requeue() {
	if p.takenDescs > 0 {
		n := copy(p.queue, p.queue[p.takenDescs:])
		p.queue, p.takenDescs = p.queue[:n], 0
	}
}

// cutAt takes buf[from:to] out of the span; the part before goes to out.
func (p *pump) cutAt(from, to int) {
	if p.span < from {
		p.out.B = append(p.out.B, p.buf[p.span:from]...)
	}
	p.span = to
}

// flush sends the handled messages, and those that hooks wrote to the other side. It
// needs c.mu, and releases it while it sends.
func (p *pump) flush() error {
	c := p.c
	if p.out.spill != nil || p.from.inject.spill != nil || p.to.inject.spill != nil {
		return errFlood
	}
	data, descs := p.buf[p.span:p.r], p.spanDescs
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
	p.batchBytes += len(aheadB.B) + len(data)
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
	p.spanDescs = p.spanDescs[:0]
	if p.out.B = p.out.B[:0]; cap(p.out.B) > 4*pieceSize {
		p.out.B = nil // a burst's memory is not kept
	}
	return err
}

// take removes n descriptors from the queue and gives them their kinds.
func (p *pump) take(kinds []wayland.Kind) ([]wayland.Desc, error) {
	n := len(kinds)
	if len(p.queue)-p.takenDescs < n {
		return nil, wayland.ErrMissing
	}
	ds := p.queue[p.takenDescs : p.takenDescs+n : p.takenDescs+n]
	p.takenDescs += n
	for k := range ds {
		ds[k].Kind = kinds[k]
	}
	return ds, nil
}
