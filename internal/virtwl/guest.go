//go:build linux && (amd64 || arm64 || riscv64)

package virtwl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

const (
	// sendWindow is how many bytes a guest sends between two fences of SEND. Two windows
	// stay below softQueued of the host's end.
	sendWindow = 256 << 10
	// pumpSize is how many bytes of a pipe go into one WRITE.
	pumpSize = 16 << 10
	// minSendBuf holds one full Wayland buffer of 4096 bytes and its SEND.
	minSendBuf = 8 << 10
)

// Device is a virtio-gpu render node with the cross-domain capability set.
type Device struct {
	path string
	caps Capabilities
}

// OpenDevice checks that path (such as /dev/dri/renderD128) is a virtio-gpu that can
// carry Wayland. It keeps nothing open.
func OpenDevice(path string) (*Device, error) {
	f, err := openNode(path)
	if err != nil {
		return nil, err
	}
	defer f.close()
	name, err := driverName(f.fd)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; is it a DRM device?", path, err)
	}
	if name != "virtio_gpu" {
		return nil, fmt.Errorf("%s: driver is %s, not virtio_gpu", path, name)
	}
	for _, p := range [...]struct {
		param uint64
		what  string
	}{{paramResourceBlob, "blob resources"}, {paramHostVisible, "host-visible memory"}, {paramContextInit, "context types"}} {
		if v, err := getparam(f.fd, p.param); err != nil || v == 0 {
			return nil, fmt.Errorf("%s: no %s; the guest's kernel must be Linux 5.16 or newer, and the device Vix's", path, p.what)
		}
	}
	if v, err := getparam(f.fd, paramCapsets); err == nil && v&(1<<CapsetID) == 0 {
		return nil, fmt.Errorf("%s: no cross-domain capability set (%d); the device must be Vix's", path, CapsetID)
	}
	caps, err := getCaps(f.fd)
	if err != nil {
		return nil, fmt.Errorf("%s: cross-domain capabilities: %w", path, err)
	}
	if caps.Channels&(1<<ChannelWayland) == 0 {
		return nil, fmt.Errorf("%s: cross-domain without a Wayland channel (%#x)", path, caps.Channels)
	}
	return &Device{path, caps}, nil
}

// Close ends the use of the device. Connections are closed by themselves.
func (d *Device) Close() error { return nil }

// node is an open render node: a file of the runtime's poller, for reading events,
// and its number, for ioctls. Whoever uses fd holds mu's read side.
type node struct {
	mu     sync.RWMutex
	f      *os.File
	fd     int
	closed bool
}

func openNode(path string) (*node, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return &node{f: os.NewFile(uintptr(fd), path), fd: fd}, nil
}

// do calls fn with the descriptor, or fails when it is closed.
func (n *node) do(fn func(fd int) error) error {
	n.mu.RLock()
	defer n.mu.RUnlock()
	if n.closed {
		return wayland.ErrClosed
	}
	return fn(n.fd)
}

// close wakes a reader of events, and waits for it and for ioctls under way.
func (n *node) close() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.closed {
		n.closed = true
		_ = n.f.Close()
	}
}

// GuestConn is one connection to the host. It implements wayland.Transport.
//
// The host keeps the connection until Close has been called and every blob closed:
// a mapping keeps the kernel's context alive.
type GuestConn struct {
	node *node
	flow bool // the host signals fences of SEND and WRITE when it has room

	onFence func(what string, begin, end time.Time) // or nil

	done  chan struct{} // closed by Close
	wake  int           // eventfd that Close makes readable, for those in poll
	once  sync.Once
	pumps sync.WaitGroup // goroutines of pipes

	query, channel bo

	recv struct { // of Recv
		sync.Mutex
		event  [64]byte
		exec   virtgpuExec
		poll   [HeaderSize]byte
		rest   []byte // the rest of the last RECEIVE, still in the ring
		msg    SendReceive
		ended  bool
		parked bool // the host has a POLL
		since  time.Time
	}
	send struct { // of Send
		sync.Mutex
		exec     virtgpuExec
		buf      []byte
		msg      SendReceive
		lastPipe uint32
		since    int // the number of bytes since the last fence
		fence    int // sync file, -1
		fenced   time.Time
	}
	images struct { // of NewBlob
		sync.Mutex
		ids map[uint64]uint32 // size → blob id
	}
	pipes struct {
		sync.Mutex
		sinks map[uint32]*sink // by the id of SEND
		files map[*os.File]struct{}
		rings uint64 // the set of used timelines
	}
}

// Connect opens a connection. The host's end appears as the argument of its Accept.
func (d *Device) Connect(ctx context.Context) (*GuestConn, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	n, err := openNode(d.path)
	if err != nil {
		return nil, err
	}
	c := &GuestConn{node: n, flow: d.caps.Channels&FlowControl != 0, done: make(chan struct{}), wake: -1}
	c.send.lastPipe, c.send.fence = PipeReadStart, -1
	c.images.ids = make(map[uint64]uint32)
	c.pipes.sinks = make(map[uint32]*sink)
	c.pipes.files = make(map[*os.File]struct{})
	if err := c.open(); err != nil {
		_ = c.Close()
		return nil, fmt.Errorf("%s: %w", d.path, err)
	}
	return c, nil
}

func (c *GuestConn) open() (err error) {
	rings := RingChannel + 1
	if c.flow {
		rings = MaxRings
	}
	fd := c.node.fd
	if c.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	if err := contextInit(fd, rings); err != nil {
		return fmt.Errorf("cross-domain context: %w", err)
	}
	if c.query, err = newBO(fd, blobMemGuest, 0, PageSize); err != nil {
		return fmt.Errorf("query ring: %w", err)
	}
	size := uint64(PageSize)
	if c.flow {
		size = MaxRingSize
	}
	if c.channel, err = newBO(fd, blobMemGuest, 0, size); err != nil {
		return fmt.Errorf("channel ring: %w", err)
	}
	cmd := AppendInit(nil, Init{c.query.res, c.channel.res, ChannelWayland})
	var e virtgpuExec
	if err := c.exec(&e, cmd, 0); err != nil {
		return fmt.Errorf("INIT: %w", err)
	}
	AppendHeader(c.recv.poll[:0], Header{CmdPoll, RingChannel, HeaderSize})
	return nil
}

// OnFence sets a function to call after a wait for a fence of POLL, SEND or WRITE. Call
// it before the connection is used.
func (c *GuestConn) OnFence(tell func(what string, begin, end time.Time)) { c.onFence = tell }

func (c *GuestConn) tellFence(what string, begin time.Time) {
	if c.onFence != nil {
		c.onFence(what, begin, time.Now())
	}
}

// exec submits a command without a fence.
func (c *GuestConn) exec(e *virtgpuExec, cmd []byte, flags uint32) error {
	e.flags, e.size, e.command, e.fenceFD = flags, uint32(len(cmd)), &cmd[0], -1
	c.node.mu.RLock()
	defer c.node.mu.RUnlock()
	if c.node.closed {
		return wayland.ErrClosed
	}
	return ioctl(c.node.fd, ioctlExec, e)
}

// execFence submits a command with a fence on a ring's timeline, as a sync file.
func (c *GuestConn) execFence(e *virtgpuExec, cmd []byte, ring uint32) (fence int, err error) {
	e.ring = ring
	if err := c.exec(e, cmd, execFenceOut|execRingIdx); err != nil {
		return -1, err
	}
	return int(e.fenceFD), nil
}

// await blocks until a sync file is signalled, and closes it; or until Close.
func (c *GuestConn) await(fence int) error {
	defer unix.Close(fence)
	fds := []unix.PollFd{{Fd: int32(fence), Events: unix.POLLIN}, {Fd: int32(c.wake), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case fds[1].Revents != 0:
			return wayland.ErrClosed
		default:
			return nil
		}
	}
}

// Send implements wayland.Transport. A memory descriptor must be a resource (of
// NewBlob), a pipe is one that the host's peer writes to; nothing else can pass.
func (c *GuestConn) Send(p []byte, ds []wayland.Desc) error {
	s := &c.send
	s.Lock()
	defer s.Unlock()
	if err := c.identify(ds); err != nil {
		return err
	}
	for len(p) > 0 {
		n := min(len(p), MaxSendData)
		if err := c.sendPart(p[:n]); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		p, s.msg.Count = p[n:], 0
	}
	return nil
}

// identify fills the message's identifiers from ds. It takes over the files.
func (c *GuestConn) identify(ds []wayland.Desc) error {
	m := &c.send.msg
	m.Count = 0
	for i, d := range ds {
		switch {
		case len(ds) > MaxIdentifiers:
			wayland.CloseAll(ds)
			return fmt.Errorf("send: %d descriptors, at most %d", len(ds), MaxIdentifiers)
		case d.Kind == wayland.KindMemory && d.Res != 0:
			m.IDs[i] = Identifier{ID: d.Res, Type: IDMemory}
		case d.Kind == wayland.KindWritePipe && d.Res == 0:
			c.send.lastPipe++
			c.addSink(c.send.lastPipe, d.FD)
			m.IDs[i] = Identifier{ID: c.send.lastPipe, Type: IDReadPipe}
		default:
			// Ids of pipes before it are lost now: the connection cannot go on.
			wayland.CloseAll(ds[i:])
			return fmt.Errorf("send: a descriptor of kind %s without a resource cannot be passed to the host", d.Kind)
		}
		m.Count++
	}
	return nil
}

func (c *GuestConn) sendPart(p []byte) error {
	s := &c.send
	if need := SendReceiveSize + len(p); len(s.buf) < need {
		s.buf = make([]byte, max(need, minSendBuf))
	}
	s.msg.DataSize = uint32(len(p))
	PutSendReceive(s.buf, CmdSend, &s.msg)
	cmd := s.buf[:SendReceiveSize+copy(s.buf[SendReceiveSize:], p)]
	if s.since += len(p); !c.flow || s.since < sendWindow {
		return c.exec(&s.exec, cmd, 0)
	}
	s.since = 0
	if s.fence >= 0 {
		f := s.fence
		s.fence = -1
		if err := c.await(f); err != nil {
			return err
		}
		c.tellFence("SEND", s.fenced)
	}
	s.fenced = time.Now()
	var err error
	s.fence, err = c.execFence(&s.exec, cmd, RingSend)
	return err
}

// Recv implements wayland.Transport. Memory arrives as a sealed copy, a pipe as its
// write end.
func (c *GuestConn) Recv(p []byte, ds []wayland.Desc) (int, []wayland.Desc, error) {
	r := &c.recv
	r.Lock()
	defer r.Unlock()
	if len(p) == 0 {
		return 0, ds, io.ErrShortBuffer
	}
	for len(r.rest) == 0 {
		if r.ended {
			return 0, ds, io.EOF
		}
		if err := c.poll(); err != nil {
			return 0, ds, err
		}
		var err error
		if ds, err = c.take(ds); err != nil {
			return 0, ds, err
		}
	}
	n := copy(p, r.rest)
	r.rest = r.rest[n:]
	return n, ds, nil
}

// poll asks the host for something and waits until it is in the channel ring.
func (c *GuestConn) poll() error {
	r := &c.recv
	if !r.parked {
		r.exec.ring = RingChannel
		// If the host refuses, it writes nothing: the last message is not to be taken twice.
		if c.channel.mem == nil {
			return wayland.ErrClosed
		}
		c.channel.mem[0] = 0
		if err := c.exec(&r.exec, r.poll[:], execRingIdx); err != nil {
			return fmt.Errorf("poll: %w", err)
		}
		r.parked, r.since = true, time.Now()
	}
	for {
		n, err := c.node.f.Read(r.event[:])
		if errors.Is(err, os.ErrClosed) {
			return wayland.ErrClosed
		}
		if err != nil {
			return fmt.Errorf("event: %w", err)
		}
		if n >= eventSize && le.Uint32(r.event[:]) == eventFence {
			r.parked = false
			c.tellFence("POLL", r.since)
			return nil
		}
	}
}

// take reads the host's message from the channel ring.
func (c *GuestConn) take(ds []wayland.Desc) ([]wayland.Desc, error) {
	r, page := &c.recv, c.channel.mem
	if page == nil {
		return ds, wayland.ErrClosed
	}
	switch page[0] {
	case CmdReceive:
		if err := ParseSendReceive(page, &r.msg); err != nil {
			return ds, err
		}
		if int64(r.msg.DataSize) > int64(len(page)-SendReceiveSize) {
			return ds, protoErrorf("RECEIVE of %d bytes", r.msg.DataSize)
		}
		r.ended = r.msg.DataSize == 0 && r.msg.Count == 0
		r.rest = page[SendReceiveSize:][:r.msg.DataSize]
		return c.importIdentifiers(ds)
	case CmdRead:
		m, err := ParseReadWrite(page)
		if err != nil {
			return ds, err
		}
		if int64(m.DataSize) > int64(len(page)-ReadWriteSize) {
			return ds, protoErrorf("READ of %d bytes", m.DataSize)
		}
		c.feed(m.ID, page[ReadWriteSize:][:m.DataSize], m.HangUp)
		return ds, nil
	case 0:
		return ds, errors.New("the host refused the connection: it may have reached its limit of them")
	}
	return ds, protoErrorf("command %d in the channel ring", page[0])
}

// importIdentifiers turns the identifiers of a RECEIVE into descriptors.
func (c *GuestConn) importIdentifiers(ds []wayland.Desc) ([]wayland.Desc, error) {
	for _, id := range c.recv.msg.IDs[:c.recv.msg.Count] {
		switch id.Type {
		case IDMemory:
			fd, err := c.fetch(id)
			if err != nil {
				return ds, fmt.Errorf("received memory: %w", err)
			}
			ds = append(ds, wayland.FileDesc(wayland.KindMemory, fd))
		case IDWritePipe:
			fd, err := c.addPump(id.ID)
			if err != nil {
				return ds, fmt.Errorf("received pipe: %w", err)
			}
			ds = append(ds, wayland.FileDesc(wayland.KindWritePipe, fd))
		default:
			return ds, protoErrorf("RECEIVE with an identifier of type %d", id.Type)
		}
	}
	return ds, nil
}

// fetch copies received memory to a file of the guest. A file of the kernel's
// buffer object itself would keep the whole context alive as long as a client has it.
func (c *GuestConn) fetch(id Identifier) (fd int, err error) {
	if id.Size == 0 || id.Size > maxReceiveBlob || id.Size%PageSize != 0 {
		return -1, protoErrorf("memory of %d bytes", id.Size)
	}
	fd, err = unix.MemfdCreate("vix-received", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	err = c.node.do(func(dev int) error {
		b, err := newBO(dev, blobMemHost3D, uint64(id.ID), uint64(id.Size))
		if err != nil {
			return err
		}
		defer gemClose(dev, b.handle)
		defer unix.Munmap(b.mem)
		for p := b.mem; len(p) > 0; {
			n, err := unix.Write(fd, p)
			if err != nil && err != unix.EINTR {
				return err
			}
			p = p[max(n, 0):]
		}
		return nil
	})
	if err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Blob is memory made by the host, which both sides can read and write.
type Blob struct {
	Res uint32 // for wayland.ResDesc
	Mem []byte
	c   *GuestConn
	bo  bo
}

// NewBlob makes a zeroed blob of at least size bytes (rounded up to pages), mapped.
// Each costs the host a memory slot of the VM, of which there are a few hundred:
// make few and large ones.
func (c *GuestConn) NewBlob(size int) (*Blob, error) {
	if size <= 0 || uint64(size) > MaxBlob {
		return nil, fmt.Errorf("blob of %d bytes, between 1 and %d can be made", size, MaxBlob)
	}
	n := PageRound(uint64(size))
	id, err := c.imageID(n)
	if err != nil {
		return nil, fmt.Errorf("blob of %d bytes: %w", n, err)
	}
	b := &Blob{c: c}
	err = c.node.do(func(fd int) (err error) {
		b.bo, err = newBO(fd, blobMemHost3D, uint64(id), n)
		return err
	})
	if err != nil {
		return nil, err
	}
	b.Res, b.Mem = b.bo.res, b.bo.mem
	return b, nil
}

// imageID asks the host for the blob id of a size: a linear image of one row of
// one-byte pixels.
func (c *GuestConn) imageID(size uint64) (uint32, error) {
	c.images.Lock()
	defer c.images.Unlock()
	if id, ok := c.images.ids[size]; ok {
		return id, nil
	}
	const linearScanout = 0x11 // GBM_BO_USE_LINEAR | GBM_BO_USE_SCANOUT, as other proxies ask
	cmd := AppendImageQuery(nil, ImageQuery{Width: uint32(size), Height: 1, Fourcc: fourccR8, Flags: linearScanout})
	h := c.query.handle
	e := virtgpuExec{ring: RingQuery, boHandles: &h, numHandles: 1}
	if err := c.exec(&e, cmd, execRingIdx); err != nil {
		return 0, fmt.Errorf("image requirements: %w", err)
	}
	var r ImageReply
	err := c.node.do(func(fd int) (err error) {
		if err := ioctl(fd, ioctlWait, &virtgpuWait{handle: h}); err != nil {
			return fmt.Errorf("image requirements: %w", err)
		}
		r, err = ParseImageReply(c.query.mem)
		return err
	})
	if err != nil {
		return 0, err
	}
	if r.Size != size || r.BlobID == 0 {
		return 0, fmt.Errorf("the host refuses it (offers %d bytes)", r.Size)
	}
	c.images.ids[size] = r.BlobID
	return r.BlobID, nil
}

// Close unmaps the blob and gives it back to the host. Mem must not be touched
// any more.
func (b *Blob) Close() error {
	if b.Mem == nil {
		return nil
	}
	err := unix.Munmap(b.bo.mem)
	b.Mem, b.bo.mem = nil, nil
	_ = b.c.node.do(func(fd int) error {
		gemClose(fd, b.bo.handle)
		return nil
	})
	return err
}

// Close implements wayland.Transport. It returns when every goroutine of the
// connection has ended.
func (c *GuestConn) Close() error {
	c.once.Do(func() {
		close(c.done)
		if c.wake >= 0 {
			one := [8]byte{1}
			_, _ = unix.Write(c.wake, one[:])
		}
		c.closePipes()
		c.node.close()
		c.pumps.Wait()
		c.recv.Lock()
		c.send.Lock()
		c.images.Lock()
		defer c.recv.Unlock()
		defer c.send.Unlock()
		defer c.images.Unlock()
		c.recv.rest = nil
		for _, b := range []*bo{&c.query, &c.channel} {
			if b.mem != nil {
				_ = unix.Munmap(b.mem)
				b.mem = nil
			}
		}
		if c.send.fence >= 0 {
			_ = unix.Close(c.send.fence)
			c.send.fence = -1
		}
		if c.wake >= 0 {
			_ = unix.Close(c.wake)
			c.wake = -1
		}
	})
	return nil
}
