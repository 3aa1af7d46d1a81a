package surface

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestMain lets rapid do more than by default: a sequence takes microseconds.
func TestMain(m *testing.M) {
	flag.Parse()
	for name, value := range map[string]string{"rapid.checks": "3000", "rapid.steps": "80"} {
		if f := flag.Lookup(name); f.Value.String() == f.DefValue {
			_ = f.Value.Set(value) // it is a number
		}
	}
	os.Exit(m.Run())
}

// A naive is the protocol's text once more, without care for cost: every surface keeps
// all states that it was ever given, and what is current is found by replaying them.
//
// A commit of a synchronised surface stays in its queue, with the places that its
// children had then; a state that is applied takes the children's queues with it.
type naive struct {
	pending state
	queue   []state // commits that wait, oldest first
	current state
	parent  *naive
	at      Point
	settled bool
	desync  bool
	wish    Point
	wished  bool
	kids    []*naive
	role    Role
	gone    bool
}

// state is what one commit says.
type state struct {
	attached         bool
	buffer           *Buffer
	scale, transform int32 // 0: not said; transform is one more than it is
	destination      *Box
	moved            Point
	places           map[*naive]Point
}

// over returns what holds after n was applied to s.
func (s state) over(n state) state {
	if n.attached {
		s.buffer = n.buffer
	}
	if n.scale != 0 {
		s.scale = n.scale
	}
	if n.transform != 0 {
		s.transform = n.transform
	}
	if n.destination != nil {
		s.destination = n.destination
	}
	s.moved = Point{s.moved.X + n.moved.X, s.moved.Y + n.moved.Y}
	return s
}

func (v *naive) synchronized() bool {
	for ; v.parent != nil; v = v.parent {
		if !v.desync {
			return true
		}
	}
	return false
}

// commit is wl_surface.commit.
func (v *naive) commit() {
	v.pending.places = map[*naive]Point{}
	for _, k := range v.kids {
		at := k.at
		if last := v.lastPlace(k); last != nil {
			at = *last
		}
		if k.wished {
			at, k.wished = k.wish, false
		}
		v.pending.places[k] = at
	}
	v.queue = append(v.queue, v.pending)
	v.pending = state{}
	if !v.synchronized() {
		v.apply()
	}
}

// lastPlace returns where a waiting commit puts a child, nil without.
func (v *naive) lastPlace(k *naive) *Point {
	for _, s := range slices.Backward(v.queue) {
		if at, ok := s.places[k]; ok {
			return &at
		}
	}
	return nil
}

// apply makes the queue current, and what waits for it.
func (v *naive) apply() {
	for _, s := range v.queue {
		v.current = v.current.over(s)
		for k, at := range s.places {
			if k.parent == v {
				k.at, k.settled = at, true
			}
		}
	}
	v.queue = nil
	for _, k := range v.kids {
		if len(k.queue) > 0 {
			k.apply()
		}
	}
}

// flush applies what waits for nobody any more.
func (v *naive) flush() {
	if v.synchronized() {
		return
	}
	if len(v.queue) > 0 {
		v.apply()
	}
	for _, k := range v.kids {
		k.flush()
	}
}

// detach is wl_subsurface.destroy.
func (v *naive) detach() {
	if p := v.parent; p != nil {
		p.kids = slices.DeleteFunc(p.kids, func(k *naive) bool { return k == v })
		for i := range p.queue {
			delete(p.queue[i].places, v)
		}
	}
	v.parent, v.settled, v.at, v.wished, v.desync = nil, false, Point{}, false, false
	if len(v.queue) > 0 {
		v.apply()
	}
}

// destroy is wl_surface.destroy.
func (v *naive) destroy() {
	v.detach()
	for _, k := range v.kids {
		k.parent = nil
	}
	v.kids, v.gone = nil, true
}

// add is wl_subcompositor.get_subsurface; it tells whether it may be.
func (v *naive) add(parent *naive) bool {
	if v.role != None && v.role != Child || v.parent != nil {
		return false
	}
	depth := 1
	for p := parent; p != nil; p = p.parent {
		if p == v {
			return false
		}
		depth++
	}
	if depth+v.levels()-1 > MaxDepth {
		return false
	}
	v.role, v.parent, v.settled, v.desync, v.at, v.wished = Child, parent, false, false, Point{}, false
	parent.kids = append(parent.kids, v)
	return true
}

func (v *naive) levels() int {
	n := 0
	for _, k := range v.kids {
		n = max(n, k.levels())
	}
	return n + 1
}

// A pair is a surface and its naive twin.
type pair struct {
	s *Surface
	n *naive
}

// TestModel drives the model and the naive one with the same random requests, and holds
// that the same takes effect in both, and that no buffer is held in the end.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		freed := map[*Buffer]int{}
		free := func(b *Buffer) { freed[b]++ }
		var all []*Buffer
		var ps []*pair
		live := func() *pair {
			var l []*pair
			for _, p := range ps {
				if !p.n.gone {
					l = append(l, p)
				}
			}
			if len(l) == 0 {
				p := &pair{New(free), &naive{}}
				ps, l = append(ps, p), append(l, p)
			}
			return l[rapid.IntRange(0, len(l)-1).Draw(t, "surface")]
		}
		coord := rapid.Int32Range(-50, 50)
		actions := map[string]func(*rapid.T){
			"create": func(*rapid.T) {
				if len(ps) < 7 {
					ps = append(ps, &pair{New(free), &naive{}})
				}
			},
			"attach": func(t *rapid.T) {
				p := live()
				b := &Buffer{W: rapid.Int32Range(1, 40).Draw(t, "w"), H: rapid.Int32Range(1, 40).Draw(t, "h")}
				switch k := rapid.IntRange(0, 4).Draw(t, "which"); {
				case k == 0:
					b = nil
				case k == 1 && len(all) > 0:
					b = rapid.SampledFrom(all).Draw(t, "again")
				default:
					all = append(all, b)
				}
				p.s.Attach(b)
				p.n.pending.attached, p.n.pending.buffer = true, b
			},
			"scale": func(t *rapid.T) {
				p, v := live(), rapid.Int32Range(-1, 3).Draw(t, "scale")
				if p.s.SetScale(v) == nil {
					p.n.pending.scale = v
				} else if v >= 1 {
					t.Errorf("scale %d is refused", v)
				}
			},
			"transform": func(t *rapid.T) {
				p, v := live(), rapid.Int32Range(-1, 8).Draw(t, "transform")
				if p.s.SetTransform(v) == nil {
					p.n.pending.transform = v + 1
				} else if v >= 0 && v <= 7 {
					t.Errorf("transform %d is refused", v)
				}
			},
			"destination": func(t *rapid.T) {
				p, w := live(), rapid.Int32Range(1, 60).Draw(t, "w")
				if p.s.SetDestination(w, w+1) != nil {
					t.Errorf("a destination of %d is refused", w)
				}
				p.n.pending.destination = &Box{W: w, H: w + 1}
			},
			"no viewport": func(*rapid.T) {
				p := live()
				p.s.DropViewport()
				p.n.pending.destination = &Box{}
			},
			"damage": func(t *rapid.T) { live().s.Damage(Box{0, 0, coord.Draw(t, "w"), 5}) },
			"offset": func(t *rapid.T) {
				p := live()
				x, y := coord.Draw(t, "x"), coord.Draw(t, "y")
				p.s.Move(x, y)
				p.n.pending.moved = Point{x, y}
			},
			"commit": func(t *rapid.T) {
				p := live()
				effective, err := p.s.Commit()
				if err != nil {
					t.Errorf("commit: %v", err)
				}
				if effective == p.n.synchronized() {
					t.Errorf("effective %v, synchronised %v", effective, p.n.synchronized())
				}
				p.n.commit()
			},
			"child": func(t *rapid.T) {
				p, parent := live(), live()
				if ok := p.n.add(parent.n); ok != (p.s.AddTo(parent.s) == nil) {
					t.Errorf("a sub-surface may be: %v", ok)
				}
			},
			"position": func(t *rapid.T) {
				p := live()
				if p.n.parent == nil {
					return
				}
				at := Point{coord.Draw(t, "x"), coord.Draw(t, "y")}
				p.s.SetPosition(at.X, at.Y)
				p.n.wish, p.n.wished = at, true
			},
			"sync": func(t *rapid.T) {
				p, sync := live(), rapid.Bool().Draw(t, "sync")
				if p.n.parent == nil {
					return
				}
				if _, err := p.s.SetSync(sync); err != nil {
					t.Errorf("set_sync: %v", err)
				}
				p.n.desync = !sync
				if !sync {
					p.n.flush()
				}
			},
			"place": func(t *rapid.T) {
				p, other := live(), live()
				sibling := p.n.parent != nil && other != p && (other.n == p.n.parent || other.n.parent == p.n.parent)
				if err := p.s.Place(other.s, rapid.Bool().Draw(t, "above")); (err == nil) != (sibling || p.n.parent == nil) {
					t.Errorf("place: %v, a sibling or the parent: %v", err, sibling)
				}
			},
			"detach": func(t *rapid.T) {
				p := live()
				if p.n.parent == nil {
					return
				}
				if err := p.s.Detach(); err != nil {
					t.Errorf("destroy of a sub-surface: %v", err)
				}
				p.n.detach()
			},
			"show": func(*rapid.T) { live().s.MarkWritten() },
			"hide": func(*rapid.T) { live().s.MarkHidden() },
			"destroy": func(*rapid.T) {
				p := live()
				p.s.Destroy()
				p.s.Destroy() // a second time is nothing
				p.n.destroy()
			},
			"": func(t *rapid.T) {
				for k, p := range ps {
					if p.n.gone {
						continue
					}
					if bad := p.differ(ps); bad != "" {
						t.Fatalf("surface %d: %s", k, bad)
					}
				}
			},
		}
		// What makes trees and lets states wait comes more often.
		for _, k := range []string{"attach", "child", "commit", "sync"} {
			actions[k+" again"], actions[k+" more"] = actions[k], actions[k]
		}
		t.Repeat(actions)
		for _, p := range ps {
			p.s.Destroy()
		}
		for k, b := range all {
			if b.Held() {
				t.Errorf("buffer %d is held %d times by surfaces that are gone", k, b.holds)
			}
			if b.holds < 0 {
				t.Errorf("buffer %d is given back more often than it was held", k)
			}
		}
	})
}

// differ says in what the two models of a surface differ, "" in nothing.
func (p *pair) differ(ps []*pair) string {
	s, n := &p.s.Current, &p.n.current
	switch at, settled := p.s.At(); {
	case s.Buffer != n.buffer:
		return fmt.Sprintf("content %v, by the naive model %v", s.Buffer, n.buffer)
	case s.Scale != n.scale || s.Transform != max(n.transform-1, 0):
		return fmt.Sprintf("scale %d, transform %d, by the naive model %d, %d", s.Scale, s.Transform, n.scale, n.transform-1)
	case n.destination != nil && s.Destination != *n.destination:
		return fmt.Sprintf("destination %v, by the naive model %v", s.Destination, *n.destination)
	case s.Moved != n.moved:
		return fmt.Sprintf("moved by %v, by the naive model %v", s.Moved, n.moved)
	case p.n.parent != nil && (settled != p.n.settled || settled && at != p.n.at):
		return fmt.Sprintf("at %v (%v), by the naive model %v (%v)", at, settled, p.n.at, p.n.settled)
	case p.s.Synchronized() != p.n.synchronized():
		return "one is synchronised"
	case (p.s.Parent() == nil) != (p.n.parent == nil):
		return "one has a parent"
	}
	kids, below := p.s.Children()
	if len(kids) != len(p.n.kids) || below < 0 || below > len(kids) {
		return fmt.Sprintf("%d children, %d below, by the naive model %d", len(kids), below, len(p.n.kids))
	}
	for _, q := range ps {
		if slices.Contains(kids, q.s) != slices.Contains(p.n.kids, q.n) {
			return "other children"
		}
	}
	if w, h := s.Size(); (w == 0) != (s.Buffer == nil) && s.Buffer != nil && min(s.Buffer.W, s.Buffer.H) >= 3 || w < 0 || h < 0 {
		return fmt.Sprintf("a size of %d×%d", w, h)
	}
	return ""
}
