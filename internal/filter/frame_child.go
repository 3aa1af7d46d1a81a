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
	if top := topOf(parent); top.role == roleCursor {
		return false, relay.Fail(m.Obj, errBadParent, "a sub-surface of a pointer's image")
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
	if root.visible.holds(box{x, y, w, h}) {
		if settled && s.border.shown() {
			for _, p := range s.border.pieces {
				f.hide(c, p)
			}
		}
		return nil
	}
	return f.frameChild(c, s, w, h)
}

func (f *frames) frameChild(c *relay.Conn, s *surface, w, h int32) error {
	if err := f.checkPopup(c, nil, w, h); err != nil {
		return err
	}
	return f.put(c, s, box{0, 0, w, h}, thinWidth, thinWidth)
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
		out := w > 0 && s.id != 0 && !root.visible.holds(box{kx, ky, w, h})
		switch {
		case out && !s.border.shown():
			if err := f.frameChild(c, s, w, h); err != nil {
				return err
			}
			c.ToServer().Msg(s.id, wayland.WlSurfaceReqCommit)
		case !out && s.border.shown():
			s.changed = true // its next commit takes the frame away
		}
		if err := f.walk(c, root, s, kx, ky); err != nil {
			return err
		}
	}
	return nil
}
