package filter

import (
	"context"
	"errors"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/ledger"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// A pool is never larger than its file: a compositor that reads beyond the end of a
// file dies, unless it is prepared for that. Our device made the file, and sealed it
// against shrinking.
//
// Memory stays in the VM's ledger for as long as the compositor can hold it, which is
// longer than the guest does:
//
//	ledger.Memory (a file) ◄─ pool ◄─ wl_shm_pool, each wl_buffer made of it,
//	                                  each surface's pending and last two committed buffers
//
// An object that the compositor has deleted holds nothing there (delete_id). A buffer
// that a commit replaces is held until the compositor reads the commit: the last hold of
// a pool ends with the answer to a wl_display.sync sent after it (fence). And the
// compositor may have left messages of an ended connection unread (settle).
func shmHooks(h relay.Layer) {
	h.Request(wayland.WlShm, wayland.WlShmReqCreatePool, onCreatePool)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqCreateBuffer, onCreateBuffer)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqResize, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		p := m.Obj.Data.(*pool)
		p.size = int64(max(m.Int(0), 0))
		if f := filterOf(c); f.cfg.Limits.Of(display.Memory) >= Unlimited {
			return true, nil // not a VM's: a client's own file, which may have grown, or shrink
		}
		return true, fits(m.Obj, m.Int(0), p.mem.Size())
	})
	h.Gone(wayland.WlShmPool, func(c *relay.Conn, o *relay.Object) {
		if p, ok := o.Data.(*pool); ok {
			filterOf(c).drop(p)
		}
	})
	for _, i := range wayland.Interfaces() {
		for op := range i.Requests {
			if i != wayland.WlShm && slices.Contains(i.Requests[op].FDKinds, wayland.KindMemory) {
				h.Request(i, op, onLend)
			}
		}
	}
}

// A pool is what the filter knows of a wl_shm_pool. The connection's lock guards it.
type pool struct {
	mem  *ledger.Memory // the file's memory, shown to the compositor
	size int64          // bytes
	refs int            // the number of uses that may keep the compositor's mapping alive
	conn *relay.Conn
	st   *state
}

// loans holds the memory of a connection that the compositor may hold without an object.
type loans struct {
	fencePools map[*pool]struct{}          // waiting for a fence
	endPools   []*pool                     // of the ended connection
	memory     map[*ledger.Memory]struct{} // for other than pools, until the connection's end
}

func onCreatePool(c *relay.Conn, m *relay.Msg) (bool, error) {
	var st unix.Stat_t
	if err := unix.Fstat(m.Descs[0].FD, &st); err != nil {
		return false, relay.Fail(m.Obj, relay.ErrImplementation, "wl_shm.create_pool: %v", err)
	}
	if err := fits(m.Obj, m.Int(1), st.Size); err != nil {
		return false, err
	}
	f := filterOf(c)
	if err := f.take(m.Obj, display.Pools, 1); err != nil {
		return false, err
	}
	mem, err := f.show(m.Obj, m.Descs[0])
	if err != nil {
		f.give(display.Pools, 1)
		return false, err
	}
	m.New.Data = &pool{mem: mem, size: int64(m.Int(1)), refs: 1, conn: c, st: stateOf(c)}
	return true, nil
}

// show returns the ledger's memory of a client's descriptor, and counts it as shown to
// the compositor, until Hide.
func (f *Filter) show(o *relay.Object, d wayland.Desc) (*ledger.Memory, error) {
	mem, err := f.memoryOf(d)
	if err == nil {
		err = mem.Show()
		mem.Release()
	}
	if err == nil {
		return mem, nil
	}
	var full ledger.Full
	if !errors.As(err, &full) {
		return nil, relay.Fail(o, relay.ErrImplementation, "%v", err)
	}
	f.cfg.Log.Warn("limit reached", "vm", f.cfg.VM, "limit", full.Name, "value", full.Value)
	return nil, relay.Fail(o, relay.ErrNoMemory, "limit reached: VM %s may have %d %s", f.cfg.VM, full.Value, full.Name)
}

// memoryOf returns a hold of a descriptor's memory: a guest's descriptor brings its own,
// and a client's file is charged when the filter first sees it.
func (f *Filter) memoryOf(d wayland.Desc) (*ledger.Memory, error) {
	if h, ok := d.Held.(interface{ Memory() *ledger.Memory }); ok && h.Memory() != nil {
		h.Memory().Hold()
		return h.Memory(), nil
	}
	return f.ledger.Of(d.FD)
}

// onLend passes memory on for another use than a pool. The filter does not follow that
// use, so the memory counts until the connection ends.
func onLend(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, st := filterOf(c), c.State.(*state)
	for _, d := range m.Descs {
		mem, err := f.show(m.Obj, d)
		if err != nil {
			return false, err
		}
		if _, again := st.loan.memory[mem]; again {
			mem.Hide()
			continue
		}
		if st.loan.memory == nil {
			st.loan.memory = map[*ledger.Memory]struct{}{}
		}
		st.loan.memory[mem] = struct{}{}
	}
	return true, nil
}

func onCreateBuffer(_ *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*pool)
	if err := checkBuffer(m.Obj, p.size, m.Int(1), m.Int(2), m.Int(3), m.Int(4)); err != nil {
		return false, err
	}
	p.refs++
	m.New.Data = newBuffer(m.New, p, m.Int(2), m.Int(3))
	return true, nil
}

// hold counts one more use of a buffer by the compositor: a state of a surface, which
// outlives the buffer. letGo undoes it.
func (b *buffer) hold() *pool {
	b.pool.refs++
	return b.pool
}

// drop ends one use of a pool that the compositor has already ended.
func (f *Filter) drop(p *pool) {
	if p.refs--; p.refs > 0 {
		return
	}
	if p.conn.Ended() {
		p.st.loan.endPools = append(p.st.loan.endPools, p)
		return
	}
	f.hide(p)
}

func (f *Filter) hide(p *pool) {
	f.give(display.Pools, 1)
	p.mem.Hide()
}

// letGo is drop for a use that ends when the compositor reads a request.
func (f *Filter) letGo(p *pool) {
	if p.refs > 1 || p.conn.Ended() {
		f.drop(p)
		return
	}
	if p.st.loan.fencePools == nil {
		p.st.loan.fencePools = map[*pool]struct{}{}
	}
	p.st.loan.fencePools[p] = struct{}{}
	(&fence{f: f, p: p}).ask(p.conn)
}

// A fence is the last hold of a pool, until the compositor has answered twice: a sync
// written in a request's hook goes out before the request, and so the first answer says
// only that the request is on its way.
type fence struct {
	f     *Filter
	p     *pool
	again bool
}

func (n *fence) ask(c *relay.Conn) {
	o := c.Own(wayland.WlCallback, 1, n)
	c.ToServer().Msg(1, wayland.WlDisplayReqSync, o.Server)
}

// OwnEvent implements relay.Owner: wl_callback.done, its only event.
func (n *fence) OwnEvent(c *relay.Conn, _ *relay.Msg) error {
	if !n.again {
		n.again = true
		n.ask(c)
		return nil
	}
	delete(n.p.st.loan.fencePools, n.p)
	n.f.drop(n.p)
	return nil
}

const (
	// promptWait is how long the end of a connection waits for the compositor to read
	// what was sent before. A running compositor takes milliseconds at most.
	promptWait = 100 * time.Millisecond
	// pollInterval is how often a compositor that did not is polled afterwards: there is
	// no event for it.
	pollInterval = 50 * time.Millisecond
)

// settle returns the charges of an ended connection as soon as the compositor does not
// hold its memory any more. It does not wait for a stopped compositor: Wait does.
func (f *Filter) settle(ctx context.Context, up wayland.Transport, st *state) {
	done := func() {
		for p := range st.loan.fencePools {
			f.hide(p)
		}
		for _, p := range st.loan.endPools {
			f.hide(p)
		}
		for mem := range st.loan.memory {
			mem.Hide()
		}
		f.give(display.Connections, 1)
	}
	l, ok := up.(wayland.Lingerer)
	if !ok || awaitRead(ctx, l, time.Millisecond, promptWait) {
		done()
		return
	}
	f.cfg.Log.Debug("the compositor has not read all of an ended connection", "vm", f.cfg.VM)
	f.ending.Go(func() {
		awaitRead(ctx, l, pollInterval, 0)
		l.Forget()
		done()
	})
}

// awaitRead polls an ended connection until its peer has read everything, ctx ends, or
// most has passed; 0 means no limit.
func awaitRead(ctx context.Context, l wayland.Lingerer, every, most time.Duration) bool {
	begin := time.Now()
	t := time.NewTicker(every)
	defer t.Stop()
	for l.Pending() {
		select {
		case <-t.C:
		case <-ctx.Done():
			return false
		}
		if most > 0 && time.Since(begin) > most {
			return false
		}
	}
	return true
}

// Wait returns when nothing is left of ended connections. Call it after the context of
// every Serve has ended.
func (f *Filter) Wait() { f.ending.Wait() }

// bufferHolds are the pools whose pixels the compositor may hold for a surface: those of
// the pending buffer and of the last two commits, one of which a sub-surface may cache.
type bufferHolds struct {
	pending   *pool
	committed [2]*pool
	// bytes is the size of the pending picture, shownBytes that of the one that the
	// compositor may have copied to its GPU.
	bytes, shownBytes int64
}

// attach holds the buffer of wl_surface.attach, nil for none.
func (h *bufferHolds) attach(f *Filter, b *buffer) {
	if h.pending != nil {
		f.letGo(h.pending)
		h.pending = nil
	}
	h.bytes = 0
	if b != nil && b.pool != nil {
		h.pending = b.hold()
		h.bytes = 4 * int64(b.W) * int64(b.H)
	}
}

// commit moves on by one commit of o in which a buffer, or none, was attached.
func (h *bufferHolds) commit(f *Filter, o *relay.Object) error {
	if more := h.bytes - h.shownBytes; more > 0 {
		if err := f.take(o, display.Textures, more); err != nil {
			return err
		}
	} else {
		f.give(display.Textures, -more)
	}
	h.shownBytes = h.bytes
	if old := h.committed[0]; old != nil {
		f.letGo(old)
	}
	h.committed[0], h.committed[1], h.pending = h.committed[1], h.pending, nil
	return nil
}

// gone ends all holds at the end of the surface.
func (h *bufferHolds) gone(f *Filter) {
	for _, p := range []*pool{h.pending, h.committed[0], h.committed[1]} {
		if p != nil {
			f.drop(p)
		}
	}
	f.give(display.Textures, h.shownBytes)
	*h = bufferHolds{}
}

func fits(o *relay.Object, size int32, file int64) error {
	if size <= 0 || int64(size) > file {
		return relay.Fail(o, relay.ErrNoMemory, "a pool of %d bytes does not fit a file of %d", size, file)
	}
	return nil
}
