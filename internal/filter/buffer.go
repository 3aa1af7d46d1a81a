package filter

import (
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// A buffer is a wl_buffer of the client's.
type buffer struct {
	surface.Buffer
	pool *pool         // nil where it is not of shared memory
	obj  *relay.Object // on the compositor
	// busy is set from a commit until the compositor releases the buffer; dead when the
	// client destroyed it and the model needs it still; lost when it is destroyed.
	busy, dead, lost bool
}

func newBuffer(o *relay.Object, p *pool, w, h int32) *buffer {
	b := &buffer{Buffer: surface.Buffer{W: w, H: h}, pool: p, obj: o}
	b.Data = b
	return b
}

// errStride is wl_shm.error.invalid_stride.
const errStride = 1

// checkBuffer holds a buffer's sides and place against what it is made of.
func checkBuffer(o *relay.Object, size int64, offset, w, h, stride int32) error {
	switch {
	case w <= 0 || h <= 0 || w > surface.MaxSide || h > surface.MaxSide:
		return relay.Fail(o, errStride, "a buffer of %d×%d: sides are 1 to %d", w, h, surface.MaxSide)
	case offset < 0 || stride < w || int64(offset)+int64(stride)*int64(h) > size:
		return relay.Fail(o, errStride, "a buffer of %d×%d, stride %d, at %d is not within its pool", w, h, stride, offset)
	}
	return nil
}

// A dmabufSize waits in zwp_linux_buffer_params_v1 for the buffer.
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
		// What is hidden now may be shown again: the client keeps its hands off.
		return !b.Held(), nil
	})
	l.Gone(wayland.WlBuffer, func(c *relay.Conn, o *relay.Object) {
		if b, ok := o.Data.(*buffer); ok && b.pool != nil {
			filterOf(c).drop(b.pool)
		}
	})
}

// onBufferDestroy keeps a buffer that a surface is to show yet.
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

// freed is called when the model holds a buffer no longer.
func freed(c *relay.Conn, b *buffer) {
	switch {
	case b.lost:
	case b.dead:
		b.lost = true
		if b.busy { // it may be attached and not committed yet
			st := stateOf(c)
			st.dying = append(st.dying, b.obj)
		} else {
			c.Discard(b.obj, wayland.WlBufferReqDestroy)
		}
	case !b.busy && !b.obj.Dead:
		c.ToClient().Msg(b.obj.ID, wayland.WlBufferEvtRelease)
	}
}

// bury destroys buffers that the client destroyed before they were shown.
func (st *state) bury(c *relay.Conn) {
	for _, o := range st.dying {
		c.Discard(o, wayland.WlBufferReqDestroy)
	}
	st.dying = st.dying[:0]
}
