package agent

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"
)

// A link is the part that both ends share: one stream, one goroutine that writes to it, and
// the ends of the programs' streams.
//
//	outbox.Write ──► ready ─┐
//	inbox.Read ──► owing ───┼─► writeLoop ──► rw ──► peer's readLoop ──► inbox
//	send ──► control ───────┘
//
// The writer takes control frames first, then credit, then one chunk of the stream whose
// turn it is: a busy stream delays a kill by at most one chunk. Frames for a peer that does
// not read wait, within a bound for each run (states.go). Only writeLoop ever blocks on the
// peer; readLoop never writes, so two links cannot wait for each other.
type link struct {
	rw io.ReadWriteCloser

	mu      sync.Mutex
	work    sync.Cond // the writer waits here for something to send
	idle    sync.Cond // flush waits here until the writer has nothing to send
	control []queued
	owing   []*inbox  // streams whose readers consumed bytes: the peer is owed credit
	ready   []*outbox // streams with data to send and credit for it; each once
	writing bool
	err     error // why the link ended; no frame is sent or received after
	streams map[endpoint]struct{}
}

// An endpoint is an inbox or an outbox: it wakes its user when the link ends.
type endpoint interface{ endedLocked() }

// A queued is a whole frame that waits for the writer.
type queued struct {
	key   key
	frame []byte
}

// A key identifies the subject of a control message. Where only the last message counts, a
// new one replaces an unsent one with the same key.
type key struct {
	t    Type
	call bool   // id is a call's, not a run's
	id   uint32 // 0 if the message has no run or call
	of   int    // a signal, or a stream
}

// keyOf returns the subject of m, and whether only the last message about it counts. Two
// waiting signals of one number count as one, as on Linux.
func keyOf(m Message) (k key, last bool) {
	k.t = m.Type()
	switch m := m.(type) {
	case Spawn:
		k.id = m.ID
	case Spawned:
		k.id = m.ID
	case Exit:
		k.id = m.ID
	case Error:
		k.id = m.ID
	case Kill:
		k.id, k.of, last = m.ID, m.Signal, true
	case Resize:
		k.id, last = m.ID, true
	case Data:
		k.id, k.call = m.ID, m.Stream.ofCall()
	case Credit:
		k.id, k.call = m.ID, m.Stream.ofCall()
	case Hangup:
		k.id, k.call, k.of, last = m.ID, m.Stream.ofCall(), int(m.Stream), true
	case Call:
		k.id, k.call = m.ID, true
	case Accept:
		k.id, k.call = m.ID, true
	case Refuse:
		k.id, k.call = m.ID, true
	case Over:
		k.id, k.call = m.ID, true
	case Clock, Traffic, Shortage, WindowLoss, PowerOff, Ping, Pong:
		last = true
	}
	return k, last
}

// ErrClosed is the error of operations on a channel that has ended.
var ErrClosed = errors.New("agent channel closed")

func newLink(rw io.ReadWriteCloser) *link {
	l := &link{rw: rw, streams: map[endpoint]struct{}{}}
	l.work.L, l.idle.L = &l.mu, &l.mu
	return l
}

// send queues a control message. It fails only when the link has ended, or the message is
// out of bounds.
func (l *link) send(m Message) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sendLocked(m)
}

func (l *link) sendLocked(m Message) error {
	if l.err != nil {
		return l.endLocked()
	}
	b, err := Append(nil, m)
	if err != nil {
		return err
	}
	k, last := keyOf(m)
	if last {
		l.control = slices.DeleteFunc(l.control, func(q queued) bool { return q.key == k })
	}
	l.control = append(l.control, queued{k, b})
	l.work.Signal()
	return nil
}

// takeBackLocked removes the unsent frames of a run or a call, and reports whether its
// first frame was among them.
func (l *link) takeBackLocked(call bool, id uint32) (all bool) {
	l.control = slices.DeleteFunc(l.control, func(q queued) bool {
		if q.key.call != call || q.key.id != id {
			return false
		}
		all = all || q.key.t == TypeSpawn || q.key.t == TypeCall
		return true
	})
	return all
}

// fail ends the link; the first error stays. It closes the stream, which ends both loops,
// and wakes all who wait.
func (l *link) fail(err error) {
	l.mu.Lock()
	if l.err != nil {
		l.mu.Unlock()
		return
	}
	l.err = err
	for s := range l.streams {
		s.endedLocked()
	}
	l.work.Broadcast()
	l.idle.Broadcast()
	l.mu.Unlock()
	_ = l.rw.Close()
}

// endLocked returns the error for users of the link after its end.
func (l *link) endLocked() error {
	if errors.Is(l.err, io.EOF) || errors.Is(l.err, ErrClosed) {
		return ErrClosed
	}
	return fmt.Errorf("%w: %w", ErrClosed, l.err)
}

// cause returns the first error, which ended the link.
func (l *link) cause() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

// drop forgets streams that have no user any more.
func (l *link) drop(streams ...endpoint) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range streams {
		delete(l.streams, s)
	}
}

// flush waits until everything queued has been written, the link has ended, or limit has
// passed.
func (l *link) flush(limit time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	over := false
	t := time.AfterFunc(limit, func() {
		l.mu.Lock()
		over = true
		l.idle.Broadcast()
		l.mu.Unlock()
	})
	defer t.Stop()
	for l.err == nil && !over && (l.writing || l.workLocked()) {
		l.idle.Wait()
	}
}

func (l *link) workLocked() bool {
	return len(l.control) > 0 || len(l.owing) > 0 || len(l.ready) > 0
}

// readLoop passes every frame to handle until the stream or the link ends.
func (l *link) readLoop(handle func(Type, []byte) error) error {
	r := bufio.NewReaderSize(l.rw, 64<<10)
	buf := make([]byte, MaxPayload)
	for {
		t, payload, err := ReadFrame(r, buf)
		if err == nil {
			err = handle(t, payload)
		}
		if err != nil {
			return err
		}
	}
}

// writeLoop writes until the link ends.
func (l *link) writeLoop() error {
	buf := make([]byte, 0, MaxPayload)
	for {
		l.mu.Lock()
		l.writing = false
		if !l.workLocked() {
			l.idle.Broadcast()
		}
		for l.err == nil && !l.workLocked() {
			l.work.Wait()
		}
		if l.err != nil {
			l.mu.Unlock()
			return nil
		}
		l.writing = true
		buf = l.batchLocked(buf[:0])
		l.mu.Unlock()
		if len(buf) == 0 {
			continue
		}
		if _, err := l.rw.Write(buf); err != nil {
			return err
		}
	}
}

// batchLocked encodes the next frames to write.
func (l *link) batchLocked(buf []byte) []byte {
	for i, q := range l.control {
		if len(buf) > 0 && len(buf)+len(q.frame) > MaxPayload {
			l.control = slices.Delete(l.control, 0, i)
			return buf
		}
		buf = append(buf, q.frame...)
	}
	clear(l.control)
	l.control = l.control[:0]
	for _, in := range l.owing {
		buf = in.appendCreditLocked(buf)
	}
	l.owing = l.owing[:0]
	if len(l.ready) > 0 {
		out := l.ready[0]
		l.ready = append(l.ready[:0], l.ready[1:]...)
		out.queued = false
		buf = out.appendDataLocked(buf)
		out.readyLocked()
	}
	return buf
}
