package vhost

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A Device is a virtio device behind Serve.
type Device interface {
	// Features are the device's own feature bits and those of its rings
	// (FeatureIndirectDesc, FeatureEventIdx).
	Features() uint64
	// Queues is the number of virtqueues.
	Queues() int
	// Config is the configuration space, at most 256 bytes.
	Config() []byte
	// SharedMemory is the length of each shared memory region by its id; 0 for none.
	SharedMemory() []uint64
	// Start is called once, before the methods below.
	Start(*Backend)
	// Process is called when q may hold chains: it calls q.Next until that returns false.
	// There is one call at a time for each queue. The guest is notified when it returns.
	Process(q *Queue)
	// Reset is called when the guest resets the device (or a queue is stopped). When
	// it returns, the device writes no more to the guest for earlier requests. It
	// must not wait for Process, nor for anything that needs the front end.
	Reset()
	// Close is called last: it resets the device, and waits for everything that it started.
	Close()
}

// A Backend has a Device's services beyond its queues.
type Backend struct {
	Memory *Memory
	shm    shm
}

// Serve speaks vhost-user with the front end at the other end of conn, until
// the front end closes it (nil), breaks the protocol or a guest breaks a ring (an
// error), or ctx ends (its cause). It owns conn. When it returns, it has ended what it
// started, unmapped what it mapped and closed what it owned.
func Serve(ctx context.Context, conn *net.UnixConn, dev Device) error {
	ctx, cancel := context.WithCancelCause(ctx)
	s := &session{conn: conn, dev: dev, cancel: cancel}
	s.be.Memory = &Memory{}
	s.be.shm.init()
	for i := range dev.Queues() {
		s.rings = append(s.rings, &ring{Queue: newQueue(i, s.be.Memory)})
	}
	unhook := context.AfterFunc(ctx, func() {
		_ = conn.Close()
		s.be.shm.close()
	})
	dev.Start(&s.be)
	err := s.loop()
	cancel(nil)
	unhook()
	s.shutdown()
	if cause := context.Cause(ctx); err != nil && cause != nil && !errors.Is(cause, context.Canceled) {
		return cause // the reason for closing the socket says more than the loop's error
	}
	if err != nil && ctx.Err() != nil && errors.Is(err, net.ErrClosed) {
		return context.Cause(ctx)
	}
	return err
}

// session is the state of one front end's connection.
//
// Ownership: the loop's goroutine owns everything here; a ring's goroutine owns
// its queue and its kick file, and ends when that file is closed.
type session struct {
	conn     *net.UnixConn
	dev      Device
	be       Backend
	rings    []*ring
	features uint64
	proto    uint64
	cancel   context.CancelCauseFunc
	stopped  bool // a ring was stopped, and the device reset, since the last start
}

// ring is a queue with the goroutine that serves it.
type ring struct {
	*Queue
	enabled bool
	kick    *os.File
	serving bool
	done    chan struct{} // closed when the last goroutine has ended; nil before the first
}

func (s *session) shutdown() {
	_ = s.conn.Close()
	for _, r := range s.rings {
		r.Queue.stop()
		r.halt()
	}
	s.be.shm.close()
	for _, r := range s.rings {
		if r.done != nil {
			<-r.done
		}
		r.setCall(-1)
	}
	s.dev.Close()
	s.be.shm.end()
	s.be.Memory.clear()
}

// loop reads and answers messages until the front end closes the socket.
func (s *session) loop() error {
	buf, oob, out := make([]byte, maxPayload), oobSpace(), make([]byte, 0, headerSize+maxPayload)
	for {
		m, err := readMessage(s.conn, buf, oob)
		if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("vhost-user: %w", err)
		}
		reply, err := s.handle(&m)
		m.closeFDs()
		switch {
		case err != nil:
			return err
		case reply != nil:
			out = appendMessage(out[:0], m.req, flagReply, reply)
		case m.flags&flagNeedReply != 0 && s.proto&protoReplyAck != 0:
			out = appendMessage(out[:0], m.req, flagReply, le.AppendUint64(nil, 0))
		default:
			continue
		}
		if _, err := s.conn.Write(out); err != nil {
			if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
				return nil
			}
			return fmt.Errorf("vhost-user: %w", err)
		}
	}
}

// handle carries out one request. A nil reply means only the
// acknowledgement. Any error ends the session: the front end is QEMU, and a half-working
// display is useless.
func (s *session) handle(m *message) (reply []byte, err error) {
	switch m.req {
	case reqGetFeatures:
		return le.AppendUint64(nil, s.offered()), nil
	case reqSetFeatures:
		return nil, s.setFeatures(m)
	case reqSetOwner, reqResetOwner, reqSetVringErr:
		return nil, nil // closing the message closes an error eventfd, if there is one
	case reqGetProtocolFeatures:
		return le.AppendUint64(nil, protoOffered), nil
	case reqSetProtocolFeatures:
		s.proto, err = parseU64(m.payload)
		return nil, err
	case reqGetQueueNum:
		return le.AppendUint64(nil, uint64(len(s.rings))), nil
	case reqGetMaxMemSlots:
		return le.AppendUint64(nil, maxMemSlots), nil
	case reqSetMemTable, reqAddMemReg, reqRemMemReg:
		return nil, s.handleMemory(m)
	case reqGetConfig, reqSetConfig:
		return s.handleConfig(m)
	case reqGetShmemConfig:
		return s.shmemConfig()
	case reqSetBackendReqFD:
		fd, err := m.takeFD()
		if err != nil {
			return nil, err
		}
		return nil, s.be.shm.setChannel(fd)
	case reqResetDevice:
		s.reset()
		return nil, nil
	}
	return s.handleVring(m)
}

func (s *session) offered() uint64 {
	return s.dev.Features() | featureProtocolFeatures | featureVersion1
}

func (s *session) setFeatures(m *message) error {
	f, err := parseU64(m.payload)
	if err != nil {
		return err
	}
	if extra := f &^ s.offered(); extra != 0 {
		return protoErrorf("features %#x were not offered", extra)
	}
	s.features = f
	return nil
}

func (s *session) handleMemory(m *message) error {
	if m.req == reqSetMemTable {
		rs, err := parseMemTable(m.payload)
		if err != nil {
			return err
		}
		if len(m.fds) != len(rs) {
			return protoErrorf("%d memory regions with %d descriptors", len(rs), len(m.fds))
		}
		fds := m.fds
		m.fds = nil
		return s.be.Memory.replace(rs, fds)
	}
	r, err := parseSingleRegion(m.payload)
	if err != nil {
		return err
	}
	if m.req == reqRemMemReg {
		return s.be.Memory.remove(r)
	}
	fd, err := m.takeFD()
	if err != nil {
		return err
	}
	var st unix.Stat_t
	_ = unix.Fstat(fd, &st)
	if err := s.be.Memory.add(r, fd); err != nil {
		return err
	}
	s.be.shm.onCommit(st.Dev, st.Ino)
	return nil
}

func (s *session) handleConfig(m *message) ([]byte, error) {
	off, n, _, err := parseConfig(m.payload)
	if err != nil {
		return nil, err
	}
	if m.req == reqSetConfig {
		return nil, nil // the only writable field of a GPU, events_clear, has no use
	}
	out := append([]byte(nil), m.payload[:configHeadSize]...)
	space := make([]byte, maxConfig)
	copy(space, s.dev.Config())
	return append(out, space[off:off+n]...), nil
}

func (s *session) shmemConfig() ([]byte, error) {
	sizes := s.dev.SharedMemory()
	n := 0
	out := make([]byte, shmemConfSize)
	for id, size := range sizes {
		le.PutUint64(out[8+8*id:], size)
		if size > 0 {
			n++
		}
	}
	le.PutUint32(out, uint32(n))
	return out, nil
}

// handleVring carries out the requests that name a ring.
func (s *session) handleVring(m *message) ([]byte, error) {
	switch m.req {
	case reqSetVringNum, reqSetVringBase, reqGetVringBase, reqSetVringEnable:
		i, v, err := parseState(m.payload)
		if err != nil {
			return nil, err
		}
		r, err := s.ring(i)
		if err != nil {
			return nil, err
		}
		return s.setState(r, m.req, v)
	case reqSetVringAddr:
		a, err := parseVringAddr(m.payload)
		if err != nil {
			return nil, err
		}
		r, err := s.ring(a.index)
		if err != nil {
			return nil, err
		}
		return nil, r.configure(func() { r.addr, r.haveAdr = a, true })
	case reqSetVringKick, reqSetVringCall:
		return nil, s.setFile(m)
	}
	return nil, protoErrorf("unknown request %d", m.req)
}

func (s *session) ring(i uint32) (*ring, error) {
	if int64(i) >= int64(len(s.rings)) {
		return nil, protoErrorf("vring %d of %d", i, len(s.rings))
	}
	return s.rings[i], nil
}

func (s *session) setState(r *ring, req, v uint32) ([]byte, error) {
	switch req {
	case reqSetVringNum:
		if v == 0 || v > maxQueueSize || v&(v-1) != 0 {
			return nil, protoErrorf("vring %d of %d entries", r.Index, v)
		}
		return nil, r.configure(func() { r.size = uint16(v) })
	case reqSetVringBase:
		return nil, r.configure(func() { r.lastAvail = uint16(v) })
	case reqGetVringBase:
		base := r.Queue.stop()
		r.halt()
		s.reset()
		return appendState(nil, uint32(r.Index), uint32(base)), nil
	default: // reqSetVringEnable
		r.enabled = v != 0
		if !r.enabled {
			r.Queue.stop()
			s.reset()
			return nil, nil
		}
		return nil, s.run(r)
	}
}

// setFile takes the eventfd of SET_VRING_KICK or SET_VRING_CALL.
func (s *session) setFile(m *message) error {
	v, err := parseU64(m.payload)
	if err != nil {
		return err
	}
	r, err := s.ring(uint32(v & 0xff))
	if err != nil {
		return err
	}
	fd := -1
	if v&(1<<8) == 0 {
		if fd, err = m.takeFD(); err != nil {
			return err
		}
	}
	if m.req == reqSetVringCall {
		r.setCall(fd)
		return nil
	}
	if fd < 0 {
		return protoErrorf("vring %d without a kick descriptor: polling is not supported", r.Index)
	}
	// The runtime's poller needs the eventfd non-blocking: a blocked read of it would
	// delay QEMU at power-off.
	if err := unix.SetNonblock(fd, true); err != nil {
		_ = unix.Close(fd)
		return fmt.Errorf("vring %d kick: %w", r.Index, err)
	}
	r.halt()
	r.kick = os.NewFile(uintptr(fd), "kick")
	return s.run(r)
}

// configure changes a queue's parameters, which the front end does only while the
// queue is stopped.
func (r *ring) configure(set func()) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.running {
		return protoErrorf("vring %d changed while it runs", r.Index)
	}
	set()
	return nil
}

// run starts the ring if it is enabled and has a kick descriptor.
func (s *session) run(r *ring) error {
	if r.kick == nil || !(r.enabled || s.features&featureProtocolFeatures == 0) {
		return nil
	}
	if err := r.Queue.start(s.features); err != nil {
		return err
	}
	s.stopped = false
	if r.serving {
		poke(r.kick)
		return nil
	}
	r.serving = true
	prev, done, kick := r.done, make(chan struct{}), r.kick
	r.done = done
	go func() {
		defer close(done)
		if prev != nil {
			<-prev // one goroutine at a time owns the queue
		}
		s.serveRing(r.Queue, kick)
	}()
	return nil
}

// poke makes the ring's goroutine check the ring again.
func poke(kick *os.File) {
	one := [8]byte{1}
	_, _ = kick.Write(one[:])
}

// halt ends the ring's goroutine, without waiting for it.
func (r *ring) halt() {
	if r.kick != nil {
		_ = r.kick.Close()
		r.kick = nil
	}
	r.serving = false
}

// serveRing processes a queue after each kick, and once at the start for
// earlier chains.
func (s *session) serveRing(q *Queue, kick *os.File) {
	var count [8]byte
	for {
		s.dev.Process(q)
		q.Notify()
		if err := q.err(); err != nil {
			s.cancel(err)
			return
		}
		if _, err := kick.Read(count[:]); err != nil {
			return // closed by halt
		}
	}
}

// reset resets the device, once for all rings.
func (s *session) reset() {
	if !s.stopped {
		s.stopped = true
		s.dev.Reset()
		s.be.shm.reset()
	}
}
