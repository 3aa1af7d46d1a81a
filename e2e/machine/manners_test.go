package machine

// wrong tells whether a step would break the protocol, by the guest's own model.
func (g *guest) wrong(o op) bool {
	m := g.model.surface(g.slot(o, 0).surface)
	switch o.name {
	case "cursor":
		return m == nil || m.xdg != nil || m.sub != nil || m.role != "" && m.role != "cursor"
	case "drag":
		i := g.model.surface(g.slot(o, 1).surface)
		return i != nil && (i == m || i.xdg != nil || i.sub != nil || i.role != "" && i.role != "icon")
	}
	if m == nil {
		return false // most have nothing to do
	}
	x := m.xdg
	switch o.name {
	case "destroy":
		return x != nil || m.sub != nil // of a sub-surface it is an error on wlroots alone
	case "sub", "child":
		if o.name == "child" && g.slot(o, 0).surface == 0 {
			return false
		}
		return m.sub != nil || x != nil || m.role != "" && m.role != "sub" || g.below(m, g.model.surface(g.slot(o, 1).surface))
	case "above", "below":
		t := g.model.surface(g.slot(o, 1).surface)
		if m.sub == nil || t == nil {
			return m.sub != nil
		}
		return t == m || t != m.sub.parent && (t.sub == nil || t.sub.parent != m.sub.parent)
	case "xdg":
		return x != nil || m.cur.buf != nil || m.pending.buf != nil || m.cached.buf != nil ||
			m.role != "" && m.role != "toplevel" && m.role != "popup"
	case "toplevel":
		return x == nil || x.role != nil || m.role == "popup" || m.cur.buf != nil // the last is an error on wlroots alone
	case "popup":
		p := g.model.surface(g.slot(o, 1).surface)
		return x == nil || x.role != nil || m.role == "toplevel" || m.cur.buf != nil || p == nil || p == m || p.xdg == nil || p.xdg.role == nil
	case "unxdg":
		return x != nil && x.role != nil
	case "unrole":
		return x != nil && x.role != nil && x.children > 0
	case "geometry":
		return x == nil || x.role == nil || o.n(3) < 1 || o.n(4) < 1
	case "ack":
		return x == nil || x.role == nil
	case "move", "resize", "menu":
		return x != nil && !x.configured // an error on wlroots
	case "viewport":
		return m.viewport != nil
	case "source":
		return o.n(1) < 0 || o.n(2) < 0 || o.n(3) < 1 || o.n(4) < 1
	case "destination":
		return o.n(1) < 1 || o.n(2) < 1
	case "scale":
		return o.n(1) < 1
	case "transform":
		return o.u(1) > 7
	case "commit":
		return m.wrong()
	}
	return false
}

// below tells whether p is m or one of its descendants.
func (g *guest) below(m, p *surface) bool {
	for p != nil {
		if p == m {
			return true
		}
		if p.sub == nil {
			return false
		}
		p = p.sub.parent
	}
	return false
}

// wrong tells whether the commit of what is pending would be an error.
func (s *surface) wrong() bool {
	p := &s.pending
	if x := s.xdg; x != nil && (x.role == nil || !x.configured && p.replaced && p.buf != nil) {
		return true
	}
	b := s.cur.buf
	if s.hasCached && s.cached.replaced {
		b = s.cached.buf
	}
	if p.replaced {
		b = p.buf
	}
	if b == nil {
		return false
	}
	w, h := b.w/p.scale, b.h/p.scale
	if p.transform&1 != 0 {
		w, h = h, w
	}
	return b.w%p.scale != 0 || b.h%p.scale != 0 || p.src[2] > 0 && (p.src[0]+p.src[2] > w*256 || p.src[1]+p.src[3] > h*256)
}
