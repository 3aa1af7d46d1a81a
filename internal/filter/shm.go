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
	h.Request(wayland.WlShm, wayland.WlShmReqCreatePool, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		var st unix.Stat_t
		if err := unix.Fstat(m.Descs[0].FD, &st); err != nil {
			return false, relay.Fail(m.Obj, relay.ErrImplementation, "wl_shm.create_pool: %v", err)
		}
		m.New.Data = st.Size
		return true, fits(m.Obj, m.Int(1), st.Size)
	})
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqResize, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		return true, fits(m.Obj, m.Int(0), m.Obj.Data.(int64))
	})
}

func fits(o *relay.Object, size int32, file int64) error {
	if size <= 0 || int64(size) > file {
		return relay.Fail(o, relay.ErrNoMemory, "a pool of %d bytes does not fit a file of %d", size, file)
	}
	return nil
}
