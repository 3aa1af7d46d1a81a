package filter

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

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
// The flow of a commit of the guest's root surface:
//
//  1. what was attached and set gives the surface's size (window.go)
//  2. content beyond what the window may have is cropped
//  3. pieces are placed around it; they are synchronised sub-surfaces, so that what
//     is committed to them is shown with the root's own commit and never without
//  4. the window's geometry becomes the whole; then the commit is passed on
//
// A commit that changes nothing of this costs one look at a flag. Sizes and places
// that the two sides tell each other are corrected on their way: windows in
// window.go, popups in popup.go, input on the pieces in input.go.

// Sizes of the frame, in logical pixels.
const (
	labelHeight = 20 // with these, pieces end at whole pixels at scales of 1.25, 1.5 and 1.75
	sideWidth   = 4
	thinWidth   = 2 // of popups, and sub-surfaces that stick out
)

// A style is one VM's frame.
type style struct {
	rgb       [3]uint8
	full      bool // with a label
	top, side int32
	labels    labels

	mu   sync.Mutex
	w, h int32 // of the last known outputs, 0 when no connection has heard of one
	// preferred is the scale that the compositor last preferred for a piece, in
	// 120ths, 0 before.
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

// newStyle returns nil when there is no frame. A colour that cannot be read is
// grey: the frame matters more.
func newStyle(cfg *Config) *style {
	if cfg.Frame == "" || cfg.Frame == "none" {
		return nil
	}
	s := &style{full: cfg.Frame != "border", top: sideWidth, side: sideWidth}
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
	activator     uint32 // the name of the global xdg_activation_v1; 0: there is none
	compositor    *relay.Object
	subcompositor *relay.Object
	shm           *relay.Object
	viewporter    *relay.Object
	fractional    *relay.Object
	shapes        *relay.Object // wp_cursor_shape_manager_v1
	xdgOutputs    *relay.Object

	outputs map[uint32]*monitor
	solid   *relay.Object // the wl_buffer that all pieces show stretched, see paint
	pool    *relay.Object // the wl_shm_pool of solid buffers
	pixels  int32         // in pool
	roots   map[*surface]struct{}
}

// conn returns a new connection's frames.
func (s *style) conn() *frames {
	if s == nil {
		return nil
	}
	return &frames{style: s, outputs: map[uint32]*monitor{}, roots: map[*surface]struct{}{}}
}

// framesOf returns the connection's frames, nil without a frame.
func framesOf(c *relay.Conn) *frames { return c.State.(*state).frames }

// frameHooks are needed in addition to windowHooks when there is a frame.
func frameHooks(h *relay.Hooks) {
	sizeHooks(h)
	toplevelHooks(h)
	popupHooks(h)
	inputHooks(h)
	childHooks(h)
}

// ask starts to learn what the compositor has. It is asked for before the first
// xdg_surface is, so that the globals are known before its first configure event,
// without which no client may show anything.
func (f *frames) ask(c *relay.Conn) {
	if f.registry == nil {
		f.registry = c.Own(wayland.WlRegistry, 1, (*registryEvents)(f))
		c.ToServer().Msg(1, wayland.WlDisplayReqGetRegistry, f.registry.Server)
	}
}

// ready tells whether pieces can be made.
func (f *frames) ready() bool {
	return f.compositor != nil && f.subcompositor != nil && f.shm != nil
}

type registryEvents frames

// OwnEvent binds the globals that the frame needs.
func (r *registryEvents) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	f := (*frames)(r)
	if m.Def == &wayland.WlRegistry.Events[wayland.WlRegistryEvtGlobalRemove] {
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
		e := c.ToServer()
		e.Begin(f.registry.Server, wayland.WlRegistryReqBind)
		e.Uint(name)
		e.String(iface.Name)
		e.Uint(version)
		e.Uint((*slot).Server)
		return e.End()
	}
	switch iface {
	case wayland.XdgActivationV1:
		f.activator = name
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

// A monitor is what is known of a wl_output: its size.
type monitor struct {
	frames     *frames
	obj, xdg   *relay.Object
	w, h       int32 // of the mode
	transform  int32
	scale      int32
	logW, logH int32 // of zxdg_output_v1
}

type logicalOutput monitor

// askSize asks for an output's logical size, where the compositor tells it.
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
	f.resized(c)
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
		o.frames.resized(c)
	}
	return nil
}

// OwnEvent notes an output's logical size.
func (l *logicalOutput) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	if m.Def == &wayland.ZxdgOutputV1.Events[wayland.ZxdgOutputV1EvtLogicalSize] {
		l.logW, l.logH = m.Int(0), m.Int(1)
		l.frames.resized(c)
	}
	return nil
}

// size returns an output's logical size. A compositor that scales by fractions may
// keep zxdg_output_v1 to itself (sway does, from what comes through a security
// context) and tell the scale rounded up: then the size is what follows from the
// scale that it prefers for our pieces or, before that is known, the largest
// possible.
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

// resized looks again at windows whose bound the outputs are. One that is too
// large now is committed for the guest: what else the guest has set meanwhile is
// shown early, which is the price of not waiting for its next commit.
func (f *frames) resized(c *relay.Conn) {
	var w, h int32
	for _, o := range f.outputs {
		ow, oh := o.size()
		w, h = max(w, ow), max(h, oh)
	}
	if w == 0 || h == 0 {
		return
	}
	f.mu.Lock()
	f.w, f.h = w, h
	f.mu.Unlock()
	for s := range f.roots {
		s.changed = true
		if sw, sh := s.size(); s.role == roleToplevel && s.id != 0 && s.border.shown() && !s.cropped && (sw > w || sh > h) {
			if err := f.fit(c, s); err == nil {
				c.ToServer().Msg(s.id, wayland.WlSurfaceReqCommit)
			}
		}
	}
}

// screen returns the size that no window may exceed, in logical pixels.
func (f *frames) screen() (w, h int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.w == 0 {
		return math.MaxInt32, math.MaxInt32
	}
	return f.w, f.h
}

// A box is a rectangle in logical pixels.
type box struct{ x, y, w, h int32 }

// around returns the pieces of a frame around b: top, left, right, bottom.
func (b box) around(top, side int32) [4]box {
	return [4]box{
		{b.x - side, b.y - top, b.w + 2*side, top},
		{b.x - side, b.y, side, b.h},
		{b.x + b.w, b.y, side, b.h},
		{b.x - side, b.y + b.h, b.w + 2*side, side},
	}
}

// grown returns b with a frame around it.
func (b box) grown(top, side int32) box {
	return box{b.x - side, b.y - top, b.w + 2*side, b.h + top + side}
}

// A border is the pieces around one surface; pieces[4] is the label.
type border struct {
	pieces [5]*piece
}

func (b *border) shown() bool { return b != nil && b.pieces[0] != nil && b.pieces[0].shown }

// The places of pieces.
const (
	pieceTop = iota
	pieceLeft
	pieceRight
	pieceBottom
	pieceLabel
)

// A piece is one sub-surface of a frame. It hears the events of its objects.
type piece struct {
	of       *surface
	place    int
	surface  *relay.Object
	sub      *relay.Object
	viewport *relay.Object // nil where the compositor has none
	scaling  *relay.Object // wp_fractional_scale_v1 of a label
	buffer   *relay.Object // of this piece alone
	at       box
	shown    bool
	scale    int32 // of a label, in 120ths; 0 when not yet told
	drawn    labelKey
}

// put draws a border around the box, in the coordinates of s, whose pieces are
// children of s.
func (f *frames) put(c *relay.Conn, s *surface, around box, top, side int32) error {
	if s.border == nil {
		s.border = &border{}
	}
	for k, at := range around.around(top, side) {
		p := s.border.pieces[k]
		if p == nil {
			p = f.newPiece(c, s, k)
			s.border.pieces[k] = p
		}
		if p.shown && p.at == at {
			continue
		}
		if err := f.place(c, p, at); err != nil {
			return err
		}
	}
	return nil
}

// newPiece makes a sub-surface of s, above all that s has.
func (f *frames) newPiece(c *relay.Conn, s *surface, place int) *piece {
	p := &piece{of: s, place: place}
	p.surface = c.Own(wayland.WlSurface, f.compositor.Version, p)
	p.sub = c.Own(wayland.WlSubsurface, f.subcompositor.Version, nil)
	c.ToServer().Msg(f.compositor.Server, wayland.WlCompositorReqCreateSurface, p.surface.Server)
	c.ToServer().Msg(f.subcompositor.Server, wayland.WlSubcompositorReqGetSubsurface, p.sub.Server, p.surface.Server, s.id)
	if f.viewporter != nil {
		p.viewport = c.Own(wayland.WpViewport, f.viewporter.Version, nil)
		c.ToServer().Msg(f.viewporter.Server, wayland.WpViewporterReqGetViewport, p.viewport.Server, p.surface.Server)
	}
	if place == pieceLabel && f.fractional != nil && p.viewport != nil {
		p.scaling = c.Own(wayland.WpFractionalScaleV1, f.fractional.Version, p)
		c.ToServer().Msg(f.fractional.Server, wayland.WpFractionalScaleManagerV1ReqGetFractionalScale, p.scaling.Server, p.surface.Server)
	}
	return p
}

// place gives a piece of plain colour its place and size.
func (f *frames) place(c *relay.Conn, p *piece, at box) error {
	e := c.ToServer()
	e.Msg(p.sub.Server, wayland.WlSubsurfaceReqSetPosition, uint32(at.x), uint32(at.y))
	if !p.shown || p.at.w != at.w || p.at.h != at.h {
		if err := f.paint(c, p, at.w, at.h); err != nil {
			return err
		}
	}
	p.at, p.shown = at, true
	return nil
}

// solidSide is the side of the plain buffer that pieces show all of but a margin of
// solidMargin, for renderers that blend the edge of what they stretch with what is
// beyond it. A single pixel would vanish: a compositor that shows but a part of a
// piece, because the window is larger than its place, scales the source by the same
// part, and wlroots with pixman rounds it to whole pixels. With 64, what is at least
// a 128th of its piece is drawn.
const (
	solidSide   = 64 + 2*solidMargin
	solidMargin = 1
)

// paint fills a piece with the colour.
func (f *frames) paint(c *relay.Conn, p *piece, w, h int32) error {
	old := p.buffer
	var err error
	switch {
	case p.viewport == nil:
		p.buffer, err = f.solidBuffer(c, w, h)
	case f.solid == nil:
		f.solid, err = f.solidBuffer(c, solidSide, solidSide)
	}
	if err != nil {
		return err
	}
	buffer := f.solid
	e := c.ToServer()
	if p.viewport == nil {
		buffer = p.buffer
	} else {
		if !p.shown {
			const from, size = solidMargin << 8, (solidSide - 2*solidMargin) << 8
			e.Msg(p.viewport.Server, wayland.WpViewportReqSetSource, from, from, size, size)
		}
		e.Msg(p.viewport.Server, wayland.WpViewportReqSetDestination, uint32(w), uint32(h))
	}
	e.Msg(p.surface.Server, wayland.WlSurfaceReqAttach, buffer.Server, 0, 0)
	e.Msg(p.surface.Server, wayland.WlSurfaceReqDamage, 0, 0, math.MaxInt32, math.MaxInt32)
	e.Msg(p.surface.Server, wayland.WlSurfaceReqCommit)
	if old != nil {
		c.Discard(old, wayland.WlBufferReqDestroy)
	}
	return nil
}

// hide takes a piece off the screen.
func (f *frames) hide(c *relay.Conn, p *piece) {
	if p != nil && p.shown {
		p.shown = false
		c.ToServer().Msg(p.surface.Server, wayland.WlSurfaceReqAttach, 0, 0, 0)
		c.ToServer().Msg(p.surface.Server, wayland.WlSurfaceReqCommit)
	}
}

// maxSolid bounds the pixels of the pool below: a strip across a wall of screens.
const maxSolid = 1 << 21

// solidBuffer makes a buffer of w×h pixels of the colour. Compositors without
// viewports need one for each piece. All of them lie at the start of one pool, which
// is of one colour.
func (f *frames) solidBuffer(c *relay.Conn, w, h int32) (*relay.Object, error) {
	n := int64(w) * int64(h)
	if n > maxSolid {
		return nil, fmt.Errorf("frame: a border of %d×%d pixels", w, h)
	}
	if f.pool == nil || f.pixels < int32(n) {
		f.pixels = max(int32(n)+int32(n)/2, solidSide*solidSide)
		d, err := pixelFile(int(f.pixels), func(pix []uint32) {
			for k := range pix {
				pix[k] = xrgb(f.rgb)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("frame: %w", err)
		}
		if f.pool != nil {
			c.Discard(f.pool, wayland.WlShmPoolReqDestroy)
		}
		f.pool = f.newPool(c, d, f.pixels)
	}
	o := c.Own(wayland.WlBuffer, 1, nil)
	c.ToServer().Msg(f.pool.Server, wayland.WlShmPoolReqCreateBuffer, o.Server, 0, uint32(w), uint32(h), uint32(w*4), shmXRGB)
	return o, nil
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

// remove destroys the pieces of a surface that is about to go.
func (f *frames) remove(c *relay.Conn, s *surface) {
	delete(f.roots, s)
	if s.border == nil {
		return
	}
	for _, p := range s.border.pieces {
		if p == nil {
			continue
		}
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
	s.border = nil
}

// errNoFrame ends a connection whose windows cannot be framed.
var errNoFrame = errors.New("frame: the compositor lacks wl_subcompositor or wl_shm; set frame = \"none\" to show windows without a frame")
