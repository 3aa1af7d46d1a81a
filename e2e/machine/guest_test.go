package machine

import (
	"errors"
	"io"

	"vix/internal/wayland"
)

// A guest is a client of raw Wayland on the filter's socket. What it does stands in
// numbered slots; a step that names an empty slot does nothing, so that any part of
// a sequence is a sequence.
type guest struct {
	rules
	tr      *wayland.UnixConn
	pixels  *pixels
	model   *world // what a compositor would make of the same requests
	out     wayland.Encoder
	fds     []wayland.Desc
	buf     []byte
	descs   []wayland.Desc
	next    uint32
	objects map[string]uint32 // globals by interface
	ended   error             // the connection
	why     string            // wl_display.error

	slots   [slots]slot
	key     int
	pool    [2]uint32
	enter   uint32 // the last serial of each kind
	button  uint32
	keys    uint32
	old     uint32 // some earlier one
	pointer uint32
	shape   uint32
	source  uint32
	device  uint32
	onto    map[uint32]int // xdg objects' slots
	hotX    int            // of the last set_cursor
	hotY    int

	names map[string][2]uint32 // of globals, with their versions
	heard []heard              // of input, since somebody looked
	typed uint32               // the surface that has the keyboard, 0 for none
	under uint32               // the surface that has the pointer
}

const slots = 8

// A slot holds what belongs to one surface; 0 where there is nothing.
type slot struct {
	surface, sub, viewport, buffer uint32
	xdg, role                      uint32
	popup                          bool
	told                           []uint32 // serials of configure events, not acknowledged
	w, h                           int      // of the last of them
	hotspot                        bool     // shows pointer-coloured pixels
}

// bindings are what a guest binds, in this order.
var bindings = []struct {
	i *wayland.Interface
	v uint32
}{
	{wayland.WlCompositor, 6}, {wayland.WlSubcompositor, 1}, {wayland.WlShm, 1}, {wayland.XdgWmBase, 5}, {wayland.WlSeat, 7},
	{wayland.WpViewporter, 1}, {wayland.WpSinglePixelBufferManagerV1, 1}, {wayland.WlDataDeviceManager, 3}, {wayland.WpCursorShapeManagerV1, 1},
}

func newGuest(r rules, tr *wayland.UnixConn, p *pixels) *guest {
	g := &guest{rules: r, tr: tr, pixels: p, model: newWorld(), next: 3, objects: map[string]uint32{}, onto: map[uint32]int{}}
	g.model.moved, g.model.live, g.model.lenient = r.weston, r.weston, true
	g.model.entered = func(serial uint32) bool { return g.under != 0 && serial == g.enter }
	return g
}

func (g *guest) id() uint32 { g.next++; return g.next - 1 }

// say sends a request, and tells the model of it.
func (g *guest) say(id uint32, op int, words ...uint32) {
	start := len(g.out.B)
	g.out.Msg(id, uint16(op), words...)
	g.model.do(id, uint16(op), g.out.B[start+wayland.HeaderSize:], true)
}

// start binds the globals.
func (g *guest) start() {
	g.say(1, wayland.WlDisplayReqGetRegistry, 2)
	g.names = map[string][2]uint32{}
	g.events(func(id uint32, op uint16, body []byte) {
		if id == 2 && op == wayland.WlRegistryEvtGlobal {
			d := wayland.NewDecoder(body)
			n := d.Uint()
			iface := string(d.String())
			g.names[iface] = [2]uint32{n, d.Uint()}
		}
	})
	for _, b := range bindings {
		n, ok := g.names[b.i.Name]
		if !ok {
			continue
		}
		v := min(n[1], b.v)
		if g.version4 && b.i == wayland.WlCompositor {
			v = 4
		}
		id := g.id()
		g.objects[b.i.Name] = id
		start := len(g.out.B)
		_ = g.out.Put(2, wayland.WlRegistryReqBind, n[0], b.i.Name, v, id)
		g.model.do(2, wayland.WlRegistryReqBind, g.out.B[start+wayland.HeaderSize:], true)
	}
	seat := g.objects["wl_seat"]
	g.pointer = g.id()
	g.say(seat, wayland.WlSeatReqGetPointer, g.pointer)
	g.say(seat, wayland.WlSeatReqGetKeyboard, g.id())
	g.device = g.id()
	g.say(g.objects["wl_data_device_manager"], wayland.WlDataDeviceManagerReqGetDataDevice, g.device, seat)
	if m := g.objects["wp_cursor_shape_manager_v1"]; m != 0 {
		g.shape = g.id()
		g.say(m, wayland.WpCursorShapeManagerV1ReqGetPointer, g.shape, g.pointer)
	}
	for k := range g.pool {
		g.pool[k] = g.id()
		g.fds = append(g.fds, g.pixels.desc(k))
		g.say(g.objects["wl_shm"], wayland.WlShmReqCreatePool, g.pool[k], poolSize)
	}
	g.sync()
}

// sync sends what is to be sent, and hears what comes until the compositor has
// handled all of it.
func (g *guest) sync() { g.events(nil) }

func (g *guest) events(hear func(id uint32, op uint16, body []byte)) {
	if g.ended != nil {
		return
	}
	done := g.id()
	g.out.Msg(1, wayland.WlDisplayReqSync, done) // the model has nothing to learn from it
	err := g.tr.Send(g.out.B, g.fds)
	g.out.B, g.fds = nil, nil
	for err == nil {
		var id uint32
		var op uint16
		var body []byte
		if id, op, body, err = g.read(); err != nil {
			break
		}
		if id == done {
			return
		}
		if hear != nil {
			hear(id, op, body)
		}
		g.hear(id, op, body)
		if g.why != "" {
			err = errors.New(g.why)
		}
	}
	// An error event may lie before the end.
	for {
		id, op, body, e := g.read()
		if e != nil {
			break
		}
		if id == 1 && op == wayland.WlDisplayEvtError {
			g.hear(id, op, body)
		}
	}
	g.ended = err
}

func (g *guest) read() (id uint32, op uint16, body []byte, err error) {
	for {
		id, op, size, err := wayland.Next(g.buf)
		if err != nil {
			return 0, 0, nil, err
		}
		if size > 0 {
			body := g.buf[wayland.HeaderSize:size]
			g.buf = g.buf[size:]
			return id, op, body, nil
		}
		b := make([]byte, 8192)
		n, ds, err := g.tr.Recv(b, g.descs[:0])
		wayland.CloseAll(ds)
		if err != nil {
			if errors.Is(err, io.EOF) && g.why != "" {
				err = errors.New(g.why)
			}
			return 0, 0, nil, err
		}
		g.buf = append(g.buf, b[:n]...)
	}
}

// hear keeps what a later step may need.
func (g *guest) hear(id uint32, op uint16, body []byte) {
	o := g.model.objects[id]
	if o == nil {
		return
	}
	word := func(k int) uint32 { return wayland.Word(body, 4*k) }
	switch o.iface {
	case wayland.WlDisplay:
		if op == wayland.WlDisplayEvtError {
			d := wayland.NewDecoder(body)
			d.Uint()
			d.Uint()
			g.why = string(d.String())
		}
	case wayland.XdgWmBase:
		g.say(id, wayland.XdgWmBaseReqPong, word(0))
	case wayland.XdgToplevel:
		s := &g.slots[g.onto[id]]
		if op == wayland.XdgToplevelEvtConfigure && s.role == id {
			s.w, s.h = int(word(0)), int(word(1))
		}
	case wayland.XdgPopup:
		s := &g.slots[g.onto[id]]
		if op == wayland.XdgPopupEvtConfigure && s.role == id {
			s.w, s.h = int(word(2)), int(word(3))
		}
	case wayland.XdgSurface:
		s := &g.slots[g.onto[id]]
		if s.xdg == id && s.role != 0 {
			s.told = append(s.told, word(0))
			if x, ok := o.data.(*xdgSurface); ok {
				x.told(configured{serial: word(0), w: s.w, h: s.h})
			}
		}
	case wayland.WlPointer:
		g.pointed(op, body)
	case wayland.WlKeyboard:
		g.pressed(op, body)
	}
}

// heard is one event of a device.
type heard struct {
	what    string // key, button
	code    uint32
	down    bool
	surface uint32
}

func (g *guest) pointed(op uint16, body []byte) {
	word := func(k int) uint32 { return wayland.Word(body, 4*k) }
	switch op {
	case wayland.WlPointerEvtEnter:
		g.old, g.enter, g.under = g.enter, word(0), word(1)
	case wayland.WlPointerEvtLeave:
		g.under = 0
	case wayland.WlPointerEvtButton:
		if word(3) == 1 {
			g.old, g.button = g.button, word(0)
		}
		g.heard = append(g.heard, heard{"button", word(2), word(3) == 1, g.under})
	}
}

func (g *guest) pressed(op uint16, body []byte) {
	word := func(k int) uint32 { return wayland.Word(body, 4*k) }
	switch op {
	case wayland.WlKeyboardEvtEnter:
		g.keys, g.typed = word(0), word(1)
	case wayland.WlKeyboardEvtLeave:
		g.typed = 0
	case wayland.WlKeyboardEvtKey:
		g.heard = append(g.heard, heard{"key", word(2), word(3) == 1, g.typed})
	}
}

// answer acknowledges what every window was told, as a program does that is alive, and
// takes its size if it is to.
func (g *guest) answer(resize bool) {
	for k := range g.slots {
		if s := &g.slots[k]; s.surface != 0 && len(s.told) > 0 {
			g.run("ack", k)
			if resize && s.w > 0 && s.h > 0 {
				g.attach(s, s.w, s.h, 0, 0)
			}
			g.run("commit", k)
		}
	}
	g.sync()
}

// serial returns one of what a guest may know, or invent.
func (g *guest) serial(kind int) uint32 {
	switch kind {
	case 0:
		return g.button
	case 1:
		return g.enter
	case 2:
		return g.keys
	case 3:
		return g.old
	}
	return 12345
}

// step carries out one step.
func (g *guest) step(o op) {
	if g.ended != nil || g.model.broken != "" && !g.rude {
		return
	}
	if !g.rude && g.wrong(o) {
		return
	}
	if do, ok := steps[o.name]; ok {
		do(g, o)
		return
	}
	g.macro(o)
}

// slot returns the slot that a step's k-th argument names.
func (g *guest) slot(o op, k int) *slot { return &g.slots[o.n(k)&(slots-1)] }

var steps = map[string]func(g *guest, o op){
	"surface": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface == 0 {
			*s = slot{surface: g.id()}
			g.say(g.objects["wl_compositor"], wayland.WlCompositorReqCreateSurface, s.surface)
		}
	},
	"destroy": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface != 0 {
			g.say(s.surface, wayland.WlSurfaceReqDestroy)
			if g.under == s.surface {
				g.under = 0 // no compositor sends a leave event for it
			}
			s.surface = 0
			if s.xdg == 0 {
				s.buffer, s.viewport = 0, 0
			}
		}
	},
	"attach": func(g *guest, o op) { g.attach(g.slot(o, 0), o.n(1), o.n(2), o.n(3), o.n(4)) },
	"pixel": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface != 0 {
			g.key++
			b := g.id()
			g.say(g.objects["wp_single_pixel_buffer_manager_v1"], wayland.WpSinglePixelBufferManagerV1ReqCreateU32RgbaBuffer, b, uint32(g.key), 0xffffffff, 0, 0xffffffff)
			s.buffer = b
			g.say(s.surface, wayland.WlSurfaceReqAttach, b, 0, 0)
		}
	},
	"null": func(g *guest, o op) { g.on(o, wayland.WlSurfaceReqAttach, 0, 0, 0) },
	"unbuffer": func(g *guest, o op) {
		if s := g.slot(o, 0); s.buffer != 0 {
			g.say(s.buffer, wayland.WlBufferReqDestroy)
			s.buffer = 0
		}
	},
	"damage": func(g *guest, o op) { g.on(o, wayland.WlSurfaceReqDamage, 0, 0, 1<<31-1, 1<<31-1) },
	"commit": func(g *guest, o op) { g.on(o, wayland.WlSurfaceReqCommit) },
	"frame": func(g *guest, o op) {
		if g.slot(o, 0).surface != 0 {
			g.on(o, wayland.WlSurfaceReqFrame, g.id())
		}
	},
	"offset": func(g *guest, o op) {
		if !g.version4 {
			g.on(o, wayland.WlSurfaceReqOffset, o.u(1), o.u(2))
		}
	},
	"scale":     func(g *guest, o op) { g.on(o, wayland.WlSurfaceReqSetBufferScale, o.u(1)) },
	"transform": func(g *guest, o op) { g.on(o, wayland.WlSurfaceReqSetBufferTransform, o.u(1)) },
	"input":     func(g *guest, o op) { g.region(o, wayland.WlSurfaceReqSetInputRegion) },
	"opaque":    func(g *guest, o op) { g.region(o, wayland.WlSurfaceReqSetOpaqueRegion) },
	"viewport": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface != 0 {
			v := g.id()
			g.say(g.objects["wp_viewporter"], wayland.WpViewporterReqGetViewport, v, s.surface)
			s.viewport = v
		}
	},
	"source": func(g *guest, o op) {
		if s := g.slot(o, 0); s.viewport != 0 {
			g.say(s.viewport, wayland.WpViewportReqSetSource, o.u(1)<<8, o.u(2)<<8, o.u(3)<<8, o.u(4)<<8)
		}
	},
	"destination": func(g *guest, o op) {
		if s := g.slot(o, 0); s.viewport != 0 {
			g.say(s.viewport, wayland.WpViewportReqSetDestination, o.u(1), o.u(2))
		}
	},
	"unviewport": func(g *guest, o op) {
		if s := g.slot(o, 0); s.viewport != 0 {
			g.say(s.viewport, wayland.WpViewportReqDestroy)
			s.viewport = 0
		}
	},
	"sub": func(g *guest, o op) {
		s, p := g.slot(o, 0), g.slot(o, 1)
		if s.surface != 0 && p.surface != 0 {
			n := g.id()
			g.say(g.objects["wl_subcompositor"], wayland.WlSubcompositorReqGetSubsurface, n, s.surface, p.surface)
			s.sub = n
		}
	},
	"position": func(g *guest, o op) { g.onSub(o, wayland.WlSubsurfaceReqSetPosition, o.u(1), o.u(2)) },
	"above":    func(g *guest, o op) { g.stack(o, wayland.WlSubsurfaceReqPlaceAbove) },
	"below":    func(g *guest, o op) { g.stack(o, wayland.WlSubsurfaceReqPlaceBelow) },
	"sync":     func(g *guest, o op) { g.onSub(o, wayland.WlSubsurfaceReqSetSync) },
	"desync":   func(g *guest, o op) { g.onSub(o, wayland.WlSubsurfaceReqSetDesync) },
	"unsub": func(g *guest, o op) {
		g.onSub(o, wayland.WlSubsurfaceReqDestroy)
		g.slot(o, 0).sub = 0
	},
	"xdg": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface != 0 && s.xdg == 0 {
			s.xdg = g.id()
			g.onto[s.xdg] = o.n(0) & (slots - 1)
			g.say(g.objects["xdg_wm_base"], wayland.XdgWmBaseReqGetXdgSurface, s.xdg, s.surface)
		}
	},
	"toplevel": func(g *guest, o op) {
		if s := g.slot(o, 0); s.xdg != 0 && s.role == 0 {
			s.role, s.popup, s.told = g.id(), false, nil
			g.onto[s.role] = o.n(0) & (slots - 1)
			g.say(s.xdg, wayland.XdgSurfaceReqGetToplevel, s.role)
		}
	},
	"popup":      func(g *guest, o op) { g.popup(o) },
	"reposition": func(g *guest, o op) { g.reposition(o) },
	"unrole": func(g *guest, o op) {
		if s := g.slot(o, 0); s.role != 0 {
			g.say(s.role, wayland.XdgToplevelReqDestroy) // of a popup alike: both are 0
			s.role, s.told = 0, nil
			g.sync() // what was configured before is no later role's
		}
	},
	"unxdg": func(g *guest, o op) {
		if s := g.slot(o, 0); s.xdg != 0 {
			g.say(s.xdg, wayland.XdgSurfaceReqDestroy)
			s.xdg = 0
		}
	},
	"geometry": func(g *guest, o op) {
		if s := g.slot(o, 0); s.xdg != 0 {
			g.say(s.xdg, wayland.XdgSurfaceReqSetWindowGeometry, o.u(1), o.u(2), o.u(3), o.u(4))
		}
	},
	"ack": func(g *guest, o op) {
		if s := g.slot(o, 0); s.xdg != 0 && len(s.told) > 0 {
			k := len(s.told) - 1
			if o.n(1) > 0 {
				k = 0 // the oldest
			}
			g.say(s.xdg, wayland.XdgSurfaceReqAckConfigure, s.told[k])
			s.told = s.told[k+1:]
		}
	},
	"max":        func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqSetMaxSize, o.u(1), o.u(2)) },
	"min":        func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqSetMinSize, o.u(1), o.u(2)) },
	"maximize":   func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqSetMaximized) },
	"unmaximize": func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqUnsetMaximized) },
	"fullscreen": func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqSetFullscreen, 0) },
	"restore":    func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqUnsetFullscreen) },
	"move":       func(g *guest, o op) { g.onTop(o, wayland.XdgToplevelReqMove, g.objects["wl_seat"], g.serial(o.n(1))) },
	"resize": func(g *guest, o op) {
		g.onTop(o, wayland.XdgToplevelReqResize, g.objects["wl_seat"], g.serial(o.n(1)), 4)
	},
	"menu": func(g *guest, o op) {
		g.onTop(o, wayland.XdgToplevelReqShowWindowMenu, g.objects["wl_seat"], g.serial(o.n(1)), 0, 0)
	},
	"grab": func(g *guest, o op) {
		if s := g.slot(o, 0); s.role != 0 && s.popup {
			g.say(s.role, wayland.XdgPopupReqGrab, g.objects["wl_seat"], g.serial(o.n(1)))
		}
	},
	"cursor": func(g *guest, o op) {
		if s := g.slot(o, 0); s.surface != 0 {
			s.hotspot = true
			g.hotX, g.hotY = o.n(2), o.n(3)
			g.say(g.pointer, wayland.WlPointerReqSetCursor, g.serial(o.n(1)), s.surface, o.u(2), o.u(3))
		}
	},
	"nocursor": func(g *guest, o op) {
		g.say(g.pointer, wayland.WlPointerReqSetCursor, g.serial(o.n(0)), 0, 0, 0)
	},
	"shape": func(g *guest, o op) {
		if g.shape != 0 {
			g.say(g.shape, wayland.WpCursorShapeDeviceV1ReqSetShape, g.serial(o.n(0)), 1)
		}
	},
	"drag": func(g *guest, o op) { g.drag(o) },
	"wait": func(g *guest, _ op) { g.sync() },
}

// macro carries out a step that is made of steps.
func (g *guest) macro(o op) {
	switch o.name {
	case "window":
		g.run("surface", o.n(0))
		g.run("xdg", o.n(0))
		g.run("toplevel", o.n(0))
		g.run("commit", o.n(0))
		g.await(g.slot(o, 0))
		g.run("ack", o.n(0))
		g.run("attach", o.n(0), o.n(1), o.n(2))
		g.run("commit", o.n(0))
		g.sync()
	case "menu-popup": // slot, parent, w, h, x, y
		g.run("surface", o.n(0))
		g.run("xdg", o.n(0))
		g.run("popup", o.n(0), o.n(1), o.n(2), o.n(3), o.n(4), o.n(5))
		g.run("commit", o.n(0))
		g.await(g.slot(o, 0))
		g.run("ack", o.n(0))
		g.run("attach", o.n(0), o.n(2), o.n(3))
		g.run("commit", o.n(0))
		g.sync()
	case "quick": // slot, parent, serial: a popup with a grab
		g.run("surface", o.n(0))
		g.run("xdg", o.n(0))
		g.run("popup", o.n(0), o.n(1), 30, 30, 20, 20)
		g.run("grab", o.n(0), o.n(2))
		g.run("commit", o.n(0))
		g.await(g.slot(o, 0))
		g.run("ack", o.n(0))
		g.run("attach", o.n(0), 30, 30)
		g.run("commit", o.n(0))
		g.sync()
	case "child": // slot, parent, w, h, x, y
		g.run("surface", o.n(0))
		g.run("sub", o.n(0), o.n(1))
		g.run("position", o.n(0), o.n(4), o.n(5))
		g.run("attach", o.n(0), o.n(2), o.n(3))
		g.run("commit", o.n(0))
		g.run("commit", o.n(1))
	default:
		panic("no such step: " + o.name)
	}
}

var macros = []string{"window", "menu-popup", "quick", "child"}

// await waits for a configure event, which wlroots does not send before it has heard
// all that there is to hear. Where none is to come, it is asked for no longer.
func (g *guest) await(s *slot) {
	for range 10 {
		if g.sync(); len(s.told) > 0 || s.role == 0 {
			return
		}
	}
}

func (g *guest) run(name string, a ...int) { g.step(op{name, a}) }

// on sends a request of a slot's surface.
func (g *guest) on(o op, req int, words ...uint32) {
	if s := g.slot(o, 0); s.surface != 0 {
		g.say(s.surface, req, words...)
	}
}

func (g *guest) onSub(o op, req int, words ...uint32) {
	if s := g.slot(o, 0); s.sub != 0 {
		g.say(s.sub, req, words...)
	}
}

func (g *guest) onTop(o op, req int, words ...uint32) {
	if s := g.slot(o, 0); s.role != 0 && !s.popup {
		g.say(s.role, req, words...)
	}
}

func (g *guest) stack(o op, req int) {
	if t := g.slot(o, 1); t.surface != 0 {
		g.onSub(o, req, t.surface)
	}
}

// attach attaches a buffer that nothing else has: its place in the pool tells whose it is.
func (g *guest) attach(s *slot, w, h, x, y int) {
	if s.surface == 0 {
		return
	}
	w, h = min(max(w, 1), maxBuffer), min(max(h, 1), maxBuffer)
	g.key++
	pool := g.pool[0]
	if s.hotspot {
		pool = g.pool[1]
	}
	s.buffer = g.id()
	g.say(pool, wayland.WlShmPoolReqCreateBuffer, s.buffer, uint32(g.key*4), uint32(w), uint32(h), uint32(w*4), 1)
	if !g.version4 {
		x, y = 0, 0
	}
	g.say(s.surface, wayland.WlSurfaceReqAttach, s.buffer, uint32(int32(x)), uint32(int32(y)))
}

// region sets none, an empty one, or some rectangle.
func (g *guest) region(o op, req int) {
	if g.slot(o, 0).surface == 0 {
		return
	}
	if o.n(1) == 0 {
		g.on(o, req, 0)
		return
	}
	r := g.id()
	g.say(g.objects["wl_compositor"], wayland.WlCompositorReqCreateRegion, r)
	if o.n(1) > 1 {
		g.say(r, wayland.WlRegionReqAdd, 0, 0, o.u(1), o.u(1))
	}
	g.on(o, req, r)
	g.say(r, wayland.WlRegionReqDestroy)
}

// positioner makes one of the arguments from k on: w, h, x, y, anchor, gravity, adjustment.
func (g *guest) positioner(o op, k int) uint32 {
	p := g.id()
	g.say(g.objects["xdg_wm_base"], wayland.XdgWmBaseReqCreatePositioner, p)
	g.say(p, wayland.XdgPositionerReqSetSize, o.u(k), o.u(k+1))
	g.say(p, wayland.XdgPositionerReqSetAnchorRect, o.u(k+2), o.u(k+3), 1, 1)
	anchor, gravity := uint32(5), uint32(8) // the top left, and from there down
	if len(o.a) > k+5 {
		anchor, gravity = o.u(k+4)%9, o.u(k+5)%9
	}
	g.say(p, wayland.XdgPositionerReqSetAnchor, anchor)
	g.say(p, wayland.XdgPositionerReqSetGravity, gravity)
	if len(o.a) > k+6 {
		g.say(p, wayland.XdgPositionerReqSetConstraintAdjustment, o.u(k+6)&63)
		if o.n(k+6)&64 != 0 {
			g.say(p, wayland.XdgPositionerReqSetReactive)
		}
	}
	return p
}

func (g *guest) popup(o op) {
	s, parent := g.slot(o, 0), g.slot(o, 1)
	if s.xdg == 0 || s.role != 0 || parent.xdg == 0 {
		return
	}
	p := g.positioner(o, 2)
	s.role, s.popup, s.told = g.id(), true, nil
	g.onto[s.role] = o.n(0) & (slots - 1)
	g.say(s.xdg, wayland.XdgSurfaceReqGetPopup, s.role, parent.xdg, p)
	g.say(p, wayland.XdgPositionerReqDestroy)
}

func (g *guest) reposition(o op) {
	if s := g.slot(o, 0); s.role != 0 && s.popup {
		p := g.positioner(o, 1)
		g.say(s.role, wayland.XdgPopupReqReposition, p, 7)
		g.say(p, wayland.XdgPositionerReqDestroy)
	}
}

// drag starts one from a surface, with another as its icon: serial, with a source or not.
func (g *guest) drag(o op) {
	from, icon := g.slot(o, 0), g.slot(o, 1)
	if from.surface == 0 {
		return
	}
	source := uint32(0)
	if o.n(3) > 0 {
		source = g.id()
		g.say(g.objects["wl_data_device_manager"], wayland.WlDataDeviceManagerReqCreateDataSource, source)
		start := len(g.out.B)
		_ = g.out.Put(source, wayland.WlDataSourceReqOffer, "text/plain")
		g.model.do(source, wayland.WlDataSourceReqOffer, g.out.B[start+wayland.HeaderSize:], true)
	}
	g.say(g.device, wayland.WlDataDeviceReqStartDrag, source, from.surface, icon.surface, g.serial(o.n(2)))
}
