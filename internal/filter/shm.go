package filter

import (
	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A pool is never larger than its file: a compositor that reads beyond the end
// of a file dies, if it does not know how to survive that. The file itself was made
// by our device, and sealed against shrinking.
//
// Memory is counted for as long as the compositor can hold it, which is longer
// than the guest does:
//
//	memory (a file) ◄─ pool ◄─ wl_shm_pool, each wl_buffer made of it,
//	                           each surface's pending and last two committed buffers
func shmHooks(h relay.Layer) {
	h.Request(wayland.WlShm, wayland.WlShmReqCreatePool, onCreatePool)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqCreateBuffer, onCreateBuffer)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqResize, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		p := m.Obj.Data.(*pool)
		p.size = int64(max(m.Int(0), 0))
		if f := filterOf(c); f.cfg.Limits.of(Memory) >= Unlimited {
			return true, nil // not a VM's: a client's own file, which may have grown, or shrink
		}
		return true, fits(m.Obj, m.Int(0), p.mem.size)
	})
	h.Gone(wayland.WlShmPool, func(c *relay.Conn, o *relay.Object) {
		if p, ok := o.Data.(*pool); ok {
			filterOf(c).drop(p)
		}
	})
}

// memory is one file that pools are made of.
type memory struct {
	ino  uint64
	size int64 // bytes
	refs int   // pools, guarded by Filter.memMu
}

// A pool is what the filter knows of a wl_shm_pool. It is used under its
// connection's lock.
type pool struct {
	mem  *memory
	size int64 // bytes
	refs int   // what may keep the compositor's mapping alive
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
	if err := f.take(m.Obj, Pools, 1); err != nil {
		return false, err
	}
	mem := f.memoryOf(st.Ino, st.Size)
	if mem == nil {
		f.give(Pools, 1)
		return false, relay.Fail(m.Obj, relay.ErrNoMemory, "%s", f.refusal(Memory))
	}
	m.New.Data = &pool{mem: mem, size: int64(m.Int(1)), refs: 1}
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

// memoryOf counts one more pool of a file, nil when the VM has too much memory.
func (f *Filter) memoryOf(ino uint64, size int64) *memory {
	f.memMu.Lock()
	defer f.memMu.Unlock()
	mem := f.memories[ino]
	switch {
	case mem == nil && f.reserve(Memory, size):
		mem = &memory{ino: ino, size: size}
		f.memories[ino] = mem
	case mem == nil:
		return nil
	case mem.size < size: // a file that grew: only without a VM
		if !f.reserve(Memory, size-mem.size) {
			return nil
		}
		mem.size = size
	}
	mem.refs++
	return mem
}

// drop forgets one of what keeps a pool's memory alive.
func (f *Filter) drop(p *pool) {
	if p.refs--; p.refs > 0 {
		return
	}
	f.give(Pools, 1)
	f.memMu.Lock()
	defer f.memMu.Unlock()
	if p.mem.refs--; p.mem.refs == 0 {
		f.give(Memory, p.mem.size)
		delete(f.memories, p.mem.ino)
	}
}

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
		f.drop(h.pending)
		h.pending = nil
	}
	h.bytes = 0
	if b != nil && b.pool != nil {
		h.pending = b.pool
		b.pool.refs++
		h.bytes = 4 * int64(b.W) * int64(b.H)
	}
}

// commit moves on by one commit of o in which a buffer, or none, was attached.
func (h *held) commit(f *Filter, o *relay.Object) error {
	if more := h.bytes - h.shown; more > 0 {
		if err := f.take(o, Textures, more); err != nil {
			return err
		}
	} else {
		f.give(Textures, -more)
	}
	h.shown = h.bytes
	if old := h.committed[0]; old != nil {
		f.drop(old)
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
	f.give(Textures, h.shown)
	*h = held{}
}

func fits(o *relay.Object, size int32, file int64) error {
	if size <= 0 || int64(size) > file {
		return relay.Fail(o, relay.ErrNoMemory, "a pool of %d bytes does not fit a file of %d", size, file)
	}
	return nil
}
