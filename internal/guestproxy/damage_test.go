package guestproxy

import (
	"testing"

	"pgregory.net/rapid"
)

// flip and ccw are what a client does to its picture before it sets a
// transform, pixel by pixel; p holds row after row.
func flip(p []int, w int) []int {
	q := make([]int, len(p))
	for i := range p {
		q[i/w*w+w-1-i%w] = p[i]
	}
	return q
}

func ccw(p []int, w int) (_ []int, width int) {
	h := len(p) / w
	q := make([]int, len(p))
	for i, v := range p {
		x, y := i%w, i/w
		q[(w-1-x)*h+y] = v // the right column becomes the top row
	}
	return q, h
}

// TestToBuffer compares the mapping of damage with pictures that are really
// turned and scaled: every buffer pixel that shows a damaged surface pixel must be
// covered, and without a viewport no other.
func TestToBuffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w, h := rapid.IntRange(1, 12).Draw(t, "w"), rapid.IntRange(1, 12).Draw(t, "h")
		scale := rapid.IntRange(1, 3).Draw(t, "scale")
		turn := rapid.IntRange(0, 7).Draw(t, "transform")
		x, y := rapid.IntRange(-3, 12).Draw(t, "x"), rapid.IntRange(-3, 12).Draw(t, "y")
		r := rectOf(int32(x), int32(y), int32(rapid.IntRange(0, 14).Draw(t, "dw")), int32(rapid.IntRange(0, 14).Draw(t, "dh")))
		// The surface, with each unit as scale×scale pixels; 1 is damaged.
		pw := w * scale
		p := make([]int, pw*h*scale)
		for i := range p {
			ux, uy := int32(i%pw/scale), int32(i/pw/scale)
			if ux >= r.x0 && ux < r.x1 && uy >= r.y0 && uy < r.y1 {
				p[i] = 1
			}
		}
		if turn&4 != 0 {
			p = flip(p, pw)
		}
		for range turn & 3 {
			p, pw = ccw(p, pw)
		}
		v := view{transform: int32(turn), scale: int32(scale)}
		got := v.toBuffer(r, int32(pw), int32(len(p)/pw))
		for i, damaged := range p {
			bx, by := int32(i%pw), int32(i/pw)
			in := bx >= got.x0 && bx < got.x1 && by >= got.y0 && by < got.y1
			if in != (damaged == 1) {
				t.Fatalf("pixel %d,%d: damaged %d, in %+v %v", bx, by, damaged, got, in)
			}
		}
	})
}

// TestRegion compares a region with the pixels that were added to it: all are
// covered, no others unless there were more rectangles than it holds, and what is
// added again costs nothing.
func TestRegion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const side = 12
		var want, got [side][side]int
		var g region
		n := rapid.IntRange(0, maxRects+8).Draw(t, "n")
		paint := func(p *[side][side]int, r rect) {
			for y := r.y0; y < r.y1; y++ {
				for x := r.x0; x < r.x1; x++ {
					p[y][x]++
				}
			}
		}
		for range n {
			at := func(name string) int32 { return int32(rapid.IntRange(0, side).Draw(t, name)) }
			r := rect{at("x0"), at("y0"), at("x1"), at("y1")}
			g.add(r)
			g.add(r)
			paint(&want, r)
		}
		for _, r := range g.rects() {
			paint(&got, r)
		}
		for y := range side {
			for x := range side {
				if want[y][x] > 0 && got[y][x] == 0 || n <= maxRects && (got[y][x] > want[y][x]) {
					t.Fatalf("pixel %d,%d: in %d rectangles, %d of the region %v", x, y, want[y][x], got[y][x], g.rects())
				}
			}
		}
	})
}

// TestViewport holds single cases worked out by hand from wp_viewport's text.
func TestViewport(t *testing.T) {
	for name, c := range map[string]struct {
		v    view
		r    rect
		want rect
	}{
		"stretched to half": {view{scale: 1, dst: [2]int32{50, 50}}, rect{10, 10, 20, 20}, rect{19, 19, 41, 41}},
		"cut out":           {view{scale: 1, src: [4]int32{20 << 8, 30 << 8, 40 << 8, 40 << 8}}, rect{0, 0, 10, 10}, rect{19, 29, 31, 41}},
		"cut and stretched": {view{scale: 2, src: [4]int32{10 << 8, 0, 20 << 8, 20 << 8}, dst: [2]int32{40, 40}}, rect{0, 0, 40, 40}, rect{19, 0, 61, 41}},
		"everything":        {view{scale: 1, dst: [2]int32{7, 7}}, rect{-1 << 31, -1 << 31, 1<<31 - 1, 1<<31 - 1}, rect{0, 0, 100, 100}},
		"unset":             {view{scale: 1, src: [4]int32{-256, -256, -256, -256}, dst: [2]int32{-1, -1}}, rect{1, 2, 3, 4}, rect{0, 1, 4, 5}},
	} {
		if got := c.v.toBuffer(c.r, 100, 100); got != c.want {
			t.Errorf("%s: %+v, not %+v", name, got, c.want)
		}
	}
}
