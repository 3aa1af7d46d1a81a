package filter

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A framed is a rig with a frame, and a guest that has what windows are made of.
type framed struct {
	*rig
	ids  map[*wayland.Interface]uint32 // the guest's globals
	host map[*wayland.Interface]uint32 // the same on the compositor
	reg  uint32                        // the guest's registry on the compositor
	own  map[*wayland.Interface]uint32 // the filter's
	ask  uint32                        // the filter's registry on the compositor
	next uint32                        // free id of the guest's
	port uint32                        // the viewport that was made last
}

// framedGlobals is what the compositor of these tests has, in this order.
var framedGlobals = []*wayland.Interface{
	wayland.WlCompositor, wayland.WlSubcompositor, wayland.WlShm, wayland.XdgWmBase, wayland.WlSeat, wayland.WlOutput,
	wayland.WpViewporter, wayland.WpSinglePixelBufferManagerV1, wayland.WpFractionalScaleManagerV1, wayland.WpCursorShapeManagerV1,
	wayland.ZxdgOutputManagerV1,
}

const framedName = 100 // names of globals begin here

func newFramed(t testing.TB, frame string) *framed {
	t.Helper()
	return newFramedWith(t, frame, display.Limits{})
}

func newFramedWith(t testing.TB, frame string, limits display.Limits) *framed {
	t.Helper()
	gn, gf := waylandtest.Pair(t)
	hn, hf := waylandtest.Pair(t)
	r := &framed{
		rig: &rig{
			guest: &waylandtest.Peer{T: t, Tr: gn},
			host:  &waylandtest.Peer{T: t, Tr: hn},
			done:  make(chan struct{}),
		},
		ids: map[*wayland.Interface]uint32{}, host: map[*wayland.Interface]uint32{}, own: map[*wayland.Interface]uint32{},
		next: 3,
	}
	if _, ok := t.(*testing.B); ok {
		limits[display.Commits], limits[display.Requests] = Unlimited, Unlimited
	}
	r.filter = New(Config{
		VM: "work", Tag: "work", Color: "#2060c0", Frame: frame, Limits: limits,
		Dial: func() (wayland.Transport, error) { return hf, nil },
		Log:  slog.New(slog.DiscardHandler),
	})
	go func() {
		defer close(r.done)
		_ = r.filter.Serve(context.Background(), gf) // the guest has been told why
	}()
	t.Cleanup(func() {
		_ = gn.Close()
		_ = hn.Close()
		wayland.CloseAll(r.guest.Descs)
		wayland.CloseAll(r.rig.host.Descs)
		<-r.done
	})
	r.guest.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	r.reg = r.rig.host.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	for k, i := range framedGlobals {
		v := i.Version
		if max := display.Rules[i].Max; max > 0 && max < v {
			v = max
		}
		r.write(r.rig.host, r.reg, wayland.WlRegistryEvtGlobal, uint32(framedName+k), i.Name, v)
		r.guest.Want(2, wayland.WlRegistryEvtGlobal)
		r.ids[i] = r.id()
		r.write(r.guest, 2, wayland.WlRegistryReqBind, uint32(framedName+k), i.Name, v, r.ids[i])
		m := r.rig.host.Want(r.reg, wayland.WlRegistryReqBind)
		r.host[i] = m.Word(len(m.Body)/4 - 1)
	}
	return r
}

func (r *framed) id() uint32 {
	r.next++
	return r.next - 1
}

// announce answers the filter's get_registry, and takes its bindings.
func (r *framed) announce() {
	r.rig.host.T.Helper()
	reg := r.rig.host.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	r.ask = reg
	for k, i := range framedGlobals {
		r.write(r.rig.host, reg, wayland.WlRegistryEvtGlobal, uint32(framedName+k), i.Name, i.Version)
	}
	r.write(r.rig.host, reg, wayland.WlRegistryEvtGlobal, uint32(framedName-1), wayland.XdgActivationV1.Name, uint32(1))
}

// bound receives the filter's bindings.
func (r *framed) bound() {
	r.rig.host.T.Helper()
	for len(r.own) < len(framedGlobals)-3 { // not of xdg_wm_base, wl_seat and single-pixel buffers
		m, err := r.rig.host.Next()
		if err != nil {
			r.rig.host.T.Fatal(err)
		}
		if m.Op == wayland.WlRegistryReqBind && len(m.Body) > 12 {
			d := wayland.NewDecoder(m.Body)
			d.Uint()
			r.own[wayland.Lookup(string(d.String()))] = m.Word(len(m.Body)/4 - 1)
		}
	}
}

// A framedWindow is a window of a framed guest's, with both sides' ids.
type framedWindow struct {
	surface, xdg, top             uint32
	hostSurface, hostXdg, hostTop uint32
}

// window makes a toplevel, and the first one the filter's globals.
func (r *framed) window() (w framedWindow) {
	g, h := r.guest, r.rig.host
	h.T.Helper()
	w.surface, w.xdg, w.top = r.id(), r.id(), r.id()
	g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, w.surface)
	w.hostSurface = h.Want(r.host[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface).Word(0)
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, w.xdg, w.surface)
	if len(r.own) == 0 {
		r.announce()
	}
	w.hostXdg = h.Want(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	if len(r.own) == 0 {
		r.bound()
	}
	g.Send(w.xdg, wayland.XdgSurfaceReqGetToplevel, w.top)
	w.hostTop = r.skip(w.hostXdg, wayland.XdgSurfaceReqGetToplevel).Word(0)
	r.hear(w.hostTop, wayland.XdgToplevelReqSetTitle)
	r.hear(w.hostTop, wayland.XdgToplevelReqSetAppId)
	r.configure(w.xdg, w.hostXdg, w.top, w.hostTop)
	return w
}

// buffer makes a wl_buffer of the guest's.
func (r *framed) buffer(w, h int) uint32 {
	pool, buf := r.id(), r.id()
	var e wayland.Encoder
	e.Msg(r.ids[wayland.WlShm], wayland.WlShmReqCreatePool, pool, uint32(w*h*4))
	r.guest.Write(e.B, waylandtest.Memfd(r.guest.T, int64(w*h*4)))
	r.guest.Send(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, uint32(w), uint32(h), uint32(w*4), 1)
	return buf
}

// show commits a buffer, and returns the geometry that the compositor is told.
func (r *framed) show(w framedWindow, buf uint32) (geometry box) {
	r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	for {
		m, err := r.rig.host.Next()
		if err != nil {
			r.rig.host.T.Fatal(err)
		}
		if m.ID == r.own[wayland.WpViewporter] && m.Op == wayland.WpViewporterReqGetViewport && m.Word(1) == w.hostSurface {
			r.port = m.Word(0)
		}
		if m.ID == w.hostXdg && m.Op == wayland.XdgSurfaceReqSetWindowGeometry {
			geometry = rect(int32(m.Word(0)), int32(m.Word(1)), int32(m.Word(2)), int32(m.Word(3)))
		}
		if m.ID == w.hostSurface && m.Op == wayland.WlSurfaceReqCommit {
			return geometry
		}
	}
}

// TestFrameSizes holds that both sides hear of their own sizes.
func TestFrameSizes(t *testing.T) {
	waylandtest.LeakCheck(t)
	for frame, top := range map[string]int32{"full": labelHeight, "border": sideWidth} {
		r := newFramed(t, frame)
		w := r.window()
		var e wayland.Encoder
		e.Begin(w.hostTop, wayland.XdgToplevelEvtConfigure)
		e.Uint(800)
		e.Uint(600)
		e.Array([]byte{stateFullscreen, 0, 0, 0})
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
		r.rig.host.Write(e.B)
		m := r.guest.Want(w.top, wayland.XdgToplevelEvtConfigure)
		if m.Word(0) != 800-2*sideWidth || int32(m.Word(1)) != 600-top-sideWidth {
			t.Errorf("%s: told %d×%d", frame, m.Word(0), m.Word(1))
		}
		// Fullscreen still, and tiled on four sides.
		if m.Word(2) != 20 || m.Word(3) != stateFullscreen {
			t.Errorf("%s: states % x", frame, m.Body[8:])
		}
		r.rig.host.Send(w.hostXdg, wayland.XdgSurfaceEvtConfigure, 7)
		r.guest.Want(w.xdg, wayland.XdgSurfaceEvtConfigure)
		r.guest.Send(w.xdg, wayland.XdgSurfaceReqAckConfigure, 7)
		r.guest.Send(w.top, wayland.XdgToplevelReqSetMinSize, 100, 0)
		m = r.skip(w.hostTop, wayland.XdgToplevelReqSetMinSize)
		if m.Word(0) != 100+2*sideWidth || m.Word(1) != 0 {
			t.Errorf("%s: least size %d×%d", frame, m.Word(0), m.Word(1))
		}
		r.guest.Send(w.top, wayland.XdgToplevelReqSetMaxSize, 1<<31-1, 1<<31-1)
		if m = r.skip(w.hostTop, wayland.XdgToplevelReqSetMaxSize); m.Word(0) != 1<<31-1 {
			t.Errorf("%s: largest size %d", frame, m.Word(0))
		}
		// Content of the right size, then of more: the whole stays as configured.
		want := rect(-sideWidth, -top, 800, 600)
		if g := r.show(w, r.buffer(800-2*sideWidth, 600-int(top)-sideWidth)); g != want {
			t.Errorf("%s: geometry %v", frame, g)
		}
		r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, r.buffer(900, 700), 0, 0)
		r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
		// Its viewport shows as much of the larger buffer.
		m = r.skip(r.port, wayland.WpViewportReqSetSource)
		if m.Word(2) != (800-2*sideWidth)<<8 || int32(m.Word(3)) != (600-top-sideWidth)<<8 {
			t.Errorf("%s: cropped to %d×%d", frame, m.Word(2)>>8, m.Word(3)>>8)
		}
	}
}

// TestFrameNeedsConfigure holds that nothing is shown before the frame can be.
func TestFrameNeedsConfigure(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	s, xdg, top := r.id(), r.id(), r.id()
	r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, s)
	r.guest.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
	r.guest.Send(xdg, wayland.XdgSurfaceReqGetToplevel, top)
	r.guest.Send(s, wayland.WlSurfaceReqAttach, r.buffer(10, 10), 0, 0)
	r.guest.Send(s, wayland.WlSurfaceReqCommit)
	if _, _, text := r.guest.WantError(); !strings.Contains(text, "before the first configure") {
		t.Error(text)
	}
}

// TestPieceInput holds that a client hears nothing of what happens on its frame.
func TestPieceInput(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	ptr := r.id()
	r.guest.Send(r.ids[wayland.WlSeat], wayland.WlSeatReqGetPointer, ptr)
	hostPtr := r.skip(r.host[wayland.WlSeat], wayland.WlSeatReqGetPointer).Word(0)
	r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, r.buffer(200, 100), 0, 0)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	var pieces [pieceLabel]uint32
	for k := range pieces {
		pieces[k] = r.skip(r.own[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface).Word(0)
	}
	top := pieces[pieceTop]
	r.skip(w.hostSurface, wayland.WlSurfaceReqCommit)
	h := r.rig.host
	h.Send(hostPtr, wayland.WlPointerEvtEnter, 11, top, 100<<8, 10<<8)
	h.Send(hostPtr, wayland.WlPointerEvtFrame)
	h.Send(hostPtr, wayland.WlPointerEvtMotion, 0, 101<<8, 11<<8)
	h.Send(hostPtr, wayland.WlPointerEvtFrame)
	h.Send(hostPtr, wayland.WlPointerEvtButton, 12, 0, buttonLeft, 1)
	h.Send(hostPtr, wayland.WlPointerEvtFrame)
	if m := r.skip(w.hostTop, wayland.XdgToplevelReqMove); m.Word(0) != r.host[wayland.WlSeat] || m.Word(1) != 12 {
		t.Errorf("move %d, %d", m.Word(0), m.Word(1))
	}
	h.Send(hostPtr, wayland.WlPointerEvtLeave, 12, top)
	top = pieces[pieceTopLeft]
	h.Send(hostPtr, wayland.WlPointerEvtEnter, 12, top, 1<<8, 1<<8)
	h.Send(hostPtr, wayland.WlPointerEvtButton, 13, 0, buttonLeft, 1)
	if m := r.skip(w.hostTop, wayland.XdgToplevelReqResize); m.Word(1) != 13 || m.Word(2) != edgeTop|edgeLeft {
		t.Errorf("resize %d, edges %d", m.Word(1), m.Word(2))
	}
	h.Send(hostPtr, wayland.WlPointerEvtAxis, 0, 0, 256)
	h.Send(hostPtr, wayland.WlPointerEvtFrame)
	h.Send(hostPtr, wayland.WlPointerEvtLeave, 14, top)
	h.Send(hostPtr, wayland.WlPointerEvtEnter, 15, w.hostSurface, 1<<8, 2<<8)
	h.Send(hostPtr, wayland.WlPointerEvtFrame)
	m := r.guest.Want(ptr, wayland.WlPointerEvtEnter) // and nothing before it
	if m.Word(0) != 15 || m.Word(1) != w.surface || m.Word(2) != 1<<8 {
		t.Errorf("enter % x", m.Body)
	}
	r.guest.Want(ptr, wayland.WlPointerEvtFrame)
}

// TestShift holds that a client with a shadow around its geometry hears and says
// places in its own coordinates.
func TestShift(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	child, sub := r.id(), r.id()
	r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, child)
	r.guest.Send(r.ids[wayland.WlSubcompositor], wayland.WlSubcompositorReqGetSubsurface, sub, child, w.surface)
	hostSub := r.skip(r.host[wayland.WlSubcompositor], wayland.WlSubcompositorReqGetSubsurface).Word(0)
	r.guest.Send(sub, wayland.WlSubsurfaceReqSetPosition, 50, 60)
	r.guest.Send(w.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 20, 30, 160, 140)
	if g := r.show(w, r.buffer(200, 200)); g != (rect(-sideWidth, -labelHeight, 160+2*sideWidth, 140+labelHeight+sideWidth)) {
		t.Errorf("geometry %v", g)
	}
	r.guest.Send(child, wayland.WlSurfaceReqAttach, r.buffer(10, 10), 0, 0)
	r.guest.Send(child, wayland.WlSurfaceReqCommit)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	if m := r.skip(hostSub, wayland.WlSubsurfaceReqSetPosition); m.Word(0) != 30 || m.Word(1) != 30 {
		t.Errorf("child at %d,%d", m.Word(0), m.Word(1))
	}
	r.guest.Send(sub, wayland.WlSubsurfaceReqSetPosition, 51, 61)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	if m := r.skip(hostSub, wayland.WlSubsurfaceReqSetPosition); m.Word(0) != 31 || m.Word(1) != 31 {
		t.Errorf("child at %d,%d", m.Word(0), m.Word(1))
	}
	ptr := r.id()
	r.guest.Send(r.ids[wayland.WlSeat], wayland.WlSeatReqGetPointer, ptr)
	hostPtr := r.skip(r.host[wayland.WlSeat], wayland.WlSeatReqGetPointer).Word(0)
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtEnter, 1, w.hostSurface, 1<<8, 2<<8)
	if m := r.guest.Want(ptr, wayland.WlPointerEvtEnter); m.Word(2) != 21<<8 || m.Word(3) != 32<<8 {
		t.Errorf("enter at %d,%d", m.Word(2)>>8, m.Word(3)>>8)
	}
	r.rig.host.Send(hostPtr, wayland.WlPointerEvtMotion, 1, 3<<8, 4<<8)
	if m := r.guest.Want(ptr, wayland.WlPointerEvtMotion); m.Word(1) != 23<<8 || m.Word(2) != 34<<8 {
		t.Errorf("motion to %d,%d", m.Word(1)>>8, m.Word(2)>>8)
	}
	r.guest.Send(w.surface, wayland.WlSurfaceReqDamage, 25, 35, 5, 5)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	if m := r.skip(w.hostSurface, wayland.WlSurfaceReqDamage); m.Word(0) != 5 || m.Word(1) != 5 || m.Word(2) != 5 {
		t.Errorf("damage % x", m.Body)
	}
	// Without the shadow, nothing is shifted any more.
	r.guest.Send(w.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 0, 0, 200, 200)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	if m := r.skip(hostSub, wayland.WlSubsurfaceReqSetPosition); m.Word(0) != 51 || m.Word(1) != 61 {
		t.Errorf("child at %d,%d", m.Word(0), m.Word(1))
	}
}

// TestPopupPlaces holds that places of popups mean the same to both sides.
func TestPopupPlaces(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(200, 200))
	pos, s, xdg, pop := r.id(), r.id(), r.id(), r.id()
	g := r.guest
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner, pos)
	g.Send(pos, wayland.XdgPositionerReqSetSize, 60, 40)
	g.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 10, 20, 30, 5)
	g.Send(pos, wayland.XdgPositionerReqSetAnchor, 6)  // bottom_left
	g.Send(pos, wayland.XdgPositionerReqSetGravity, 8) // bottom_right
	g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, s)
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
	g.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, w.xdg, pos)
	hostXdg := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	own := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner).Word(0)
	if m := r.skip(own, wayland.XdgPositionerReqSetSize); m.Word(0) != 60+2*thinWidth || m.Word(1) != 40+2*thinWidth {
		t.Errorf("size %d×%d", m.Word(0), m.Word(1))
	}
	if m := r.skip(own, wayland.XdgPositionerReqSetAnchorRect); m.Word(0) != 10+sideWidth || m.Word(1) != 20+labelHeight || m.Word(2) != 30 {
		t.Errorf("anchor rectangle % x", m.Body)
	}
	// A popup that grows to the lower right from a point is moved by its frame.
	if m := r.skip(own, wayland.XdgPositionerReqSetOffset); int32(m.Word(0)) != -thinWidth || int32(m.Word(1)) != -thinWidth {
		t.Errorf("offset % x", m.Body)
	}
	m := r.skip(hostXdg, wayland.XdgSurfaceReqGetPopup)
	hostPop := m.Word(0)
	if m.Word(1) != w.hostXdg || m.Word(2) != own {
		t.Errorf("popup % x", m.Body)
	}
	g.Send(pos, wayland.XdgPositionerReqDestroy)
	g.Want(1, wayland.WlDisplayEvtDeleteId)
	// The compositor does as it is told: 10, 25 in the client's geometry.
	r.rig.host.Send(hostPop, wayland.XdgPopupEvtConfigure, 10+sideWidth-thinWidth, 25+labelHeight-thinWidth, 60+2*thinWidth, 40+2*thinWidth)
	if m := g.Want(pop, wayland.XdgPopupEvtConfigure); m.Word(0) != 10 || m.Word(1) != 25 || m.Word(2) != 60 || m.Word(3) != 40 {
		t.Errorf("configured % x", m.Body)
	}
}

// smallPopup asks for a popup of 60×40 well inside a window.
func (r *framed) smallPopup(w framedWindow) (pos, s, xdg, pop, hostXdg, hostPop uint32) {
	pos, s, xdg, pop = r.id(), r.id(), r.id(), r.id()
	g := r.guest
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner, pos)
	g.Send(pos, wayland.XdgPositionerReqSetSize, 60, 40)
	g.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 10, 80, 1, 1)
	g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, s)
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
	g.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, w.xdg, pos)
	hostXdg = r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	hostPop = r.skip(hostXdg, wayland.XdgSurfaceReqGetPopup).Word(0)
	return pos, s, xdg, pop, hostXdg, hostPop
}

// TestPopupOverLabel holds that a popup which is over its window's label has one. One that
// slid there has it at once, at the cost of some of its height, and then at a place that is
// asked for with it; one that begins there from the beginning.
func TestPopupOverLabel(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(400, 300))
	g, h := r.guest, r.rig.host
	pos, s, xdg, pop, hostXdg, hostPop := r.smallPopup(w)
	const y, lower = labelHeight - 1, 40 + 2*thinWidth
	h.Send(hostPop, wayland.XdgPopupEvtConfigure, 0, y, 60+2*thinWidth, lower)
	h.Send(hostXdg, wayland.XdgSurfaceEvtConfigure, 9)
	if m := g.Want(pop, wayland.XdgPopupEvtConfigure); m.Word(2) != 60 || m.Word(3) != lower-labelHeight-thinWidth {
		t.Errorf("the client is told %d×%d", m.Word(2), m.Word(3))
	}
	g.Want(xdg, wayland.XdgSurfaceEvtConfigure)
	g.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 9)
	g.Send(s, wayland.WlSurfaceReqAttach, r.buffer(60, 40), 0, 0)
	g.Send(s, wayland.WlSurfaceReqCommit)
	if m := r.skip(hostXdg, wayland.XdgSurfaceReqSetWindowGeometry); int32(m.Word(1)) != -labelHeight || m.Word(3) != lower {
		t.Errorf("shown from %d, %d high", int32(m.Word(1)), m.Word(3))
	}
	own := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner).Word(0)
	if m := r.skip(own, wayland.XdgPositionerReqSetSize); m.Word(0) != 60+2*thinWidth || m.Word(1) != 40+labelHeight+thinWidth {
		t.Errorf("a place for %d×%d is asked for", m.Word(0), m.Word(1))
	}
	second, xdg2 := r.id(), r.id()
	g.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 10, 20, 1, 1)
	g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, second)
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg2, second)
	g.Send(xdg2, wayland.XdgSurfaceReqGetPopup, r.id(), w.xdg, pos)
	own = r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner).Word(0)
	if m := r.skip(own, wayland.XdgPositionerReqSetSize); m.Word(1) != 40+labelHeight+thinWidth {
		t.Errorf("one that begins there is %d high", m.Word(1))
	}
}

// TestPopupFitsScreen holds that a popup is never larger than a screen with its frame, and
// that popups which are not large have a label when they are together.
func TestPopupFitsScreen(t *testing.T) {
	f := &frames{style: newStyle(&Config{Frame: "full", Color: "#2060c0"})}
	f.screens = []screen{{w: 800, h: 600}}
	for _, size := range [][2]int32{{472, 3000}, {3000, 3000}, {3000, 200}, {470, 620}, {100, 598}} {
		if w, h := f.clipPopup(size[0], size[1]); w+2*thinWidth > 800 || h+labelHeight+thinWidth > 600 {
			t.Errorf("%v: %d×%d", size, w, h)
		}
	}
	flt, first, second := &Filter{}, &popup{}, &popup{}
	if f.isLarge(flt, first, 150, 590) {
		t.Error("a menu needs a label")
	}
	flt.popups.enter(first, 150, 590, 0, f.screens)
	if !f.isLarge(flt, second, 150, 590) {
		t.Error("two take a third of the screen without a label")
	}
}

// TestPopupGrows holds that a popup which is drawn larger than it was configured to is
// cut until the compositor has a place for it, which the filter asks for, once, and of
// which the client hears nothing.
func TestPopupGrows(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(400, 300))
	g, h := r.guest, r.rig.host
	_, s, xdg, pop, hostXdg, hostPop := r.smallPopup(w)
	configure := func(w, h, serial uint32) {
		r.rig.host.Send(hostPop, wayland.XdgPopupEvtConfigure, 0, labelHeight, w+2*thinWidth, h+2*thinWidth)
		r.rig.host.Send(hostXdg, wayland.XdgSurfaceEvtConfigure, serial)
	}
	geometry := func(w, h uint32) {
		t.Helper()
		if m := r.skip(hostXdg, wayland.XdgSurfaceReqSetWindowGeometry); m.Word(2) != w+2*thinWidth || m.Word(3) != h+2*thinWidth {
			t.Errorf("shown as %d×%d, want %d×%d and the frame", m.Word(2), m.Word(3), w, h)
		}
	}
	configure(60, 40, 9)
	g.Want(pop, wayland.XdgPopupEvtConfigure)
	g.Want(xdg, wayland.XdgSurfaceEvtConfigure)
	configure(60, 40, 10) // the client will acknowledge it too late
	g.Want(pop, wayland.XdgPopupEvtConfigure)
	g.Want(xdg, wayland.XdgSurfaceEvtConfigure)
	g.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 9)
	g.Send(s, wayland.WlSurfaceReqAttach, r.buffer(80, 70), 0, 0)
	g.Send(s, wayland.WlSurfaceReqCommit)
	geometry(60, 40)
	own := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner).Word(0)
	if m := r.skip(own, wayland.XdgPositionerReqSetSize); m.Word(0) != 80+2*thinWidth || m.Word(1) != 70+2*thinWidth {
		t.Errorf("a place for %d×%d is asked for", m.Word(0), m.Word(1))
	}
	token := r.skip(hostPop, wayland.XdgPopupReqReposition).Word(1)
	h.Send(hostPop, wayland.XdgPopupEvtRepositioned, token)
	configure(80, 70, 11)
	if m := r.skip(hostXdg, wayland.XdgSurfaceReqAckConfigure); m.Word(0) != 11 {
		t.Errorf("serial %d is acknowledged", m.Word(0))
	}
	geometry(80, 70)
	// What it acknowledges late says nothing, and nothing is asked for again.
	g.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 10)
	g.Send(s, wayland.WlSurfaceReqDamage, 0, 0, 1, 1)
	g.Send(s, wayland.WlSurfaceReqCommit)
	hostSurface := uint32(0)
	for {
		m, err := h.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == hostXdg || m.ID == hostPop || m.ID == r.host[wayland.XdgWmBase] {
			t.Errorf("object %d is asked %d", m.ID, m.Op)
		}
		if m.Op == wayland.WlSurfaceReqDamage && len(m.Body) == 16 && m.Word(2) == 1 {
			hostSurface = m.ID
		}
		if hostSurface != 0 && m.ID == hostSurface && m.Op == wayland.WlSurfaceReqCommit {
			break
		}
	}
	// The client has heard nothing of it: this is the next that it hears.
	configure(90, 90, 12)
	if m := g.Want(pop, wayland.XdgPopupEvtConfigure); m.Word(2) != 90 {
		t.Errorf("configured to a width of %d", m.Word(2))
	}
	if m := g.Want(xdg, wayland.XdgSurfaceEvtConfigure); m.Word(0) != 12 {
		t.Errorf("configured with %d", m.Word(0))
	}
}

// TestLargePopup holds that no popup hides the screen.
func TestLargePopup(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.show(w, r.buffer(100, 100))
	r.rig.host.Send(r.own[wayland.WlOutput], wayland.WlOutputEvtMode, 1, 1000, 800, 60000)
	r.rig.host.Send(r.own[wayland.WlOutput], wayland.WlOutputEvtDone)
	// In the filter's hands when something sent later has arrived.
	r.rig.host.Send(r.host[wayland.WlSeat], wayland.WlSeatEvtCapabilities, 1)
	r.guest.Want(r.ids[wayland.WlSeat], wayland.WlSeatEvtCapabilities)
	pos, s, xdg, pop := r.id(), r.id(), r.id(), r.id()
	g := r.guest
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner, pos)
	g.Send(pos, wayland.XdgPositionerReqSetSize, 901, 721)
	g.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
	g.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, s)
	g.Send(r.ids[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface, xdg, s)
	g.Send(xdg, wayland.XdgSurfaceReqGetPopup, pop, w.xdg, pos)
	hostXdg := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	own := r.skip(r.host[wayland.XdgWmBase], wayland.XdgWmBaseReqCreatePositioner).Word(0)
	m := r.skip(own, wayland.XdgPositionerReqSetSize)
	ww, wh := m.Word(0), m.Word(1)
	if ww != 901+2*thinWidth || ww*wh > 1000*800*maxPopups/100 || ww*wh < 1000*800*(maxPopups-1)/100 {
		t.Errorf("a popup of %d×%d", ww, wh)
	}
	// It has a label, and shows no more than it was configured to.
	hostPop := r.skip(hostXdg, wayland.XdgSurfaceReqGetPopup).Word(0)
	r.rig.host.Send(hostPop, wayland.XdgPopupEvtConfigure, 0, 0, ww, wh)
	r.rig.host.Send(hostXdg, wayland.XdgSurfaceEvtConfigure, 9)
	if m := g.Want(pop, wayland.XdgPopupEvtConfigure); m.Word(2) != 901 || m.Word(3) != wh-labelHeight-thinWidth {
		t.Errorf("configured to %d×%d", m.Word(2), m.Word(3))
	}
	g.Want(xdg, wayland.XdgSurfaceEvtConfigure)
	g.Send(xdg, wayland.XdgSurfaceReqAckConfigure, 9)
	g.Send(s, wayland.WlSurfaceReqAttach, r.buffer(990, 790), 0, 0)
	g.Send(s, wayland.WlSurfaceReqCommit)
	if m := r.skip(hostXdg, wayland.XdgSurfaceReqSetWindowGeometry); m.Word(2) != ww || m.Word(3) != wh {
		t.Errorf("shown as %d×%d", m.Word(2), m.Word(3))
	}
	// A second one, beside the window, would hide too much with it.
	if r.filter.popups.enter(&popup{}, 300, 300, 0, []screen{{1000, 800}}) {
		t.Error("a second popup is let in")
	}
}

// FuzzFrame lets a guest with a framed window say anything: see FuzzGuest. Its
// objects 14 to 20 are a surface, an xdg_surface, a toplevel, and two buffers with
// their pools; the globals are 3 to 13, in the order of framedGlobals.
func FuzzFrame(f *testing.F) {
	f.Fuzz(func(t *testing.T, data []byte) {
		r := newFramed(t, "full")
		w := r.window()
		a, _ := r.buffer(200, 150), r.buffer(64, 64)
		r.show(w, a)
		r.rig.host.Send(w.hostXdg, wayland.XdgSurfaceEvtConfigure, 1)
		r.guest.Want(w.xdg, wayland.XdgSurfaceEvtConfigure)
		heard := make(chan struct{})
		go func() {
			defer close(heard)
			for {
				m, err := r.rig.host.Next()
				if err != nil {
					return
				}
				if m.ID == 0 || m.ID > 1<<20 {
					t.Errorf("the compositor hears of object %d", m.ID)
				}
			}
		}()
		if len(data) > 0 {
			_ = r.guest.Tr.Send(data, nil)
		}
		_ = r.guest.Tr.Close()
		<-heard
	})
}

// TestFrameCorpus writes down what FuzzFrame begins with.
func TestFrameCorpus(t *testing.T) {
	for name, e := range frameSeeds() {
		path := filepath.Join("testdata", "fuzz", "FuzzFrame", name)
		want := fmt.Sprintf("go test fuzz v1\n[]byte(%q)\n", e.B)
		if b, err := os.ReadFile(path); err != nil || string(b) != want {
			if os.Getenv("VIX_WRITE_CORPUS") == "" {
				t.Errorf("%s is not up to date; VIX_WRITE_CORPUS=1 writes it (%v)", path, err)
				continue
			}
			if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(want), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// frameSeeds are short sessions that reach each part of the frame.
func frameSeeds() map[string]*wayland.Encoder {
	const (
		comp, subcomp, wm, vpr                = 3, 4, 6, 9
		surf, xdg, top, poolA, a, _, b        = 14, 15, 16, 17, 18, 19, 20
		n                                     = 21 // free
		minus                          uint32 = 1<<32 - 100
	)
	seeds := map[string]*wayland.Encoder{}
	add := func(name string) *wayland.Encoder {
		seeds[name] = &wayland.Encoder{}
		return seeds[name]
	}
	e := add("resize")
	e.Msg(poolA, wayland.WlShmPoolReqCreateBuffer, n, 0, 100, 50, 400, 1)
	e.Msg(surf, wayland.WlSurfaceReqAttach, n, 0, 0)
	e.Msg(surf, wayland.WlSurfaceReqSetBufferScale, 2)
	e.Msg(surf, wayland.WlSurfaceReqSetBufferTransform, 1)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(xdg, wayland.XdgSurfaceReqAckConfigure, 1)
	e.Msg(top, wayland.XdgToplevelReqSetMinSize, 5, minus)
	e = add("geometry")
	e.Msg(xdg, wayland.XdgSurfaceReqSetWindowGeometry, 10, 10, 100, 100)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(surf, wayland.WlSurfaceReqDamage, minus, minus, 1<<31-1, 5)
	e.Msg(xdg, wayland.XdgSurfaceReqSetWindowGeometry, minus, minus, 1<<31-1, 1<<31-1)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e = add("viewport")
	e.Msg(vpr, wayland.WpViewporterReqGetViewport, n, surf)
	e.Msg(n, wayland.WpViewportReqSetSource, 256, 256, 100<<8, 100<<8)
	e.Msg(n, wayland.WpViewportReqSetDestination, 1<<30, 7)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(xdg, wayland.XdgSurfaceReqSetWindowGeometry, 10, 2, 1<<20, 2)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(n, wayland.WpViewportReqDestroy)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(surf, wayland.WlSurfaceReqDestroy)
	e = add("child")
	e.Msg(comp, wayland.WlCompositorReqCreateSurface, n)
	e.Msg(subcomp, wayland.WlSubcompositorReqGetSubsurface, n+1, n, surf)
	e.Msg(n+1, wayland.WlSubsurfaceReqSetPosition, minus, 5)
	e.Msg(n, wayland.WlSurfaceReqAttach, b, 0, 0)
	e.Msg(n, wayland.WlSurfaceReqCommit)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(comp, wayland.WlCompositorReqCreateSurface, n+2)
	e.Msg(subcomp, wayland.WlSubcompositorReqGetSubsurface, n+3, n+2, n)
	e.Msg(n+2, wayland.WlSurfaceReqAttach, a, 0, 0)
	e.Msg(n+2, wayland.WlSurfaceReqCommit)
	e.Msg(n, wayland.WlSurfaceReqDestroy)
	e.Msg(surf, wayland.WlSurfaceReqCommit)
	e.Msg(surf, wayland.WlSurfaceReqDestroy)
	e = add("loop")
	e.Msg(comp, wayland.WlCompositorReqCreateSurface, n)
	e.Msg(comp, wayland.WlCompositorReqCreateSurface, n+1)
	e.Msg(subcomp, wayland.WlSubcompositorReqGetSubsurface, n+2, n, n+1)
	e.Msg(subcomp, wayland.WlSubcompositorReqGetSubsurface, n+3, n+1, n)
	e = add("popup")
	e.Msg(wm, wayland.XdgWmBaseReqCreatePositioner, n)
	e.Msg(n, wayland.XdgPositionerReqSetSize, 30, 40)
	e.Msg(n, wayland.XdgPositionerReqSetAnchorRect, 1, 2, 3, 4)
	e.Msg(n, wayland.XdgPositionerReqSetParentSize, 100, 100)
	e.Msg(n, wayland.XdgPositionerReqSetParentConfigure, 9)
	e.Msg(n, wayland.XdgPositionerReqSetReactive)
	e.Msg(comp, wayland.WlCompositorReqCreateSurface, n+1)
	e.Msg(wm, wayland.XdgWmBaseReqGetXdgSurface, n+2, n+1)
	e.Msg(n+2, wayland.XdgSurfaceReqGetPopup, n+3, xdg, n)
	e.Msg(n+3, wayland.XdgPopupReqReposition, n, 5)
	e.Msg(n+1, wayland.WlSurfaceReqAttach, b, 0, 0)
	e.Msg(n+1, wayland.WlSurfaceReqCommit)
	e.Msg(n+3, wayland.XdgPopupReqDestroy)
	e.Msg(n+2, wayland.XdgSurfaceReqDestroy)
	e.Msg(n+1, wayland.WlSurfaceReqDestroy)
	return seeds
}

// BenchmarkFrameCommit sends commits of a window's next picture, of one size, with
// and without a frame: 64 in a packet, as fast as the filter takes them.
func BenchmarkFrameCommit(b *testing.B) {
	for _, frame := range []string{"none", "full"} {
		b.Run(frame, func(b *testing.B) {
			r := newFramed(b, frame)
			w := r.window()
			bufs := [2]uint32{r.buffer(64, 64), r.buffer(64, 64)}
			var e wayland.Encoder
			for k := range 64 {
				e.Msg(w.surface, wayland.WlSurfaceReqAttach, bufs[k%2], 0, 0)
				e.Msg(w.surface, wayland.WlSurfaceReqDamageBuffer, 0, 0, 64, 64)
				e.Msg(w.surface, wayland.WlSurfaceReqCommit)
			}
			go func() {
				for range b.N/64 + 1 {
					if r.guest.Tr.Send(e.B, nil) != nil {
						return
					}
				}
			}()
			cpu := func() int64 {
				var u unix.Rusage
				if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
					b.Fatal(err)
				}
				return u.Utime.Nano() + u.Stime.Nano()
			}
			b.ResetTimer()
			b.ReportAllocs()
			before := cpu()
			for n := 0; n < (b.N/64+1)*64; {
				m, err := r.rig.host.Next()
				if err != nil {
					b.Fatal(err)
				}
				if m.ID == w.hostSurface && m.Op == wayland.WlSurfaceReqCommit {
					n++
				}
			}
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/op") // of all three ends
		})
	}
}

// TestLargeChild holds that a sub-surface that is resized before its window is cut
// off at the window's border for as long, as Firefox's content is.
func TestLargeChild(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "full")
	w := r.window()
	r.rig.host.Send(r.own[wayland.WlOutput], wayland.WlOutputEvtMode, 1, 400, 300, 60000)
	r.rig.host.Send(r.own[wayland.WlOutput], wayland.WlOutputEvtDone)
	r.rig.host.Send(r.host[wayland.WlSeat], wayland.WlSeatEvtCapabilities, 1)
	r.guest.Want(r.ids[wayland.WlSeat], wayland.WlSeatEvtCapabilities)
	r.show(w, r.buffer(100, 80))
	child, sub := r.id(), r.id()
	r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateSurface, child)
	r.guest.Send(r.ids[wayland.WlSubcompositor], wayland.WlSubcompositorReqGetSubsurface, sub, child, w.surface)
	hostChild := r.skip(r.host[wayland.WlSubcompositor], wayland.WlSubcompositorReqGetSubsurface).Word(1)
	r.guest.Send(sub, wayland.WlSubsurfaceReqSetDesync)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	r.guest.Send(child, wayland.WlSurfaceReqAttach, r.buffer(380, 270), 0, 0)
	r.guest.Send(child, wayland.WlSurfaceReqCommit)
	m := r.skip(r.own[wayland.WpViewporter], wayland.WpViewporterReqGetViewport)
	crop := m.Word(0)
	if m.Word(1) != hostChild {
		t.Errorf("a viewport of %d, not of the sub-surface", m.Word(1))
	}
	if m = r.skip(crop, wayland.WpViewportReqSetDestination); m.Word(0) != 100 || m.Word(1) != 80 {
		t.Errorf("cut to %d×%d", m.Word(0), m.Word(1))
	}
	r.skip(hostChild, wayland.WlSurfaceReqCommit)
	r.skip(w.hostSurface, wayland.WlSurfaceReqCommit) // it waits for the root there
	// The window follows: all of the sub-surface is shown, without its next commit.
	r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, r.buffer(380, 270), 0, 0)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	if m = r.skip(crop, wayland.WpViewportReqSetDestination); m.Word(0) != 380 || m.Word(1) != 270 {
		t.Errorf("grown to %d×%d", m.Word(0), m.Word(1))
	}
	r.skip(hostChild, wayland.WlSurfaceReqCommit)
	r.skip(w.hostSurface, wayland.WlSurfaceReqCommit)
}
