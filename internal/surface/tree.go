package surface

import "slices"

// A place is the place of a sub-surface in its parent. A new place takes effect with the
// parent's state.
type place struct {
	parent  *Surface
	at      Point // the place in effect
	request Point // the place that the client requested
	next    Point // the place at the parent's last commit
	// hasRequest says that request is newer than next, hasNext that next is newer than at.
	hasRequest, hasNext bool
	desync              bool
	settled             bool // it is part of the parent
}

// Parent returns the parent of a sub-surface, nil when s is none or the parent is gone.
func (s *Surface) Parent() *Surface { return s.sub.parent }

// Children returns the sub-surfaces from bottom to top; the first below of them are
// under the surface itself.
func (s *Surface) Children() (all []*Surface, below int) { return s.children, s.below }

// At returns a sub-surface's place in its parent, and whether it is part of it yet.
func (s *Surface) At() (at Point, settled bool) { return s.sub.at, s.sub.settled }

// Top returns the surface at the top of s's tree.
func (s *Surface) Top() *Surface {
	for s.sub.parent != nil {
		s = s.sub.parent
	}
	return s
}

// Synchronized tells whether the surface's state waits for its parent's.
func (s *Surface) Synchronized() bool {
	for ; s.sub.parent != nil; s = s.sub.parent {
		if !s.sub.desync {
			return true
		}
	}
	return false
}

// size returns how many surfaces and how many levels the tree below s has.
func (s *Surface) size() (n, levels int) {
	n, levels = 1, 1
	for _, k := range s.children {
		kn, kl := k.size()
		n, levels = n+kn, max(levels, kl+1)
	}
	return n, levels
}

// AddTo makes s a sub-surface of a parent.
func (s *Surface) AddTo(parent *Surface) error {
	if s.Role != None && s.Role != Child || s.sub.parent != nil {
		return fail(ErrBadSurface, "the surface is %s already", s.Role)
	}
	depth, top := 1, parent
	for ; ; depth++ {
		if top == s {
			return fail(ErrBadParent, "a sub-surface cannot be its own ancestor")
		}
		if top.sub.parent == nil {
			break
		}
		top = top.sub.parent
	}
	if top.Role == Cursor || top.Role == Icon {
		return fail(ErrBadParent, "%s cannot have sub-surfaces", top.Role)
	}
	n, levels := s.size()
	all, _ := top.size()
	switch {
	case depth+levels > MaxDepth:
		return fail(ErrBadParent, "more than %d sub-surfaces of sub-surfaces", MaxDepth)
	case n+all > MaxTree:
		return fail(ErrBadParent, "more than %d surfaces in one window", MaxTree)
	}
	s.Role = Child
	s.sub = place{parent: parent}
	parent.children = append(parent.children, s)
	return nil
}

// Detach is wl_subsurface.destroy: states no longer wait for the parent.
func (s *Surface) Detach() error {
	if p := s.sub.parent; p != nil {
		p.remove(s)
	}
	s.sub = place{}
	if s.hasCache {
		return s.apply()
	}
	return nil
}

func (s *Surface) remove(k *Surface) {
	i := slices.Index(s.children, k)
	if i < s.below {
		s.below--
	}
	s.children = slices.Delete(s.children, i, i+1)
}

// SetPosition is wl_subsurface.set_position.
func (s *Surface) SetPosition(x, y int32) {
	s.sub.request, s.sub.hasRequest = Point{limit(x), limit(y)}, true
}

// Place is wl_subsurface.place_above and place_below.
func (s *Surface) Place(other *Surface, above bool) error {
	p := s.sub.parent
	if p == nil {
		return nil // the protocol lets an orphan do nothing
	}
	if other == s || other != p && other.sub.parent != p {
		return fail(ErrBadSurface, "neither a sibling nor the parent of the sub-surface")
	}
	p.remove(s)
	i := p.below
	if other != p {
		i = slices.Index(p.children, other)
		if above {
			i++
		}
	}
	if under := i < p.below || i == p.below && (other == p && !above || other != p && above && slices.Index(p.children, other) < p.below); under {
		p.below++
	}
	p.children = slices.Insert(p.children, i, s)
	return nil
}

// SetSync is wl_subsurface.set_sync and set_desync. It tells whether states took
// effect that had waited.
func (s *Surface) SetSync(sync bool) (effective bool, err error) {
	s.sub.desync = !sync
	if sync || s.Synchronized() {
		return false, nil
	}
	return s.flush()
}

// flush applies the states that no longer wait, in the tree below s.
func (s *Surface) flush() (effective bool, err error) {
	if s.hasCache {
		effective = true
		if err := s.apply(); err != nil {
			return true, err
		}
	}
	for _, k := range s.children {
		if !k.sub.desync {
			continue
		}
		e, err := k.flush()
		if err != nil {
			return true, err
		}
		effective = effective || e
	}
	return effective, nil
}

// takePlaces commits the requested places of sub-surfaces with their parent.
func (s *Surface) takePlaces() {
	for _, k := range s.children {
		if k.sub.hasRequest {
			k.sub.next, k.sub.hasRequest = k.sub.request, false
		}
		k.sub.hasNext = true
	}
}

// settle makes the place take effect, with the parent's state.
func (s *Surface) settle() {
	if s.sub.hasNext {
		s.sub.at, s.sub.settled, s.sub.hasNext = s.sub.next, true, false
	}
}
