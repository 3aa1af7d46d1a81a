package machine

import (
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A compositor is the one that the filter talks to when no real one does: it answers
// as sway does, keeps a world of each connection, and judges whatever it is told.
type compositor struct {
	rules
	pixels *pixels

	mu      sync.Mutex
	conns   []*conn
	outputs []*output
	named   uint32
	serial  uint32
	given   map[uint32]given
	found   []finding
	latest  map[*conn]uint32 // the serial of the last wl_pointer.enter
	px, py  int
	focus   *surface // of the pointer
	on      *conn
	keys    *conn // has the keyboard
	window  *surface
	pressed uint32 // the serial of the press that holds the implicit grab
	time    uint32
}

// rules are what a sequence says of its rig.
type rules struct {
	full     bool // a frame with a label
	weston   bool // where compositors differ
	version4 bool // wl_compositor before offset
	rude     bool // steps that break the protocol are taken too
}

// given tells what a serial came with.
type given struct {
	kind    string // enter, button, keys
	conn    *conn
	surface *surface
}

// A finding is one thing that must not be.
type finding struct{ kind, detail string }

type output struct {
	name       uint32
	x, y, w, h int
}

// A conn is one connection of the filter's.
type conn struct {
	comp    *compositor
	world   *world
	tr      *wayland.UnixConn
	out     wayland.Encoder
	fds     []wayland.Desc // to send with out
	done    chan struct{}
	touched []*surface        // by the request that is being carried out
	names   map[uint32]uint32 // of outputs, by what is bound of them
}

// The globals, named from 1 on.
var offered = []*wayland.Interface{
	wayland.WlCompositor, wayland.WlSubcompositor, wayland.WlShm, wayland.XdgWmBase, wayland.WlSeat,
	wayland.WpViewporter, wayland.WpSinglePixelBufferManagerV1, wayland.WpFractionalScaleManagerV1,
	wayland.WpCursorShapeManagerV1, wayland.ZxdgOutputManagerV1, wayland.WlDataDeviceManager, wayland.WpPresentation,
}

func versionOf(i *wayland.Interface) uint32 {
	switch i {
	case wayland.XdgWmBase:
		return 6
	case wayland.WpCursorShapeManagerV1, wayland.WpPresentation:
		return 1
	}
	return i.Version
}

const firstOutput = 100

func newCompositor(r rules, p *pixels) *compositor {
	return &compositor{
		rules: r, pixels: p, named: firstOutput, serial: 1000, given: map[uint32]given{}, latest: map[*conn]uint32{},
		outputs: []*output{{name: firstOutput, w: 800, h: 600}},
	}
}

// serve reads what the filter sends until the connection ends.
func (c *compositor) serve(tr *wayland.UnixConn) {
	k := &conn{comp: c, world: newWorld(), tr: tr, done: make(chan struct{}), names: map[uint32]uint32{}}
	k.world.moved, k.world.live = c.weston, c.weston
	k.world.globals = map[uint32]string{}
	for n, i := range offered {
		k.world.globals[uint32(n+1)] = i.Name
	}
	k.world.on = listener{
		request: k.onRequest, created: k.onCreated, gone: k.onGone, initial: k.onInitial,
		applied: func(s *surface) { k.touched = append(k.touched, s) },
		release: func(b *buffer) {
			if o := k.world.objects[b.id]; o != nil && o.data == b {
				k.event(b.id, wayland.WlBufferEvtRelease)
			}
		},
	}
	c.mu.Lock()
	for _, o := range c.outputs {
		k.world.globals[o.name] = "wl_output"
	}
	c.conns = append(c.conns, k)
	c.mu.Unlock()
	go k.read()
}

func (k *conn) read() {
	defer close(k.done)
	defer k.tr.Close()
	var buf []byte
	var ds []wayland.Desc
	defer func() { wayland.CloseAll(ds) }()
	b := make([]byte, 16384)
	for {
		n, got, err := k.tr.Recv(b, ds)
		ds = got
		if err != nil {
			return
		}
		buf = append(buf, b[:n]...)
		k.comp.mu.Lock()
		for {
			id, op, size, err := wayland.Next(buf)
			if err != nil {
				k.comp.find("protocol error malformed", "%v", err)
			}
			if err != nil || size == 0 {
				break
			}
			ds = k.handle(id, op, buf[wayland.HeaderSize:size], ds)
			buf = buf[size:]
			if k.world.broken != "" {
				break
			}
		}
		broken := k.world.broken
		if broken != "" {
			k.comp.find("protocol error "+upTo(broken, " ("), "%s", broken)
		}
		out, fds := k.out.B, k.fds
		k.out.B, k.fds = nil, nil
		k.comp.mu.Unlock()
		if len(out) > 0 && k.tr.Send(out, fds) != nil || broken != "" {
			return
		}
	}
}

func upTo(s, sep string) string {
	for i := 0; i+len(sep) <= len(s); i++ {
		if s[i:i+len(sep)] == sep {
			return s[:i]
		}
	}
	return s
}

// handle takes one message and its descriptors.
func (k *conn) handle(id uint32, op uint16, body []byte, ds []wayland.Desc) []wayland.Desc {
	_, m := k.world.def(id, op)
	guest := false
	if m != nil {
		for range m.FDKinds {
			if len(ds) == 0 {
				k.world.fail(nil, "missing descriptor", "%s", m.Name)
				return ds
			}
			guest = k.comp.pixels.own(ds[0].FD)
			ds[0].Close()
			ds = ds[1:]
		}
	}
	k.world.do(id, op, body, guest)
	k.look()
	return ds
}

// look judges what a request has changed, all of it at once: a compositor paints
// between requests, not within them.
func (k *conn) look() {
	if len(k.touched) == 0 {
		return
	}
	var roots []*surface
	for _, s := range k.touched {
		k.callbacks(s)
		if r := topOf(s); !slices.Contains(roots, r) {
			roots = append(roots, r)
		}
	}
	k.touched = k.touched[:0]
	for _, r := range roots {
		k.judge(r)
	}
}

// find notes a finding, once of each kind.
func (c *compositor) find(kind, format string, a ...any) {
	for _, f := range c.found {
		if f.kind == kind {
			return
		}
	}
	c.found = append(c.found, finding{kind, fmt.Sprintf(format, a...)})
}

func (k *conn) event(id uint32, op uint16, words ...uint32) { k.out.Msg(id, op, words...) }

func (k *conn) text(id uint32, op uint16, a ...any) {
	k.out.Begin(id, op)
	for _, v := range a {
		switch v := v.(type) {
		case uint32:
			k.out.Uint(v)
		case int:
			k.out.Int(int32(v))
		case string:
			k.out.String(v)
		case []byte:
			k.out.Array(v)
		}
	}
	_ = k.out.End()
}

func (k *conn) flush() {
	if out, fds := k.out.B, k.fds; len(out) > 0 {
		k.out.B, k.fds = nil, nil
		_ = k.tr.Send(out, fds)
	}
}

func (c *compositor) next(g given) uint32 {
	c.serial++
	c.given[c.serial] = g
	return c.serial
}

// onRequest answers, and checks what only a compositor can check.
func (k *conn) onRequest(o *object, m *wayland.Message, a args) {
	c := k.comp
	what := o.iface.Name + "." + m.Name
	switch what {
	case "wl_registry.bind":
		k.names[a.u(3)] = a.u(0)
	case "zxdg_output_manager_v1.get_xdg_output":
		k.names[a.u(0)] = k.names[a.u(1)]
	case "wl_display.sync":
		c.serial++
		k.event(a.u(0), wayland.WlCallbackEvtDone, c.serial)
	case "wl_display.get_registry":
		for n, i := range offered {
			k.text(a.u(0), wayland.WlRegistryEvtGlobal, uint32(n+1), i.Name, versionOf(i))
		}
		for _, o := range c.outputs {
			k.text(a.u(0), wayland.WlRegistryEvtGlobal, o.name, "wl_output", uint32(4))
		}
	case "xdg_popup.grab":
		c.find("popup grab", "xdg_popup.grab with the serial %d", a.u(1))
	case "xdg_toplevel.move", "xdg_toplevel.resize", "xdg_toplevel.show_window_menu":
		k.wantButton(what, a.u(1), topOf(o.data.(*xdgSurface).s))
	case "wl_data_device.start_drag":
		k.wantButton(what, a.u(3), topOf(k.world.surface(a.u(1))))
		if c.pressed == 0 || c.pressed != a.u(3) {
			c.find("serial start_drag", "no button is pressed with the serial %d", a.u(3))
		}
	case "wl_pointer.set_cursor":
		k.wantEnter(what, a.u(0))
	case "wp_cursor_shape_device_v1.set_shape":
		k.wantEnter(what, a.u(0))
	case "wl_data_device.set_selection":
		c.find("selection", "wl_data_device.set_selection reaches the compositor")
	case "xdg_popup.reposition":
		x := o.data.(*xdgSurface)
		defer func() { k.configurePopup(x, a.u(1), *k.world.objects[a.u(0)].data.(*positioner)) }()
	case "xdg_toplevel.set_maximized", "xdg_toplevel.set_fullscreen":
		if x := o.data.(*xdgSurface); x.asked {
			state := uint32(1)
			if m.Name == "set_fullscreen" {
				state = 2
			}
			k.configureTop(x, c.outputs[0].w, c.outputs[0].h, state)
		}
	case "xdg_toplevel.unset_maximized", "xdg_toplevel.unset_fullscreen":
		if x := o.data.(*xdgSurface); x.asked {
			k.configureTop(x, 0, 0, 0)
		}
	}
}

func topOf(s *surface) *surface {
	for s != nil && s.sub != nil && s.sub.parent != nil {
		s = s.sub.parent
	}
	return s
}

// windowOf is the toplevel that a surface belongs to, through popups.
func windowOf(s *surface) *surface {
	s = topOf(s)
	for s != nil && s.xdg != nil && s.xdg.popup != nil && s.xdg.popup.parent != nil {
		s = s.xdg.popup.parent.s
	}
	return s
}

func (k *conn) wantButton(what string, serial uint32, top *surface) {
	g, ok := k.comp.given[serial]
	switch {
	case !ok:
		k.comp.find("serial "+what, "the serial %d, which nobody gave", serial)
	case g.kind != "button" || g.conn != k || windowOf(g.surface) != windowOf(top):
		k.comp.find("serial "+what, "the serial %d, which came with %s to another surface", serial, g.kind)
	}
}

func (k *conn) wantEnter(what string, serial uint32) {
	if g := k.comp.given[serial]; g.kind != "enter" || g.conn != k || k.comp.latest[k] != serial {
		k.comp.find("serial "+what, "the serial %d is not of the last enter event to this client", serial)
	}
}

func (k *conn) onCreated(n, from *object) {
	switch n.iface {
	case wayland.WlSeat:
		if from.iface == wayland.WlRegistry {
			k.event(n.id, wayland.WlSeatEvtCapabilities, 3)
		}
	case wayland.WlShm:
		k.event(n.id, wayland.WlShmEvtFormat, 0)
		k.event(n.id, wayland.WlShmEvtFormat, 1)
	case wayland.WlOutput:
		k.tellOutput(n)
	case wayland.ZxdgOutputV1:
		if o := k.output(n.id); o != nil {
			k.event(n.id, wayland.ZxdgOutputV1EvtLogicalPosition, uint32(o.x), uint32(o.y))
			k.event(n.id, wayland.ZxdgOutputV1EvtLogicalSize, uint32(o.w), uint32(o.h))
			k.event(n.id, wayland.ZxdgOutputV1EvtDone)
		}
	case wayland.WpFractionalScaleV1:
		k.event(n.id, wayland.WpFractionalScaleV1EvtPreferredScale, 120)
	case wayland.WlKeyboard:
		if fd, err := unix.MemfdCreate("keymap", unix.MFD_CLOEXEC); err == nil {
			_ = unix.Ftruncate(fd, 4096)
			k.fds = append(k.fds, wayland.FileDesc(wayland.KindMemory, fd))
			k.event(n.id, wayland.WlKeyboardEvtKeymap, 0, 4096)
		}
	}
}

// output returns the one that an object stands for, nil when it is gone.
func (k *conn) output(id uint32) *output {
	for _, o := range k.comp.outputs {
		if o.name == k.names[id] {
			return o
		}
	}
	return nil
}

func (k *conn) tellOutput(n *object) {
	o := k.output(n.id)
	if o == nil {
		return
	}
	k.text(n.id, wayland.WlOutputEvtGeometry, o.x, o.y, 0, 0, 0, "make", "model", 0)
	k.event(n.id, wayland.WlOutputEvtMode, 1, uint32(o.w), uint32(o.h), 60000)
	if n.version >= 2 {
		k.event(n.id, wayland.WlOutputEvtScale, 1)
		k.event(n.id, wayland.WlOutputEvtDone)
	}
}

func (k *conn) onGone(o *object) {
	if o.id < wayland.ServerIDs {
		k.event(1, wayland.WlDisplayEvtDeleteId, o.id)
	}
	if s, ok := o.data.(*surface); ok && o.iface == wayland.WlSurface && k.comp.focus == s {
		k.comp.focus = nil
	}
}

func (k *conn) callbacks(s *surface) {
	for _, cb := range s.cur.callbacks {
		if o := k.world.objects[cb]; o != nil {
			k.event(cb, wayland.WlCallbackEvtDone, k.comp.time)
			k.world.remove(o)
		}
	}
	s.cur.callbacks = nil
}

func (k *conn) onInitial(x *xdgSurface) {
	switch x.role.iface {
	case wayland.XdgToplevel:
		k.configureTop(x, 0, 0, 0)
	case wayland.XdgPopup:
		k.configurePopup(x, 0, x.popup.rules)
	}
}

func (k *conn) configureTop(x *xdgSurface, w, h int, state uint32) {
	var states []byte
	if state != 0 {
		states = make([]byte, 4)
		wayland.PutWord(states, 0, state)
	}
	k.text(x.role.id, wayland.XdgToplevelEvtConfigure, w, h, states)
	s := k.comp.next(given{"configure", k, x.s})
	x.told(configured{serial: s, w: w, h: h, fixed: state == 1 || state == 2, state: state})
	k.event(x.o.id, wayland.XdgSurfaceEvtConfigure, s)
}

// configurePopup tells a popup its place; of the constraint adjustments this one
// slides and resizes, as far as it is asked to.
func (k *conn) configurePopup(x *xdgSurface, token uint32, p positioner) {
	r := p.place()
	if x.popup.parent != nil {
		ox, oy := k.comp.at(x.popup.parent.s)
		out := k.comp.outputs[0]
		if p.cons&1 != 0 {
			r.x = max(min(r.x, out.w-ox-r.w), -ox)
		}
		if p.cons&2 != 0 {
			r.y = max(min(r.y, out.h-oy-r.h), -oy)
		}
		if p.cons&16 != 0 {
			r.w = max(min(r.w, out.w), 1)
		}
		if p.cons&32 != 0 {
			r.h = max(min(r.h, out.h), 1)
		}
	}
	if token != 0 {
		k.event(x.role.id, wayland.XdgPopupEvtRepositioned, token)
	}
	k.event(x.role.id, wayland.XdgPopupEvtConfigure, uint32(int32(r.x)), uint32(int32(r.y)), uint32(r.w), uint32(r.h))
	s := k.comp.next(given{"configure", k, x.s})
	x.told(configured{serial: s, x: r.x, y: r.y, w: r.w, h: r.h, fixed: true})
	k.event(x.o.id, wayland.XdgSurfaceEvtConfigure, s)
}

// at is where the geometry of a window or popup begins in the layout.
func (c *compositor) at(s *surface) (x, y int) {
	if s.xdg != nil && s.xdg.popup != nil && s.xdg.popup.parent != nil {
		x, y = c.at(s.xdg.popup.parent.s)
		return x + s.cur.acked.x, y + s.cur.acked.y
	}
	n := 0
	for _, k := range c.conns {
		for _, r := range k.world.roots {
			if r == s {
				o := c.outputs[len(c.outputs)-1-n%len(c.outputs)]
				return o.x + 20 + n*50%max(o.w-250, 1), o.y + 20 + n*40%max(o.h-200, 1)
			}
			if r.role == "toplevel" {
				n++
			}
		}
	}
	return 0, 0
}
