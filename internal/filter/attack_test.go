package filter

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/surface"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// An attacker is a hostile guest with one framed window, before a compositor that these
// tests drive by hand and that believes everything: what it hears is all that stands
// between the guest and the screen. It follows the compositor's side of every request
// and says, in wrong, what of the guest's would be shown where it must not be.
type attacker struct {
	*framed
	t    *testing.T
	win  framedWindow
	gone bool // the filter has ended the connection
	why  string

	objs    map[uint32]*wayland.Interface // the compositor's
	seen    map[uint32]*seenSurface
	of      map[uint32]uint32 // viewports, wl_subsurfaces and xdg_surfaces: their surface
	shells  map[uint32]*seenShell
	last    map[*wayland.Interface]uint32 // the object that was made last
	sizes   map[uint32][2]int32           // of xdg_positioners
	bad     []string
	images  int // of pointers and pens, that were told
	grabs   []said
	data    uint32 // its wl_data_device
	offers  uint32 // its wl_data_device_manager
	comp    uint32 // its wl_compositor
	serial  uint32
	screens []uint32 // wl_outputs of the filter's
}

// seenSurface is a wl_surface as the compositor would show it.
type seenSurface struct {
	mapped, own bool // own: the filter's
	below       bool // a piece that lies below what it frames
	w, h        int32
	x, y        int32
	parent      uint32
	roles       map[string]bool
}

// seenShell is a window or a popup.
type seenShell struct {
	surface  uint32
	popup    bool
	geometry box
	at       surface.Point // of a popup, in the window's geometry
}

// said is a request that the compositor hears.
type said struct {
	waylandtest.Msg
	name string // "interface.request"
}

const neg = 1 << 32 // neg-n is -n as an argument

func newAttacker(t *testing.T) *attacker {
	t.Helper()
	waylandtest.LeakCheck(t)
	a := &attacker{
		framed: newFramed(t, "full"), t: t,
		objs: map[uint32]*wayland.Interface{1: wayland.WlDisplay}, seen: map[uint32]*seenSurface{}, of: map[uint32]uint32{},
		shells: map[uint32]*seenShell{}, last: map[*wayland.Interface]uint32{}, sizes: map[uint32][2]int32{},
	}
	a.win = a.window()
	a.comp = a.ids[wayland.WlCompositor]
	for _, ids := range []map[*wayland.Interface]uint32{a.host, a.own} {
		for i, id := range ids {
			a.objs[id] = i
		}
	}
	a.objs[a.reg], a.objs[a.ask] = wayland.WlRegistry, wayland.WlRegistry
	a.know(a.win)
	a.req(a.win.surface, wayland.WlSurfaceReqAttach, a.buffer(100, 80), 0, 0)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	return a
}

// know takes in a window that was made without being followed.
func (a *attacker) know(w framedWindow) {
	a.objs[w.hostSurface], a.objs[w.hostXdg], a.objs[w.hostTop] = wayland.WlSurface, wayland.XdgSurface, wayland.XdgToplevel
	a.seen[w.hostSurface] = &seenSurface{roles: map[string]bool{"window": true}}
	a.of[w.hostXdg] = w.hostSurface
	a.shells[w.hostXdg] = &seenShell{surface: w.hostSurface}
}

// req sends a request; a guest that was thrown out does not mind.
func (a *attacker) req(id uint32, op uint16, words ...uint32) {
	var e wayland.Encoder
	e.Msg(id, op, words...)
	_ = a.guest.Tr.Send(e.B, nil)
}

// buffer makes a wl_buffer, with a pool of its own.
func (a *attacker) buffer(w, h int) uint32 {
	pool, buf := a.id(), a.id()
	d := waylandtest.Memfd(a.t, int64(w*h*4))
	var e wayland.Encoder
	e.Msg(a.ids[wayland.WlShm], wayland.WlShmReqCreatePool, pool, uint32(w*h*4))
	if a.guest.Tr.Send(e.B, []wayland.Desc{d}) != nil {
		_ = unix.Close(d.FD)
	}
	a.req(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, uint32(w), uint32(h), uint32(w*4), 1)
	a.req(pool, wayland.WlShmPoolReqDestroy)
	return buf
}

// made makes a wl_surface.
func (a *attacker) made() uint32 {
	s := a.id()
	a.req(a.comp, wayland.WlCompositorReqCreateSurface, s)
	return s
}

// older has its surfaces made by version 4 of wl_compositor, whose attach moves them.
func (a *attacker) older() {
	a.comp = a.id()
	a.write(a.guest, 2, wayland.WlRegistryReqBind, uint32(framedName), wayland.WlCompositor.Name, uint32(4), a.comp)
}

// show commits a buffer of a size.
func (a *attacker) show(s uint32, w, h int) {
	a.req(s, wayland.WlSurfaceReqAttach, a.buffer(w, h), 0, 0)
	a.req(s, wayland.WlSurfaceReqCommit)
}

// sub makes a sub-surface of a surface.
func (a *attacker) sub(s, parent uint32, x, y int) uint32 {
	sub := a.id()
	a.req(a.ids[wayland.WlSubcompositor], wayland.WlSubcompositorReqGetSubsurface, sub, s, parent)
	a.req(sub, wayland.WlSubsurfaceReqSetPosition, uint32(x), uint32(y))
	return sub
}

// port gives a surface a viewport.
func (a *attacker) viewport(s uint32) uint32 {
	v := a.id()
	a.req(a.ids[wayland.WpViewporter], wayland.WpViewporterReqGetViewport, v, s)
	return v
}

// heard is all that the compositor hears of what the guest has sent so far.
func (a *attacker) heard() (all []said) {
	a.t.Helper()
	mark := a.id() // the filter itself asks for syncs, and for no regions
	a.req(a.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion, mark)
	a.req(mark, wayland.WlRegionReqDestroy)
	for !a.gone {
		m, err := a.rig.host.Next()
		if err != nil {
			a.ended()
			break
		}
		heard := a.follow(m)
		if heard.name == "wl_region.destroy" {
			break
		}
		if heard.name != "wl_compositor.create_region" {
			all = append(all, heard)
		}
	}
	return all
}

// ended notes why the filter has ended the connection.
func (a *attacker) ended() {
	a.gone = true
	for a.why == "" {
		m, err := a.guest.Next()
		if err != nil {
			return
		}
		a.error(m)
	}
}

func (a *attacker) error(m waylandtest.Msg) {
	if m.ID == 1 && m.Op == wayland.WlDisplayEvtError {
		d := wayland.NewDecoder(m.Body)
		d.Uint()
		d.Uint()
		a.why = string(d.String())
	}
}

// settle waits until the filter has taken in what the compositor has said.
func (a *attacker) settle() {
	a.t.Helper()
	if a.gone {
		return
	}
	a.rig.host.Send(a.host[wayland.WlSeat], wayland.WlSeatEvtCapabilities, 3)
	for {
		m, err := a.guest.Next()
		if err != nil {
			a.gone = true
			return
		}
		a.error(m)
		if m.ID == a.ids[wayland.WlSeat] && m.Op == wayland.WlSeatEvtCapabilities {
			return
		}
	}
}

// named returns what of the requests has a name.
func named(all []said, name string) (found []said) {
	for _, m := range all {
		if m.name == name {
			found = append(found, m)
		}
	}
	return found
}

// follow takes in a request to the compositor.
func (a *attacker) follow(m waylandtest.Msg) said {
	a.t.Helper()
	i := a.objs[m.ID]
	if i == nil {
		a.t.Fatalf("the compositor hears of object %d, which nobody made: request %d", m.ID, m.Op)
	}
	def := &i.Requests[m.Op]
	if n := def.New; i == wayland.WlRegistry {
		d := wayland.NewDecoder(m.Body)
		d.Uint()
		iface := wayland.Lookup(string(d.String()))
		a.objs[m.Word(len(m.Body)/4-1)], a.last[iface] = iface, m.Word(len(m.Body)/4-1)
	} else if n != nil {
		a.objs[m.Word(n.Word)], a.last[n.Iface] = n.Iface, m.Word(n.Word)
	}
	switch i {
	case wayland.WlCompositor:
		if m.Op == wayland.WlCompositorReqCreateSurface {
			a.seen[m.Word(0)] = &seenSurface{own: m.ID == a.own[wayland.WlCompositor], roles: map[string]bool{}}
		}
	case wayland.WlSubcompositor, wayland.WlSubsurface, wayland.WpViewporter, wayland.WpViewport:
		a.followPart(m, i)
	case wayland.WlSurface:
		a.followSurface(m)
	case wayland.XdgWmBase, wayland.XdgSurface, wayland.XdgPositioner:
		a.followShell(m, i)
	case wayland.WlPointer, wayland.ZwpTabletToolV2: // both have set_cursor first
		if m.Op == wayland.WlPointerReqSetCursor && m.Word(1) != 0 {
			a.images++
			a.followImage(m)
		}
	case wayland.WlDataDevice:
		if m.Op == wayland.WlDataDeviceReqStartDrag && m.Word(2) != 0 {
			a.role(m.Word(2), "icon")
		}
	}
	heard := said{m, i.Name + "." + def.Name}
	if heard.name == "xdg_popup.grab" {
		a.grabs = append(a.grabs, heard)
	}
	return heard
}

func (a *attacker) role(surface uint32, r string) {
	if s := a.seen[surface]; s != nil {
		s.roles[r] = true
		if len(s.roles) > 1 {
			a.bad = append(a.bad, fmt.Sprintf("surface %d is %v to the compositor", surface, s.roles))
		}
	}
}

func (a *attacker) followPart(m waylandtest.Msg, i *wayland.Interface) {
	s := a.seen[a.of[m.ID]]
	switch {
	case i == wayland.WlSubcompositor && m.Op == wayland.WlSubcompositorReqGetSubsurface:
		a.of[m.Word(0)] = m.Word(1)
		a.seen[m.Word(1)].parent = m.Word(2)
		a.role(m.Word(1), "sub-surface")
	case i == wayland.WpViewporter && m.Op == wayland.WpViewporterReqGetViewport:
		a.of[m.Word(0)] = m.Word(1)
	case s == nil:
	case i == wayland.WlSubsurface && m.Op == wayland.WlSubsurfaceReqSetPosition:
		s.x, s.y = int32(m.Word(0)), int32(m.Word(1))
	case i == wayland.WlSubsurface && m.Op == wayland.WlSubsurfaceReqPlaceBelow:
		s.below = s.own && m.Word(0) == s.parent
	case i == wayland.WlSubsurface && m.Op == wayland.WlSubsurfaceReqDestroy:
		s.parent, s.mapped = 0, false
	case i == wayland.WlSubsurface && m.Op == wayland.WlSubsurfaceReqSetDesync:
		a.bad = append(a.bad, "a sub-surface is desynchronised on the compositor")
	case i == wayland.WpViewport && m.Op == wayland.WpViewportReqSetDestination:
		s.w, s.h = int32(m.Word(0)), int32(m.Word(1))
	}
}

func (a *attacker) followSurface(m waylandtest.Msg) {
	s := a.seen[m.ID]
	moves := func(x, y uint32) {
		if (x != 0 || y != 0) && !s.roles["icon"] {
			a.bad = append(a.bad, fmt.Sprintf("the compositor is told to move surface %d by %d,%d", m.ID, int32(x), int32(y)))
		}
	}
	switch m.Op {
	case wayland.WlSurfaceReqAttach:
		s.mapped = m.Word(0) != 0
		moves(m.Word(1), m.Word(2))
	case wayland.WlSurfaceReqOffset:
		moves(m.Word(0), m.Word(1))
	case wayland.WlSurfaceReqDestroy:
		s.mapped, s.parent = false, 0
	case wayland.WlSurfaceReqCommit:
		if (s.roles["cursor"] || s.roles["icon"]) && s.mapped && (s.w > maxImage || s.h > maxImage) {
			a.bad = append(a.bad, fmt.Sprintf("an image of %d×%d", s.w, s.h))
		}
	}
}

func (a *attacker) followShell(m waylandtest.Msg, i *wayland.Interface) {
	switch {
	case i == wayland.XdgWmBase && m.Op == wayland.XdgWmBaseReqGetXdgSurface:
		a.of[m.Word(0)] = m.Word(1)
		a.shells[m.Word(0)] = &seenShell{surface: m.Word(1)}
	case i == wayland.XdgPositioner && m.Op == wayland.XdgPositionerReqSetSize:
		a.sizes[m.ID] = [2]int32{int32(m.Word(0)), int32(m.Word(1))}
	case i == wayland.XdgSurface && m.Op == wayland.XdgSurfaceReqGetToplevel:
		a.role(a.of[m.ID], "window")
	case i == wayland.XdgSurface && m.Op == wayland.XdgSurfaceReqGetPopup:
		a.shells[m.ID].popup = true
		a.role(a.of[m.ID], "popup")
	case i == wayland.XdgSurface && m.Op == wayland.XdgSurfaceReqDestroy:
		delete(a.shells, m.ID)
	case i == wayland.XdgSurface && m.Op == wayland.XdgSurfaceReqSetWindowGeometry:
		a.shells[m.ID].geometry = rect(int32(m.Word(0)), int32(m.Word(1)), int32(m.Word(2)), int32(m.Word(3)))
	}
}

func (a *attacker) followImage(m waylandtest.Msg) {
	a.role(m.Word(1), "cursor")
	s, x, y := a.seen[m.Word(1)], int32(m.Word(2)), int32(m.Word(3))
	if x < 0 || y < 0 || x >= max(s.w, 1) || y >= max(s.h, 1) {
		a.bad = append(a.bad, fmt.Sprintf("the pointer is at %d,%d of its image of %d×%d", x, y, s.w, s.h))
	}
}

// wrong fails the test for all that the compositor would show outside a frame, or over
// one.
func (a *attacker) wrong() {
	a.t.Helper()
	a.heard()
	if a.gone {
		a.t.Logf("thrown out: %s", a.why)
		if a.why == "" || strings.HasPrefix(a.why, "invalid new id") {
			a.t.Error("for what this test does wrong")
		}
	}
	for _, b := range a.bad {
		a.t.Error(b)
	}
	for _, s := range a.shells {
		root := a.seen[s.surface]
		if !root.mapped {
			continue
		}
		pieces := a.pieces(s.surface)
		if len(pieces) < pieceLabel {
			a.t.Errorf("%v has a frame of %d pieces", s.geometry, len(pieces))
		}
		a.inside(s.surface, rect(0, 0, root.w, root.h), s.geometry, pieces)
	}
	for id, s := range a.seen {
		if s.mapped && len(s.roles) == 0 {
			a.t.Errorf("surface %d has content on the compositor, and no role", id)
		}
	}
}

// pieces returns the pieces of a frame.
func (a *attacker) pieces(surface uint32) (all []box) {
	for _, k := range a.seen {
		if k.parent == surface && k.own && k.mapped && !k.below {
			all = append(all, rect(k.x, k.y, k.w, k.h))
		}
	}
	return all
}

// inside holds that a surface and what hangs on it are within the geometry and off the
// frame.
func (a *attacker) inside(id uint32, at, geometry box, pieces []box) {
	a.t.Helper()
	if !geometry.Holds(at) {
		a.t.Errorf("surface %d is shown at %v, outside its window's %v", id, at, geometry)
	}
	for _, p := range pieces {
		if !p.Intersect(at).Empty() {
			a.t.Errorf("surface %d at %v is over a piece of the frame at %v", id, at, p)
		}
	}
	for k, s := range a.seen {
		if s.parent == id && !s.own && s.mapped {
			a.inside(k, rect(at.X+s.x, at.Y+s.y, s.w, s.h), geometry, pieces)
		}
	}
}

// A menu is a popup of the attacker's.
type menu struct {
	surface, xdg, popup uint32
	host, hostXdg       uint32
	w, h                int32 // that the compositor was told, with its frame
}

// menu opens a popup at a place of its parent's, and takes its configure event.
func (a *attacker) menu(parent uint32, w, h, x, y int, before ...func(m menu)) menu {
	a.t.Helper()
	m := menu{surface: a.made(), xdg: a.id()}
	pos := a.id()
	a.req(a.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, m.xdg, m.surface)
	a.positioner(pos, w, h, x, y)
	m.popup = a.id()
	a.req(m.xdg, wayland.XdgSurfaceReqGetPopup, m.popup, parent, pos)
	for _, f := range before {
		f(m)
	}
	a.req(m.surface, wayland.WlSurfaceReqCommit)
	delete(a.last, wayland.XdgPopup)
	a.heard()
	m.host, m.hostXdg = a.last[wayland.XdgPopup], a.last[wayland.XdgSurface]
	if m.host == 0 {
		return m
	}
	size := a.sizes[a.last[wayland.XdgPositioner]]
	m.w, m.h = size[0], size[1]
	a.place(m, x, y)
	return m
}

// place configures a popup, and has it acknowledged.
func (a *attacker) place(m menu, x, y int) {
	a.t.Helper()
	a.serial++
	serial := 1000 + a.serial
	if a.shells[m.hostXdg] != nil {
		a.shells[m.hostXdg].at = surface.Point{X: int32(x), Y: int32(y)}
	}
	a.rig.host.Send(m.host, wayland.XdgPopupEvtConfigure, uint32(x), uint32(y), uint32(m.w), uint32(m.h))
	a.rig.host.Send(m.hostXdg, wayland.XdgSurfaceEvtConfigure, serial)
	a.settle()
	a.req(m.xdg, wayland.XdgSurfaceReqAckConfigure, serial)
}

func (a *attacker) positioner(pos uint32, w, h, x, y int) {
	a.req(a.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner, pos)
	a.req(pos, wayland.XdgPositionerReqSetSize, uint32(w), uint32(h))
	a.req(pos, wayland.XdgPositionerReqSetAnchorRect, uint32(x), uint32(y), 1, 1)
	a.req(pos, wayland.XdgPositionerReqSetGravity, 8)
}

// outputs gives the compositor screens.
func (a *attacker) outputs(sizes ...[2]uint32) {
	a.t.Helper()
	if a.screens == nil {
		a.screens = append(a.screens, a.own[wayland.WlOutput])
	}
	for k, s := range sizes {
		if k == len(a.screens) {
			delete(a.last, wayland.WlOutput)
			a.write(a.rig.host, a.ask, wayland.WlRegistryEvtGlobal, uint32(200+k), wayland.WlOutput.Name, uint32(4))
			a.settle()
			a.heard()
			if a.last[wayland.WlOutput] == 0 {
				a.t.Fatalf("the filter does not look at a new output (%s)", a.why)
			}
			a.screens = append(a.screens, a.last[wayland.WlOutput])
		}
		o := a.screens[k]
		a.rig.host.Send(o, wayland.WlOutputEvtMode, 1, s[0], s[1], 60000)
		a.rig.host.Send(o, wayland.WlOutputEvtDone)
	}
	a.settle()
}

// device makes a device of a wl_seat, and returns the guest's id and the compositor's.
func (a *attacker) device(op uint16, i *wayland.Interface) (guest, host uint32) {
	a.t.Helper()
	guest = a.id()
	a.req(a.ids[wayland.WlSeat], op, guest)
	a.heard()
	return guest, a.last[i]
}
