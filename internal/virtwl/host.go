package virtwl

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync"
	"sync/atomic"

	"vix/internal/ledger"
	"vix/internal/wayland"
)

// Limits of one context, and of all contexts of one VM together. A hostile guest reaches
// them; an honest one should not come near.
const (
	// maxQueued bounds the bytes that the guest has sent and the relay has not received.
	// Beyond it the context fails: our guest waits for a fence at half.
	maxQueued = 1 << 20
	// softQueued is the number of queued bytes from which SEND's fences are held.
	softQueued = maxQueued / 2
	// maxAbroad bounds the descriptors that a context has sent and that are not closed
	// yet, in its queue, in the relay or wherever that keeps them: libwayland's clients
	// have at most 28 in flight per flush.
	maxAbroad = 128
	// maxSendFences bounds the held fences of SEND: each keeps one of the
	// control queue's 1024 descriptors. Our guest has at most two.
	maxSendFences = 4
	// maxPolls bounds the parked POLLs. Every known guest has one.
	maxPolls = 2
	// maxItems bounds the offered blobs and write pipes that the guest has not taken or
	// closed: a guest that never takes them fails.
	maxItems = 256
	// maxReadPipes bounds the pipes that the host reads for a context.
	maxReadPipes = 64
	// MaxBlob is the largest blob: foot's pools are 512 MiB.
	MaxBlob = 2 << 30
	// maxReceiveBlob bounds the memory copied from the compositor's side.
	// Keymaps have some 60 KiB, dmabuf format tables a few; icons and cursors never
	// come this way.
	maxReceiveBlob = 64 << 20
	// maxConnections bounds the connections of a VM that the relay has not closed yet:
	// a guest may destroy its contexts faster than their other ends come down.
	maxConnections = 512
	// maxWarnings bounds the lines that a hostile guest can put into the log.
	maxWarnings = 100
)

// HostConfig configures all contexts of one device.
type HostConfig struct {
	// Accept is called in its own goroutine for each connection of the guest. It
	// owns t, and must Close it.
	Accept func(t wayland.Transport)
	// Ledger is the VM's ledger. With nil the host makes its own.
	Ledger *ledger.Ledger
	Log    *slog.Logger
}

// Host makes contexts and counts what they hold together.
type Host struct {
	cfg   HostConfig
	wg    sync.WaitGroup
	conns atomic.Int64
	warns atomic.Int64
}

// NewHost returns a Host without contexts.
func NewHost(cfg HostConfig) *Host {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ledger == nil {
		cfg.Ledger = ledger.New(ledger.Limits{Queued: ledger.DefaultQueued, Descriptors: ledger.DefaultDescriptors})
	}
	return &Host{cfg: cfg}
}

// Wait returns when every goroutine of every context has ended, Accept's included.
func (h *Host) Wait() { h.wg.Wait() }

// warn logs a guest's mistake, up to a bound.
func (h *Host) warn(msg string, err error) {
	switch n := h.warns.Add(1); {
	case n < maxWarnings:
		h.cfg.Log.Warn(msg, "err", err)
	case n == maxWarnings:
		h.cfg.Log.Warn("too many failures of this guest: no more are logged")
	}
}

func take(c *atomic.Int64, n int, limit int64) bool {
	if c.Add(int64(n)) > limit {
		c.Add(-int64(n))
		return false
	}
	return true
}

// A Fence is a command that the guest may be waiting for. Only the device knows
// what Cookie means.
type Fence struct {
	Fenced bool  // the command has a fence
	Ring   uint8 // its timeline
	Cookie [2]uint64
}

// A Port is the part of the device that a context uses. The context may hold its lock
// during a call; the methods must not call back into it.
type Port interface {
	// Dup returns a new descriptor of the memory of a resource that the context has,
	// and what that is charged to, with a hold that is the caller's now.
	Dup(res uint32) (fd int, mem *ledger.Memory, err error)
	// RingSize returns the length of a resource of guest memory that the context has.
	RingSize(res uint32) (int, error)
	// WriteRing copies head and then data to the start of such a resource.
	WriteRing(res uint32, head, data []byte) error
	// Signal completes the command of a fence.
	Signal(f Fence)
}

// A CommandReader reads a submission of the guest, once.
type CommandReader interface {
	Read(p []byte) error // exactly len(p) bytes
	Remaining() int
}

type hostState uint8

const (
	stateNew    hostState = iota // before INIT
	stateOpen                    // connected
	stateClosed                  // the relay closed it, or it failed: the guest is told at its next POLL
	stateGone                    // the guest destroyed it: nothing may be written to the guest any more
)

// HostContext is one cross-domain context: one Wayland connection of the guest.
// It implements wayland.Transport towards the relay.
//
//	         INIT               Close, failure
//	new ───────────────► open ─────────────────► closed
//	 │ Destroy            │ Destroy               │ Destroy
//	 └────────────────────┴───────► gone ◄────────┘
//
// The relay may call Recv and Send at the same time as the device calls Submit
// and Destroy; mu is held for copies only. The order of locks is mu, then what the
// Port takes.
type HostContext struct {
	host  *Host
	port  Port
	watch atomic.Pointer[fenceWatch]

	mu       sync.Mutex
	readable sync.Cond // Recv waits: data, or a change of state
	polled   sync.Cond // Send and pipe readers wait: a POLL, or a change of state
	state    hostState
	failure  error // why it closed, for Recv
	init     Init
	ringSize int // the channel ring's length, MaxRingSize at most
	polls    [maxPolls]Fence
	npolls   int

	in         byteQueue
	closed     bool // the relay has closed it
	accepted   bool // Accept has its transport
	descs      []queuedDesc
	abroad     atomic.Int32 // the number of SENDs' descriptors that are not closed yet
	sendFences []Fence      // the held fences of SENDs, oldest first
	onSend     func()
	waiter     []byte // Recv's buffer while it waits
	direct     int    // the number of bytes that Submit copied into it

	items     map[uint32]*item
	lastItem  uint32
	lastPipe  uint32
	readers   map[uint32]*pipeReader
	hungPipes map[*pipeWriter]struct{} // the pipes that are hung up and not closed yet

	sending sync.Mutex // one Send at a time
	head    [SendReceiveSize]byte
	fixed   [SendReceiveSize]byte // private copy of a command's fixed part
	sr      SendReceive           // used by Submit
	out     SendReceive           // used by Send
}

type queuedDesc struct {
	pos uint64 // the stream position of its SEND
	d   wayland.Desc
}

// A transit is the hold of a descriptor that the guest sent, wherever it is.
type transit struct {
	*ledger.Descriptor
	c    *HostContext
	gone atomic.Bool
}

// Release implements wayland.Holder.
func (t *transit) Release() {
	if !t.gone.Swap(true) {
		t.c.abroad.Add(-1)
		t.Descriptor.Release()
	}
}

// depart charges for a descriptor on its way to the relay. It takes over the hold of
// mem, nil for a pipe, even when it fails.
func (c *HostContext) depart(mem *ledger.Memory) (*transit, error) {
	if c.abroad.Add(1) > maxAbroad {
		c.abroad.Add(-1)
		if mem != nil {
			mem.Release()
		}
		return nil, protoErrorf("more than %d descriptors of one connection on their way", maxAbroad)
	}
	d, err := c.host.cfg.Ledger.Descriptor(mem)
	if err != nil {
		c.abroad.Add(-1)
		if mem != nil {
			mem.Release()
		}
		return nil, err
	}
	return &transit{Descriptor: d, c: c}, nil
}

// item is a blob or a write pipe, offered to the guest by id.
type item struct {
	fd   int
	size uint64
	slot *ledger.Descriptor // of fd
	pipe *pipeWriter
}

// NewContext returns a context that waits for INIT.
func (h *Host) NewContext(port Port) *HostContext {
	c := &HostContext{host: h, port: port, lastPipe: PipeReadStart}
	c.readable.L, c.polled.L = &c.mu, &c.mu
	c.in.ledger = h.cfg.Ledger
	return c
}

// Submit carries out the guest's commands. When held is true the fence has not
// been signalled and will be, by Port.Signal, later or already. An error is the
// guest's mistake, for the device to answer; nothing is held then.
func (c *HostContext) Submit(r CommandReader, f Fence) (held bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for r.Remaining() > 0 {
		head := c.fixed[:HeaderSize]
		if err := r.Read(head); err != nil {
			return false, fmt.Errorf("command: %w", err)
		}
		h, _ := ParseHeader(head)
		left := r.Remaining()
		now, err := c.commandLocked(h, r, f)
		if held = held || now; held {
			f = Fence{} // a submission is held only once
		}
		switch {
		case err != nil && held:
			return true, nil // another goroutine answers it
		case err != nil:
			return false, err
		}
		// The size in the header says where the next command is.
		used := HeaderSize + left - r.Remaining()
		if int(h.Size) <= used {
			break
		}
		if err := skip(r, int(h.Size)-used); err != nil {
			break
		}
	}
	if f.Fenced && f.Ring == RingChannel && !held && c.state != stateNew {
		return c.pollLocked(f)
	}
	return held, nil
}

func skip(r CommandReader, n int) error {
	var buf [512]byte
	for n > 0 {
		k := min(n, len(buf))
		if err := r.Read(buf[:k]); err != nil {
			return err
		}
		n -= k
	}
	return nil
}

func (c *HostContext) commandLocked(h Header, r CommandReader, f Fence) (held bool, err error) {
	switch h.Cmd {
	case CmdInit:
		return false, c.initLocked(h, r)
	case CmdGetImageRequirements:
		return false, c.imageLocked(r)
	case CmdPoll:
		return false, nil // only the fence matters: see Submit
	case CmdSend:
		held, err = c.sendLocked(r, f)
		if err != nil {
			// The stream has a hole now, so the connection cannot go on.
			c.failLocked(err)
		}
		return held, err
	case CmdWrite:
		return c.writeLocked(r, f)
	}
	return false, protoErrorf("unknown command %d", h.Cmd)
}

// readFixed completes the private copy of a command's fixed part to n bytes.
func (c *HostContext) readFixed(r CommandReader, n int) ([]byte, error) {
	if err := r.Read(c.fixed[HeaderSize:n]); err != nil {
		return nil, fmt.Errorf("%w: command shorter than %d bytes", ErrProtocol, n)
	}
	return c.fixed[:n], nil
}

func (c *HostContext) initLocked(h Header, r CommandReader) error {
	if h.Size != initLegacySize && h.Size != InitSize && h.Size != initUUIDSize {
		return protoErrorf("INIT of %d bytes", h.Size)
	}
	p, err := c.readFixed(r, int(h.Size))
	if err != nil {
		return err
	}
	i, err := ParseInit(p)
	if err != nil {
		return err
	}
	if c.state != stateNew {
		return protoErrorf("INIT twice")
	}
	// From here on the guest gets an answer to POLL, if only «closed»: its kernel
	// does not tell it of an error here.
	c.init, c.state = i, stateClosed
	if i.Channel != ChannelWayland {
		return protoErrorf("channel type %d, only Wayland's", i.Channel)
	}
	for _, ring := range [...]uint32{i.QueryRing, i.ChannelRing} {
		n, err := c.port.RingSize(ring)
		if err == nil && n < PageSize {
			err = protoErrorf("%d bytes long", n)
		}
		if err != nil {
			return fmt.Errorf("INIT: ring %d: %w", ring, err)
		}
		c.ringSize = min(n, MaxRingSize)
	}
	if !take(&c.host.conns, 1, maxConnections) {
		return fmt.Errorf("INIT: %d connections are still closing", maxConnections)
	}
	c.state, c.accepted = stateOpen, true
	c.host.wg.Go(func() { c.host.cfg.Accept(c) })
	return nil
}

// pollLocked parks a POLL, or answers it at once when the connection is over.
func (c *HostContext) pollLocked(f Fence) (held bool, err error) {
	switch {
	case c.state == stateClosed:
		c.writeEndLocked()
		return false, nil
	case c.npolls == len(c.polls):
		return false, protoErrorf("more than %d POLLs at once", maxPolls)
	}
	c.hold(f, "POLL")
	c.polls[c.npolls] = f
	c.npolls++
	c.polled.Signal()
	return true, nil
}

// takePollLocked waits for a POLL and takes it. The caller writes to the channel
// ring and signals it.
func (c *HostContext) takePollLocked() (Fence, error) {
	for c.state == stateOpen && c.npolls == 0 {
		c.polled.Wait()
	}
	if c.state != stateOpen {
		return Fence{}, c.errLocked()
	}
	f := c.polls[0]
	c.npolls--
	copy(c.polls[:], c.polls[1:])
	return f, nil
}

// writeEndLocked writes the end of the connection, an empty RECEIVE, to the channel ring.
func (c *HostContext) writeEndLocked() {
	PutSendReceive(c.head[:], CmdReceive, &SendReceive{})
	if err := c.port.WriteRing(c.init.ChannelRing, c.head[:], nil); err != nil {
		c.host.cfg.Log.Debug("end of connection not written", "err", err)
	}
}

// errLocked returns the error of Send and Recv after the end of the connection.
func (c *HostContext) errLocked() error {
	switch {
	case c.failure != nil:
		return c.failure
	case c.state == stateGone && !c.closed:
		return io.ErrClosedPipe
	}
	return wayland.ErrClosed
}

// OnSend sets a function for measurements. The context calls it, with its lock held,
// when the guest's bytes arrive.
func (c *HostContext) OnSend(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.onSend = f
}

// sendLocked queues the guest's bytes and descriptors for Recv.
func (c *HostContext) sendLocked(r CommandReader, f Fence) (held bool, err error) {
	if c.onSend != nil {
		c.onSend()
	}
	p, err := c.readFixed(r, SendReceiveSize)
	if err != nil {
		return false, err
	}
	if err := ParseSendReceive(p, &c.sr); err != nil {
		return false, err
	}
	n := int(c.sr.DataSize)
	switch {
	case c.sr.DataSize > MaxSendData || n > r.Remaining():
		return false, protoErrorf("SEND of %d bytes with %d announced", r.Remaining(), c.sr.DataSize)
	case c.state == stateNew:
		return false, protoErrorf("SEND before INIT")
	case n == 0 && c.sr.Count > 0:
		return false, protoErrorf("SEND of identifiers without data")
	case c.state != stateOpen:
		return false, nil // the guest does not know yet that it is over
	case c.in.len()+n > maxQueued:
		return false, protoErrorf("more than %d bytes queued", maxQueued)
	}
	for _, id := range c.sr.IDs[:c.sr.Count] {
		if err := c.queueDescLocked(id); err != nil {
			return false, err
		}
	}
	if c.waiter != nil && c.direct == 0 && c.in.len() == 0 {
		c.direct = min(n, len(c.waiter))
		if err := r.Read(c.waiter[:c.direct]); err != nil {
			return false, err
		}
		c.in.advance(c.direct)
		n -= c.direct
	}
	if err := c.in.fill(r, n); err != nil {
		return false, err
	}
	c.readable.Signal()
	if f.Fenced && f.Ring >= RingSend && c.in.len() > softQueued && len(c.sendFences) < maxSendFences {
		c.hold(f, "SEND")
		c.sendFences = append(c.sendFences, f)
		return true, nil
	}
	return false, nil
}

// queueDescLocked turns an identifier of SEND into a descriptor for Recv.
func (c *HostContext) queueDescLocked(id Identifier) error {
	var d wayland.Desc
	var mem *ledger.Memory
	switch id.Type {
	case IDMemory:
		fd, m, err := c.port.Dup(id.ID)
		if err != nil {
			return fmt.Errorf("SEND: resource %d: %w", id.ID, err)
		}
		d, mem = wayland.FileDesc(wayland.KindMemory, fd), m
	case IDReadPipe:
		fd, err := c.openReaderLocked(id.ID)
		if err != nil {
			return err
		}
		d = wayland.FileDesc(wayland.KindWritePipe, fd)
	default:
		return protoErrorf("SEND with an identifier of type %d", id.Type)
	}
	t, err := c.depart(mem)
	if err != nil {
		d.Close()
		return fmt.Errorf("SEND: %w", err)
	}
	d.Held = t
	c.descs = append(c.descs, queuedDesc{c.in.end, d})
	return nil
}

// Recv implements wayland.Transport: it returns what the guest sent, with the kinds of
// the descriptors. After the end of the guest it still delivers everything sent before,
// then io.EOF.
func (c *HostContext) Recv(p []byte, ds []wayland.Desc) (int, []wayland.Desc, error) {
	if len(p) == 0 {
		return 0, ds, io.ErrShortBuffer
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.in.len() == 0 {
		switch {
		case c.closed || c.state == stateClosed:
			return 0, ds, c.errLocked()
		case c.state == stateGone:
			return 0, ds, io.EOF
		}
		c.waiter, c.direct = p, 0
		c.readable.Wait()
		c.waiter = nil
		if n := c.direct; n > 0 {
			c.direct = 0
			return n, c.takeDescsLocked(ds, c.in.start, len(c.descs)), nil
		}
	}
	end, nd := c.boundLocked(c.in.start + uint64(min(len(p), c.in.len())))
	n := c.in.take(p[:end-c.in.start])
	c.releaseLocked()
	return n, c.takeDescsLocked(ds, c.in.start, nd), nil
}

// boundLocked shortens a read that would carry more than MaxDescs descriptors, and
// returns how many it carries.
func (c *HostContext) boundLocked(end uint64) (uint64, int) {
	for i, q := range c.descs {
		switch {
		case q.pos >= end:
			return end, i
		case i == wayland.MaxDescs && q.pos > c.in.start:
			return q.pos, i
		}
	}
	return end, len(c.descs)
}

// takeDescsLocked moves the first descriptors, those of bytes before end, to ds.
func (c *HostContext) takeDescsLocked(ds []wayland.Desc, end uint64, limit int) []wayland.Desc {
	n := 0
	for n < limit && n < len(c.descs) && c.descs[n].pos < end {
		ds = append(ds, c.descs[n].d)
		n++
	}
	if n > 0 {
		k := copy(c.descs, c.descs[n:])
		clear(c.descs[k:])
		c.descs = c.descs[:k]
	}
	return ds
}

// releaseLocked signals the held fences once there is room again.
func (c *HostContext) releaseLocked() {
	if len(c.sendFences) == 0 || c.in.len() > softQueued {
		return
	}
	for _, f := range c.sendFences {
		c.signal(f)
	}
	c.sendFences = c.sendFences[:0]
}

// Send implements wayland.Transport: it writes to the guest's channel ring, as
// often as the guest POLLs, and blocks until all is written.
func (c *HostContext) Send(p []byte, ds []wayland.Desc) error {
	c.sending.Lock()
	defer c.sending.Unlock()
	c.out.Count = 0
	if len(ds) > 0 {
		if err := c.offer(ds); err != nil {
			return err
		}
	}
	for first := true; first || len(p) > 0; first = false {
		n, err := c.receive(p)
		if err != nil {
			return err
		}
		p, c.out.Count = p[n:], 0
	}
	return nil
}

// receive writes one RECEIVE with c.out's identifiers, and as much of p as the ring
// holds.
func (c *HostContext) receive(p []byte) (n int, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f, err := c.takePollLocked()
	if err != nil {
		return 0, err
	}
	data := p[:min(len(p), c.ringSize-SendReceiveSize)]
	c.out.DataSize = uint32(len(data))
	PutSendReceive(c.head[:], CmdReceive, &c.out)
	err = c.port.WriteRing(c.init.ChannelRing, c.head[:], data)
	c.signal(f)
	if err != nil {
		err = fmt.Errorf("RECEIVE: %w", err)
		c.failLocked(err)
	}
	return len(data), err
}

// offer makes items of ds, for c.out. It takes over the files.
func (c *HostContext) offer(ds []wayland.Desc) (err error) {
	defer func() {
		if err != nil {
			wayland.CloseAll(ds)
		}
	}()
	if len(ds) > MaxIdentifiers {
		return fmt.Errorf("%d descriptors at once, at most %d", len(ds), MaxIdentifiers)
	}
	for len(ds) > 0 {
		var it *item
		d := ds[0]
		switch d.Kind {
		case wayland.KindMemory:
			if it, err = c.offerMemory(d.FD); err != nil {
				return fmt.Errorf("memory for the guest: %w", err)
			}
		case wayland.KindWritePipe:
			if it, err = c.offerPipe(d.FD); err != nil {
				return fmt.Errorf("pipe for the guest: %w", err)
			}
		default:
			return fmt.Errorf("a descriptor of kind %s cannot be passed to a guest", d.Kind)
		}
		ds = ds[1:]
		if d.Held != nil {
			d.Held.Release() // the item is charged for itself
		}
		id, err := c.addItem(it)
		if err != nil {
			it.close()
			return err
		}
		typ := uint32(IDMemory)
		if it.pipe != nil {
			typ = IDWritePipe
		}
		c.out.IDs[c.out.Count] = Identifier{id, typ, uint32(it.size)}
		c.out.Count++
	}
	return nil
}

func (c *HostContext) addItem(it *item) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.state != stateOpen:
		return 0, c.errLocked()
	case len(c.items) >= maxItems:
		err := fmt.Errorf("guest left %d descriptors untaken", maxItems)
		c.failLocked(err)
		return 0, err
	case c.lastItem+1 >= imageBlob:
		return 0, errors.New("descriptor ids used up")
	}
	if c.items == nil {
		c.items = make(map[uint32]*item)
	}
	c.lastItem++
	c.items[c.lastItem] = it
	return c.lastItem, nil
}

// Close implements wayland.Transport. The guest learns of it at its next POLL.
func (c *HostContext) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.accepted && !c.closed {
		c.host.conns.Add(-1)
	}
	c.closed = true
	c.endLocked(stateClosed)
	c.dropQueueLocked()
	return nil
}

func (c *HostContext) failLocked(err error) {
	if c.state == stateOpen {
		c.failure = err
		c.host.warn("connection of the guest failed", err)
		c.endLocked(stateClosed)
	}
}

// Destroy ends the context on the guest's behalf. When it has returned, nothing
// is written to the guest's memory for it any more.
func (c *HostContext) Destroy() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.endLocked(stateGone)
}

// endLocked moves to a final state, completes every parked command, and frees what the
// state does not need. The bytes of a guest that is gone stay for Recv.
func (c *HostContext) endLocked(to hostState) {
	if c.state == stateGone || c.state == to {
		return
	}
	c.state = to
	for _, f := range c.polls[:c.npolls] {
		if to == stateClosed {
			c.writeEndLocked()
		}
		c.signal(f)
	}
	c.npolls = 0
	for _, f := range c.sendFences {
		c.signal(f)
	}
	c.sendFences = nil
	if to == stateClosed {
		c.dropQueueLocked()
	}
	for id, it := range c.items {
		it.close()
		delete(c.items, id)
	}
	for w := range c.hungPipes {
		w.abandon()
	}
	for _, r := range c.readers {
		_ = r.f.Close()
	}
	c.readable.Broadcast()
	c.polled.Broadcast()
}

func (c *HostContext) dropQueueLocked() {
	c.in.clear()
	for _, q := range c.descs {
		q.d.Close()
	}
	c.descs = nil
}
