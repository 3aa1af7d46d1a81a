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

// A pool is never larger than its file: a compositor that reads beyond the end
// of a file dies, if it does not know how to survive that. The file itself was made
// by our device, and sealed against shrinking.
//
// Memory stands in the VM's ledger for as long as the compositor can hold it, which
// is longer than the guest does:
//
//	ledger.Memory (a file) ◄─ pool ◄─ wl_shm_pool, each wl_buffer made of it,
//	                                  each surface's pending and last two committed buffers
//
// An object that the compositor has deleted is gone there too (delete_id). What a
// commit replaces is not, before the compositor has got to it: the last that keeps a
// pool is let go when wl_display.sync, sent after it, is answered (fence). And of a
// connection that has ended the compositor may have left anything unread (settle).
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

// A pool is what the filter knows of a wl_shm_pool. It is used under its
// connection's lock.
type pool struct {
	mem  *ledger.Memory // shown to the compositor
	size int64          // bytes
	refs int            // what may keep the compositor's mapping alive
	conn *relay.Conn
	st   *state
}

// onLoan is what the compositor may hold of a connection's memory besides what its
// objects keep.
type onLoan struct {
	fenced map[*pool]struct{}          // waiting for a fence
	left   []*pool                     // of the ended connection
	lent   map[*ledger.Memory]struct{} // for other than pools, until the connection's end
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

// show finds what a descriptor of a client's is charged to, and notes that the
// compositor gets it, until Hide.
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

// memoryOf returns a hold of a descriptor's memory: a guest's brings it along, and a
// client's own file is charged when it is seen first.
func (f *Filter) memoryOf(d wayland.Desc) (*ledger.Memory, error) {
	if h, ok := d.Held.(interface{ Memory() *ledger.Memory }); ok && h.Memory() != nil {
		h.Memory().Hold()
		return h.Memory(), nil
	}
	return f.ledger.Of(d.FD)
}

// onLend passes memory on for another use than a pool's. Nobody follows what the
// compositor makes of it: it counts until the connection ends.
func onLend(c *relay.Conn, m *relay.Msg) (bool, error) {
	f, st := filterOf(c), c.State.(*state)
	for _, d := range m.Descs {
		mem, err := f.show(m.Obj, d)
		if err != nil {
			return false, err
		}
		if _, again := st.loan.lent[mem]; again {
			mem.Hide()
			continue
		}
		if st.loan.lent == nil {
			st.loan.lent = map[*ledger.Memory]struct{}{}
		}
		st.loan.lent[mem] = struct{}{}
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

// hold notes that the compositor may have one more use of a buffer: a state of a
// surface, whatever becomes of the buffer. letGo takes it back.
func (b *buffer) hold() *pool {
	b.pool.refs++
	return b.pool
}

// drop forgets one of what keeps a pool's memory alive, which the compositor has
// forgotten before.
func (f *Filter) drop(p *pool) {
	if p.refs--; p.refs > 0 {
		return
	}
	if p.conn.Ended() {
		p.st.loan.left = append(p.st.loan.left, p)
		return
	}
	f.hide(p)
}

func (f *Filter) hide(p *pool) {
	f.give(display.Pools, 1)
	p.mem.Hide()
}

// letGo is drop for what a request makes the compositor forget, once it gets there.
func (f *Filter) letGo(p *pool) {
	if p.refs > 1 || p.conn.Ended() {
		f.drop(p)
		return
	}
	if p.st.loan.fenced == nil {
		p.st.loan.fenced = map[*pool]struct{}{}
	}
	p.st.loan.fenced[p] = struct{}{}
	(&fence{f: f, p: p}).ask(p.conn)
}

// A fence is the last hold of a pool, until the compositor has answered twice: what is
// asked in a request's hook is sent before the request, and so the first answer says
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
	delete(n.p.st.loan.fenced, n.p)
	n.f.drop(n.p)
	return nil
}

const (
	// promptly is how long the end of a connection waits for the compositor to read
	// what was sent before. One that runs takes milliseconds at most.
	promptly = 100 * time.Millisecond
	// lookAgain is how often one that does not is looked at afterwards.
	lookAgain = 50 * time.Millisecond
)

// settle gives back what an ended connection was charged for, as soon as the
// compositor does not have it any more. It does not wait for one that has stopped: Wait
// does.
func (f *Filter) settle(ctx context.Context, up wayland.Transport, st *state) {
	done := func() {
		for p := range st.loan.fenced {
			f.hide(p)
		}
		for _, p := range st.loan.left {
			f.hide(p)
		}
		for mem := range st.loan.lent {
			mem.Hide()
		}
		f.give(display.Connections, 1)
	}
	l, ok := up.(wayland.Lingerer)
	if !ok || taken(ctx, l, time.Millisecond, promptly) {
		done()
		return
	}
	f.cfg.Log.Debug("the compositor has not read all of an ended connection", "vm", f.cfg.VM)
	f.ending.Go(func() {
		taken(ctx, l, lookAgain, 0)
		l.Forget()
		done()
	})
}

// taken looks again and again whether an ended connection's peer has taken all that
// was sent to it, until it has, ctx ends, or most has passed; 0 means any time.
func taken(ctx context.Context, l wayland.Lingerer, every, most time.Duration) bool {
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

// Wait returns when nothing is left of ended connections: it is called after the
// context of all Serves has ended.
func (f *Filter) Wait() { f.ending.Wait() }

// held are the pools whose pixels the compositor may hold for a surface: the
// pending buffer's, and those of the last two commits, one of which a sub-surface
// may have cached.
type held struct {
	pending   *pool
	committed [2]*pool
	// bytes are those of the pending picture, shown of the one that the
	// compositor may have copied to its GPU.
	bytes, shown int64
}

// attach notes the buffer of wl_surface.attach, nil for none.
func (h *held) attach(f *Filter, b *buffer) {
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
func (h *held) commit(f *Filter, o *relay.Object) error {
	if more := h.bytes - h.shown; more > 0 {
		if err := f.take(o, display.Textures, more); err != nil {
			return err
		}
	} else {
		f.give(display.Textures, -more)
	}
	h.shown = h.bytes
	if old := h.committed[0]; old != nil {
		f.letGo(old)
	}
	h.committed[0], h.committed[1], h.pending = h.committed[1], h.pending, nil
	return nil
}

// gone forgets all, when the surface is no more.
func (h *held) gone(f *Filter) {
	for _, p := range []*pool{h.pending, h.committed[0], h.committed[1]} {
		if p != nil {
			f.drop(p)
		}
	}
	f.give(display.Textures, h.shown)
	*h = held{}
}

func fits(o *relay.Object, size int32, file int64) error {
	if size <= 0 || int64(size) > file {
		return relay.Fail(o, relay.ErrNoMemory, "a pool of %d bytes does not fit a file of %d", size, file)
	}
	return nil
}
