package machine

import (
	"slices"

	"vix/internal/wayland"
)

// onXdg is xdg-shell's part of a world.
func (w *world) onXdg(o *object, name string, a args) {
	switch o.iface {
	case wayland.XdgWmBase:
		switch name {
		case "create_positioner":
			w.objects[a.u(0)].data = &positioner{}
		case "get_xdg_surface":
			w.onGetXdg(o, w.objects[a.u(0)], w.surface(a.u(1)))
		case "destroy":
			for _, x := range w.objects {
				if x, ok := x.data.(*xdgSurface); ok && x.base == o {
					w.fail(o, "defunct_surfaces", "")
					return
				}
			}
		}
	case wayland.XdgPositioner:
		w.onPositioner(o, o.data.(*positioner), name, a)
	case wayland.XdgSurface:
		w.onXdgSurface(o.data.(*xdgSurface), name, a)
	case wayland.XdgToplevel:
		w.onToplevel(o, name, a)
	case wayland.XdgPopup:
		w.onPopup(o, name, a)
	}
}

func (w *world) onGetXdg(o, n *object, s *surface) {
	switch {
	case s.xdg != nil:
		w.fail(o, "role", "a surface with an xdg_surface")
	case s.role != "" && s.role != "toplevel" && s.role != "popup":
		w.fail(o, "role", "a surface that is a %s", s.role)
	case s.cur.buf != nil || s.pending.buf != nil:
		w.fail(o, "invalid_surface_state", "a surface with a buffer")
	default:
		s.xdg = &xdgSurface{o: n, base: o, s: s}
		s.pending.geometry = rect{}
		n.data = s.xdg
	}
}

func (w *world) onPositioner(o *object, p *positioner, name string, a args) {
	switch name {
	case "set_size":
		if a.i(0) < 1 || a.i(1) < 1 {
			w.fail(o, "invalid_input", "size")
			return
		}
		p.w, p.h, p.hasSize = a.i(0), a.i(1), true
	case "set_anchor_rect":
		if a.i(2) < 0 || a.i(3) < 0 {
			w.fail(o, "invalid_input", "anchor rectangle")
			return
		}
		p.ax, p.ay, p.aw, p.ah, p.hasRect = a.i(0), a.i(1), a.i(2), a.i(3), true
	case "set_anchor":
		if p.anchor = a.u(0); p.anchor > 8 {
			w.fail(o, "invalid_input", "anchor")
		}
	case "set_gravity":
		if p.gravity = a.u(0); p.gravity > 8 {
			w.fail(o, "invalid_input", "gravity")
		}
	case "set_constraint_adjustment":
		p.cons = a.u(0)
	case "set_offset":
		p.dx, p.dy = a.i(0), a.i(1)
	case "set_parent_size":
		// wlroots and Mutter post an error for a size below 1
		if a.i(0) < 0 || a.i(1) < 0 {
			w.fail(o, "invalid_input", "parent's size")
		}
	}
}

// side returns which way an anchor or a gravity points: -1, 0 or 1 on each axis.
func side(v uint32) (x, y int) {
	x = map[uint32]int{3: -1, 5: -1, 6: -1, 4: 1, 7: 1, 8: 1}[v]
	y = map[uint32]int{1: -1, 5: -1, 7: -1, 2: 1, 6: 1, 8: 1}[v]
	return x, y
}

// place returns where a popup is in its parent's geometry, unconstrained.
func (p *positioner) place() rect {
	ax, ay := side(p.anchor)
	gx, gy := side(p.gravity)
	x := p.ax + p.aw*(ax+1)/2 + p.dx + p.w*(gx-1)/2
	y := p.ay + p.ah*(ay+1)/2 + p.dy + p.h*(gy-1)/2
	return rect{x, y, p.w, p.h}
}

func (w *world) onXdgSurface(x *xdgSurface, name string, a args) {
	switch name {
	case "get_toplevel", "get_popup":
		role := "toplevel"
		if name == "get_popup" {
			role = "popup"
		}
		if x.role != nil {
			w.fail(x.o, "already_constructed", "")
			return
		}
		if !w.give(x.base, x.s, role, "role") {
			return
		}
		x.role = w.objects[a.u(0)]
		x.role.data = x
		if role == "popup" {
			w.newPopup(x, a)
		}
		w.root(x.s)
	case "set_window_geometry":
		if x.role == nil {
			w.fail(x.o, "not_constructed", "")
			return
		}
		g := rect{a.i(0), a.i(1), a.i(2), a.i(3)}
		if g.empty() {
			w.fail(x.o, "invalid_size", "geometry of %v", g)
			return
		}
		x.s.pending.geometry = g
	case "ack_configure":
		k := slices.IndexFunc(x.sent, func(c configured) bool { return c.serial == a.u(0) })
		if x.role == nil {
			w.fail(x.o, "not_constructed", "")
			return
		}
		if k < 0 {
			w.fail(x.o, "invalid_serial", "%d", a.u(0))
			return
		}
		x.configured, x.s.pending.acked = true, x.sent[k]
		x.sent = slices.Delete(x.sent, 0, k+1)
	case "destroy":
		if x.role != nil {
			w.fail(x.o, "defunct_role_object", "an xdg_surface goes before its role")
			return
		}
		x.s.xdg = nil
		w.forget(x.s)
	}
}

func (w *world) newPopup(x *xdgSurface, a args) {
	x.popup = &popup{}
	if po := w.objects[a.u(1)]; po != nil {
		x.popup.parent, _ = po.data.(*xdgSurface)
	}
	p := x.popup.parent
	if p == nil || p == x || p.role == nil {
		w.fail(x.base, "invalid_popup_parent", "")
		return
	}
	p.children++
	w.rules(x, w.objects[a.u(2)])
}

func (w *world) rules(x *xdgSurface, pos *object) {
	x.popup.rules = *pos.data.(*positioner)
	if !x.popup.rules.hasSize || !x.popup.rules.hasRect {
		w.fail(x.base, "invalid_positioner", "")
	}
}

// unmap is what the end of a role object does. The surface keeps its buffer.
func (w *world) unmap(x *xdgSurface) {
	x.role, x.configured, x.asked, x.sent, x.last = nil, false, false, nil, configured{}
	x.s.shows = false
	w.forget(x.s)
}

func (w *world) onToplevel(o *object, name string, a args) {
	x, ok := o.data.(*xdgSurface)
	if !ok {
		return
	}
	switch name {
	case "destroy":
		if x.children > 0 {
			// Legal, but what becomes of the popups is the compositor's choice.
			for _, r := range w.roots {
				if r.xdg != nil && r.xdg.popup != nil && r.xdg.popup.parent == x {
					r.xdg.popup.parent = nil
				}
			}
		}
		x.children = 0
		w.unmap(x)
	case "resize":
		if e := a.u(2); e > 10 || e == 3 || e == 7 {
			w.fail(o, "invalid_resize_edge", "%d", e)
		}
	case "set_max_size", "set_min_size":
		if a.i(0) < 0 || a.i(1) < 0 {
			w.fail(o, "invalid_size", "%s", name)
		}
	}
}

func (w *world) onPopup(o *object, name string, a args) {
	x, ok := o.data.(*xdgSurface)
	if !ok {
		return
	}
	switch name {
	case "destroy":
		if x.children > 0 {
			w.fail(x.base, "not_the_topmost_popup", "")
			return
		}
		if x.popup != nil && x.popup.parent != nil {
			x.popup.parent.children--
		}
		w.unmap(x)
		x.popup = nil
	case "reposition":
		if x.popup == nil {
			return
		}
		w.rules(x, w.objects[a.u(0)])
	}
}

// xdgCommit is what a commit of a window or popup means beside its state.
func (w *world) xdgCommit(s *surface) bool {
	x := s.xdg
	if x.role == nil {
		w.fail(x.o, "not_constructed", "commit")
		return false
	}
	if !x.configured && s.pending.replaced && s.pending.buf != nil {
		w.fail(x.o, "unconfigured_buffer", "")
		return false
	}
	if !x.asked {
		x.asked = true
		if w.on.initial != nil {
			w.on.initial(x)
		}
	}
	return true
}

// told notes what a client was told.
func (x *xdgSurface) told(c configured) { x.sent, x.last = append(x.sent, c), c }
