package filter

import (
	"fmt"
	"math"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A sized is the Data of a wl_buffer that is not of shared memory.
type sized struct{ w, h int32 }

// sizeHooks follow what a surface's size is made of.
func sizeHooks(h *relay.Hooks) {
	h.Request(wayland.WpSinglePixelBufferManagerV1, wayland.WpSinglePixelBufferManagerV1ReqCreateU32RgbaBuffer, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = &sized{1, 1}
		return true, nil
	})
	h.Request(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1ReqCreateImmed, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = &sized{m.Int(1), m.Int(2)}
		return true, nil
	})
	h.Request(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1ReqCreate, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.Obj.Data = &sized{m.Int(0), m.Int(1)}
		return true, nil
	})
	h.Event(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1EvtCreated, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = m.Obj.Data
		return true, nil
	})
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetBufferScale, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		s := surfaceOf(m.Obj)
		if v := m.Int(0); v != s.scale {
			s.scale, s.changed = v, true
		}
		return true, nil
	})
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetBufferTransform, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		s := surfaceOf(m.Obj)
		if v := m.Int(0); v != s.transform {
			s.transform, s.changed = v, true
		}
		return true, nil
	})
	shiftHooks(h)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqDestroy, onSurfaceDestroy)
	h.Request(wayland.WpViewporter, wayland.WpViewporterReqGetViewport, onGetViewport)
	h.Request(wayland.WpViewport, wayland.WpViewportReqSetSource, onSetSource)
	h.Request(wayland.WpViewport, wayland.WpViewportReqSetDestination, onSetDestination)
	h.Request(wayland.WpViewport, wayland.WpViewportReqDestroy, onViewportDestroy)
}

// attach notes the size of an attached buffer.
func (s *surface) attach(c *relay.Conn, m *relay.Msg) error {
	w, h := int32(0), int32(0)
	if id := m.Word(0); id != 0 {
		o := c.Client(id)
		if o == nil {
			return nil // the engine says so
		}
		switch b := o.Data.(type) {
		case *buffer:
			w, h = b.width, b.height
		case *sized:
			w, h = b.w, b.h
		default:
			return relay.Fail(m.Obj, relay.ErrImplementation, "a buffer of unknown size")
		}
	}
	if w != s.bufW || h != s.bufH {
		s.bufW, s.bufH, s.changed = w, h, true
	}
	return nil
}

// turned returns the size of the buffer as it is shown before the viewport.
func (s *surface) turned() (w, h float64) {
	k := float64(max(s.scale, 1))
	w, h = float64(s.bufW)/k, float64(s.bufH)/k
	if s.transform&1 != 0 {
		w, h = h, w
	}
	return w, h
}

// size returns the surface's size in logical pixels, 0 without content.
func (s *surface) size() (w, h int32) {
	if s.bufW == 0 || s.bufH == 0 {
		return 0, 0
	}
	if s.dst[0] > 0 && s.dst[1] > 0 {
		return s.dst[0], s.dst[1]
	}
	if s.src[2] > 0 && s.src[3] > 0 {
		return max(s.src[2]>>8, 1), max(s.src[3]>>8, 1)
	}
	tw, th := s.turned()
	return max(int32(tw), 1), max(int32(th), 1)
}

func onGetViewport(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceArg(c, m.Word(1))
	if s == nil || s.viewport != 0 {
		return true, nil // the second one is the compositor's to refuse
	}
	if s.crop != nil {
		// There is one viewport for a surface; with the next commit the client's
		// takes over what ours did.
		c.Discard(s.crop, wayland.WpViewportReqDestroy)
		s.crop = nil
	}
	c.GiveServerID(m.New)
	m.New.Data = s
	s.viewport, s.changed = m.New.Server, true
	return true, nil
}

// viewportOf returns the surface of a client's viewport, nil when it is gone.
func viewportOf(o *relay.Object) *surface {
	if s, ok := o.Data.(*surface); ok && s.viewport == o.Server && s.viewport != 0 {
		return s
	}
	return nil
}

func onSetSource(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s := viewportOf(m.Obj); s != nil {
		if v := [4]int32{m.Int(0), m.Int(1), m.Int(2), m.Int(3)}; v != s.src || s.cropped {
			s.src, s.changed = v, true
		}
	}
	return true, nil
}

func onSetDestination(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s := viewportOf(m.Obj); s != nil {
		if v := [2]int32{m.Int(0), m.Int(1)}; v != s.dst || s.cropped {
			s.dst, s.changed = v, true
		}
	}
	return true, nil
}

func onViewportDestroy(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s := viewportOf(m.Obj); s != nil {
		s.viewport, s.src, s.dst, s.changed = 0, [4]int32{}, [2]int32{}, true
	}
	return true, nil
}

func onSurfaceDestroy(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceOf(m.Obj)
	f := framesOf(c)
	f.remove(c, s)
	f.orphan(s)
	if s.crop != nil {
		c.Discard(s.crop, wayland.WpViewportReqDestroy)
		s.crop = nil
	}
	s.id, s.viewport = 0, 0
	return true, nil
}

// commit brings the frame in line with what a surface is about to become.
func (f *frames) commit(c *relay.Conn, s *surface, o *relay.Object) error {
	s.id = o.Server
	if w, _ := s.size(); w > 0 && (s.role == roleToplevel || s.role == rolePopup) && !f.ready() {
		if f.compositor != nil {
			return errNoFrame
		}
		return relay.Fail(o, errXdgUnconfigured, "content before the first configure event")
	}
	if err := f.fit(c, s); err != nil {
		return err
	}
	return nil
}

// fit puts a surface's frame around what it shows with its next commit.
func (f *frames) fit(c *relay.Conn, s *surface) error {
	s.changed = false
	w, h := s.size()
	if w == 0 || s.id == 0 {
		return nil
	}
	switch s.role {
	case roleToplevel:
		return f.fitToplevel(c, s, w, h)
	case rolePopup:
		return f.fitPopup(c, s, w, h)
	case roleChild:
		return f.fitChild(c, s, w, h)
	case roleCursor:
		return fitCursor(w, h, maxCursor, "a pointer image")
	case roleIcon:
		return fitCursor(w, h, maxIcon, "an icon of a drag")
	}
	return nil
}

// fitToplevel cuts a window's content to what it may show, frames it and tells the
// compositor the geometry of the whole.
func (f *frames) fitToplevel(c *relay.Conn, s *surface, w, h int32) error {
	f.roots[s] = struct{}{}
	mw, mh := f.screen()
	if n := s.window; n != nil && n.now.fixed && n.now.w > 0 && n.now.h > 0 {
		mw, mh = n.now.w, n.now.h
	}
	v := f.visible(s, w, h, maxDeco)
	v.w, v.h = min(v.w, less(mw, 2*f.side)), min(v.h, less(mh, f.top+f.side))
	f.cut(c, s, w, h, v)
	if err := f.put(c, s, s.area, f.top, f.side); err != nil {
		return err
	}
	whole := s.area.grown(f.top, f.side)
	if f.full {
		if err := f.label(c, s, whole.x, whole.y, whole.w); err != nil {
			return err
		}
	}
	f.tell(c, s, whole)
	return f.checkChildren(c, s)
}

// maxDeco is how far the geometry of a window may reach beyond its root surface:
// some programs draw their title bars on sub-surfaces around it.
const maxDeco = 128

// visible returns the part of a root surface that is shown: the geometry that the
// client declares, if it does, and at most so much beyond the surface.
func (f *frames) visible(s *surface, w, h, beyond int32) box {
	d := s.declared
	if d.w == 0 || f.viewporter == nil {
		return box{0, 0, w, h}
	}
	x0, y0 := clamp(d.x, -beyond, w-1), clamp(d.y, -beyond, h-1)
	x1, y1 := clamp(sum(d.x, d.w), max(x0, 0)+1, w+beyond), clamp(sum(d.y, d.h), max(y0, 0)+1, h+beyond)
	return box{x0, y0, x1 - x0, y1 - y0}
}

// cut shows only what of a root surface of w×h is in v.
func (f *frames) cut(c *relay.Conn, s *surface, w, h int32, v box) {
	crop := box{max(v.x, 0), max(v.y, 0), 0, 0}
	crop.w, crop.h = max(min(v.x+v.w, w)-crop.x, 1), max(min(v.y+v.h, h)-crop.y, 1)
	f.crop(c, s, w, h, crop)
	s.visible, s.area = v, v
	if f.viewporter != nil {
		s.area.x, s.area.y = v.x-crop.x, v.y-crop.y
		f.shift(c, s, crop.x, crop.y)
	}
}

// aligned returns v, part of a surface of w×h, with its edges moved outwards to whole
// pixels of the buffer where some are near: text is blurred when a buffer is cut
// through its pixels, as it would be at a scale of 1.5 and an odd place.
func (s *surface) aligned(v box, w, h int32) box {
	tw, th := s.turned()
	k := float64(max(s.scale, 1))
	edge := func(at, step, end int32, ratio float64) int32 {
		for e := at; e != at+4*step && e >= 0 && e <= end; e += step {
			if px := float64(e) * ratio; math.Abs(px-math.Round(px)) < 0.1 {
				return e
			}
		}
		return at
	}
	x, y := edge(v.x, -1, w, tw*k/float64(w)), edge(v.y, -1, h, th*k/float64(h))
	return box{x, y, edge(v.x+v.w, 1, w, tw*k/float64(w)) - x, edge(v.y+v.h, 1, h, th*k/float64(h)) - y}
}

// tell gives the compositor a window's geometry.
func (f *frames) tell(c *relay.Conn, s *surface, b box) {
	if s.xdg != 0 && s.told != b {
		s.told = b
		c.ToServer().Msg(s.xdg, wayland.XdgSurfaceReqSetWindowGeometry, uint32(b.x), uint32(b.y), uint32(b.w), uint32(b.h))
	}
}

// crop shows only a part of a surface's w×h, by a viewport: the client's own, if
// there is one, is given other values until that is over.
func (f *frames) crop(c *relay.Conn, s *surface, w, h int32, to box) {
	if to == (box{0, 0, w, h}) || f.viewporter == nil {
		if s.cropped {
			f.uncrop(c, s)
		}
		return
	}
	vp := s.viewport
	if vp == 0 {
		if s.crop == nil {
			s.crop = c.Own(wayland.WpViewport, f.viewporter.Version, nil)
			c.ToServer().Msg(f.viewporter.Server, wayland.WpViewporterReqGetViewport, s.crop.Server, s.id)
		}
		vp = s.crop.Server
	}
	sx, sy := 0.0, 0.0
	tw, th := s.turned()
	sw, sh := tw*256, th*256
	if s.src[2] > 0 && s.src[3] > 0 {
		sx, sy, sw, sh = float64(s.src[0]), float64(s.src[1]), float64(s.src[2]), float64(s.src[3])
	}
	// Edges in the source, in fixed point, on whole pixels of the buffer where the
	// client has not stretched it itself.
	k := float64(max(s.scale, 1))
	part := func(whole float64, n, of int32) float64 {
		p := whole * float64(n) / float64(of)
		if s.src[2] <= 0 {
			p = math.Round(p*k/256) * 256 / k
		}
		return math.Floor(min(p, whole))
	}
	x, y := part(sw, to.x, w), part(sh, to.y, h)
	e := c.ToServer()
	e.Msg(vp, wayland.WpViewportReqSetSource, uint32(int32(sx+x)), uint32(int32(sy+y)),
		uint32(int32(max(part(sw, to.x+to.w, w)-x, 1))), uint32(int32(max(part(sh, to.y+to.h, h)-y, 1))))
	e.Msg(vp, wayland.WpViewportReqSetDestination, uint32(to.w), uint32(to.h))
	s.cropped = true
}

// uncrop gives the viewport back.
func (f *frames) uncrop(c *relay.Conn, s *surface) {
	s.cropped = false
	if s.crop != nil {
		c.Discard(s.crop, wayland.WpViewportReqDestroy)
		s.crop = nil
		return
	}
	if s.viewport == 0 {
		return
	}
	src, dst := s.src, s.dst
	if src[2] <= 0 || src[3] <= 0 {
		src = [4]int32{-256, -256, -256, -256}
	}
	if dst[0] <= 0 || dst[1] <= 0 {
		dst = [2]int32{-1, -1}
	}
	e := c.ToServer()
	e.Msg(s.viewport, wayland.WpViewportReqSetSource, uint32(src[0]), uint32(src[1]), uint32(src[2]), uint32(src[3]))
	e.Msg(s.viewport, wayland.WpViewportReqSetDestination, uint32(dst[0]), uint32(dst[1]))
}

// maxCursor is the largest pointer image, in logical pixels in each direction:
// nothing else that a guest shows is without a frame.
const maxCursor = 256

func fitCursor(w, h, most int32, what string) error {
	if w <= most && h <= most {
		return nil
	}
	return &relay.ProtocolError{Object: 1, Code: relay.ErrImplementation, Text: fmt.Sprintf("%s of more than %d pixels", what, most)}
}

func clamp(v, low, high int32) int32 { return min(max(v, low), high) }
