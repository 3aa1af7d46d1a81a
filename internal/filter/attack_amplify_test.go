package filter

import (
	"strings"
	"testing"
	"time"

	"vix/internal/display"
	"vix/internal/surface"
	"vix/internal/wayland"
)

// crowded gives the attacker's window as many sub-surfaces as it may have, each larger
// than the window, and says how many there are.
func (a *attacker) crowded(desync bool) (children []uint32) {
	a.t.Helper()
	big := a.buffer(390, 270)
	for range surface.MaxTree - 1 {
		s := a.made()
		sub := a.sub(s, a.win.surface, 0, 0)
		if desync {
			a.req(sub, wayland.WlSubsurfaceReqSetDesync)
		}
		a.req(s, wayland.WlSurfaceReqAttach, big, 0, 0)
		a.req(s, wayland.WlSurfaceReqCommit)
		a.heard() // so that neither side's pipe is full
		children = append(children, s)
	}
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	return children
}

// TestAmplification holds that the most that a few requests make the filter say is
// bounded, and that all of it is charged: what counts is what the compositor hears. Seen
// to fail with a filter that charges what the guest commits.
func TestAmplification(t *testing.T) {
	for name, c := range map[string]struct {
		requests int
		do       func(a *attacker, children []uint32, sizes [2]uint32)
	}{
		"the window is resized": {2, func(a *attacker, _ []uint32, sizes [2]uint32) {
			a.req(a.win.surface, wayland.WlSurfaceReqAttach, sizes[0], 0, 0)
			a.req(a.win.surface, wayland.WlSurfaceReqCommit)
		}},
		"the window's geometry moves": {2, func(a *attacker, _ []uint32, _ [2]uint32) {
			a.req(a.win.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 10, 10, 50, 40)
			a.req(a.win.surface, wayland.WlSurfaceReqCommit)
		}},
		"the window goes": {2, func(a *attacker, _ []uint32, _ [2]uint32) {
			a.req(a.win.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
			a.req(a.win.surface, wayland.WlSurfaceReqCommit)
		}},
		"one child commits": {2, func(a *attacker, children []uint32, sizes [2]uint32) {
			a.req(children[0], wayland.WlSurfaceReqAttach, sizes[1], 0, 0)
			a.req(children[0], wayland.WlSurfaceReqCommit)
		}},
		"the window's objects are destroyed": {1, func(a *attacker, _ []uint32, _ [2]uint32) {
			a.req(a.win.surface, wayland.WlSurfaceReqDestroy)
		}},
		"the window's scale changes": {2, func(a *attacker, _ []uint32, _ [2]uint32) {
			a.req(a.win.surface, wayland.WlSurfaceReqSetBufferScale, 2)
			a.req(a.win.surface, wayland.WlSurfaceReqCommit)
		}},
	} {
		for _, desync := range []bool{false, true} {
			t.Run(name+map[bool]string{false: ", synchronised", true: ", desynchronised"}[desync], func(t *testing.T) {
				a := newAttacker(t)
				a.outputs([2]uint32{400, 300})
				children := a.crowded(desync)
				sizes := [2]uint32{a.buffer(101, 81), a.buffer(380, 260)}
				a.heard()
				before := a.charged()
				c.do(a, children, sizes)
				all := a.heard()
				commits := 0
				for _, m := range all {
					if m.name == "wl_surface.commit" {
						commits++
					}
				}
				// Eight pieces, a label and the window itself, beside the children.
				if most := surface.MaxTree + 10; commits > most {
					t.Errorf("%d requests become %d commits, more than %d", c.requests, commits, most)
				}
				if most := 8*(surface.MaxTree+10) + 20; len(all) > most {
					t.Errorf("%d requests become %d requests, more than %d", c.requests, len(all), most)
				}
				if n := a.charged() - before; n < commits-commitStep {
					t.Errorf("%d commits were sent, and %d charged", commits, n)
				}
				t.Logf("%d requests become %d, %d commits among them", c.requests, len(all), commits)
			})
		}
	}
}

// charged is how many commits the VM has been charged for in this second.
func (a *attacker) charged() int {
	b := &a.filter.rates[display.Commits]
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.free.IsZero() {
		return 0
	}
	return int(b.free.Sub(epoch) * time.Duration(new(display.Limits).Of(display.Commits)) / time.Second)
}

// epoch is near: a Duration times the limit does not overflow.
var epoch = time.Now()

// TestChildrenAreBounded holds that a window has at most MaxTree surfaces, in whatever
// order they are put together, and MaxDepth levels.
func TestChildrenAreBounded(t *testing.T) {
	t.Run("one more", func(t *testing.T) {
		a := newAttacker(t)
		a.crowded(false)
		a.sub(a.made(), a.win.surface, 0, 0)
		a.heard()
		if !a.gone || !strings.Contains(a.why, "surfaces in one window") {
			t.Errorf("gone %v: %s", a.gone, a.why)
		}
	})
	t.Run("two trees become one", func(t *testing.T) {
		a := newAttacker(t)
		top := a.made()
		for range surface.MaxTree - 1 {
			a.sub(a.made(), top, 0, 0)
			a.heard()
		}
		a.sub(top, a.win.surface, 0, 0)
		a.heard()
		if !a.gone || !strings.Contains(a.why, "surfaces in one window") {
			t.Errorf("gone %v: %s", a.gone, a.why)
		}
	})
	t.Run("too deep", func(t *testing.T) {
		a := newAttacker(t)
		parent := a.win.surface
		for range surface.MaxDepth {
			s := a.made()
			a.sub(s, parent, 0, 0)
			parent = s
		}
		a.heard()
		if !a.gone || !strings.Contains(a.why, "sub-surfaces of sub-surfaces") {
			t.Errorf("gone %v: %s", a.gone, a.why)
		}
	})
}

// TestDamageIsBounded holds that damage that waits becomes all of the surface, instead of
// a rectangle for each request.
func TestDamageIsBounded(t *testing.T) {
	a := newAttacker(t)
	for k := range uint32(20 * surface.MaxDamage) {
		a.req(a.win.surface, wayland.WlSurfaceReqDamage, k%100, k%80, 1, 1)
	}
	a.req(a.win.surface, wayland.WlSurfaceReqAttach, a.buffer(100, 80), 0, 0)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	if n := len(named(a.heard(), "wl_surface.damage")); n > surface.MaxDamage {
		t.Errorf("%d rectangles", n)
	}
}
