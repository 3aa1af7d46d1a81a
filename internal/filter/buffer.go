package filter

import (
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// A buffer is a wl_buffer of the client's.
type buffer struct {
	surface.Buffer
	pool *pool         // nil unless it is in shared memory
	obj  *relay.Object // the compositor's object
	// busy is set from a commit until the compositor releases the buffer. dead says that
	// the client has destroyed it and the model still needs it; lost, that it is gone.
	busy, dead, lost bool
}

func newBuffer(o *relay.Object, p *pool, w, h int32) *buffer {
	b := &buffer{Buffer: surface.Buffer{W: w, H: h}, pool: p, obj: o}
	b.Data = b
	return b
}

// errStride is wl_shm.error.invalid_stride.
const errStride = 1

// checkBuffer checks a buffer's sides and place against its pool.
func checkBuffer(o *relay.Object, size int64, offset, w, h, stride int32) error {
	switch {
	case w <= 0 || h <= 0 || w > surface.MaxSide || h > surface.MaxSide:
		return relay.Fail(o, errStride, "a buffer of %d×%d: sides are 1 to %d", w, h, surface.MaxSide)
	case offset < 0 || stride < w || int64(offset)+int64(stride)*int64(h) > size:
		return relay.Fail(o, errStride, "a buffer of %d×%d, stride %d, at %d is not within its pool", w, h, stride, offset)
	}
	return nil
}

// A dmabufSize is the Data of a zwp_linux_buffer_params_v1, kept for its buffer.
type dmabufSize struct{ w, h int32 }

func bufferHooks(l relay.Layer) {
	sized := func(o, n *relay.Object, w, h int32) error {
		if w <= 0 || h <= 0 || w > surface.MaxSide || h > surface.MaxSide {
			return relay.Fail(o, relay.ErrImplementation, "a buffer of %d×%d: sides are 1 to %d", w, h, surface.MaxSide)
		}
		if n != nil {
			n.Data = newBuffer(n, nil, w, h)
		}
		return nil
	}
	l.Request(wayland.WpSinglePixelBufferManagerV1, wayland.WpSinglePixelBufferManagerV1ReqCreateU32RgbaBuffer, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		return true, sized(m.Obj, m.New, 1, 1)
	})
	l.Request(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1ReqCreateImmed, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		return true, sized(m.Obj, m.New, m.Int(1), m.Int(2))
	})
	l.Request(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1ReqCreate, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.Obj.Data = &dmabufSize{m.Int(0), m.Int(1)}
		return true, sized(m.Obj, nil, m.Int(0), m.Int(1))
	})
	l.Event(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1EvtCreated, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if s, ok := m.Obj.Data.(*dmabufSize); ok {
			m.New.Data = newBuffer(m.New, nil, s.w, s.h)
		}
		return true, nil
	})
	l.Request(wayland.WlBuffer, wayland.WlBufferReqDestroy, onBufferDestroy)
	l.Event(wayland.WlBuffer, wayland.WlBufferEvtRelease, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		b, ok := m.Obj.Data.(*buffer)
		if !ok {
			return true, nil
		}
		b.busy = false
		// A hidden surface may need the buffer again, so the client may not reuse it.
		return !b.Held(), nil
	})
	l.Gone(wayland.WlBuffer, func(c *relay.Conn, o *relay.Object) {
		if b, ok := o.Data.(*buffer); ok && b.pool != nil {
			filterOf(c).drop(b.pool)
		}
	})
}

// onBufferDestroy keeps a buffer that a surface may still show.
func onBufferDestroy(c *relay.Conn, m *relay.Msg) (bool, error) {
	b, ok := m.Obj.Data.(*buffer)
	if !ok {
		return true, nil
	}
	if !b.Held() {
		b.lost = true
		return true, nil
	}
	k := c.Keep(m.Obj)
	k.Data, m.Obj.Data = b, nil
	b.obj, b.dead = k, true
	return false, nil
}

// onBufferFree runs when the model no longer holds a buffer.
func onBufferFree(c *relay.Conn, b *buffer) {
	switch {
	case b.lost:
	case b.dead:
		b.lost = true
		if b.busy { // it may be attached and not committed yet
			st := stateOf(c)
			st.deadBuffers = append(st.deadBuffers, b.obj)
		} else {
			c.Discard(b.obj, wayland.WlBufferReqDestroy)
		}
	case !b.busy && !b.obj.Dead:
		c.ToClient().Msg(b.obj.ID, wayland.WlBufferEvtRelease)
	}
}

// bury destroys the deadBuffers.
func (st *state) bury(c *relay.Conn) {
	for _, o := range st.deadBuffers {
		c.Discard(o, wayland.WlBufferReqDestroy)
	}
	st.deadBuffers = st.deadBuffers[:0]
}
