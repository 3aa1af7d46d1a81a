package filter

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"
	"time"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// The frame: every window of a VM stands in a frame of the VM's colour, drawn by
// the host and part of the window's geometry, so that every compositor lays it
// out with the window. Its pieces are sub-surfaces of the guest's own root
// surface, which the guest can neither name nor see:
//
//	┌───────────────┐ ▲ top (the label, in a full frame)
//	│ label         │ ▼
//	├─┬───────────┬─┤
//	│ │ the guest │ │     side
//	│ │           │ │
//	├─┴───────────┴─┤
//	└───────────────┘     side
//
// Pieces are synchronised sub-surfaces, so their content appears with the root's own
// commit and never without it. None is wider or higher than the window's content: a
// compositor may place a window by its widest surface. The filter corrects the sizes and
// places in messages of both directions: those of windows in window.go, those of popups
// in popup.go, those of input on the pieces in input.go.

// Sizes of the frame, in logical pixels.
const (
	labelHeight = 20 // with these, pieces end at whole pixels at scales of 1.25, 1.5 and 1.75
	sideWidth   = 4
	thinWidth   = 2 // the frame of popups
)

// A style is one VM's frame.
type style struct {
	rgb             [3]uint8
	drawn           bool // windows have a frame
	full            bool // the frame has a label
	top, side, thin int32
	labels          labels

	mu      sync.Mutex
	screens []screen // the last known outputs, empty before any connection knows one
	// preferred is the scale that the compositor last preferred for a piece, in
	// 120ths; 0 before the first.
	preferred int32
}

// ParseColor reads "#rrggbb".
func ParseColor(s string) (rgb [3]uint8, err error) {
	v, err := strconv.ParseUint(s[min(1, len(s)):], 16, 32)
	if err != nil || len(s) != 7 || s[0] != '#' {
		return rgb, fmt.Errorf("color %q: want #rrggbb", s)
	}
	return [3]uint8{uint8(v >> 16), uint8(v >> 8), uint8(v)}, nil
}

// newStyle returns a VM's style. An unreadable colour becomes grey: the frame matters
// more.
func newStyle(cfg *Config) *style {
	s := &style{}
	if cfg.Frame == "" || cfg.Frame == "none" {
		return s
	}
	*s = style{drawn: true, full: cfg.Frame != "border", top: sideWidth, side: sideWidth, thin: thinWidth}
	rgb, err := ParseColor(cfg.Color)
	if err != nil {
		rgb = [3]uint8{0x80, 0x80, 0x80}
	}
	s.rgb = rgb
	if s.full {
		s.top = labelHeight
	}
	s.labels.init(cfg.Tag, cfg.Font, rgb)
	return s
}

// frames is a connection's part of the frame: the objects on the compositor that
// its pieces are made of.
type frames struct {
	*style
	registry      *relay.Object
	activator     uint32 // the name of the global xdg_activation_v1, or 0
	compositor    *relay.Object
	subcompositor *relay.Object
	shm           *relay.Object
	viewporter    *relay.Object
	fractional    *relay.Object
	shapes        *relay.Object // wp_cursor_shape_manager_v1
	xdgOutputs    *relay.Object

	outputs   map[uint32]*monitor
	seats     map[uint32]struct{} // the names of the seats
	late      map[*view]struct{}  // windows whose labels are to be drawn
	lateTimer *time.Timer         // until then; nil if there are none
	woken     bool                // they are being drawn

	solid *relay.Object      // the wl_buffer that every piece shows stretched, see paint
	roots map[*view]struct{} // the mapped windows and popups
}

// conn returns a new connection's frames.
func (s *style) conn() *frames {
	return &frames{style: s, outputs: map[uint32]*monitor{}, seats: map[uint32]struct{}{}, roots: map[*view]struct{}{}, late: map[*view]struct{}{}}
}

// framesOf returns the connection's frames.
func framesOf(c *relay.Conn) *frames { return stateOf(c).frames }

// ask asks for the compositor's globals. It runs before the first xdg_surface is made,
// so that the globals are known before the first configure event, without which no
// client may show anything.
func (f *frames) ask(c *relay.Conn) {
	if f.registry == nil {
		f.registry = c.Own(wayland.WlRegistry, 1, (*registryEvents)(f))
		c.ToServer().Msg(1, wayland.WlDisplayReqGetRegistry, f.registry.Server)
	}
}

// ready tells whether the filter can make pieces and cut content.
func (f *frames) ready() bool {
	return f.compositor != nil && f.viewporter != nil && (!f.drawn || f.subcompositor != nil && f.shm != nil)
}

type registryEvents frames

// OwnEvent binds the globals that the frame needs.
func (r *registryEvents) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	f := (*frames)(r)
	if m.Def == &wayland.WlRegistry.Events[wayland.WlRegistryEvtGlobalRemove] {
		delete(f.seats, m.Word(0))
		f.outputGone(c, m.Word(0))
		return nil
	}
	d := wayland.NewDecoder(m.Body)
	name, iface, version := d.Uint(), wayland.Lookup(string(d.String())), d.Uint()
	if iface == nil {
		return nil
	}
	version = min(version, iface.Version)
	bind := func(slot **relay.Object, data any) error {
		if *slot != nil {
			return nil
		}
		*slot = c.Own(iface, version, data)
		return c.ToServer().Put(f.registry.Server, wayland.WlRegistryReqBind, name, iface.Name, version, (*slot).Server)
	}
	switch iface {
	case wayland.XdgActivationV1:
		f.activator = name
	case wayland.WlSeat:
		f.seats[name] = struct{}{}
	case wayland.WlCompositor:
		return bind(&f.compositor, nil)
	case wayland.WlSubcompositor:
		return bind(&f.subcompositor, nil)
	case wayland.WlShm:
		return bind(&f.shm, nil)
	case wayland.WpViewporter:
		return bind(&f.viewporter, nil)
	case wayland.WpFractionalScaleManagerV1:
		return bind(&f.fractional, nil)
	case wayland.WpCursorShapeManagerV1:
		return bind(&f.shapes, nil)
	case wayland.ZxdgOutputManagerV1:
		err := bind(&f.xdgOutputs, nil)
		for _, o := range f.outputs {
			f.askSize(c, o)
		}
		return err
	case wayland.WlOutput:
		if len(f.outputs) >= maxOutputs || f.outputs[name] != nil {
			return nil
		}
		o := &monitor{frames: f, scale: 1}
		f.outputs[name] = o
		err := bind(&o.obj, o)
		f.askSize(c, o)
		return err
	}
	return nil
}

const maxOutputs = 32

// A monitor holds the size of a wl_output.
type monitor struct {
	frames     *frames
	obj, xdg   *relay.Object
	w, h       int32 // the mode's size
	transform  int32
	scale      int32
	logW, logH int32 // the logical size by zxdg_output_v1
}

type logicalOutput monitor

// askSize asks for an output's logical size, where the compositor has zxdg_output_v1.
func (f *frames) askSize(c *relay.Conn, o *monitor) {
	if f.xdgOutputs == nil || o.xdg != nil || o.obj == nil {
		return
	}
	o.xdg = c.Own(wayland.ZxdgOutputV1, f.xdgOutputs.Version, (*logicalOutput)(o))
	c.ToServer().Msg(f.xdgOutputs.Server, wayland.ZxdgOutputManagerV1ReqGetXdgOutput, o.xdg.Server, o.obj.Server)
}

func (f *frames) outputGone(c *relay.Conn, name uint32) {
	o := f.outputs[name]
	if o == nil {
		return
	}
	delete(f.outputs, name)
	if o.xdg != nil {
		c.Discard(o.xdg, wayland.ZxdgOutputV1ReqDestroy)
	}
	if o.obj.Version >= 3 {
		c.Discard(o.obj, wayland.WlOutputReqRelease)
	}
	f.refit(c)
}

// OwnEvent notes an output's mode.
func (o *monitor) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	switch m.Def {
	case &wayland.WlOutput.Events[wayland.WlOutputEvtGeometry]:
		o.transform = int32(wayland.Word(m.Body, len(m.Body)-4))
	case &wayland.WlOutput.Events[wayland.WlOutputEvtMode]:
		if m.Word(0)&1 != 0 { // the current one
			o.w, o.h = m.Int(1), m.Int(2)
		}
	case &wayland.WlOutput.Events[wayland.WlOutputEvtScale]:
		o.scale = clamp(m.Int(0), 1, maxScale/120)
	case &wayland.WlOutput.Events[wayland.WlOutputEvtDone]:
		o.frames.refit(c)
	}
	return nil
}

// OwnEvent notes an output's logical size.
func (l *logicalOutput) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	if m.Def == &wayland.ZxdgOutputV1.Events[wayland.ZxdgOutputV1EvtLogicalSize] {
		l.logW, l.logH = m.Int(0), m.Int(1)
		l.frames.refit(c)
	}
	return nil
}

// size returns an output's logical size. A compositor that scales by fractions may
// hide zxdg_output_v1 (sway does behind a security context) and send the scale rounded
// up. Then the size follows from the scale that it prefers for our pieces; before that
// is known, it is the largest possible.
func (o *monitor) size() (w, h int32) {
	if o.logW > 0 && o.logH > 0 {
		return o.logW, o.logH
	}
	w, h = o.w, o.h
	if o.transform&1 != 0 {
		w, h = h, w
	}
	scale := o.scale * 120
	if f := o.frames; f.fractional != nil {
		f.mu.Lock()
		preferred := f.preferred
		f.mu.Unlock()
		switch {
		case preferred > 0 && (preferred+119)/120 == o.scale:
			scale = preferred
		case o.scale > 1:
			scale = (o.scale - 1) * 120
		}
	}
	fit := func(v int32) int32 { return int32(min(int64(v)*120/int64(scale), math.MaxInt32)) }
	return fit(w), fit(h)
}

// around returns the boxes of the pieces of a frame around b, by their places.
func around(b box, top, side int32) (p [pieceLabel]box) {
	x, right := b.X-side, b.X+b.W
	y, below := b.Y-top, b.Y+b.H
	p[pieceTop] = rect(b.X, y, b.W, top)
	p[pieceBottom] = rect(b.X, below, b.W, side)
	p[pieceLeft] = rect(x, b.Y, side, b.H)
	p[pieceRight] = rect(right, b.Y, side, b.H)
	p[pieceTopLeft] = rect(x, y, side, top)
	p[pieceTopRight] = rect(right, y, side, top)
	p[pieceBottomLeft] = rect(x, below, side, side)
	p[pieceBottomRight] = rect(right, below, side, side)
	return p
}

// withFrame returns b with a frame around it.
func withFrame(b box, top, side int32) box {
	return rect(b.X-side, b.Y-top, b.W+2*side, b.H+top+side)
}

// A border holds the pieces around one surface, by their places.
type border struct {
	pieces [pieceBack + 1]*piece
}

// The places of pieces. The first is the lowest.
const (
	pieceTop = iota
	pieceLeft
	pieceRight
	pieceBottom
	pieceTopLeft
	pieceTopRight
	pieceBottomLeft
	pieceBottomRight
	pieceLabel
	pieceBack // below the content, where a window declares more than its surface covers
)

// lowest returns the piece below all others.
func (b *border) lowest() *piece {
	if b == nil {
		return nil
	}
	return b.pieces[pieceTop]
}

// A piece is one sub-surface of a frame. It hears the events of its objects.
type piece struct {
	of       *view // the surface in the frame; nil after the piece is destroyed
	place    int
	surface  *relay.Object
	sub      *relay.Object
	viewport *relay.Object
	scaling  *relay.Object // a label's wp_fractional_scale_v1
	buffer   *relay.Object // a label's wl_buffer
	at       box
	shown    bool
	scale    int32 // a label's scale in 120ths; 0 before the compositor sends it
	key      labelKey

	w          int32 // logical width of a label's whole picture, and its pixels
	pixW, pixH int
}

// put draws a border around the box at, in the compositor's coordinates of v. The pieces
// are children of v. It tells whether v must be committed.
func (f *frames) put(c *relay.Conn, v *view, at box, top, side int32) (wrote bool, err error) {
	if !f.drawn {
		return false, nil
	}
	if v.border == nil {
		v.border = &border{}
	}
	for k, b := range around(at, top, side) {
		p := v.border.pieces[k]
		if p == nil {
			p = f.newPiece(c, v, k)
			v.border.pieces[k] = p
		}
		if p.shown && p.at == b {
			continue
		}
		if err := f.place(c, p, b); err != nil {
			return false, err
		}
		wrote = true
	}
	backed, err := f.back(c, v, at)
	if err != nil {
		return false, err
	}
	wrote = wrote || backed
	if !f.full || top < labelHeight {
		if p := v.border.pieces[pieceLabel]; p != nil && p.shown {
			f.hide(c, p)
			wrote = true
		}
		return wrote, nil
	}
	labelled, err := f.label(c, v, at.X, at.Y-top, at.W)
	return wrote || labelled, err
}

// back puts the colour below the content of every popup, and of a window that declares
// itself larger than the shown part of its surface. So nobody else's picture appears in
// the frame, and no transparent surface takes a click meant for what is behind it.
func (f *frames) back(c *relay.Conn, v *view, at box) (wrote bool, err error) {
	p := v.border.pieces[pieceBack]
	if v.popup() == nil && rect(0, 0, v.remote.w, v.remote.h).Holds(at) {
		wrote = p != nil && p.shown
		f.hide(c, p)
		return wrote, nil
	}
	if p == nil {
		p = f.newPiece(c, v, pieceBack)
		v.border.pieces[pieceBack] = p
		c.ToServer().Msg(p.sub.Server, wayland.WlSubsurfaceReqPlaceBelow, v.id)
	}
	if p.shown && p.at == at {
		return false, nil
	}
	return true, f.place(c, p, at)
}

// newPiece makes a sub-surface of v, above all others of v.
func (f *frames) newPiece(c *relay.Conn, v *view, place int) *piece {
	p := &piece{of: v, place: place}
	p.surface = c.Own(wayland.WlSurface, f.compositor.Version, p)
	p.sub = c.Own(wayland.WlSubsurface, f.subcompositor.Version, nil)
	p.viewport = c.Own(wayland.WpViewport, f.viewporter.Version, nil)
	e := c.ToServer()
	e.Msg(f.compositor.Server, wayland.WlCompositorReqCreateSurface, p.surface.Server)
	e.Msg(f.subcompositor.Server, wayland.WlSubcompositorReqGetSubsurface, p.sub.Server, p.surface.Server, v.id)
	e.Msg(f.viewporter.Server, wayland.WpViewporterReqGetViewport, p.viewport.Server, p.surface.Server)
	if place == pieceLabel && f.fractional != nil {
		p.scaling = c.Own(wayland.WpFractionalScaleV1, f.fractional.Version, p)
		e.Msg(f.fractional.Server, wayland.WpFractionalScaleManagerV1ReqGetFractionalScale, p.scaling.Server, p.surface.Server)
	}
	return p
}

// place gives a piece of plain colour its place and size.
func (f *frames) place(c *relay.Conn, p *piece, at box) error {
	e := c.ToServer()
	e.Msg(p.sub.Server, wayland.WlSubsurfaceReqSetPosition, uint32(at.X), uint32(at.Y))
	if !p.shown || p.at.W != at.W || p.at.H != at.H {
		if err := f.paint(c, p, at.W, at.H); err != nil {
			return err
		}
	}
	p.at, p.shown = at, true
	return nil
}

// solidSide is the side of the plain buffer. Pieces show it without a margin of
// solidMargin, because some renderers blend the edge of a stretched picture with the
// pixels beyond it. A single pixel would vanish: a compositor that shows only a part of a
// piece, because the window is larger than its place, scales the source by the same
// part, and wlroots with pixman rounds it to whole pixels. With 64, any part of at least
// a 128th of its piece is drawn.
const (
	solidSide   = 64 + 2*solidMargin
	solidMargin = 1
)

// paint fills a piece with the colour.
func (f *frames) paint(c *relay.Conn, p *piece, w, h int32) error {
	if f.solid == nil {
		if err := f.makeSolid(c); err != nil {
			return err
		}
	}
	e := c.ToServer()
	if !p.shown {
		const from, size = solidMargin << 8, (solidSide - 2*solidMargin) << 8
		e.Msg(p.viewport.Server, wayland.WpViewportReqSetSource, from, from, size, size)
		e.Msg(p.surface.Server, wayland.WlSurfaceReqAttach, f.solid.Server, 0, 0)
		e.Msg(p.surface.Server, wayland.WlSurfaceReqDamage, 0, 0, math.MaxInt32, math.MaxInt32)
	}
	e.Msg(p.viewport.Server, wayland.WpViewportReqSetDestination, uint32(w), uint32(h))
	f.commit(c, p.surface.Server)
	return nil
}

// hide takes a piece off the screen.
func (f *frames) hide(c *relay.Conn, p *piece) {
	if p != nil && p.shown {
		p.shown = false
		c.ToServer().Msg(p.surface.Server, wayland.WlSurfaceReqAttach, 0, 0, 0)
		f.commit(c, p.surface.Server)
	}
}

// hideFrame takes the pieces around a surface off the screen.
func (f *frames) hideFrame(c *relay.Conn, v *view) {
	if v.border != nil {
		for _, p := range v.border.pieces {
			f.hide(c, p)
		}
	}
}

// makeSolid makes the buffer of the frame's colour.
func (f *frames) makeSolid(c *relay.Conn) error {
	const pixels = solidSide * solidSide
	d, err := pixelFile(pixels, func(pix []uint32) {
		for k := range pix {
			pix[k] = xrgb(f.rgb)
		}
	})
	if err != nil {
		return fmt.Errorf("frame: %w", err)
	}
	pool := f.newPool(c, d, pixels)
	f.solid = c.Own(wayland.WlBuffer, 1, nil)
	c.ToServer().Msg(pool.Server, wayland.WlShmPoolReqCreateBuffer, f.solid.Server, 0, solidSide, solidSide, solidSide*4, shmXRGB)
	c.Discard(pool, wayland.WlShmPoolReqDestroy)
	return nil
}

// shmXRGB is wl_shm.format.xrgb8888, which every compositor takes.
const shmXRGB = 1

func xrgb(c [3]uint8) uint32 {
	return 0xff000000 | uint32(c[0])<<16 | uint32(c[1])<<8 | uint32(c[2])
}

// newPool gives the compositor a file of pixels.
func (f *frames) newPool(c *relay.Conn, d wayland.Desc, pixels int32) *relay.Object {
	o := c.Own(wayland.WlShmPool, f.shm.Version, nil)
	e := c.ToServer()
	c.SendDesc(d)
	e.Msg(f.shm.Server, wayland.WlShmReqCreatePool, o.Server, uint32(pixels)*4)
	return o
}

// unframe destroys the pieces around a surface before the surface itself.
func (f *frames) unframe(c *relay.Conn, v *view) {
	delete(f.roots, v)
	delete(f.late, v)
	if v.border == nil {
		return
	}
	for _, p := range v.border.pieces {
		if p != nil {
			p.destroy(c)
		}
	}
	v.border = nil
}

func (p *piece) destroy(c *relay.Conn) {
	for _, d := range []struct {
		o  *relay.Object
		op uint16
	}{
		{p.scaling, wayland.WpFractionalScaleV1ReqDestroy},
		{p.viewport, wayland.WpViewportReqDestroy},
		{p.sub, wayland.WlSubsurfaceReqDestroy},
		{p.surface, wayland.WlSurfaceReqDestroy},
		{p.buffer, wayland.WlBufferReqDestroy},
	} {
		if d.o != nil {
			c.Discard(d.o, d.op)
		}
	}
	p.of = nil
}

// errNoFrame ends a connection whose windows cannot have a frame.
var errNoFrame = errors.New("frame: the compositor lacks wp_viewporter, wl_subcompositor or wl_shm, without which no window can be framed")
