package virtwl

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/ledger"
)

const (
	// maxPipeQueued bounds the bytes that the guest has written to a pipe and its reader
	// has not read. Our guest waits for a fence at softPipeQueued.
	maxPipeQueued  = 4 << 20
	softPipeQueued = 64 << 10
	// maxPipeFences bounds the fences that one pipe holds; our guest has one.
	maxPipeFences = 1
	// pipeLinger is how long the reader of a pipe has, after the connection ended,
	// to take what the guest wrote before.
	pipeLinger = time.Second
)

// pipeReader reads the host's end of a READ_PIPE for the guest.
type pipeReader struct {
	id   uint32
	f    *os.File
	slot *ledger.Descriptor
}

// openReaderLocked makes the pipe of an identifier of type READ_PIPE and returns
// its write end, for the relay. The guest names the id, which must be the next one.
func (c *HostContext) openReaderLocked(id uint32) (writeEnd int, err error) {
	switch {
	case id != c.lastPipe+1:
		return -1, protoErrorf("read pipe %#x, the next is %#x", id, c.lastPipe+1)
	case len(c.readers) >= maxReadPipes:
		return -1, protoErrorf("more than %d read pipes", maxReadPipes)
	}
	slot, err := c.host.cfg.Ledger.Descriptor(nil)
	if err != nil {
		return -1, fmt.Errorf("read pipe: %w", err)
	}
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		slot.Release()
		return -1, fmt.Errorf("read pipe: %w", err)
	}
	_ = unix.SetNonblock(p[0], true) // our end only, so that Close wakes its reader
	r := &pipeReader{id, os.NewFile(uintptr(p[0]), "read pipe"), slot}
	if c.readers == nil {
		c.readers = make(map[uint32]*pipeReader)
	}
	c.readers[id] = r
	c.lastPipe = id
	size := c.ringSize - ReadWriteSize
	c.host.wg.Go(func() { c.pump(r, size) })
	return p[1], nil
}

// pump passes a pipe's data to the guest, one ring for each POLL.
func (c *HostContext) pump(r *pipeReader, size int) {
	buf := make([]byte, size)
	for {
		n, err := r.f.Read(buf)
		if derr := c.deliver(r.id, buf[:n], false); derr != nil {
			break
		}
		if err != nil {
			_ = c.deliver(r.id, nil, true)
			break
		}
	}
	_ = r.f.Close()
	r.slot.Release()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.readers, r.id)
}

// deliver writes one READ to the channel ring.
func (c *HostContext) deliver(id uint32, data []byte, hangUp bool) error {
	if len(data) == 0 && !hangUp {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.takePollLocked()
	if err != nil {
		return err
	}
	PutReadWrite(c.head[:], CmdRead, ReadWrite{id, hangUp, uint32(len(data))})
	err = c.port.WriteRing(c.init.ChannelRing, c.head[:ReadWriteSize], data)
	c.signal(f)
	if err != nil {
		c.failLocked(fmt.Errorf("READ: %w", err))
	}
	return err
}

// pipeWriter passes the guest's data to a pipe of the host, in its own
// goroutine, which starts with the first data.
//
// The context's lock is taken before mu.
type pipeWriter struct {
	c    *HostContext
	f    *os.File
	slot *ledger.Descriptor // the charge for f, until f is closed

	mu      sync.Mutex
	more    sync.Cond
	pending byteQueue
	fences  []Fence
	ended   bool // the guest sends no more
	broken  bool // the reader is gone, and further data is dropped
	running bool
	closed  bool
}

// offerPipe makes an item of a pipe's write end. It takes over fd if it succeeds.
func (c *HostContext) offerPipe(fd int) (*item, error) {
	slot, err := c.host.cfg.Ledger.Descriptor(nil)
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(fd, true)
	w := &pipeWriter{c: c, f: os.NewFile(uintptr(fd), "write pipe"), slot: slot}
	w.more.L, w.pending.ledger = &w.mu, c.host.cfg.Ledger
	return &item{fd: -1, pipe: w}, nil
}

// writeLocked carries out WRITE.
func (c *HostContext) writeLocked(r CommandReader, f Fence) (held bool, err error) {
	p, err := c.readFixed(r, ReadWriteSize)
	if err != nil {
		return false, err
	}
	m, err := ParseReadWrite(p)
	if err != nil {
		return false, err
	}
	if m.DataSize > MaxWriteData || int(m.DataSize) > r.Remaining() {
		return false, protoErrorf("WRITE of %d bytes with %d announced", r.Remaining(), m.DataSize)
	}
	it := c.items[m.ID]
	if it == nil || it.pipe == nil {
		return false, protoErrorf("WRITE to unknown pipe %d", m.ID)
	}
	held, err = it.pipe.write(r, int(m.DataSize), m.HangUp, f)
	if m.HangUp || err != nil {
		delete(c.items, m.ID)
		if it.pipe.end() {
			c.endLater(it.pipe)
		}
	}
	return held, err
}

// endLater stores a hung-up pipe whose reader is behind: the pipe must not outlive the
// connection.
func (c *HostContext) endLater(w *pipeWriter) {
	if c.hungPipes == nil {
		c.hungPipes = make(map[*pipeWriter]struct{})
	}
	c.hungPipes[w] = struct{}{}
}

// ended removes a closed pipe.
func (c *HostContext) ended(w *pipeWriter) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.hungPipes, w)
}

var errTooSlow = errors.New("the pipe's reader is too slow: its data is cut off")

// write queues n bytes of r.
func (w *pipeWriter) write(r CommandReader, n int, last bool, f Fence) (held bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.broken || w.closed || n == 0 {
		return false, nil
	}
	err = errTooSlow
	if w.pending.len()+n <= maxPipeQueued {
		err = w.pending.fill(r, n)
	}
	var full ledger.Full
	switch {
	case errors.Is(err, errTooSlow), errors.As(err, &full):
		w.broken = true
		return false, fmt.Errorf("WRITE: %w", err)
	case err != nil:
		return false, err
	}
	if !w.running {
		w.running = true
		w.c.host.wg.Go(func() {
			w.run()
			w.c.ended(w)
		})
	}
	w.more.Signal()
	if f.Fenced && f.Ring >= RingSend && !last && w.pending.len() > softPipeQueued && len(w.fences) < maxPipeFences {
		w.c.hold(f, "WRITE")
		w.fences = append(w.fences, f)
		return true, nil
	}
	return false, nil
}

// end marks the end of the data: the file is closed once everything is written, which may
// take a while.
func (w *pipeWriter) end() (later bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ended = true
	if !w.running {
		w.closeLocked()
	}
	w.more.Signal()
	return !w.closed
}

// abandon ends a pipe whose connection has ended; its reader has pipeLinger left.
func (w *pipeWriter) abandon() {
	_ = w.f.SetWriteDeadline(time.Now().Add(pipeLinger))
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.releaseLocked()
}

func (w *pipeWriter) closeLocked() {
	if !w.closed {
		w.closed = true
		_ = w.f.Close()
		w.slot.Release()
		w.pending.clear()
	}
}

func (w *pipeWriter) releaseLocked() {
	for _, f := range w.fences {
		w.c.signal(f)
	}
	w.fences = w.fences[:0]
}

// run writes the queue until the end, straight from its memory: nobody overwrites the
// bytes in a write before they are dropped from the queue.
func (w *pipeWriter) run() {
	w.mu.Lock()
	defer w.mu.Unlock()
	defer w.closeLocked()
	for {
		for w.pending.len() == 0 && !w.ended {
			w.more.Wait()
		}
		if w.pending.len() == 0 {
			return
		}
		b := w.pending.head(softPipeQueued)
		w.mu.Unlock()
		_, err := w.f.Write(b)
		w.mu.Lock()
		if w.pending.drop(len(b)); err != nil {
			w.broken = true
			w.pending.clear()
		}
		if w.pending.len() <= softPipeQueued {
			w.releaseLocked()
		}
	}
}
