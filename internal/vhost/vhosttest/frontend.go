// Package vhosttest plays QEMU and a guest's virtio driver against a device of
// package vhost, without a VM: for tests, fuzzing and benchmarks.
//
//	FrontEnd ── vhost-user messages ──────────► vhost.Serve
//	   ▲ ◄───── SHMEM_MAP, SHMEM_UNMAP ────────────┤
//	   │ ────── ADD_MEM_REG, as QEMU does ───────► │
//	Ring.Do ─── descriptors in its memory, kick ─► Device.Process
//
// The caller decides the whole layout, so that a test can also lie.
package vhosttest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var le = binary.LittleEndian

// Requests that a FrontEnd sends; see package vhost for their payloads.
const (
	GetFeatures         = 1
	SetFeatures         = 2
	SetOwner            = 3
	SetMemTable         = 5
	SetVringNum         = 8
	SetVringAddr        = 9
	SetVringBase        = 10
	GetVringBase        = 11
	SetVringKick        = 12
	SetVringCall        = 13
	GetProtocolFeatures = 15
	SetProtocolFeatures = 16
	GetQueueNum         = 17
	SetVringEnable      = 18
	SetBackendReqFD     = 21
	GetConfig           = 24
	AddMemReg           = 37
	RemMemReg           = 38
	GetShmemConfig      = 44
)

// Requests that it receives on the back-end channel.
const (
	shmemMap   = 9
	shmemUnmap = 10
)

const (
	flagVersion   = 1
	flagNeedReply = 8

	protocolFeatures = 0x408628 // those that QEMU 11 is offered
	featureVersion1  = 1 << 32
	featureProtocol  = 1 << 30

	// RAMSize is the guest's memory; it begins at guest physical address 0.
	RAMSize = 16 << 20
	// userBase is the memory's alleged address in the FrontEnd's own address space.
	userBase = 0x7f00_0000_0000
	// WindowBase is the guest physical address of the shared memory region.
	WindowBase = 1 << 40

	// QueueSize is the number of entries of each ring, as in QEMU's configuration.
	QueueSize = 1024
	// Spare is the number of descriptors at the table's end that no request uses: for lies.
	Spare = 8
)

// FrontEnd is one end of a vhost-user connection, and a guest's memory.
type FrontEnd struct {
	RAM   []byte
	Rings []*Ring

	conn  *net.UnixConn
	ramFD int

	call sync.Mutex // one request on the main socket at a time

	mu     sync.Mutex
	refuse func(offset, length uint64) error
	silent bool
	back   *net.UnixConn
	maps   map[uint64][]byte // the window, by offset
	next   uint64            // free guest memory
	wg     sync.WaitGroup
	err    error
}

// New makes the guest's memory and a connection, and returns the device's end of it
// for vhost.Serve.
func New() (*FrontEnd, *net.UnixConn, error) {
	a, b, err := connPair()
	if err != nil {
		return nil, nil, err
	}
	f := &FrontEnd{conn: a, maps: make(map[uint64][]byte), next: 4096}
	if f.ramFD, err = unix.MemfdCreate("ram", unix.MFD_CLOEXEC); err == nil {
		if err = unix.Ftruncate(f.ramFD, RAMSize); err == nil {
			f.RAM, err = unix.Mmap(f.ramFD, 0, RAMSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		}
	}
	if err != nil {
		return nil, nil, errors.Join(err, a.Close(), b.Close())
	}
	return f, b, nil
}

func connPair() (a, b *net.UnixConn, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	var cs [2]*net.UnixConn
	for i, fd := range p {
		f := os.NewFile(uintptr(fd), "vhost-user")
		c, cerr := net.FileConn(f)
		err = errors.Join(err, cerr, f.Close())
		cs[i], _ = c.(*net.UnixConn)
	}
	return cs[0], cs[1], err
}

// Close ends the connection as a QEMU that exits does, and waits for the goroutines.
func (f *FrontEnd) Close() error {
	_ = f.conn.Close()
	f.mu.Lock()
	if f.back != nil {
		_ = f.back.Close()
	}
	f.mu.Unlock()
	for _, r := range f.Rings {
		_ = r.callFile.Close()
	}
	f.wg.Wait()
	for _, r := range f.Rings {
		_ = unix.Close(r.kick)
	}
	for _, m := range f.maps {
		_ = unix.Munmap(m)
	}
	_ = unix.Close(f.ramFD)
	return unix.Munmap(f.RAM)
}

// Write sends raw bytes with descriptors on the main socket.
func (f *FrontEnd) Write(p []byte, fds ...int) error {
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	_, _, err := f.conn.WriteMsgUnix(p, oob, nil)
	return err
}

// Drain reads and drops the device's messages on the main socket, until its end.
func (f *FrontEnd) Drain() { _, _ = io.Copy(io.Discard, f.conn) }

// Message builds a message.
func Message(req, flags uint32, payload []byte) []byte {
	b := le.AppendUint32(nil, req)
	b = le.AppendUint32(b, flags|flagVersion)
	return append(le.AppendUint32(b, uint32(len(payload))), payload...)
}

// State is the payload of the requests that name a ring and a number.
func State(index, value uint32) []byte { return le.AppendUint32(le.AppendUint32(nil, index), value) }

// U64 is the payload of the requests with one number.
func U64(v uint64) []byte { return le.AppendUint64(nil, v) }

// Region is the payload of ADD_MEM_REG and REM_MEM_REG.
func Region(guest, size, user, offset uint64) []byte {
	b := U64(0)
	for _, v := range [...]uint64{guest, size, user, offset} {
		b = le.AppendUint64(b, v)
	}
	return b
}

// RAMRegion is the payload of Start's ADD_MEM_REG.
func (f *FrontEnd) RAMRegion() []byte { return Region(0, RAMSize, userBase, 0) }

// Call sends a request and waits for its reply, or its acknowledgement.
func (f *FrontEnd) Call(req uint32, payload []byte, fds ...int) ([]byte, error) {
	f.call.Lock()
	defer f.call.Unlock()
	if err := f.Write(Message(req, flagNeedReply, payload), fds...); err != nil {
		return nil, err
	}
	var head [12]byte
	if _, err := io.ReadFull(f.conn, head[:]); err != nil {
		return nil, fmt.Errorf("request %d: %w", req, err)
	}
	if got := le.Uint32(head[:]); got != req {
		return nil, fmt.Errorf("reply to request %d, want %d", got, req)
	}
	body := make([]byte, le.Uint32(head[8:]))
	_, err := io.ReadFull(f.conn, body)
	return body, err
}

// Set sends a request without a reply of its own, and checks its acknowledgement.
func (f *FrontEnd) Set(req uint32, payload []byte, fds ...int) error {
	r, err := f.Call(req, payload, fds...)
	if err == nil && (len(r) != 8 || le.Uint64(r) != 0) {
		err = fmt.Errorf("request %d: answer %x", req, r)
	}
	return err
}

// Start negotiates and starts all queues, as QEMU does. It adds features to those that
// every guest acknowledges.
func (f *FrontEnd) Start(features uint64) error {
	offered, err := f.Call(GetFeatures, nil)
	if err != nil {
		return err
	}
	if _, err := f.Call(GetProtocolFeatures, nil); err != nil {
		return err
	}
	if err := f.Write(Message(SetProtocolFeatures, 0, U64(protocolFeatures))); err != nil {
		return err
	}
	if err := f.openChannel(); err != nil {
		return err
	}
	features &= le.Uint64(offered)
	n, err := f.Call(GetQueueNum, nil)
	if err != nil {
		return err
	}
	if err := f.Set(SetFeatures, U64(features|featureVersion1|featureProtocol)); err != nil {
		return err
	}
	if err := f.Set(AddMemReg, f.RAMRegion(), f.ramFD); err != nil {
		return err
	}
	for i := range int(le.Uint64(n)) {
		if err := f.startRing(i, features); err != nil {
			return err
		}
	}
	return nil
}

func (f *FrontEnd) openChannel() error {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	file := os.NewFile(uintptr(p[0]), "channel")
	c, err := net.FileConn(file)
	_ = file.Close()
	if err == nil {
		err = f.Set(SetBackendReqFD, nil, p[1])
	}
	_ = unix.Close(p[1])
	if err != nil {
		return err
	}
	f.mu.Lock()
	f.back = c.(*net.UnixConn)
	f.mu.Unlock()
	f.wg.Go(f.serveChannel)
	return nil
}

// serveChannel makes and removes mappings for the device.
func (f *FrontEnd) serveChannel() {
	buf, oob := make([]byte, 52), make([]byte, unix.CmsgSpace(4))
	for {
		n, on, _, _, err := f.back.ReadMsgUnix(buf, oob)
		if err != nil || n < len(buf) {
			return
		}
		fd := -1
		if cms, _ := unix.ParseSocketControlMessage(oob[:on]); len(cms) > 0 {
			if fds, _ := unix.ParseUnixRights(&cms[0]); len(fds) > 0 {
				fd = fds[0]
			}
		}
		f.serveMapping(le.Uint32(buf), buf[12:], fd)
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
}

func (f *FrontEnd) serveMapping(req uint32, p []byte, fd int) {
	off, length := le.Uint64(p[16:]), le.Uint64(p[24:])
	f.mu.Lock()
	err := f.setMappingLocked(req, off, length, fd)
	silent := f.silent
	f.mu.Unlock()
	code := uint64(0)
	if err != nil {
		code = 1
	}
	if _, werr := f.back.Write(Message(req, 4, U64(code))); werr != nil || err != nil || silent {
		return
	}
	// QEMU commits after its answer, and then announces the region. A device that has
	// ended meanwhile ignores it.
	region := Region(WindowBase+off, length, userBase+WindowBase+off, 0)
	if req == shmemMap {
		_ = f.Set(AddMemReg, region, fd)
	} else {
		_ = f.Set(RemMemReg, region)
	}
}

// Refuse sets a function that is called before every mapping; its error is the answer.
func (f *FrontEnd) Refuse(ask func(offset, length uint64) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.refuse = ask
}

// Silence stops announcing mappings on the main socket, as QEMU does while the
// guest has switched the window off.
func (f *FrontEnd) Silence() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.silent = true
}

func (f *FrontEnd) setMappingLocked(req uint32, off, length uint64, fd int) error {
	if f.refuse != nil {
		if err := f.refuse(off, length); err != nil {
			return err
		}
	}
	old, ok := f.maps[off]
	switch {
	case req == shmemMap && ok, req == shmemUnmap && (!ok || uint64(len(old)) != length):
		return errors.New("overlap, or nothing there")
	case req == shmemUnmap:
		delete(f.maps, off)
		return unix.Munmap(old)
	}
	m, err := unix.Mmap(fd, 0, int(length), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err == nil {
		f.maps[off] = m
	}
	return err
}

// Window returns the mapping at an offset of the shared memory region, or nil.
func (f *FrontEnd) Window(off uint64) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.maps[off]
}

// Mappings returns the number of mappings.
func (f *FrontEnd) Mappings() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.maps)
}

// Alloc returns n bytes of guest memory, page-aligned, never freed.
func (f *FrontEnd) Alloc(n int) (addr uint64, mem []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	addr = f.next
	f.next += (uint64(n) + 4095) &^ 4095
	if f.next > RAMSize {
		panic("vhosttest: guest memory is used up")
	}
	return addr, f.RAM[addr:][:n:n]
}

// Ring is a driver's side of a split virtqueue.
type Ring struct {
	Index              int
	Desc, Avail, Used  []byte
	f                  *FrontEnd
	addr               [3]uint64 // desc, used, avail, as the front end's addresses
	kick               int
	callFile           *os.File
	indirect, eventIdx bool

	mu        sync.Mutex
	availIdx  uint16
	usedIdx   uint16
	free      []uint16
	slots     []slot
	wait      []chan uint32 // by head
	forgotten map[uint16]bool
	ready     sync.Cond
	closed    bool
}

// slot is the memory of one request.
type slot struct {
	addr uint64
	mem  []byte
}

// SlotSize is the room for one request with its answer.
const SlotSize = 8 << 10

// Addr returns the payload of SET_VRING_ADDR.
func (r *Ring) Addr() []byte {
	b := State(uint32(r.Index), 0)
	for _, a := range [...]uint64{r.addr[0], r.addr[1], r.addr[2], 0} {
		b = le.AppendUint64(b, a)
	}
	return b
}

func (f *FrontEnd) startRing(i int, features uint64) error {
	r := &Ring{Index: i, f: f, indirect: features&(1<<28) != 0, eventIdx: features&(1<<29) != 0}
	r.ready.L = &r.mu
	for k, n := range [...]int{16 * QueueSize, 6 + 8*QueueSize, 6 + 2*QueueSize} {
		addr, mem := f.Alloc(n)
		r.addr[k] = userBase + addr
		switch k {
		case 0:
			r.Desc = mem
		case 1:
			r.Used = mem
		case 2:
			r.Avail = mem
		}
	}
	r.wait, r.forgotten = make([]chan uint32, QueueSize), make(map[uint16]bool)
	for s := range (QueueSize - Spare) / 4 {
		addr, mem := f.Alloc(SlotSize)
		r.slots = append(r.slots, slot{addr, mem})
		r.free = append(r.free, uint16(s*4))
	}
	var err error
	if r.kick, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return err
	}
	call, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return err
	}
	r.callFile = os.NewFile(uintptr(call), "call")
	f.mu.Lock()
	f.Rings = append(f.Rings, r)
	f.mu.Unlock()
	f.wg.Go(r.collect)
	return r.Run()
}

// Run configures and enables the ring from the state of its memory.
func (r *Ring) Run() error {
	f, i := r.f, uint32(r.Index)
	dup, err := unix.FcntlInt(uintptr(mustFD(r.callFile)), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dup)
	return errors.Join(
		f.Set(SetVringNum, State(i, QueueSize)),
		f.Set(SetVringBase, State(i, uint32(r.availIdx))),
		f.Set(SetVringAddr, r.Addr()),
		f.Set(SetVringCall, U64(uint64(i)), dup),
		f.Set(SetVringKick, U64(uint64(i)), r.kick),
		f.Set(SetVringEnable, State(i, 1)))
}

func mustFD(f *os.File) int {
	c, err := f.SyscallConn()
	if err != nil {
		return -1
	}
	fd := -1
	_ = c.Control(func(p uintptr) { fd = int(p) })
	return fd
}

// Forget empties the ring, as a driver that resets the device does. Earlier requests
// must not be freed.
func (r *Ring) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.availIdx, r.usedIdx = 0, 0
	clear(r.Avail)
	clear(r.Used)
	clear(r.forgotten)
	r.free = r.free[:0]
	for i := range r.slots {
		r.free = append(r.free, uint16(i*4))
	}
	for i, w := range r.wait {
		if w != nil {
			close(w)
			r.wait[i] = nil
		}
	}
	r.ready.Broadcast()
}

// Kick notifies the device.
func (r *Ring) Kick() {
	one := [8]byte{1}
	_, _ = unix.Write(r.kick, one[:])
}

// SetDesc writes a descriptor into the table.
func (r *Ring) SetDesc(i int, addr uint64, length uint32, flags, next uint16) {
	PutDesc(r.Desc[16*i:], addr, length, flags, next)
}

// PutDesc writes a descriptor.
func PutDesc(p []byte, addr uint64, length uint32, flags, next uint16) {
	le.PutUint64(p, addr)
	le.PutUint32(p[8:], length)
	le.PutUint16(p[12:], flags)
	le.PutUint16(p[14:], next)
}

// Offer puts a head on the avail ring, without a check.
func (r *Ring) Offer(head uint16) {
	r.mu.Lock()
	r.offerLocked(head)
	r.mu.Unlock()
}

func (r *Ring) offerLocked(head uint16) {
	le.PutUint16(r.Avail[4+2*int(r.availIdx%QueueSize):], head)
	r.availIdx++
	word(r.Avail).Store(uint32(r.availIdx) << 16)
}

func word(p []byte) *atomic.Uint32 { return (*atomic.Uint32)(unsafe.Pointer(&p[0])) }

// A Request is a request that the device holds.
type Request struct {
	r      *Ring
	head   uint16
	done   chan uint32
	outLen int
}

// Submit offers a request of out, with room for an answer of inLen bytes, and kicks.
func (r *Ring) Submit(out []byte, inLen int) *Request {
	if len(out)+inLen > SlotSize {
		panic("vhosttest: request too large")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.free) == 0 && !r.closed {
		r.ready.Wait()
	}
	q := &Request{r: r, done: make(chan uint32, 1), outLen: len(out)}
	if r.closed {
		close(q.done)
		return q
	}
	q.head = r.free[len(r.free)-1]
	r.free = r.free[:len(r.free)-1]
	s := r.slots[q.head/4]
	copy(s.mem, out)
	clear(s.mem[len(out):][:inLen])
	r.layout(q.head, s.addr, len(out), inLen)
	r.wait[q.head] = q.done
	r.offerLocked(q.head)
	r.Kick()
	return q
}

// layout describes a request in two descriptors, indirectly where negotiated.
func (r *Ring) layout(head uint16, addr uint64, out, in int) {
	const next, write, indirect = 1, 2, 4
	if r.indirect {
		// The table is in the unused descriptors of the head's group.
		t := r.Desc[16*(int(head)+1):]
		PutDesc(t, addr, uint32(out), next, 1)
		PutDesc(t[16:], addr+uint64(out), uint32(in), write, 0)
		r.SetDesc(int(head), r.addr[0]-userBase+16*uint64(head+1), 32, indirect, 0)
		return
	}
	r.SetDesc(int(head), addr, uint32(out), next, head+1)
	r.SetDesc(int(head)+1, addr+uint64(out), uint32(in), write, 0)
}

// ErrGone means that the device is gone, or that the ring was reset.
var ErrGone = errors.New("device is gone")

// Done has a value when the answer is there. A caller that takes it must not Wait.
func (q *Request) Done() <-chan uint32 { return q.done }

// Wait returns the answer, which the next request overwrites.
func (q *Request) Wait() ([]byte, error) {
	n, ok := <-q.done
	if !ok {
		return nil, ErrGone
	}
	return q.r.slots[q.head/4].mem[q.outLen:][:n], nil
}

// Within waits a while for the answer, and returns its first word; ok is false
// if it has not come.
func (q *Request) Within(d time.Duration) (typ uint32, ok bool, err error) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case n, open := <-q.done:
		if !open {
			return 0, false, ErrGone
		}
		if n < 4 {
			return 0, true, nil
		}
		return le.Uint32(q.r.slots[q.head/4].mem[q.outLen:]), true, nil
	case <-t.C:
		return 0, false, nil
	}
}

// Do submits and waits; the answer is a copy.
func (r *Ring) Do(out []byte, inLen int) ([]byte, error) {
	q := r.Submit(out, inLen)
	p, err := q.Wait()
	p = append([]byte(nil), p...)
	q.Free()
	return p, err
}

// Again submits the same request, as it is in memory, after Wait.
func (q *Request) Again() {
	r := q.r
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wait[q.head] = q.done
	r.offerLocked(q.head)
	r.Kick()
}

// Forget frees the request when its answer comes, and drops the answer.
func (q *Request) Forget() {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	if q.r.wait[q.head] == q.done {
		q.r.forgotten[q.head] = true
	} else {
		q.r.free = append(q.r.free, q.head)
		q.r.ready.Signal()
	}
}

// Free gives the request's memory back. It is called once, after Wait.
func (q *Request) Free() {
	q.r.mu.Lock()
	defer q.r.mu.Unlock()
	q.r.free = append(q.r.free, q.head)
	q.r.ready.Signal()
}

// Gone ends the waits on every ring: the device will not answer any more.
func (f *FrontEnd) Gone() {
	f.mu.Lock()
	rings := f.Rings
	f.mu.Unlock()
	for _, r := range rings {
		r.mu.Lock()
		r.endLocked()
		r.mu.Unlock()
	}
}

func (r *Ring) endLocked() {
	r.closed = true
	for i, w := range r.wait {
		if w != nil {
			close(w)
			r.wait[i] = nil
		}
	}
	r.ready.Broadcast()
}

// collect takes requests off the used ring at each interrupt.
func (r *Ring) collect() {
	var count [8]byte
	for {
		_, err := r.callFile.Read(count[:])
		r.mu.Lock()
		if err != nil {
			r.endLocked()
			r.mu.Unlock()
			return
		}
		r.takeLocked()
		r.mu.Unlock()
	}
}

func (r *Ring) takeLocked() {
	for {
		for idx := uint16(word(r.Used).Load() >> 16); r.usedIdx != idx; r.usedIdx++ {
			e := r.Used[4+8*int(r.usedIdx%QueueSize):]
			head, n := le.Uint32(e), le.Uint32(e[4:])
			if head < QueueSize && r.wait[head] != nil {
				r.wait[head] <- n
				r.wait[head] = nil
				if h := uint16(head); r.forgotten[h] {
					delete(r.forgotten, h)
					r.free = append(r.free, h)
					r.ready.Signal()
				}
			}
		}
		if !r.eventIdx {
			return
		}
		le.PutUint16(r.Avail[4+2*QueueSize:], r.usedIdx) // used_event: interrupt for the next
		barrier.Add(1)
		if uint16(word(r.Used).Load()>>16) == r.usedIdx {
			return
		}
	}
}

var barrier atomic.Uint32
