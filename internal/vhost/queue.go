package vhost

// The flow of one request, in the order of this file:
//
//  1. the guest puts a chain of descriptors on the avail ring and kicks;
//  2. Next takes it off, walks its descriptors with bounds, and fills a Chain;
//  3. Chain.Read copies the readable part, Chain.Write fills the writable one;
//  4. Push puts the chain on the used ring, at once or, by its Token, later and in
//     any order and from any goroutine;
//  5. Notify interrupts the guest unless it asked not to be.

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	descSize     = 16
	descNext     = 1
	descWrite    = 2
	descIndirect = 4

	usedNoNotify     = 1 // VRING_USED_F_NO_NOTIFY
	availNoInterrupt = 1 // VRING_AVAIL_F_NO_INTERRUPT

	// maxQueueSize is the largest ring that a split virtqueue may have.
	maxQueueSize = 32768
	// maxChainSegments bounds a chain, direct or indirect. Linux uses at most one
	// descriptor per page of a command, plus two.
	maxChainSegments = 1024
	// maxChainBytes bounds each direction of a chain. The largest real one is a
	// RESOURCE_CREATE_BLOB with its page list, far below.
	maxChainBytes = 16 << 20
)

// errRing means that the guest broke a ring so that no answer is possible.
var errRing = errors.New("broken virtqueue")

// A Queue is one split virtqueue. Next is called by its own goroutine only; Push
// and Notify by any.
type Queue struct {
	Index int
	mem   *Memory

	mu      sync.Mutex // taken before mem's lock
	size    uint16
	addr    vringAddr
	haveAdr bool
	call    int // eventfd, -1 without one

	running  bool
	eventIdx bool
	indirect bool
	gen      uint32 // counts stops: a Token from an earlier life is invalid
	broken   error

	lastAvail, usedIdx, signalled uint16
	noNotify                      bool

	desc, avail, used []byte // the rings in guest memory, valid for memGen
	memGen            uint64
	table             [maxChainSegments * descSize]byte // private copy of an indirect table
}

func newQueue(i int, mem *Memory) *Queue { return &Queue{Index: i, mem: mem, call: -1} }

// A Token identifies a chain that was taken and not yet pushed.
type Token struct {
	gen     uint32
	Written uint32
	head    uint16
}

// A Chain is one request of the guest, reused from one Next to the following.
type Chain struct {
	q        *Queue
	segs     []Segment
	nread    int // segs[:nread] are readable, the others writable
	tok      Token
	ri, wi   int    // cursors: segment
	ro, wo   uint32 // cursors: offset in it
	readLeft int
	roomLeft int
}

// Token returns the chain's identity for Push, with the length written so far.
func (c *Chain) Token() Token { return c.tok }

// Remaining returns how many bytes of the readable part are not read yet.
func (c *Chain) Remaining() int { return c.readLeft }

// Room returns how many bytes of the writable part are not written yet.
func (c *Chain) Room() int { return c.roomLeft }

// Read copies exactly len(p) bytes of the readable part; io.ErrUnexpectedEOF if
// there are fewer, ErrAddress if they are not in guest memory.
func (c *Chain) Read(p []byte) error {
	if len(p) > c.readLeft {
		return io.ErrUnexpectedEOF
	}
	c.q.mem.mu.RLock()
	defer c.q.mem.mu.RUnlock()
	c.readLeft -= len(p)
	for len(p) > 0 {
		s := c.segs[c.ri]
		n := min(uint32(len(p)), s.Len-c.ro)
		if err := c.q.mem.copyLocked(s.Addr+uint64(c.ro), p[:n], false); err != nil {
			return err
		}
		p = p[n:]
		if c.ro += n; c.ro == s.Len {
			c.ri, c.ro = c.ri+1, 0
		}
	}
	return nil
}

// Write appends p to the writable part; io.ErrShortWrite if it does not fit. On a
// stopped queue it does nothing.
func (c *Chain) Write(p []byte) error {
	if len(p) > c.roomLeft {
		return io.ErrShortWrite
	}
	q := c.q
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.running || q.gen != c.tok.gen {
		return nil
	}
	q.mem.mu.RLock()
	defer q.mem.mu.RUnlock()
	c.roomLeft -= len(p)
	c.tok.Written += uint32(len(p))
	for len(p) > 0 {
		s := c.segs[c.wi]
		n := min(uint32(len(p)), s.Len-c.wo)
		if err := q.mem.copyLocked(s.Addr+uint64(c.wo), p[:n], true); err != nil {
			return err
		}
		p = p[n:]
		if c.wo += n; c.wo == s.Len {
			c.wi, c.wo = c.wi+1, 0
		}
	}
	return nil
}

// Rewrite moves the write cursor back to the start of the writable part.
func (c *Chain) Rewrite() {
	c.roomLeft += int(c.tok.Written)
	c.tok.Written, c.wi, c.wo = 0, c.nread, 0
}

func (c *Chain) reset(q *Queue, head uint16) {
	*c = Chain{q: q, segs: c.segs[:0], tok: Token{gen: q.gen, head: head}}
}

// add appends one descriptor's memory to the chain.
func (c *Chain) add(addr uint64, n uint32, writable bool) error {
	switch {
	case len(c.segs) >= maxChainSegments:
		return errors.New("too many descriptors")
	case addr+uint64(n) < addr:
		return ErrAddress
	case writable:
		c.roomLeft += int(n)
	case c.nread < len(c.segs):
		return errors.New("readable descriptor after a writable one")
	default:
		c.readLeft += int(n)
		c.nread++
	}
	if c.readLeft > maxChainBytes || c.roomLeft > maxChainBytes {
		return errors.New("chain too long")
	}
	if n > 0 {
		c.segs = append(c.segs, Segment{addr, n})
	} else if !writable {
		c.nread--
	}
	return nil
}

// Next takes the next chain off the avail ring into c. It returns false if
// there is none, or if the queue is stopped or broken. It gives a malformed chain
// back to the guest unwritten, and skips it.
func (q *Queue) Next(c *Chain) bool {
	for {
		if ok, more := q.take(c); ok || !more {
			return ok
		}
	}
}

// take is Next for one chain: more means that it was malformed, and that another
// may follow. The locks are released in between: a guest that offers endless malformed
// chains must not delay a stop, or a change of memory.
func (q *Queue) take(c *Chain) (ok, more bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mem.mu.RLock()
	defer q.mem.mu.RUnlock()
	if !q.readyLocked() {
		return false, false
	}
	head := le.Uint16(q.avail[4+2*int(q.lastAvail%q.size):])
	if head >= q.size {
		q.failLocked("head %d of %d", head, q.size)
		return false, false
	}
	q.lastAvail++
	c.reset(q, head)
	if err := q.walkLocked(c, head); err == nil {
		c.wi = c.nread
		return true, true
	}
	q.pushLocked(Token{gen: q.gen, head: head})
	return false, true
}

// readyLocked reports whether the avail ring holds a chain. Before it reports false, it
// requests a kick from the guest and checks once more.
func (q *Queue) readyLocked() bool {
	if !q.running || q.broken != nil || !q.resolveLocked() {
		return false
	}
	if q.pendingLocked() {
		q.wantKicksLocked(false)
		return true
	}
	q.wantKicksLocked(true)
	return q.pendingLocked() && q.broken == nil
}

func (q *Queue) pendingLocked() bool {
	n := q.availIdxLocked() - q.lastAvail
	if n > q.size {
		q.failLocked("avail index runs ahead by %d of %d", n, q.size)
		return false
	}
	return n > 0
}

// availIdxLocked loads the guest's index, together with the flags before it: Go
// has no atomic of 16 bits, and the load must not be moved.
func (q *Queue) availIdxLocked() uint16 {
	return uint16(word(q.avail, 0).Load() >> 16)
}

func (q *Queue) wantKicksLocked(want bool) {
	if q.eventIdx {
		if want {
			le.PutUint16(q.used[4+8*int(q.size):], q.lastAvail)
			fence()
		}
		return
	}
	if q.noNotify == want {
		q.noNotify = !want
		q.storeUsedLocked()
	}
}

// storeUsedLocked publishes the used index and flags, after all earlier writes.
func (q *Queue) storeUsedLocked() {
	v := uint32(q.usedIdx) << 16
	if q.noNotify {
		v |= usedNoNotify
	}
	word(q.used, 0).Store(v)
}

// walkLocked follows a chain of descriptors. It copies every descriptor before it
// reads it; the count of steps bounds loops.
func (q *Queue) walkLocked(c *Chain, head uint16) error {
	table, n := q.desc, uint32(q.size)
	for i, steps, nested := uint32(head), 0, false; ; steps++ {
		if i >= n || steps >= int(n) {
			return errors.New("descriptor loop or index out of range")
		}
		var d [descSize]byte
		copy(d[:], table[i*descSize:])
		addr, length := le.Uint64(d[:]), le.Uint32(d[8:])
		flags, next := le.Uint16(d[12:]), le.Uint16(d[14:])
		if flags&descIndirect != 0 {
			if nested || !q.indirect || flags&descNext != 0 || length%descSize != 0 || length == 0 || length > uint32(len(q.table)) {
				return errors.New("bad indirect table")
			}
			if err := q.mem.copyLocked(addr, q.table[:length], false); err != nil {
				return err
			}
			table, n, i, steps, nested = q.table[:length], length/descSize, 0, -1, true
			continue
		}
		if err := c.add(addr, length, flags&descWrite != 0); err != nil {
			return err
		}
		if flags&descNext == 0 {
			return nil
		}
		i = uint32(next)
	}
}

// A Deferred is a chain with a later answer.
type Deferred struct {
	tok  Token
	room Segment
}

// Defer makes a Deferred of the chain, with room for an answer of n bytes. It
// refuses an answer whose first n bytes are in pieces, which no driver makes.
func (c *Chain) Defer(n uint32) (Deferred, bool) {
	if c.wi >= len(c.segs) || c.segs[c.wi].Len-c.wo < n {
		return Deferred{}, false
	}
	return Deferred{c.tok, Segment{c.segs[c.wi].Addr + uint64(c.wo), n}}, true
}

// Answer writes p, which must fit the room of Defer, pushes the chain, and
// notifies. On a stopped queue it does nothing.
func (q *Queue) Answer(d Deferred, p []byte) {
	q.mu.Lock()
	if q.running && q.gen == d.tok.gen {
		q.mem.mu.RLock()
		p = p[:min(len(p), int(d.room.Len))]
		if q.mem.copyLocked(d.room.Addr, p, true) == nil {
			d.tok.Written = uint32(len(p))
		}
		q.pushLocked(d.tok)
		q.mem.mu.RUnlock()
	}
	q.mu.Unlock()
	q.Notify()
}

// Push gives the chain back to the guest. It ignores a token from before a stop.
func (q *Queue) Push(t Token) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mem.mu.RLock()
	defer q.mem.mu.RUnlock()
	q.pushLocked(t)
}

func (q *Queue) pushLocked(t Token) {
	if !q.running || t.gen != q.gen || !q.resolveLocked() {
		return
	}
	e := q.used[4+8*int(q.usedIdx%q.size):]
	le.PutUint32(e, uint32(t.head))
	le.PutUint32(e[4:], t.Written)
	q.usedIdx++
	q.storeUsedLocked()
}

// Notify interrupts the guest if something was pushed since the last call and
// the guest wants interrupts.
func (q *Queue) Notify() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.mem.mu.RLock()
	defer q.mem.mu.RUnlock()
	if !q.running || q.usedIdx == q.signalled || !q.resolveLocked() {
		return
	}
	fence()
	var want bool
	old := q.signalled
	q.signalled = q.usedIdx
	if q.eventIdx {
		event := le.Uint16(q.avail[4+2*int(q.size):])
		want = q.usedIdx-event-1 < q.usedIdx-old
	} else {
		want = word(q.avail, 0).Load()&availNoInterrupt == 0
	}
	if want && q.call >= 0 {
		one := [8]byte{1}
		_, _ = unix.Write(q.call, one[:]) // fails only if the guest has 2⁶⁴ unread interrupts
	}
}

// resolveLocked finds the rings in the guest's memory, again after each change of it.
func (q *Queue) resolveLocked() bool {
	if q.desc != nil && q.memGen == q.mem.gen {
		return true
	}
	n := uint64(q.size)
	q.desc = q.mem.userLocked(q.addr.desc, descSize*n)
	q.avail = q.mem.userLocked(q.addr.avail, 4+2*n+2)
	q.used = q.mem.userLocked(q.addr.used, 4+8*n+2)
	q.memGen = q.mem.gen
	if q.desc == nil || q.avail == nil || q.used == nil || !aligned(q.avail) || !aligned(q.used) {
		q.desc = nil
		q.failLocked("rings outside guest memory or misaligned")
		return false
	}
	return true
}

func (q *Queue) failLocked(format string, args ...any) {
	if q.broken == nil {
		q.broken = fmt.Errorf("%w %d: %s", errRing, q.Index, fmt.Sprintf(format, args...))
	}
}

func (q *Queue) err() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.broken
}

// start runs the queue as SET_VRING_* configured it.
func (q *Queue) start(features uint64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		return nil
	}
	if q.size == 0 || !q.haveAdr {
		return protoErrorf("vring %d enabled before its size and address", q.Index)
	}
	q.mem.mu.RLock()
	defer q.mem.mu.RUnlock()
	q.eventIdx, q.indirect = features&FeatureEventIdx != 0, features&FeatureIndirectDesc != 0
	q.desc, q.broken = nil, nil
	if !q.resolveLocked() {
		return q.broken
	}
	q.usedIdx = uint16(word(q.used, 0).Load() >> 16)
	q.signalled = q.usedIdx
	q.noNotify, q.running = false, true
	return nil
}

// stop closes the queue: after it has returned, the queue writes nothing to
// the guest, even for a Chain or Token that somebody still holds.
func (q *Queue) stop() (lastAvail uint16) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.running {
		q.running = false
		q.gen++
	}
	return q.lastAvail
}

// setCall takes ownership of the descriptor of SET_VRING_CALL, or of -1.
func (q *Queue) setCall(fd int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.call >= 0 {
		_ = unix.Close(q.call)
	}
	q.call = fd
}

func aligned(s []byte) bool { return uintptr(unsafe.Pointer(&s[0]))%4 == 0 }

// word returns the aligned 32-bit word of guest memory at s[off].
func word(s []byte, off int) *atomic.Uint32 {
	return (*atomic.Uint32)(unsafe.Pointer(&s[off : off+4][0]))
}

// fence orders a store of ours before a following load of a value that the guest stores.
// The guest does the reverse, so that at least one side sees the other's store.
func fence() { barrier.Add(1) }

var barrier atomic.Uint32

// Life returns the number of the queue's life, from a start to the stop.
func (t Token) Life() uint32 { return t.gen }

// Pack returns the token as two numbers, for packages that must not import this one.
func (t Token) Pack() [2]uint64 {
	return [2]uint64{uint64(t.gen)<<32 | uint64(t.Written), uint64(t.head)}
}

// UnpackToken is the inverse of Pack.
func UnpackToken(v [2]uint64) Token {
	return Token{uint32(v[0] >> 32), uint32(v[0]), uint16(v[1])}
}
