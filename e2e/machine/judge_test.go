package machine

import (
	"slices"
)

// What must hold of all that the compositor shows, at each moment.
const (
	sideWidth = 4  // of a window's frame
	topHeight = 20 // with a label
	thinWidth = 2  // of a popup's frame

	maxImage = 64 // of a pointer or a drag, in each direction
)

// A shown surface, in the coordinates of the root of its tree, as it is stacked:
// later ones are above.
type shown struct {
	s  *surface
	at rect
}

// tree returns what is shown of a tree, the lowest first.
func tree(s *surface, x, y int) (all []shown) {
	w, h := s.size()
	if w <= 0 || h <= 0 {
		return nil
	}
	for _, c := range s.cur.stack {
		switch {
		case c.s == nil:
			all = append(all, shown{s, rect{x, y, w, h}})
		case c.s.sub != nil && c.s.sub.parent == s && c.s.sub.placed:
			all = append(all, tree(c.s, x+c.x+c.s.sub.movX, y+c.y+c.s.sub.movY)...)
		}
	}
	return all
}

func (s *surface) guest() bool { return s.cur.buf != nil && s.cur.buf.key != 0 }

// mapped tells whether a root is on the screen.
func (s *surface) mapped() bool {
	switch s.role {
	case "toplevel", "popup":
		return s.xdg != nil && s.xdg.role != nil && s.shows
	case "cursor", "icon":
		return s.used && s.cur.buf != nil
	}
	return false
}

// A grid is the plane cut at every edge of some rectangles, and one pixel beside it.
type grid struct {
	xs, ys []int
	cells  []uint8
}

const (
	nothing = iota
	guests
	frames
	inside // of a window's frame, where nothing is shown
)

func newGrid(all []shown, more ...rect) *grid {
	g := &grid{}
	add := func(r rect) {
		g.xs = append(g.xs, r.x-1, r.x, r.x+1, r.x+r.w-1, r.x+r.w, r.x+r.w+1)
		g.ys = append(g.ys, r.y-1, r.y, r.y+1, r.y+r.h-1, r.y+r.h, r.y+r.h+1)
	}
	for _, s := range all {
		add(s.at)
	}
	for _, r := range more {
		add(r)
	}
	slices.Sort(g.xs)
	slices.Sort(g.ys)
	g.xs, g.ys = slices.Compact(g.xs), slices.Compact(g.ys)
	g.cells = make([]uint8, len(g.xs)*len(g.ys))
	for _, s := range all {
		v := uint8(frames)
		if s.s.guest() {
			v = guests
		}
		g.paint(s.at, v)
	}
	return g
}

func (g *grid) paint(r rect, v uint8) { g.each(r, func(k int, _ rect) { g.cells[k] = v }) }

// each calls f with each cell of r.
func (g *grid) each(r rect, f func(k int, at rect)) {
	x0, _ := slices.BinarySearch(g.xs, r.x)
	y0, _ := slices.BinarySearch(g.ys, r.y)
	for y := y0; y+1 < len(g.ys) && g.ys[y] < r.y+r.h; y++ {
		for x := x0; x+1 < len(g.xs) && g.xs[x] < r.x+r.w; x++ {
			f(y*len(g.xs)+x, rect{g.xs[x], g.ys[y], g.xs[x+1] - g.xs[x], g.ys[y+1] - g.ys[y]})
		}
	}
}

// open returns a cell of the guest's that has neither more of the guest's nor a frame
// beside it, and the bounds of all that is the guest's.
func (g *grid) open() (leak rect, open bool, bounds rect) {
	n := len(g.xs)
	for y := 0; y+1 < len(g.ys); y++ {
		for x := 0; x+1 < n; x++ {
			if g.cells[y*n+x] != guests {
				continue
			}
			at := rect{g.xs[x], g.ys[y], g.xs[x+1] - g.xs[x], g.ys[y+1] - g.ys[y]}
			bounds = union(bounds, at)
			for _, d := range [8][2]int{{-1, 0}, {1, 0}, {0, -1}, {0, 1}, {-1, -1}, {1, -1}, {-1, 1}, {1, 1}} {
				nx, ny := x+d[0], y+d[1]
				if nx < 0 || ny < 0 || nx >= n || ny >= len(g.ys) || g.cells[ny*n+nx] == nothing {
					leak, open = union(leak, at), true
				}
			}
		}
	}
	return leak, open, bounds
}

func union(a, b rect) rect {
	if a.empty() {
		return b
	}
	x0, y0 := min(a.x, b.x), min(a.y, b.y)
	return rect{x0, y0, max(a.x+a.w, b.x+b.w) - x0, max(a.y+a.h, b.y+b.h) - y0}
}

// judge looks at a tree after something in it has changed.
func (k *conn) judge(r *surface) {
	if !r.mapped() {
		return
	}
	all := tree(r, 0, 0)
	if !slices.ContainsFunc(all, func(s shown) bool { return s.s.guest() }) {
		return
	}
	switch r.role {
	case "toplevel", "popup":
		k.judgeWindow(r, all)
	default:
		k.judgeImage(r, all)
	}
}

func (k *conn) judgeWindow(r *surface, all []shown) {
	geometry := r.cur.geometry
	if geometry.empty() {
		for _, s := range all {
			geometry = union(geometry, s.at)
		}
	}
	g := newGrid(all, geometry, geometry.less(thinWidth, thinWidth), geometry.less(sideWidth, topHeight), geometry.less(sideWidth, sideWidth))
	what := r.role
	top, side := thinWidth, thinWidth
	if r.role == "toplevel" {
		top, side = sideWidth, sideWidth
		if k.comp.full {
			top = topHeight
		}
	}
	g.each(geometry.less(side, top), func(c int, _ rect) {
		if g.cells[c] == nothing {
			g.cells[c] = inside
		}
	})
	if leak, open, _ := g.open(); open {
		k.comp.find("unframed in a "+what, "%v of the guest's has no frame beside it; geometry %v%s", leak, geometry, list(all))
	}
	for _, ring := range []rect{
		{geometry.x, geometry.y, geometry.w, top}, {geometry.x, geometry.y + geometry.h - side, geometry.w, side},
		{geometry.x, geometry.y, side, geometry.h}, {geometry.x + geometry.w - side, geometry.y, side, geometry.h},
	} {
		g.each(ring, func(c int, at rect) {
			switch g.cells[c] {
			case guests:
				k.comp.find("frame covered in a "+what, "%v is the guest's; geometry %v%s", at, geometry, list(all))
			case nothing:
				k.comp.find("frame incomplete of a "+what, "%v; geometry %v%s", at, geometry, list(all))
			}
		})
	}
	c := r.cur.acked
	if c.fixed && (c.w > 0 && geometry.w > c.w || c.h > 0 && geometry.h > c.h) {
		k.comp.find(what+" larger than configured", "geometry %v, configured %dx%d", geometry, c.w, c.h)
	}
	if r.role != "popup" {
		return
	}
	if r.offX != 0 || r.offY != 0 {
		k.comp.find("popup moved", "by %d,%d", r.offX, r.offY)
	}
	for _, s := range all {
		if s.s.guest() && !s.at.within(geometry) && g.visible(s, geometry) {
			k.comp.find("outside of a popup", "%v; geometry %v%s", s.at, geometry, list(all))
		}
	}
}

// visible tells whether something of the guest's is seen outside of r, where s is.
func (g *grid) visible(s shown, r rect) (seen bool) {
	g.each(s.at, func(c int, at rect) { seen = seen || g.cells[c] == guests && !at.within(r) })
	return seen
}

func (r rect) less(side, top int) rect {
	return rect{r.x + side, r.y + top, max(r.w-2*side, 1), max(r.h-top-side, 1)}
}

// judgeImage looks at what follows the pointer: a pointer's image or a drag's icon.
func (k *conn) judgeImage(r *surface, all []shown) {
	var b rect
	for _, s := range all {
		b = union(b, s.at)
	}
	hx, hy := r.hotX, r.hotY
	if r.role == "icon" {
		hx, hy = -r.offX, -r.offY
	}
	if b.w > maxImage || b.h > maxImage {
		k.comp.find(r.role+" too large", "%v%s", b, list(all))
	}
	if hx < b.x || hy < b.y || hx >= b.x+b.w || hy >= b.y+b.h {
		k.comp.find(r.role+" far from the pointer", "%v, the pointer at %d,%d", b, hx, hy)
	}
}

func list(all []shown) string {
	s := "; from below:"
	for _, k := range all {
		if k.s.guest() {
			s += " guest "
		} else {
			s += " frame "
		}
		s += k.at.String()
	}
	return s
}

// settled looks at what only holds when nothing is on its way: sizes beyond the
// outputs, and how much of an output a VM hides beside its own windows.
func (c *compositor) settled() {
	bw, bh := c.largest()
	var boxes []shown
	var outside []bool
	for _, k := range c.conns {
		for _, r := range k.world.roots {
			if !r.mapped() || r.role != "toplevel" && r.role != "popup" {
				continue
			}
			ge := r.cur.geometry
			if r.role == "toplevel" && (ge.w > bw || ge.h > bh) {
				c.find("window larger than all outputs", "%v", ge)
			}
			x, y := c.at(r)
			for _, s := range tree(r, x-ge.x, y-ge.y) {
				boxes = append(boxes, s)
				outside = append(outside, r.role == "popup" || !s.at.within(rect{x, y, ge.w, ge.h}))
			}
		}
	}
	if !slices.Contains(outside, true) {
		return
	}
	for _, o := range c.outputs {
		at := rect{o.x, o.y, o.w, o.h}
		g := newGrid(boxes, at)
		clear(g.cells)
		for k, s := range boxes {
			if outside[k] {
				g.paint(s.at, guests)
			}
		}
		for k, s := range boxes {
			if !outside[k] {
				g.paint(s.at, nothing)
			}
		}
		hidden := 0
		g.each(at, func(k int, r rect) {
			if g.cells[k] == guests {
				hidden += r.w * r.h
			}
		})
		if hidden*10 > o.w*o.h*6 {
			c.find("output hidden", "%d %% of %dx%d, beside the VM's own windows", hidden*100/(o.w*o.h), o.w, o.h)
		}
	}
}
