package filter

import (
	"slices"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// Sub-surfaces of the guest. They stay below the pieces of the frame, and one that
// sticks out of its window's area gets a thin frame of its own.

// A child is what the filter knows of a wl_subsurface.
type child struct {
	surface *surface
	parent  *surface // nil when the parent is gone
	id      uint32   // the wl_subsurface on the compositor
	x, y    int32    // set last, in the client's coordinates
	// unsettled is how many commits away the place is from being shown: two when it
	// was set, one when the parent was committed, none after the window's commit.
	unsettled uint8
}

// maxDepth bounds sub-surfaces of sub-surfaces: compositors walk them by
// recursion.
const maxDepth = 16

// errBadParent is wl_subcompositor.error.bad_parent (wayland.xml).
const errBadParent = 1

func childHooks(h *relay.Hooks) {
	h.Request(wayland.WlSubcompositor, wayland.WlSubcompositorReqGetSubsurface, onGetSubsurface)
	h.Request(wayland.WlSubsurface, wayland.WlSubsurfaceReqSetPosition, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if k, ok := m.Obj.Data.(*child); ok {
			k.x, k.y = clamp(m.Int(0), -maxPlace, maxPlace), clamp(m.Int(1), -maxPlace, maxPlace)
			k.unsettled = 2
			k.touch()
			if k.parent != nil {
				k.parent.toServer(m.Body, 0)
			}
		}
		return true, nil
	})
	h.Request(wayland.WlSubsurface, wayland.WlSubsurfaceReqDestroy, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if k, ok := m.Obj.Data.(*child); ok {
			k.detach()
		}
		return true, nil
	})
}

// touch has the parent and its ancestors looked at with their next commits.
func (k *child) touch() {
	for k != nil && k.parent != nil {
		k.parent.changed = true
		k = k.parent.sub
	}
}

func (k *child) detach() {
	if k.parent != nil {
		if i := slices.Index(k.parent.children, k.surface); i >= 0 {
			k.parent.children = slices.Delete(k.parent.children, i, i+1)
		}
		k.parent = nil
	}
	if k.surface.sub == k {
		k.surface.sub = nil
	}
}

// orphan takes a surface that goes out of the tree.
func (f *frames) orphan(s *surface) {
	if s.sub != nil {
		s.sub.detach()
	}
	for _, k := range s.children {
		if k.sub != nil {
			k.sub.parent = nil
		}
	}
	s.children = nil
}

// onGetSubsurface makes a sub-surface, and puts it below the frame of its parent.
func onGetSubsurface(c *relay.Conn, m *relay.Msg) (bool, error) {
	s, parent := surfaceArg(c, m.Word(1)), surfaceArg(c, m.Word(2))
	if s == nil || parent == nil {
		return true, nil // the engine says what is wrong
	}
	depth := 1
	for p := parent; p != nil; depth++ {
		if p == s || depth > maxDepth {
			return false, relay.Fail(m.Obj, errBadParent, "a sub-surface is its own ancestor, or the %dth of a chain", maxDepth)
		}
		if p.sub == nil {
			break
		}
		p = p.sub.parent
	}
	if top := topOf(parent); top.role == roleCursor || top.role == roleIcon {
		return false, relay.Fail(m.Obj, errBadParent, "a sub-surface of a pointer's or a drag's image")
	}
	if s.role != roleNone && s.role != roleChild || s.sub != nil {
		return true, nil // the compositor's to refuse
	}
	k := &child{surface: s, parent: parent, unsettled: 2}
	s.role, s.sub, s.changed = roleChild, k, true
	parent.children = append(parent.children, s)
	k.touch()
	m.New.Data = k
	c.GiveServerID(m.New)
	k.id = m.New.Server
	e := c.ToServer()
	e.Msg(m.Obj.Server, wayland.WlSubcompositorReqGetSubsurface, m.New.Server, s.id, parent.id)
	if p := parent.border.lowest(); p != nil {
		e.Msg(m.New.Server, wayland.WlSubsurfaceReqPlaceBelow, p.surface.Server)
	}
	if parent.dx != 0 || parent.dy != 0 {
		e.Msg(k.id, wayland.WlSubsurfaceReqSetPosition, uint32(-parent.dx), uint32(-parent.dy))
	}
	return false, nil
}

// topOf returns the surface at the top of the tree that s is in.
func topOf(s *surface) *surface {
	for s.sub != nil && s.sub.parent != nil {
		s = s.sub.parent
	}
	return s
}

// lowest returns the piece that is below the others.
func (b *border) lowest() *piece {
	if b == nil {
		return nil
	}
	return b.pieces[pieceTop]
}

// root returns the surface at the top of a sub-surface's tree, and where the
// sub-surface is in it; nil when it is in none.
func (k *child) root() (s *surface, x, y int32, settled bool) {
	settled = true
	for k != nil {
		x, y = sum(x, k.x), sum(y, k.y)
		settled = settled && k.unsettled == 0
		if k.parent == nil {
			return nil, 0, 0, false
		}
		s, k = k.parent, k.parent.sub
	}
	return s, x, y, settled
}

// fitChild frames a sub-surface that sticks out, with its own commit.
func (f *frames) fitChild(c *relay.Conn, s *surface, w, h int32) error {
	if s.sub == nil {
		return nil
	}
	for _, k := range s.children {
		if k.sub.unsettled == 2 {
			k.sub.unsettled = 1
		}
	}
	root, x, y, settled := s.sub.root()
	if root == nil || root.role != roleToplevel && root.role != rolePopup || root.visible.w == 0 {
		return nil // the window's first commit looks at it
	}
	return f.confine(c, s, root, box{x, y, w, h}, settled)
}

// confine shows a sub-surface, at a place of its window's, as it may be shown.
func (f *frames) confine(c *relay.Conn, s, root *surface, at box, settled bool) error {
	show, out := f.confined(root, at)
	f.crop(c, s, at.w, at.h, show)
	s.visible = show
	if out {
		return f.put(c, s, show, thinWidth, thinWidth)
	}
	if settled && s.border.shown() {
		for _, p := range s.border.pieces {
			f.hide(c, p)
		}
	}
	return nil
}

// confined returns how much of a sub-surface is shown, and whether it sticks out and
// so has a frame of its own. A large one that sticks out is cut off at the window's
// border instead: on the right and below, where browsers' do for a moment when a
// window is resized; on the other sides nothing is left of it.
func (f *frames) confined(root *surface, at box) (show box, out bool) {
	v := root.visible
	show = box{0, 0, at.w, at.h}
	if v.holds(at) || !f.large(at.w, at.h) {
		return show, !v.holds(at)
	}
	show.w, show.h = 1, 1
	if at.x >= v.x && at.y >= v.y {
		show.w, show.h = clamp(sum(v.x, v.w)-at.x, 1, at.w), clamp(sum(v.y, v.h)-at.y, 1, at.h)
	}
	return show, !v.holds(box{at.x, at.y, show.w, show.h})
}

// large tells whether something takes more than a quarter of the screen.
func (f *frames) large(w, h int32) bool {
	sw, sh := f.screen()
	return int64(w)*int64(h) > int64(sw)*int64(sh)/4
}

// holds tells whether o is within b.
func (b box) holds(o box) bool {
	return o.x >= b.x && o.y >= b.y && sum(o.x, o.w) <= sum(b.x, b.w) && sum(o.y, o.h) <= sum(b.y, b.h)
}

// checkChildren frames sub-surfaces that stick out of a window from now on, because
// they or the window's border moved. Their own state must be committed for it,
// whatever the client has set of it so far.
func (f *frames) checkChildren(c *relay.Conn, root *surface) error {
	if len(root.children) == 0 {
		return nil
	}
	return f.walk(c, root, root, 0, 0)
}

func (f *frames) walk(c *relay.Conn, root, parent *surface, x, y int32) error {
	for _, s := range parent.children {
		k := s.sub
		if k == nil {
			continue
		}
		if parent == root || k.unsettled == 1 {
			k.unsettled = 0
		}
		kx, ky := sum(x, k.x), sum(y, k.y)
		w, h := s.size()
		if w > 0 && s.id != 0 {
			if err := f.recheck(c, s, root, box{kx, ky, w, h}); err != nil {
				return err
			}
		}
		if err := f.walk(c, root, s, kx, ky); err != nil {
			return err
		}
	}
	return nil
}

// recheck looks at a sub-surface when its window changes.
func (f *frames) recheck(c *relay.Conn, s, root *surface, at box) error {
	show, out := f.confined(root, at)
	was := s.visible
	if was.w == 0 {
		was = box{0, 0, at.w, at.h}
	}
	switch {
	case show != was || out && !s.border.shown():
		if err := f.confine(c, s, root, at, true); err != nil {
			return err
		}
		c.ToServer().Msg(s.id, wayland.WlSurfaceReqCommit)
	case !out && s.border.shown():
		s.changed = true // its next commit takes the frame away
	}
	return nil
}
