// Package surface is a model of one client's surfaces, as wl_surface, wl_subsurface
// and wp_viewport define them: what the client has asked for, what waits for a
// parent, and what takes effect.
//
//	attach, offset, scale, ...      commit                    commit of the parent
//	──────────► pending ──────────────┬── synchronised ──► cached ──┐
//	                                  └── else ──────────────────────┴──► Current
//
// The filter answers from this model and writes to the compositor from it: nothing
// that a request says reaches the compositor before it takes effect here. So it does
// not matter how a compositor caches, or in which order it looks at things.
//
// The package checks what the protocols forbid (Error) and bounds what a client can
// build. It knows no connection and no policy; layers above keep what is theirs in
// Surface.Data and Buffer.Data.
package surface

import (
	"fmt"
	"math"
)

// Limits of one tree of sub-surfaces.
const (
	// MaxDepth bounds sub-surfaces of sub-surfaces: compositors walk them by
	// recursion.
	MaxDepth = 16
	// MaxTree bounds the surfaces of one window: a change of the window's size
	// visits all of them. Browsers and toolkits have up to some twenty.
	MaxTree = 128
	// MaxSide bounds a buffer's and a destination's sides, in pixels: coordinates in
	// 24.8 fixed point stay far from overflow, and no compositor shows more.
	MaxSide = 1 << 15
	// MaxPlace bounds positions; sums of MaxDepth of them do not overflow.
	MaxPlace = 1 << 24
	// MaxDamage bounds the rectangles of one frame; more become the whole surface.
	MaxDamage = 256
)

// A Role is the purpose of a surface. It never changes.
type Role uint8

// The roles.
const (
	None Role = iota
	Toplevel
	Popup
	Child  // a wl_subsurface
	Cursor // the image of a pointer or a tool
	Icon   // the icon of a drag
)

// String names the role for messages.
func (r Role) String() string {
	return [...]string{"nothing", "a window", "a popup", "a sub-surface", "a pointer's image", "a drag's icon"}[r]
}

// An Error is a client's mistake: an error code of the protocol, and a text.
type Error struct {
	Code uint32
	Text string
}

func (e *Error) Error() string { return e.Text }

func fail(code uint32, format string, a ...any) *Error {
	return &Error{code, fmt.Sprintf(format, a...)}
}

// Codes of wl_surface.error, wl_subcompositor.error, wl_subsurface.error
// (wayland.xml) and wp_viewport.error (viewporter.xml).
const (
	ErrInvalidScale     = 0
	ErrInvalidTransform = 1
	ErrInvalidOffset    = 3

	ErrBadSurface = 0
	ErrBadParent  = 1

	ErrBadValue    = 0
	ErrBadSize     = 1
	ErrOutOfBuffer = 2
)

// A Point is a place in logical pixels.
type Point struct{ X, Y int32 }

// A Box is a rectangle, in logical pixels but for damage of buffers.
type Box struct{ X, Y, W, H int32 }

// Empty tells whether b has no pixels.
func (b Box) Empty() bool { return b.W <= 0 || b.H <= 0 }

// Moved returns b moved by x and y. Places saturate.
func (b Box) Moved(x, y int32) Box { return Box{Sum(b.X, x), Sum(b.Y, y), b.W, b.H} }

// Intersect returns the common part, or the zero Box.
func (b Box) Intersect(o Box) Box {
	x0, y0 := max(b.X, o.X), max(b.Y, o.Y)
	x1, y1 := min(Sum(b.X, b.W), Sum(o.X, o.W)), min(Sum(b.Y, b.H), Sum(o.Y, o.H))
	if x1 <= x0 || y1 <= y0 {
		return Box{}
	}
	return Box{x0, y0, x1 - x0, y1 - y0}
}

// Holds tells whether o is within b.
func (b Box) Holds(o Box) bool {
	return o.X >= b.X && o.Y >= b.Y && Sum(o.X, o.W) <= Sum(b.X, b.W) && Sum(o.Y, o.H) <= Sum(b.Y, b.H)
}

// Sum returns a + b, saturated.
func Sum(a, b int32) int32 {
	return int32(min(max(int64(a)+int64(b), math.MinInt32), math.MaxInt32))
}

// A Buffer is the content of a surface. Both sides are above 0 and at most MaxSide.
type Buffer struct {
	W, H  int32 // pixels
	Data  any
	holds int
}

// Held tells whether the model still needs the buffer: a state that was not shown yet
// has it.
func (b *Buffer) Held() bool { return b.holds > 0 }

// Damage is the part that changed since the last frame.
type Damage struct {
	Surface, Buffer []Box // in surface coordinates, in buffer coordinates
	All             bool  // of the surface
}

func (d *Damage) add(list *[]Box, b Box) {
	if len(d.Surface)+len(d.Buffer) >= MaxDamage {
		d.All = true
		return
	}
	*list = append(*list, b)
}

// Reset empties d, and keeps its memory.
func (d *Damage) Reset() { d.Surface, d.Buffer, d.All = d.Surface[:0], d.Buffer[:0], false }

// move adds o to d, and empties o.
func (d *Damage) move(o *Damage) {
	if len(d.Surface) == 0 && len(d.Buffer) == 0 && !d.All {
		*d, *o = *o, *d
		return
	}
	d.All = d.All || o.All
	for _, b := range o.Surface {
		d.add(&d.Surface, b)
	}
	for _, b := range o.Buffer {
		d.add(&d.Buffer, b)
	}
	o.Reset()
}

// fields is the set of a State's parts that a request has set.
type fields uint8

const (
	setBuffer fields = 1 << iota
	setScale
	setTransform
	setSource
	setDestination
	setGeometry
	setAck
)

// A State is the state of a surface that commit makes take effect.
type State struct {
	set    fields
	Buffer *Buffer // nil for no content
	// Moved is the sum of the content's moves with this state.
	Moved     Point
	Scale     int32 // wl_surface.set_buffer_scale; 0 and 1 alike
	Transform int32 // wl_surface.set_buffer_transform: 0 to 7
	// Source is wp_viewport's, in 24.8 fixed point; Destination is in logical pixels.
	// W is 0 for none.
	Source, Destination Box
	Geometry            Box    // xdg_surface.set_window_geometry, W 0 without
	Ack                 uint32 // xdg_surface.ack_configure
	Acked               bool   // with this state
	Damage              Damage
}

// turnedSize returns the buffer's size after scale and transform, in 24.8 fixed point.
func (s *State) turnedSize() (w, h int64) {
	k := int64(max(s.Scale, 1))
	w, h = int64(s.Buffer.W)<<8/k, int64(s.Buffer.H)<<8/k
	if s.Transform&1 != 0 {
		w, h = h, w
	}
	return w, h
}

// Size returns the surface's size in logical pixels, 0 without content, or with less
// than a pixel of it.
func (s *State) Size() (w, h int32) {
	switch {
	case s.Buffer == nil:
		return 0, 0
	case s.Destination.W > 0:
		return s.Destination.W, s.Destination.H
	case s.Source.W > 0:
		return s.Source.W >> 8, s.Source.H >> 8 // whole ones: see check
	}
	tw, th := s.turnedSize()
	if tw < 1<<8 || th < 1<<8 {
		return 0, 0
	}
	return int32(tw >> 8), int32(th >> 8)
}

// Part returns which part of the buffer the state shows, in pixels of the buffer
// after its transform and 24.8 fixed point.
func (s *State) Part() Box {
	if s.Buffer == nil {
		return Box{}
	}
	k := max(s.Scale, 1)
	if s.Source.W > 0 {
		return Box{s.Source.X * k, s.Source.Y * k, s.Source.W * k, s.Source.H * k}
	}
	w, h := s.Buffer.W, s.Buffer.H
	if s.Transform&1 != 0 {
		w, h = h, w
	}
	return Box{0, 0, w << 8, h << 8}
}

// Pixels returns how many pixels of the buffer, after its transform, a logical pixel
// of the surface shows in each direction. There is content.
func (s *State) Pixels() (x, y float64) {
	p := s.Part()
	w, h := s.Size()
	return float64(p.W) / 256 / float64(w), float64(p.H) / 256 / float64(h)
}

// check checks the viewport against the buffer.
func (s *State) check() error {
	if s.Buffer == nil || s.Source.W == 0 {
		return nil
	}
	if s.Destination.W == 0 && (s.Source.W|s.Source.H)&0xff != 0 {
		return fail(ErrBadSize, "a source of a fractional size without a destination")
	}
	w, h := s.turnedSize()
	if int64(s.Source.X)+int64(s.Source.W) > w || int64(s.Source.Y)+int64(s.Source.H) > h {
		return fail(ErrOutOfBuffer, "the source is not within the buffer")
	}
	return nil
}
