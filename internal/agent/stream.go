package agent

import (
	"io"
	"sync"
)

// An owner is the run or the call of a stream. Its methods are called with the link's lock held.
type owner interface {
	talksLocked() bool  // whether frames about the stream may be sent
	streamEndedLocked() // the stream has ended; called once
}

// An inbox is the receiving end of one stream: the bytes that have arrived and are unread,
// at most Window. Its users are the link's reader (feed, end) and one caller (Read, Close).
type inbox struct {
	l      *link
	id     uint32
	stream Stream
	owner  owner // nil: the stream does not affect its run's state (stdin)

	more   sync.Cond // on l.mu
	ring   ring
	window int  // bytes that the peer may still send
	owed   int  // bytes read, but not yet returned as credit
	queued bool // in l.owing
	eof    bool // the peer ended the stream
	closed bool // the reader has left
}

func newInboxLocked(l *link, id uint32, s Stream, by owner) *inbox {
	in := &inbox{l: l, id: id, stream: s, owner: by, window: Window}
	in.more.L = &l.mu
	l.streams[in] = struct{}{}
	return in
}

// feedLocked takes bytes from the peer. Bytes beyond its credit, or after the end, are a
// violation. Bytes that nobody will read are dropped, and their credit is never returned.
func (in *inbox) feedLocked(b []byte) error {
	switch {
	case in.eof:
		return violation("%s %d: data after the end of stream %d", in.stream.subject(), in.id, in.stream)
	case len(b) > in.window:
		return violation("%s %d: %d bytes on stream %d with credit for %d", in.stream.subject(), in.id, len(b), in.stream, in.window)
	case len(b) == 0:
		in.endLocked()
		return nil
	}
	in.window -= len(b)
	if !in.closed {
		in.ring.write(b)
		in.more.Signal()
	}
	return nil
}

func (in *inbox) endLocked() {
	in.eof = true
	delete(in.l.streams, in)
	if in.owner != nil {
		in.owner.streamEndedLocked()
	}
	in.more.Broadcast()
}

func (in *inbox) endedLocked() { in.more.Broadcast() }

// Read implements io.Reader. Bytes that arrived before the channel's end are still
// delivered; after them comes the channel's error.
func (in *inbox) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	l := in.l
	l.mu.Lock()
	defer l.mu.Unlock()
	for in.ring.n == 0 && !in.eof && !in.closed && l.err == nil {
		in.more.Wait()
	}
	switch {
	case in.closed:
		return 0, io.ErrClosedPipe
	case in.ring.n == 0 && in.eof:
		return 0, io.EOF
	case in.ring.n == 0:
		return 0, l.endLocked()
	}
	n := in.ring.read(p)
	in.owed += n
	// Credit returns in quarters of the window: the sender never stalls while the reader keeps
	// up, and a small read costs no frame.
	if in.owed >= Window/4 && !in.queued && !in.eof && l.err == nil {
		in.queued = true
		l.owing = append(l.owing, in)
		l.work.Signal()
	}
	return n, nil
}

// Close tells the peer that the reader has left: the program's next write fails like one to
// a closed pipe.
func (in *inbox) Close() error {
	in.l.mu.Lock()
	defer in.l.mu.Unlock()
	return in.closeLocked()
}

func (in *inbox) closeLocked() error {
	if in.closed {
		return nil
	}
	in.closed = true
	in.ring = ring{}
	in.more.Broadcast()
	if in.eof || in.l.err != nil {
		return nil
	}
	// The lock is held, so the stream's end comes before or after this, not between.
	return in.l.sendLocked(Hangup{ID: in.id, Stream: in.stream})
}

func (in *inbox) appendCreditLocked(buf []byte) []byte {
	in.queued = false
	if in.closed || in.eof || in.owed == 0 {
		return buf
	}
	buf, _ = Append(buf, Credit{ID: in.id, Stream: in.stream, N: uint32(in.owed)})
	in.window += in.owed
	in.owed = 0
	return buf
}

// An outbox is the sending end of one stream. It holds no bytes: Write lends its own to the
// link's writer, and returns when the writer has taken them.
type outbox struct {
	l      *link
	id     uint32
	stream Stream
	owner  owner // nil: the stream does not affect its run's state (stdin)

	turn sync.Mutex // one Write at a time

	taken   sync.Cond // on l.mu
	pending []byte
	credit  int
	queued  bool // in l.ready
	closed  bool // no more bytes will come
	eofSent bool
	hung    bool // the peer's reader has left
}

func newOutboxLocked(l *link, id uint32, s Stream, by owner) *outbox {
	o := &outbox{l: l, id: id, stream: s, owner: by, credit: Window}
	o.taken.L = &l.mu
	l.streams[o] = struct{}{}
	return o
}

// Write implements io.Writer. It blocks while the peer has no room, and fails with
// io.ErrClosedPipe once the peer's reader has left.
func (o *outbox) Write(p []byte) (int, error) {
	o.turn.Lock()
	defer o.turn.Unlock()
	l := o.l
	l.mu.Lock()
	defer l.mu.Unlock()
	o.pending = p
	o.readyLocked()
	for len(o.pending) > 0 && !o.overLocked() {
		o.taken.Wait()
	}
	n := len(p) - len(o.pending)
	o.pending = nil
	switch {
	case n == len(p):
		return n, nil
	case l.err != nil:
		return n, l.endLocked()
	}
	return n, io.ErrClosedPipe
}

func (o *outbox) overLocked() bool { return o.closed || o.hung || o.l.err != nil }

// Close ends the stream after the bytes written so far.
func (o *outbox) Close() error {
	o.l.mu.Lock()
	defer o.l.mu.Unlock()
	o.closeLocked()
	return nil
}

func (o *outbox) closeLocked() {
	if o.closed {
		return
	}
	o.closed = true
	o.taken.Broadcast()
	o.readyLocked()
}

// hangupLocked handles the loss of the peer's reader: only the end is still sent.
func (o *outbox) hangupLocked() {
	o.hung = true
	delete(o.l.streams, o)
	o.taken.Broadcast()
	o.readyLocked()
}

// cutLocked handles the loss of a reader that expects no end.
func (o *outbox) cutLocked() {
	o.eofSent = true
	o.hangupLocked()
}

// grantLocked adds credit. The total can never honestly exceed a window.
func (o *outbox) grantLocked(n uint32) error {
	if o.credit+int(n) > Window {
		return violation("%s %d: credit of %d over %d on stream %d", o.stream.subject(), o.id, n, o.credit, o.stream)
	}
	o.credit += int(n)
	o.readyLocked()
	return nil
}

func (o *outbox) endedLocked() { o.taken.Broadcast() }

// readyLocked queues the outbox for the writer if it has something to send.
func (o *outbox) readyLocked() {
	ending := o.closed || o.hung
	more := len(o.pending) > 0 && o.credit > 0
	if o.queued || o.l.err != nil || !o.maySendLocked() || !ending && !more {
		return
	}
	o.queued = true
	o.l.ready = append(o.l.ready, o)
	o.l.work.Signal()
}

// maySendLocked reports whether frames may be sent. No frame, not even the end, may come before
// the guest reports that the run runs.
func (o *outbox) maySendLocked() bool {
	return !o.eofSent && (o.owner == nil || o.owner.talksLocked())
}

func (o *outbox) appendDataLocked(buf []byte) []byte {
	if !o.maySendLocked() {
		return buf // its state changed while it was queued
	}
	n := min(len(o.pending), o.credit, MaxData)
	if o.closed || o.hung {
		n = 0 // a Write in progress takes back its bytes
	} else if n == 0 {
		return buf
	}
	buf, _ = Append(buf, Data{ID: o.id, Stream: o.stream, Bytes: o.pending[:n]})
	o.pending = o.pending[n:]
	o.credit -= n
	if o.closed || o.hung {
		o.eofSent = true
		delete(o.l.streams, o)
		if o.owner != nil {
			o.owner.streamEndedLocked()
		}
	}
	if len(o.pending) == 0 {
		o.taken.Broadcast()
	}
	return buf
}

// A ring is a byte queue that grows as it is used, up to Window.
type ring struct {
	buf  []byte
	head int
	n    int
}

const (
	ringStart = 4 << 10
	ringKeep  = 64 << 10
)

// write appends b; the caller has checked that n+len(b) ≤ Window.
func (r *ring) write(b []byte) {
	if len(b) == 0 {
		return
	}
	if need := r.n + len(b); need > len(r.buf) {
		size := max(len(r.buf), ringStart)
		for size < need {
			size *= 2
		}
		grown := make([]byte, size)
		r.copyOut(grown)
		r.buf, r.head = grown, 0
	}
	tail := (r.head + r.n) % len(r.buf)
	k := copy(r.buf[tail:], b)
	copy(r.buf, b[k:])
	r.n += len(b)
}

// read moves up to len(p) bytes out.
func (r *ring) read(p []byte) int {
	n := r.copyOut(p)
	r.n -= n
	if r.n == 0 && len(r.buf) > ringKeep {
		// A stream that once fell behind does not hold its window for ever.
		*r = ring{}
		return n
	}
	if n > 0 {
		r.head = (r.head + n) % len(r.buf)
	}
	return n
}

func (r *ring) copyOut(p []byte) int {
	want := min(len(p), r.n)
	if want == 0 {
		return 0
	}
	k := copy(p[:want], r.buf[r.head:min(r.head+want, len(r.buf))])
	copy(p[k:want], r.buf)
	return want
}
