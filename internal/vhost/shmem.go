package vhost

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoChannel means that the front end cannot map shared memory.
var ErrNoChannel = errors.New("front end has no shared memory channel")

// ErrRefused means that the front end answered a map or unmap with an error, which
// does not harm it.
var ErrRefused = errors.New("front end refused")

// commitWait bounds the wait for the ADD_MEM_REG that confirms a
// mapping. It comes within milliseconds, or never if the guest has switched off the
// device's memory window: then going on is harmless.
const commitWait = 2 * time.Second

// shm is the back-end channel.
//
//	Map                         main socket's goroutine
//	 │ SHMEM_MAP + fd ───────►
//	 │ ◄─────────── reply 0
//	 │ waits           ADD_MEM_REG(same file) ► committed
//	 ▼ ◄───────────────────────────────────────────┘
//
// call serialises the requests, and is held during the wait for QEMU: the main
// socket's goroutine must never take it. mu guards the fields, briefly.
type shm struct {
	call sync.Mutex

	mu     sync.Mutex
	conn   *net.UnixConn
	closed bool
	epoch  uint64             // the number of resets
	live   map[Mapping]func() // the mappings of the guest's current life
	stale  []stale            // the mappings of an earlier life, to be unmapped
	wait   *commit
}

// commit is a mapping that waits for its ADD_MEM_REG.
type commit struct {
	dev, ino uint64
	done     chan struct{}
}

// A Mapping is a piece of a shared memory region.
type Mapping struct {
	Region      uint8
	Offset, Len uint64
}

// stale is an unused mapping, and the function to call when it is gone.
type stale struct {
	Mapping
	gone func()
}

func (s *shm) init() { s.live = make(map[Mapping]func()) }

// setChannel takes ownership of the descriptor of SET_BACKEND_REQ_FD.
func (s *shm) setChannel(fd int) error {
	f := os.NewFile(uintptr(fd), "vhost-user back-end channel")
	c, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return fmt.Errorf("vhost-user back-end channel: %w", err)
	}
	uc, ok := c.(*net.UnixConn)
	if !ok {
		_ = c.Close()
		return protoErrorf("back-end channel is not a unix socket")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return uc.Close()
	}
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.conn = uc
	return nil
}

// close ends the channel and unblocks its waiting callers.
func (s *shm) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.conn != nil {
		_ = s.conn.Close()
	}
	s.releaseLocked()
}

// end drops the remaining mappings: the front end has gone, and its memory with it.
func (s *shm) end() {
	s.reset()
	s.mu.Lock()
	left := s.stale
	s.stale = nil
	s.mu.Unlock()
	for _, m := range left {
		m.gone()
	}
}

// reset marks the guest's mappings as stale: the next Map unmaps them first. They
// cannot be unmapped here, because QEMU may be waiting for our answer.
//
// QEMU 11.1 itself does not get there: a guest that restarts its device after a
// mapping crashes it (a null pointer, in the guest's own QEMU), even if
// everything is unmapped while the rings are stopped. So QEMU runs with -no-reboot.
func (s *shm) reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.epoch++
	for m, gone := range s.live {
		s.stale = append(s.stale, stale{m, gone})
	}
	clear(s.live)
	s.releaseLocked()
}

func (s *shm) releaseLocked() {
	if s.wait != nil {
		close(s.wait.done)
		s.wait = nil
	}
}

// onCommit notes that the front end has announced a region of this file.
func (s *shm) onCommit(dev, ino uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wait != nil && s.wait.dev == dev && s.wait.ino == ino {
		s.releaseLocked()
	}
}

// Map puts m.Len bytes of a file from its start, readable and writable, into a
// shared memory region. The file must be at least that long, opened for reading and
// writing, and not sealed against writing. It waits until the guest can use it.
//
// gone is called once, when the front end has nothing mapped there any more: after
// Unmap, after a reset when the stale mapping is unmapped, at the end, or
// before Map returns an error. It must not block.
func (b *Backend) Map(fd int, m Mapping, gone func()) error {
	s := &b.shm
	s.call.Lock()
	defer s.call.Unlock()
	s.unmapStale()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		gone()
		return fmt.Errorf("map: %w", err)
	}
	w := &commit{st.Dev, st.Ino, make(chan struct{})}
	s.mu.Lock()
	epoch := s.epoch
	s.wait = w
	s.mu.Unlock()
	err := s.request(backendShmemMap, shmemMsg{m.Region, 0, m.Offset, m.Len, shmemWritable}, fd)
	if err == nil {
		t := time.NewTimer(commitWait)
		select {
		case <-w.done:
		case <-t.C:
		}
		t.Stop()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wait = nil
	switch {
	case errors.Is(err, ErrRefused), errors.Is(err, ErrNoChannel), err != nil && s.closed:
		gone()
		return err
	case s.closed:
		gone() // with the front end
		return ErrReset
	case err != nil, s.epoch != epoch:
		// The guest is gone, or it is unknown whether the mapping exists.
		s.stale = append(s.stale, stale{m, gone})
		if err == nil {
			err = ErrReset
		}
		return err
	}
	s.live[m] = gone
	return nil
}

// ErrReset means that the device was reset during a request.
var ErrReset = errors.New("device was reset")

// Unmap removes a mapping of Map. If the front end refuses, it stays mapped,
// and is tried again later.
func (b *Backend) Unmap(m Mapping) error {
	s := &b.shm
	s.call.Lock()
	defer s.call.Unlock()
	s.mu.Lock()
	gone, ok := s.live[m]
	delete(s.live, m)
	s.mu.Unlock()
	if !ok {
		return ErrReset
	}
	err := s.unmap(m)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.stale = append(s.stale, stale{m, gone})
		return err
	}
	gone()
	return nil
}

func (s *shm) unmap(m Mapping) error {
	return s.request(backendShmemUnmap, shmemMsg{m.Region, 0, m.Offset, m.Len, 0}, -1)
}

// Sweep unmaps the stale mappings. It waits for the front end.
func (b *Backend) Sweep() {
	b.shm.call.Lock()
	defer b.shm.call.Unlock()
	b.shm.unmapStale()
}

// unmapStale unmaps the mappings of an earlier life of the guest.
func (s *shm) unmapStale() {
	s.mu.Lock()
	left := s.stale
	s.stale = nil
	s.mu.Unlock()
	for i, m := range left {
		// A front end that has reset its regions itself refuses, which is fine.
		if err := s.unmap(m.Mapping); err != nil && !errors.Is(err, ErrRefused) {
			s.mu.Lock()
			s.stale = append(s.stale, left[i:]...)
			s.mu.Unlock()
			return // the channel is gone, and end follows
		}
		m.gone()
	}
}

// request sends one message and waits for its answer.
func (s *shm) request(req uint32, m shmemMsg, fd int) error {
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		return ErrNoChannel
	}
	var rights []byte
	if fd >= 0 {
		rights = unix.UnixRights(fd)
	}
	out := appendMessage(nil, req, flagNeedReply, appendShmem(nil, m))
	if _, _, err := conn.WriteMsgUnix(out, rights, nil); err != nil {
		return fmt.Errorf("back-end channel: %w", err)
	}
	var buf [maxPayload]byte
	reply, err := readMessage(conn, buf[:], oobSpace())
	if err != nil {
		return fmt.Errorf("back-end channel: %w", err)
	}
	reply.closeFDs()
	code, err := parseU64(reply.payload)
	switch {
	case err != nil:
		return err
	case reply.req != req:
		return protoErrorf("reply to %d on the back-end channel, want %d", reply.req, req)
	case code != 0:
		return fmt.Errorf("%w: %#x", ErrRefused, code)
	}
	return nil
}
