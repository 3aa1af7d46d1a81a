package machine

import (
	"fmt"
	"slices"

	"vix/internal/wayland"
)

// A world is what a compositor makes of one client's requests, by the letter of the
// protocol: wl_surface's pending, cached and current state, roles, trees of
// sub-surfaces, xdg_surface, wp_viewport. It is told every request, and shares
// nothing with the filter but the tables of messages.
//
//	request ──► pending ──commit──► cached ──the parent's──► current ──► applied()
//	                      └─ desynchronised: at once ───────► current
type world struct {
	objects map[uint32]*object
	moved   bool              // attach's x and y move a sub-surface, as Weston does; wlroots ignores them
	live    bool              // a sub-surface's place is read when its parent's state is applied, not when it is committed
	globals map[uint32]string // interfaces by name, nil where the embedder does not care
	broken  string            // the protocol error that ended this client, "" before
	lenient bool              // it goes on after an error, as a hostile guest does
	// entered tells whether a serial is that of the pointer's being on the client now: any
	// other set_cursor is ignored. nil where the embedder looks itself.
	entered func(serial uint32) bool
	on      listener
	roots   []*surface // of toplevels, popups, pointer images and icons, oldest first
}

// A listener hears what a world came to. Its zero value hears nothing.
type listener struct {
	request func(o *object, m *wayland.Message, a args)
	applied func(s *surface)      // a surface's state, or its place in a tree, has changed
	initial func(x *xdgSurface)   // the commit that asks for a configure event
	created func(o, from *object) // also by bind
	gone    func(o *object)
	release func(b *buffer)
}

type object struct {
	id      uint32
	iface   *wayland.Interface
	version uint32
	data    any
}

// A buffer is a wl_buffer: of the guest's, with a key of its own, or of whoever else.
type buffer struct {
	id   uint32
	w, h int
	key  int // 0: not the guest's
}

// A pool is a wl_shm_pool; guest tells whether its file is one of the guest's.
type pool struct{ guest bool }

type rect struct{ x, y, w, h int }

func (r rect) String() string { return fmt.Sprintf("%dx%d at %d,%d", r.w, r.h, r.x, r.y) }
func (r rect) empty() bool    { return r.w <= 0 || r.h <= 0 }
func (r rect) within(o rect) bool {
	return r.x >= o.x && r.y >= o.y && r.x+r.w <= o.x+o.w && r.y+r.h <= o.y+o.h
}

// A state is one surface's, pending, cached or current.
type state struct {
	replaced         bool // a buffer, or none, was attached
	buf              *buffer
	dx, dy           int
	scale, transform int
	src              [4]int // 24.8; w 0: not set
	dst              [2]int // w 0: not set
	geometry         rect   // w 0: not set
	acked            configured
	callbacks        []uint32
	stack            []place // of the children, and of the surface itself among them
}

// A place is a child's in its parent's stack; the parent's own has no surface.
type place struct {
	s    *surface
	x, y int
}

type configured struct {
	serial     uint32
	x, y, w, h int // of popups; toplevels have no place
	fixed      bool
	state      uint32 // of toplevels: xdg_toplevel.state, 0 for none
}

type surface struct {
	o                    *object
	role                 string // "", "toplevel", "popup", "sub", "cursor", "icon"
	pending, cached, cur state
	hasCached            bool
	sub                  *subsurface
	stack                []place // as requests have set it
	viewport             *object
	xdg                  *xdgSurface
	hotX, hotY           int  // of a pointer image
	offX, offY           int  // of an icon, or of what Weston moves
	used                 bool // as a pointer's image or an icon, now
	dead                 bool
	shows                bool // an xdg_surface: it is mapped
}

type subsurface struct {
	o          *object
	s, parent  *surface
	sync       bool
	placed     bool // the parent's state with it has been applied
	atX, atY   int  // current
	movX, movY int  // by attach or offset since
}

type xdgSurface struct {
	o          *object
	base       *object
	s          *surface
	role       *object // xdg_toplevel or xdg_popup
	configured bool    // something was acknowledged
	asked      bool    // the initial commit was made
	sent       []configured
	last       configured // of all that were sent
	popup      *popup
	children   int // popups
}

type popup struct {
	parent *xdgSurface
	rules  positioner
	top    bool // mapped, and no other popup of it
}

type positioner struct {
	w, h, ax, ay, aw, ah  int
	anchor, gravity, cons uint32
	dx, dy                int
	hasSize, hasRect      bool
}

type viewport struct{ s *surface }

func newWorld() *world {
	w := &world{objects: map[uint32]*object{}}
	w.objects[1] = &object{id: 1, iface: wayland.WlDisplay, version: 1}
	return w
}

// fail notes a protocol error.
func (w *world) fail(o *object, name, format string, a ...any) {
	if w.broken == "" {
		iface := "?"
		if o != nil {
			iface = o.iface.Name
		}
		w.broken = fmt.Sprintf("%s.%s (%s)", iface, name, fmt.Sprintf(format, a...))
	}
}

// args are a message's arguments: words, of which a string has none of use.
type args struct {
	w   []uint32
	str []string
}

func (a args) u(k int) uint32 { return a.w[k] }
func (a args) i(k int) int    { return int(int32(a.w[k])) }

func parse(m *wayland.Message, body []byte) (a args, ok bool) {
	if m.Check(body) != nil {
		return a, false
	}
	d := wayland.NewDecoder(body)
	for k := range m.Args {
		switch m.Args[k].Type {
		case 'h':
		case 's':
			a.str = append(a.str, string(d.String()))
			a.w = append(a.w, 0)
		case 'a':
			d.Array()
			a.w = append(a.w, 0)
		default:
			a.w = append(a.w, d.Uint())
		}
	}
	return a, true
}

// def returns what a request is, nil when there is none.
func (w *world) def(id uint32, op uint16) (*object, *wayland.Message) {
	o := w.objects[id]
	if o == nil || int(op) >= len(o.iface.Requests) {
		return o, nil
	}
	return o, &o.iface.Requests[op]
}

// do carries out a request. guestFile tells of a descriptor whether it is a file of the guest's.
func (w *world) do(id uint32, op uint16, body []byte, guestFile bool) {
	if w.broken != "" && !w.lenient {
		return
	}
	o, m := w.def(id, op)
	if m == nil {
		w.fail(w.objects[1], "invalid_object", "request %d of object %d", op, id)
		return
	}
	a, ok := parse(m, body)
	if !ok || m.Since > o.version {
		w.fail(w.objects[1], "invalid_method", "%s.%s", o.iface.Name, m.Name)
		return
	}
	for k := range m.Args {
		if arg := &m.Args[k]; arg.Type == 'o' && a.w[k] != 0 {
			if x := w.objects[a.w[k]]; x == nil || arg.Iface != nil && x.iface != arg.Iface {
				w.fail(w.objects[1], "invalid_object", "%s.%s names object %d", o.iface.Name, m.Name, a.w[k])
				return
			}
		} else if arg.Type == 'o' && !arg.Nullable && a.w[k] == 0 {
			w.fail(w.objects[1], "invalid_object", "%s.%s names none", o.iface.Name, m.Name)
			return
		}
	}
	if w.on.request != nil {
		w.on.request(o, m, a)
	}
	w.create(o, m, a)
	w.act(o, m.Name, a, guestFile)
	if m.Destructor && (w.broken == "" || w.lenient) {
		w.remove(o)
	}
}

func (w *world) create(o *object, m *wayland.Message, a args) {
	for k := range m.Args {
		if m.Args[k].Type != 'n' {
			continue
		}
		n := &object{id: a.w[k], iface: m.Args[k].Iface, version: o.version}
		if o.iface == wayland.WlRegistry {
			n.iface, n.version = wayland.Lookup(a.str[0]), a.w[2]
			if w.globals != nil && w.globals[a.w[0]] != a.str[0] || n.iface == nil {
				w.fail(o, "invalid_object", "bind of %s", a.str[0])
				return
			}
		}
		if w.objects[n.id] != nil {
			w.fail(w.objects[1], "invalid_object", "new id %d is in use", n.id)
			return
		}
		w.objects[n.id] = n
		if w.on.created != nil {
			w.on.created(n, o)
		}
	}
}

func (w *world) remove(o *object) {
	delete(w.objects, o.id)
	if w.on.gone != nil {
		w.on.gone(o)
	}
}

func (w *world) surface(id uint32) *surface {
	if o := w.objects[id]; o != nil {
		s, _ := o.data.(*surface)
		return s
	}
	return nil
}

// act is what a request does; those that are not named do nothing that is seen.
func (w *world) act(o *object, name string, a args, guestFile bool) {
	switch o.iface {
	case wayland.WlSurface, wayland.WlShmPool, wayland.WpViewport, wayland.XdgSurface, wayland.XdgPositioner:
		if o.data == nil {
			return // it was made by an error
		}
	}
	switch o.iface {
	case wayland.WlCompositor:
		n := w.objects[a.u(0)]
		if name == "create_surface" {
			s := &surface{o: n}
			s.pending.scale, s.cur.scale, s.cached.scale = 1, 1, 1
			s.stack = []place{{}}
			s.pending.stack, s.cur.stack = s.stack, s.stack
			n.data = s
		}
	case wayland.WlSurface:
		w.onSurface(o.data.(*surface), name, a)
	case wayland.WlSubcompositor:
		if name == "get_subsurface" {
			w.onGetSub(o, a)
		}
	case wayland.WlSubsurface:
		w.onSub(o, name, a)
	case wayland.WlShm:
		if name == "create_pool" {
			w.objects[a.u(0)].data = &pool{guestFile}
		}
	case wayland.WlShmPool:
		if name == "create_buffer" {
			b := &buffer{id: a.u(0), w: a.i(2), h: a.i(3)}
			if o.data.(*pool).guest {
				b.key = 1 + a.i(1)/4
			}
			w.objects[a.u(0)].data = b
		}
	case wayland.WpSinglePixelBufferManagerV1:
		if name == "create_u32_rgba_buffer" {
			b := &buffer{id: a.u(0), w: 1, h: 1}
			if a.u(2) == 0xffffffff && a.u(1) < 1<<24 {
				b.key = 1<<24 + a.i(1)
			}
			w.objects[a.u(0)].data = b
		}
	case wayland.WpViewporter:
		if name == "get_viewport" {
			s := w.surface(a.u(1))
			if s == nil {
				return
			}
			if s.viewport != nil {
				w.fail(o, "viewport_exists", "")
				return
			}
			s.viewport = w.objects[a.u(0)]
			s.viewport.data = &viewport{s}
		}
	case wayland.WpViewport:
		w.onViewport(o, name, a)
	case wayland.XdgWmBase, wayland.XdgSurface, wayland.XdgToplevel, wayland.XdgPopup, wayland.XdgPositioner:
		w.onXdg(o, name, a)
	case wayland.WlPointer, wayland.ZwpTabletToolV2:
		if name == "set_cursor" {
			w.onCursor(o, a)
		}
	case wayland.WlDataDevice:
		if name == "start_drag" {
			w.onDrag(o, a)
		}
	}
}

// give gives a surface a role, for good.
func (w *world) give(o *object, s *surface, role, code string) bool {
	if s.role != "" && s.role != role {
		w.fail(o, code, "a surface that is a %s becomes a %s", s.role, role)
		return false
	}
	s.role = role
	return true
}

func (w *world) onSurface(s *surface, name string, a args) {
	p := &s.pending
	switch name {
	case "attach":
		if s.o.version >= 5 && (a.i(1) != 0 || a.i(2) != 0) {
			w.fail(s.o, "invalid_offset", "")
			return
		}
		p.replaced, p.buf = true, nil
		if b := w.objects[a.u(0)]; b != nil {
			p.buf, _ = b.data.(*buffer)
		}
		if s.o.version < 5 {
			p.dx, p.dy = a.i(1), a.i(2)
		}
	case "offset":
		p.dx, p.dy = a.i(0), a.i(1)
	case "set_buffer_scale":
		if a.i(0) < 1 {
			w.fail(s.o, "invalid_scale", "%d", a.i(0))
			return
		}
		p.scale = a.i(0)
	case "set_buffer_transform":
		if a.u(0) > 7 {
			w.fail(s.o, "invalid_transform", "%d", a.i(0))
			return
		}
		p.transform = a.i(0)
	case "frame":
		p.callbacks = append(p.callbacks, a.u(0))
	case "commit":
		w.commit(s)
	case "destroy":
		w.destroySurface(s)
	}
}

func (w *world) destroySurface(s *surface) {
	if s.xdg != nil {
		w.fail(s.o, "defunct_role_object", "a surface goes before its xdg_surface")
		return
	}
	s.dead, s.used = true, false
	if s.sub != nil {
		w.unlink(s)
	}
	for _, c := range s.stack {
		if c.s != nil && c.s.sub != nil {
			c.s.sub.parent = nil
		}
	}
	if s.viewport != nil {
		s.viewport.data = &viewport{}
	}
	w.forget(s)
}

func (w *world) forget(s *surface) {
	if k := slices.Index(w.roots, s); k >= 0 {
		w.roots = slices.Delete(w.roots, k, k+1)
	}
}

func (w *world) root(s *surface) {
	w.forget(s)
	w.roots = append(w.roots, s)
}

// unlink takes a sub-surface out of its parent, at once.
func (w *world) unlink(s *surface) {
	p := s.sub.parent
	s.sub.s, s.sub = nil, nil
	if p == nil {
		return
	}
	drop := func(l []place) []place {
		return slices.DeleteFunc(slices.Clone(l), func(c place) bool { return c.s == s })
	}
	p.stack, p.pending.stack, p.cached.stack, p.cur.stack = drop(p.stack), drop(p.pending.stack), drop(p.cached.stack), drop(p.cur.stack)
	w.applied(p)
}

func (w *world) applied(s *surface) {
	if w.on.applied != nil {
		w.on.applied(s)
	}
}

func (w *world) synced(s *surface) bool {
	for ; s != nil && s.sub != nil; s = s.sub.parent {
		if s.sub.sync {
			return true
		}
	}
	return false
}

func (w *world) commit(s *surface) {
	if s.xdg != nil && !w.xdgCommit(s) {
		return
	}
	p := &s.pending
	if b := p.buf; p.replaced && b != nil && (b.w%p.scale != 0 || b.h%p.scale != 0) {
		w.fail(s.o, "invalid_size", "%dx%d at scale %d", b.w, b.h, p.scale)
		return
	}
	p.stack = s.stack
	if w.synced(s) {
		w.merge(&s.cached, p)
		s.hasCached = true
		return
	}
	if s.hasCached {
		w.merge(&s.cached, p)
		w.apply(s, &s.cached)
		return
	}
	w.apply(s, p)
}

// merge moves what a state has set into another, which is older.
func (w *world) merge(to, from *state) {
	replaced, buf, dx, dy, cb := to.replaced, to.buf, to.dx, to.dy, to.callbacks
	*to = *from
	if !from.replaced {
		to.replaced, to.buf = replaced, buf
	}
	to.dx, to.dy = from.dx+dx, from.dy+dy
	to.callbacks = append(cb, from.callbacks...)
	from.replaced, from.buf, from.dx, from.dy, from.callbacks = false, nil, 0, 0, nil
}

// apply makes a state the current one, and then what waits for it of the children.
func (w *world) apply(s *surface, from *state) {
	old := s.cur.buf
	if s.hasCached && from == &s.cached {
		s.hasCached = false
	}
	s.cur.replaced, s.cur.dx, s.cur.dy, s.cur.callbacks = false, 0, 0, nil
	w.merge(&s.cur, from)
	if old != nil && old != s.cur.buf && w.on.release != nil {
		w.on.release(old)
	}
	w.checkViewport(s)
	dx, dy := s.cur.dx, s.cur.dy
	switch {
	case s.role == "cursor":
		s.hotX, s.hotY = s.hotX-dx, s.hotY-dy
	case s.role == "icon", s.role == "popup" && w.moved:
		s.offX, s.offY = s.offX+dx, s.offY+dy
	case s.sub != nil && w.moved:
		s.sub.movX, s.sub.movY = s.sub.movX+dx, s.sub.movY+dy
	}
	if s.xdg != nil && s.cur.buf == nil && s.shows {
		s.shows, s.xdg.configured, s.xdg.asked = false, false, false
	}
	if s.xdg != nil && s.xdg.configured && s.cur.buf != nil {
		s.shows = true
	}
	if w.live {
		s.cur.stack = s.stack
	}
	for _, c := range s.cur.stack {
		if c.s == nil || c.s.sub == nil || c.s.sub.parent != s {
			continue
		}
		u := c.s.sub
		if u.atX != c.x || u.atY != c.y {
			u.movX, u.movY = 0, 0
		}
		u.placed, u.atX, u.atY = true, c.x, c.y
		if c.s.hasCached {
			w.apply(c.s, &c.s.cached)
		}
	}
	w.applied(s)
}

func (w *world) checkViewport(s *surface) {
	c := &s.cur
	if c.buf == nil || c.src[2] == 0 {
		return
	}
	if c.dst[0] == 0 && (c.src[2]&255 != 0 || c.src[3]&255 != 0) {
		w.fail(vpObject(s), "bad_size", "a source of %v/256 without a destination", c.src)
		return
	}
	bw, bh := s.turned()
	if c.src[0]+c.src[2] > bw*256 || c.src[1]+c.src[3] > bh*256 {
		w.fail(vpObject(s), "out_of_buffer", "a source of %v/256 in %dx%d", c.src, bw, bh)
	}
}

func vpObject(s *surface) *object {
	if s.viewport != nil {
		return s.viewport
	}
	return s.o
}

// turned returns the buffer's size before the viewport.
func (s *surface) turned() (w, h int) {
	c := &s.cur
	w, h = c.buf.w/c.scale, c.buf.h/c.scale
	if c.transform&1 != 0 {
		w, h = h, w
	}
	return w, h
}

// size returns a surface's current size, 0 without content.
func (s *surface) size() (w, h int) {
	c := &s.cur
	switch {
	case c.buf == nil:
		return 0, 0
	case c.dst[0] > 0:
		return c.dst[0], c.dst[1]
	case c.src[2] > 0:
		return c.src[2] >> 8, c.src[3] >> 8
	}
	return s.turned()
}

func (w *world) onGetSub(o *object, a args) {
	s, parent := w.surface(a.u(1)), w.surface(a.u(2))
	if s.sub != nil || s.xdg != nil {
		w.fail(o, "bad_surface", "a surface with a role object")
		return
	}
	for p := parent; p != nil; {
		if p == s {
			w.fail(o, "bad_parent", "a surface is its own ancestor")
			return
		}
		if p.sub == nil {
			break
		}
		p = p.sub.parent
	}
	if !w.give(o, s, "sub", "bad_surface") {
		return
	}
	s.sub = &subsurface{o: w.objects[a.u(0)], s: s, parent: parent, sync: true}
	s.sub.o.data = s.sub
	parent.stack = append(slices.Clone(parent.stack), place{s: s})
}

func (w *world) onSub(o *object, name string, a args) {
	u, ok := o.data.(*subsurface)
	if !ok || u.s == nil {
		return // inert
	}
	if name == "destroy" {
		w.unlink(u.s)
		return
	}
	p := u.parent
	switch name {
	case "set_sync":
		u.sync = true
	case "set_desync":
		u.sync = false
		if !w.synced(u.s) && u.s.hasCached {
			w.apply(u.s, &u.s.cached)
		}
	case "set_position":
		if p != nil {
			p.stack = slices.Clone(p.stack)
			k := slices.IndexFunc(p.stack, func(c place) bool { return c.s == u.s })
			p.stack[k].x, p.stack[k].y = a.i(0), a.i(1)
		}
	case "place_above", "place_below":
		if p == nil {
			return
		}
		ref := w.surface(a.u(0))
		in := ref
		if ref == p {
			in = nil // the parent's own place
		}
		l := slices.Clone(p.stack)
		k := slices.IndexFunc(l, func(c place) bool { return c.s == u.s })
		me := l[k]
		l = slices.Delete(l, k, k+1)
		at := slices.IndexFunc(l, func(c place) bool { return c.s == in })
		if at < 0 || ref == u.s {
			w.fail(o, "bad_surface", "not a sibling")
			return
		}
		if name == "place_above" {
			at++
		}
		p.stack = slices.Insert(l, at, me)
	}
}

func (w *world) onViewport(o *object, name string, a args) {
	s := o.data.(*viewport).s
	if name == "destroy" {
		if s != nil {
			s.viewport, s.pending.src, s.pending.dst = nil, [4]int{}, [2]int{}
		}
		return
	}
	if s == nil {
		w.fail(o, "no_surface", "%s", name)
		return
	}
	switch name {
	case "set_source":
		v := [4]int{a.i(0), a.i(1), a.i(2), a.i(3)}
		if v == [4]int{-256, -256, -256, -256} {
			v = [4]int{}
		} else if v[0] < 0 || v[1] < 0 || v[2] <= 0 || v[3] <= 0 {
			w.fail(o, "bad_value", "source %v", v)
			return
		}
		s.pending.src = v
	case "set_destination":
		v := [2]int{a.i(0), a.i(1)}
		if v == [2]int{-1, -1} {
			v = [2]int{}
		} else if v[0] <= 0 || v[1] <= 0 {
			w.fail(o, "bad_value", "destination %v", v)
			return
		}
		s.pending.dst = v
	}
}

func (w *world) onCursor(o *object, a args) {
	s := w.surface(a.u(1))
	if s != nil && (s.xdg != nil || s.sub != nil || !w.give(o, s, "cursor", "role")) {
		w.fail(o, "role", "a surface with a role object")
		return
	}
	if w.entered != nil && !w.entered(a.u(0)) {
		return
	}
	for _, r := range w.roots {
		if r.role == "cursor" {
			r.used = false
		}
	}
	if s == nil {
		return
	}
	s.hotX, s.hotY, s.used = a.i(2), a.i(3), true
	w.root(s)
	w.applied(s)
}

func (w *world) onDrag(o *object, a args) {
	s := w.surface(a.u(2))
	if s == nil {
		return
	}
	if s.xdg != nil || s.sub != nil || !w.give(o, s, "icon", "role") {
		w.fail(o, "role", "a surface with a role object")
		return
	}
	s.offX, s.offY, s.used = 0, 0, true
	w.root(s)
	w.applied(s)
}
