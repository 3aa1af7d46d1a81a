package guestproxy

import (
	"math"
	"runtime/debug"
)

// A rect is a half-open rectangle of pixels, x0 ≤ x < x1, y0 ≤ y < y1.
type rect struct{ x0, y0, x1, y1 int32 }

func (r rect) empty() bool { return r.x0 >= r.x1 || r.y0 >= r.y1 }

// clip returns the part of r inside w×h pixels.
func (r rect) clip(w, h int32) rect {
	return rect{max(r.x0, 0), max(r.y0, 0), min(r.x1, w), min(r.y1, h)}
}

func (r rect) union(s rect) rect {
	return rect{min(r.x0, s.x0), min(r.y0, s.y0), max(r.x1, s.x1), max(r.y1, s.y1)}
}

func (r rect) contains(s rect) bool {
	return r.x0 <= s.x0 && r.y0 <= s.y0 && r.x1 >= s.x1 && r.y1 >= s.y1
}

// makesOneWith tells whether r and s together are a rectangle.
func (r rect) makesOneWith(s rect) bool {
	switch {
	case r.x0 == s.x0 && r.x1 == s.x1:
		return r.y0 <= s.y1 && s.y0 <= r.y1
	case r.y0 == s.y0 && r.y1 == s.y1:
		return r.x0 <= s.x1 && s.x0 <= r.x1
	}
	return r.contains(s) || s.contains(r)
}

// rectOf makes a rect of a request's x, y, width and height, which may be any
// numbers: the sum saturates.
func rectOf(x, y, w, h int32) rect {
	return rect{x, y, satAdd(x, w), satAdd(y, h)}
}

func satAdd(a, b int32) int32 {
	return int32(min(max(int64(a)+int64(b), math.MinInt32), math.MaxInt32))
}

// A view is how a surface shows its buffer: the buffer is turned, then scaled
// down, then cut out and stretched by the viewport. Sources: wl_surface's
// set_buffer_transform and set_buffer_scale, wp_viewport.
type view struct {
	transform int32    // wl_output.transform: what the client did to the content
	scale     int32    // ≥ 1
	src       [4]int32 // x, y, width, height in 24.8 fixed point, all 0 or -256 without
	dst       [2]int32 // width, height, 0 or -1 without
}

// toBuffer maps damage in surface coordinates to pixels of a buffer of w×h,
// rounded outwards.
func (v *view) toBuffer(r rect, w, h int32) rect {
	// The turned buffer, in surface units before the viewport.
	tw, th := float64(w)/float64(v.scale), float64(h)/float64(v.scale)
	if v.transform&1 != 0 {
		tw, th = th, tw
	}
	x0, y0, x1, y1 := float64(r.x0), float64(r.y0), float64(r.x1), float64(r.y1)
	sx, sy, sw, sh := 0.0, 0.0, tw, th
	if v.src[2] > 0 && v.src[3] > 0 {
		sx, sy, sw, sh = float64(v.src[0])/256, float64(v.src[1])/256, float64(v.src[2])/256, float64(v.src[3])/256
	}
	dw, dh := sw, sh
	if v.dst[0] > 0 && v.dst[1] > 0 {
		dw, dh = float64(v.dst[0]), float64(v.dst[1])
	}
	x0, x1 = sx+x0*sw/dw, sx+x1*sw/dw
	y0, y1 = sy+y0*sh/dh, sy+y1*sh/dh
	x0, y0, x1, y1 = v.turn(x0, y0, x1, y1, tw, th)
	f := float64(v.scale)
	out := rect{floor(x0 * f), floor(y0 * f), ceil(x1 * f), ceil(y1 * f)}
	if sw != dw || sh != dh || v.src != [4]int32{} {
		// A stretched picture is sampled from a pixel's neighbours too.
		out = rect{out.x0 - 1, out.y0 - 1, out.x1 + 1, out.y1 + 1}
	}
	return out.clip(w, h)
}

// turn maps a rectangle of the w×h surface to the buffer, which holds the
// surface's content flipped about the vertical axis (4) and then rotated
// counter-clockwise (1: 90°, 2: 180°, 3: 270°).
func (v *view) turn(x0, y0, x1, y1, w, h float64) (_, _, _, _ float64) {
	if v.transform&4 != 0 {
		x0, x1 = w-x1, w-x0
	}
	switch v.transform & 3 {
	case 1:
		return y0, w - x1, y1, w - x0
	case 2:
		return w - x1, h - y1, w - x0, h - y0
	case 3:
		return h - y1, x0, h - y0, x1
	}
	return x0, y0, x1, y1
}

// floor and ceil stay where a pixel more or less does not overflow; no buffer is
// that large.
func floor(v float64) int32 { return int32(min(max(math.Floor(v), -1<<30), 1<<30)) }
func ceil(v float64) int32  { return -floor(-v) }

// maxRects bounds a region: beyond it the last rectangle grows.
const maxRects = 16

// A region is rectangles that may overlap.
type region struct {
	n int
	r [maxRects]rect
}

// add covers r too. Rectangles that make one together become one, so that buffers
// which take turns, damaged at the same place, are not copied twice.
func (g *region) add(r rect) {
	if r.empty() {
		return
	}
	for k := 0; k < g.n; k++ {
		if q := g.r[k]; r.makesOneWith(q) {
			if q.contains(r) {
				return
			}
			r = r.union(q)
			g.n--
			g.r[k] = g.r[g.n]
			k = -1 // the larger rectangle may absorb others
		}
	}
	switch {
	case g.n < maxRects:
		g.r[g.n] = r
		g.n++
	default:
		g.r[maxRects-1] = g.r[maxRects-1].union(r)
	}
}

func (g *region) rects() []rect { return g.r[:g.n] }

// historyLen is how many commits of a surface are remembered. A client with
// four buffers comes back to the first after four.
const historyLen = 8

// A frame is the damage of one commit, in pixels of its buffer.
type frame struct {
	region
	full bool
	w, h int32
}

// A history is the damage of a surface's last commits. A buffer that comes back
// is stale by the union of everything since it was last committed.
type history struct {
	seq    uint64 // the number of commits with content so far
	frames [historyLen]frame
}

func (h *history) next() *frame {
	h.seq++
	f := &h.frames[h.seq%historyLen]
	*f = frame{}
	return f
}

// since collects the damage after commit seq of buffers of w×h pixels into g.
// It returns false when that is not known, and everything must be copied.
func (h *history) since(seq uint64, w, ht int32, g *region) bool {
	if h.seq-seq > historyLen {
		return false
	}
	for k := seq + 1; k <= h.seq; k++ {
		f := &h.frames[k%historyLen]
		if f.full || f.w != w || f.h != ht {
			return false
		}
		for _, r := range f.rects() {
			g.add(r)
		}
	}
	return true
}

// copyRegion copies the rectangles of an image of the given stride and pixel
// size, in bytes, from src to dst. With an unknown pixel size (0) it copies
// whole rows. It returns the bytes copied, and false when src is no longer
// there: a client may have shrunk its file.
func copyRegion(dst, src []byte, stride, pixel int, rs []rect) (n int, ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	for _, r := range rs {
		x0, x1 := int(r.x0)*pixel, int(r.x1)*pixel
		if pixel == 0 || x1-x0 >= stride*3/4 {
			// Nearly whole rows: one run costs less than many short ones.
			x0, x1 = 0, stride
		}
		y0, y1 := int(r.y0)*stride, int(r.y1)*stride
		if x1-x0 == stride {
			n += copy(dst[y0:y1], src[y0:y1])
			continue
		}
		for y := y0; y < y1; y += stride {
			n += copy(dst[y+x0:y+x1], src[y+x0:y+x1])
		}
	}
	return n, true
}
