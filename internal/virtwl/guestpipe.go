//go:build linux && (amd64 || arm64 || riscv64)

package virtwl

import (
	"fmt"
	"math/bits"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxSinkQueued bounds the host's data for a pipe that its reader, a program in this
	// guest, has not read.
	maxSinkQueued = 1 << 20
	// sinkPatience is how long a full pipe whose reader takes nothing may hold up
	// its connection, before it is closed.
	sinkPatience = 10 * time.Second
)

// sink writes the data that the host reads for us (READ) to a client's file.
type sink struct {
	f    *os.File
	room chan struct{} // gets a value when the writer has made room

	mu      sync.Mutex
	more    sync.Cond
	pending []byte
	ended   bool
	broken  bool
}

// addSink takes over fd.
func (c *GuestConn) addSink(id uint32, fd int) {
	_ = unix.SetNonblock(fd, true)
	s := &sink{f: os.NewFile(uintptr(fd), "pipe to a client"), room: make(chan struct{}, 1)}
	s.more.L = &s.mu
	c.pipes.Lock()
	defer c.pipes.Unlock()
	if c.pipes.sinks == nil {
		_ = s.f.Close()
		return
	}
	c.pipes.sinks[id] = s
	c.pumps.Go(func() {
		s.run()
		c.pipes.Lock()
		defer c.pipes.Unlock()
		delete(c.pipes.sinks, id)
	})
}

// feed queues data for a sink. It waits, within bounds, for a slow reader.
func (c *GuestConn) feed(id uint32, data []byte, hangUp bool) {
	c.pipes.Lock()
	s := c.pipes.sinks[id]
	c.pipes.Unlock()
	if s == nil {
		return
	}
	if !s.waitRoom(len(data), c.done) {
		s.end(true)
		return
	}
	s.mu.Lock()
	if !s.broken && !s.ended {
		s.pending = append(s.pending, data...)
	}
	s.ended = s.ended || hangUp
	s.more.Signal()
	s.mu.Unlock()
}

// waitRoom reports whether n bytes fit, or come to fit while the reader is alive.
func (s *sink) waitRoom(n int, done <-chan struct{}) bool {
	var patience *time.Timer
	for {
		s.mu.Lock()
		fits := s.broken || len(s.pending)+n <= maxSinkQueued
		s.mu.Unlock()
		if fits {
			return true
		}
		if patience == nil {
			patience = time.NewTimer(sinkPatience)
			defer patience.Stop()
		}
		select {
		case <-s.room:
			patience.Reset(sinkPatience)
		case <-patience.C:
			return false
		case <-done:
			return false
		}
	}
}

// end marks the end of the data; with now it also drops the pending data.
func (s *sink) end(now bool) {
	s.mu.Lock()
	s.ended = true
	if now {
		s.broken, s.pending = true, nil
		_ = s.f.SetWriteDeadline(time.Now())
	}
	s.more.Signal()
	s.mu.Unlock()
}

// run writes until the end, and closes the file.
func (s *sink) run() {
	defer s.f.Close()
	var spare []byte
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		for len(s.pending) == 0 && !s.ended {
			s.more.Wait()
		}
		if len(s.pending) == 0 {
			return
		}
		buf := s.pending
		s.pending = spare[:0]
		s.mu.Unlock()
		_, err := s.f.Write(buf)
		spare = buf
		select {
		case s.room <- struct{}{}:
		default:
		}
		s.mu.Lock()
		if err != nil {
			s.broken, s.pending = true, nil
		}
	}
}

// addPump makes the pipe whose data goes to the host's write pipe id, and returns
// its write end.
func (c *GuestConn) addPump(id uint32) (writeEnd int, err error) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return -1, err
	}
	_ = unix.SetNonblock(p[0], true) // our end only
	f := os.NewFile(uintptr(p[0]), "pipe from a client")
	c.pipes.Lock()
	defer c.pipes.Unlock()
	if c.pipes.files == nil {
		_ = f.Close()
		_ = unix.Close(p[1])
		return -1, os.ErrClosed
	}
	c.pipes.files[f] = struct{}{}
	c.pumps.Go(func() { c.pump(id, f) })
	return p[1], nil
}

// pump reads a pipe and submits WRITEs, each when the host has room for it.
func (c *GuestConn) pump(id uint32, f *os.File) {
	ring := c.takeRing()
	defer func() {
		c.pipes.Lock()
		delete(c.pipes.files, f)
		c.pipes.rings &^= 1 << ring
		c.pipes.Unlock()
		_ = f.Close()
	}()
	buf := make([]byte, ReadWriteSize+pumpSize)
	var e virtgpuExec
	for {
		n, err := f.Read(buf[ReadWriteSize:])
		if n > 0 {
			PutReadWrite(buf, CmdWrite, ReadWrite{ID: id, DataSize: uint32(n)})
			if werr := c.write(&e, buf[:ReadWriteSize+n], ring); werr != nil {
				return
			}
		}
		if err != nil { // its end, or Close
			break
		}
	}
	PutReadWrite(buf, CmdWrite, ReadWrite{ID: id, HangUp: true})
	_ = c.exec(&e, buf[:ReadWriteSize], 0)
}

// write submits one WRITE and waits until the host has taken it.
func (c *GuestConn) write(e *virtgpuExec, cmd []byte, ring uint32) error {
	if ring == 0 {
		return c.exec(e, cmd, 0)
	}
	begin := time.Now()
	fence, err := c.execFence(e, cmd, ring)
	if err != nil {
		return fmt.Errorf("write: %w", err)
	}
	defer c.tellFence("WRITE", begin)
	return c.await(fence)
}

// takeRing returns a timeline for a pump of its own, or 0 without flow control.
func (c *GuestConn) takeRing() uint32 {
	if !c.flow {
		return 0
	}
	c.pipes.Lock()
	defer c.pipes.Unlock()
	free := ^c.pipes.rings &^ (1<<RingFirstPipe - 1)
	if free == 0 {
		return 0
	}
	ring := uint32(bits.TrailingZeros64(free))
	c.pipes.rings |= 1 << ring
	return ring
}

// closePipes ends every pipe of the connection.
func (c *GuestConn) closePipes() {
	c.pipes.Lock()
	defer c.pipes.Unlock()
	for _, s := range c.pipes.sinks {
		s.end(true)
	}
	for f := range c.pipes.files {
		_ = f.Close()
	}
	c.pipes.sinks, c.pipes.files = nil, nil
}
