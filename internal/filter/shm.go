package filter

import (
	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A pool is never larger than its file: a compositor that reads beyond the end
// of a file dies, if it does not know how to survive that. The file itself was made
// by our device, and sealed against shrinking.
func shmHooks(h *relay.Hooks) {
	h.Request(wayland.WlShm, wayland.WlShmReqCreatePool, func(c *relay.Conn, m *relay.Msg) (bool, error) {
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
		p := &pool{file: st.Size}
		m.New.Data = p
		return true, p.grow(f, m.Obj, int64(m.Int(1)))
	})
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqResize, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		p := m.Obj.Data.(*pool)
		if err := fits(m.Obj, m.Int(0), p.file); err != nil {
			return false, err
		}
		return true, p.grow(filterOf(c), m.Obj, int64(m.Int(0)))
	})
	h.Gone(wayland.WlShmPool, func(c *relay.Conn, o *relay.Object) {
		if p, ok := o.Data.(*pool); ok {
			f := filterOf(c)
			f.give(Pools, 1)
			f.give(PoolBytes, p.size)
		}
	})
}

// A pool is what the filter knows of a wl_shm_pool.
type pool struct {
	file int64 // bytes of its file
	size int64 // bytes counted
}

// grow counts a pool's new size; a pool never shrinks.
func (p *pool) grow(f *Filter, o *relay.Object, size int64) error {
	if size <= p.size {
		return nil
	}
	if err := f.take(o, PoolBytes, size-p.size); err != nil {
		return err
	}
	p.size = size
	return nil
}

func fits(o *relay.Object, size int32, file int64) error {
	if size <= 0 || int64(size) > file {
		return relay.Fail(o, relay.ErrNoMemory, "a pool of %d bytes does not fit a file of %d", size, file)
	}
	return nil
}
