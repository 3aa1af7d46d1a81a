package filter

import (
	"bytes"
	"fmt"
	"image"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/wayland"
)

// orders are ways to make a desynchronised child that brings a grandchild.
var orders = map[string]func(a *attacker, child, sub, parent uint32){
	"set_desync, then its commit": func(a *attacker, child, sub, parent uint32) {
		a.req(sub, wayland.WlSubsurfaceReqSetDesync)
		a.show(child, 1, 1)
		a.req(parent, wayland.WlSurfaceReqCommit)
	},
	"its commit, then set_desync": func(a *attacker, child, sub, parent uint32) {
		a.show(child, 1, 1)
		a.req(parent, wayland.WlSurfaceReqCommit)
		a.req(sub, wayland.WlSubsurfaceReqSetDesync)
	},
	"set_desync, set_sync and set_desync again, around commits": func(a *attacker, child, sub, parent uint32) {
		a.req(sub, wayland.WlSubsurfaceReqSetDesync)
		a.show(child, 1, 1)
		a.req(sub, wayland.WlSubsurfaceReqSetSync)
		a.show(child, 2, 2)
		a.req(parent, wayland.WlSurfaceReqCommit)
		a.req(sub, wayland.WlSubsurfaceReqSetDesync)
	},
}

// outsides are what a guest does to show something outside its frame, on the surface of
// a window or of a popup (of).
var outsides = map[string]func(a *attacker, of uint32){
	"a grandchild with content before its role": func(a *attacker, of uint32) {
		for _, order := range orders {
			c := a.made()
			order(a, c, a.sub(c, of, 0, 0), of)
			g := a.made()
			a.show(g, 380, 280)
			a.sub(g, c, -24, -40)
			a.req(c, wayland.WlSurfaceReqCommit)
		}
	},
	"a grandchild that is desynchronised before its parent is": func(a *attacker, of uint32) {
		for _, order := range orders {
			c, g := a.made(), a.made()
			sub := a.sub(c, of, 0, 0)
			a.req(a.sub(g, c, -24, -40), wayland.WlSubsurfaceReqSetDesync)
			a.show(g, 380, 280)
			order(a, c, sub, of)
			a.show(g, 390, 290)
		}
	},
	"a child whose content is current, and nothing pending": func(a *attacker, of uint32) {
		c := a.made()
		a.show(c, 380, 280)
		a.req(c, wayland.WlSurfaceReqAttach, 0, 0, 0)
		a.sub(c, of, -24, -40)
		a.req(of, wayland.WlSurfaceReqCommit)
	},
	"a child that grows in a cached state, then moves": func(a *attacker, of uint32) {
		c := a.made()
		sub := a.sub(c, of, 0, 0)
		a.show(c, 10, 10)
		a.req(of, wayland.WlSurfaceReqCommit)
		a.show(c, 380, 280)
		a.req(sub, wayland.WlSubsurfaceReqSetPosition, neg-300, neg-200)
		a.req(sub, wayland.WlSubsurfaceReqSetDesync)
		a.req(of, wayland.WlSurfaceReqCommit)
	},
	"a child moved by attach": func(a *attacker, of uint32) {
		a.older()
		c := a.made()
		a.req(a.sub(c, of, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		a.show(c, 30, 30)
		a.req(of, wayland.WlSurfaceReqCommit)
		for range 5 {
			a.req(c, wayland.WlSurfaceReqAttach, a.buffer(30, 30), 400, 250)
			a.req(c, wayland.WlSurfaceReqCommit)
		}
	},
	"a child moved by offset": func(a *attacker, of uint32) {
		c := a.made()
		a.req(a.sub(c, of, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		for _, at := range [][2]uint32{{400, 250}, {neg - 400, neg - 250}, {1 << 30, 1 << 30}} {
			a.req(c, wayland.WlSurfaceReqOffset, at[0], at[1])
			a.show(c, 30, 30)
			a.req(of, wayland.WlSurfaceReqCommit)
		}
	},
	"a child by viewport, scale and transform, one after the other": func(a *attacker, of uint32) {
		c := a.made()
		a.req(a.sub(c, of, 20, 10), wayland.WlSubsurfaceReqSetDesync)
		v := a.viewport(c)
		a.req(c, wayland.WlSurfaceReqSetBufferScale, 4)
		a.show(c, 400, 40)
		a.req(of, wayland.WlSurfaceReqCommit)
		a.req(c, wayland.WlSurfaceReqSetBufferScale, 1)
		a.req(c, wayland.WlSurfaceReqCommit)
		a.req(c, wayland.WlSurfaceReqSetBufferTransform, 3)
		a.req(c, wayland.WlSurfaceReqCommit)
		a.req(v, wayland.WpViewportReqSetDestination, 5000, 4000)
		a.req(c, wayland.WlSurfaceReqCommit)
		a.req(v, wayland.WpViewportReqSetSource, 0, 0, 1<<8, 1<<8)
		a.req(c, wayland.WlSurfaceReqCommit)
		a.req(v, wayland.WpViewportReqDestroy)
		a.req(c, wayland.WlSurfaceReqCommit)
	},
	"a child above the frame": func(a *attacker, of uint32) {
		c, d := a.made(), a.made()
		sub := a.sub(c, of, -50, -50)
		a.show(c, 380, 280)
		a.sub(d, of, -60, -60)
		a.show(d, 380, 280)
		a.req(sub, wayland.WlSubsurfaceReqPlaceAbove, d)
		a.req(sub, wayland.WlSubsurfaceReqPlaceBelow, of)
		a.req(sub, wayland.WlSubsurfaceReqPlaceAbove, of)
		a.req(of, wayland.WlSurfaceReqCommit)
	},
	"its own surface, moved and larger": func(a *attacker, of uint32) {
		a.req(of, wayland.WlSurfaceReqOffset, neg-50, neg-50)
		a.show(of, 900, 265)
		a.req(of, wayland.WlSurfaceReqOffset, 100, 100)
		a.show(of, 901, 266)
	},
	"its own surface, by viewport, scale and transform": func(a *attacker, of uint32) {
		v := a.viewport(of)
		a.req(v, wayland.WpViewportReqSetDestination, 3000, 2000)
		a.req(of, wayland.WlSurfaceReqCommit)
		a.req(v, wayland.WpViewportReqDestroy)
		a.req(of, wayland.WlSurfaceReqSetBufferScale, 2)
		a.req(of, wayland.WlSurfaceReqSetBufferTransform, 1)
		a.show(of, 1800, 600)
		a.req(of, wayland.WlSurfaceReqSetBufferScale, 1)
		a.req(of, wayland.WlSurfaceReqCommit)
	},
	"a tree whose middle is destroyed": func(a *attacker, of uint32) {
		c, g := a.made(), a.made()
		a.req(a.sub(c, of, 0, 0), wayland.WlSubsurfaceReqSetDesync)
		sub := a.sub(g, c, -300, -300)
		a.show(g, 380, 280)
		a.show(c, 10, 10)
		a.req(of, wayland.WlSurfaceReqCommit)
		a.req(c, wayland.WlSurfaceReqDestroy)
		a.req(g, wayland.WlSurfaceReqCommit)
		a.req(sub, wayland.WlSubsurfaceReqDestroy)
		a.show(g, 390, 290)
		a.sub(g, of, -200, -200)
		a.req(of, wayland.WlSurfaceReqCommit)
	},
}

// TestOutsideOfAFrame holds that whatever a guest does with the surface of a window or a
// popup and what hangs on it, the compositor is told to show it within the frame, and not
// over it.
func TestOutsideOfAFrame(t *testing.T) {
	for name, do := range outsides {
		t.Run(name+"/window", func(t *testing.T) {
			a := newAttacker(t)
			a.outputs([2]uint32{400, 300})
			do(a, a.win.surface)
			a.wrong()
		})
		t.Run(name+"/popup", func(t *testing.T) {
			a := newAttacker(t)
			a.outputs([2]uint32{400, 300})
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			a.show(m.surface, 40, 30)
			do(a, m.surface)
			a.wrong()
			a.within(m)
		})
		t.Run(name+"/popup of a popup", func(t *testing.T) {
			a := newAttacker(t)
			a.outputs([2]uint32{400, 300})
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			a.show(m.surface, 40, 30)
			n := a.menu(m.xdg, 40, 30, 5, 5)
			a.show(n.surface, 40, 30)
			do(a, n.surface)
			a.wrong()
			a.within(n)
		})
	}
}

// within holds that a popup is no larger than it was configured to.
func (a *attacker) within(m menu) {
	a.t.Helper()
	for _, s := range a.shells {
		if s.popup && (s.geometry.W > m.w || s.geometry.H > m.h) {
			a.t.Errorf("a popup of %v, configured to %d×%d", s.geometry, m.w, m.h)
		}
	}
}

// hides holds that the popups that are shown hide at most their share of each screen,
// beyond the window that they are over.
func (a *attacker) hides(screens ...[2]uint32) {
	a.t.Helper()
	window := a.shells[a.win.hostXdg].geometry
	for _, s := range screens {
		hidden := int64(0)
		for _, p := range a.shells {
			if !p.popup || !a.seen[p.surface].mapped {
				continue
			}
			w, h := p.geometry.W, p.geometry.H
			over := rect(p.at.X, p.at.Y, w, h).Intersect(rect(0, 0, window.W, window.H))
			hidden += max(int64(min(w, int32(s[0])))*int64(min(h, int32(s[1])))-int64(over.W)*int64(over.H), 0)
		}
		if all := int64(s[0]) * int64(s[1]); hidden > all*maxPopups/100 {
			a.t.Errorf("popups hide %d of the %d pixels of a screen of %v", hidden, all, s)
		}
	}
}

// TestPopupsHideLittle tries popups of many shapes on screens of many, by one connection
// and by several of a VM, as they come, move and grow, and as screens come and go.
func TestPopupsHideLittle(t *testing.T) {
	screens := [][][2]uint32{{{400, 300}}, {{400, 300}, {300, 400}}, {{300, 400}, {400, 300}, {1920, 1080}}, {{4000, 100}, {100, 4000}}}
	for _, ss := range screens {
		for name, do := range map[string]func(a *attacker){
			"told small, shown large": func(a *attacker) {
				for range 3 {
					m := a.menu(a.win.xdg, 10, 10, -224, -43)
					a.show(m.surface, 900, 265)
				}
			},
			"wider than the screen": func(a *attacker) {
				for k := range 4 {
					m := a.menu(a.win.xdg, 5000, 265, -2000, 100*k)
					a.show(m.surface, 5000, 265)
				}
			},
			"many small ones": func(a *attacker) {
				for k := range 30 {
					m := a.menu(a.win.xdg, 120, 90, 20*k, 10*k)
					a.show(m.surface, 120, 90)
				}
			},
			"that are repositioned to be large": func(a *attacker) {
				for range 3 {
					m := a.menu(a.win.xdg, 20, 20, 5, 5)
					a.show(m.surface, 900, 700)
					pos := a.id()
					a.positioner(pos, 900, 700, -100, -100)
					a.req(m.popup, wayland.XdgPopupReqReposition, pos, 7)
					a.heard()
					size := a.sizes[a.last[wayland.XdgPositioner]]
					m.w, m.h = size[0], size[1]
					a.rig.host.Send(m.host, wayland.XdgPopupEvtRepositioned, 7)
					a.place(m, 0, 0)
					a.show(m.surface, 900, 700)
				}
			},
			"by geometry": func(a *attacker) {
				m := a.menu(a.win.xdg, 20, 20, 5, 5)
				a.req(m.xdg, wayland.XdgSurfaceReqSetWindowGeometry, 100, 100, 20, 20)
				a.show(m.surface, 900, 700)
				a.req(m.xdg, wayland.XdgSurfaceReqSetWindowGeometry, neg-100, neg-100, 3000, 3000)
				a.req(m.surface, wayland.WlSurfaceReqCommit)
			},
			"when their window shrinks": func(a *attacker) {
				a.show(a.win.surface, 380, 280)
				m := a.menu(a.win.xdg, 370, 180, 0, 0)
				a.show(m.surface, 370, 180)
				a.show(a.win.surface, 1, 1)
			},
		} {
			t.Run(fmt.Sprint(ss, name), func(t *testing.T) {
				a := newAttacker(t)
				a.outputs(ss...)
				do(a)
				a.wrong()
				a.hides(ss...)
				// A screen of another shape comes, and the first goes.
				more := [2]uint32{350, 250}
				a.outputs(append(ss[:len(ss):len(ss)], more)...)
				a.heard()
				a.wrong()
				a.hides(append(ss[:len(ss):len(ss)], more)...)
			})
		}
	}
}

// TestPopupsOfConnections holds that all connections of a VM share what popups may hide.
func TestPopupsOfConnections(t *testing.T) {
	var f Filter
	screens := []screen{{400, 300}, {300, 400}}
	for _, conn := range []int64{1, 2, 3} {
		if got := f.popups.enter(&popup{}, 200, 150, 0, screens); got != (conn <= 2) {
			t.Errorf("popup of connection %d: %v", conn, got)
		}
	}
}

// TestImages holds that a pointer's image is small with the pointer in it, and a drag's
// icon of bounded size, however a guest says otherwise.
func TestImages(t *testing.T) {
	type image struct {
		name string
		do   func(a *attacker, take func(s uint32, x, y int))
	}
	images := []image{
		{"a hotspot far outside", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			a.show(s, 60, 60)
			for _, at := range [][2]int{{84, 80}, {-100, -100}, {1 << 30, 5}, {5, -1 << 31}, {60, 60}} {
				take(s, at[0], at[1])
			}
		}},
		{"a size that is current, and nothing pending", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			a.show(s, 380, 280)
			a.req(s, wayland.WlSurfaceReqAttach, 0, 0, 0)
			take(s, 44, 60)
		}},
		{"a size that is only pending", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			a.show(s, 10, 10)
			a.req(s, wayland.WlSurfaceReqAttach, a.buffer(380, 280), 0, 0)
			take(s, 5, 5)
			a.req(s, wayland.WlSurfaceReqCommit)
		}},
		{"a state that was cached as a sub-surface", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			sub := a.sub(s, a.win.surface, 0, 0)
			a.show(s, 380, 280)
			a.req(sub, wayland.WlSubsurfaceReqDestroy)
			take(s, 5, 5)
		}},
		{"viewport, scale, transform", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			take(s, 5, 5)
			v := a.viewport(s)
			a.req(s, wayland.WlSurfaceReqSetBufferScale, 4)
			a.show(s, 240, 120)
			a.req(s, wayland.WlSurfaceReqSetBufferScale, 1)
			a.req(s, wayland.WlSurfaceReqSetBufferTransform, 1)
			a.req(s, wayland.WlSurfaceReqCommit)
			a.req(v, wayland.WpViewportReqSetDestination, 3000, 1)
			a.req(s, wayland.WlSurfaceReqCommit)
			take(s, 2999, 0)
		}},
		{"moved by offset", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			take(s, 5, 5)
			for _, at := range [][2]uint32{{40, 30}, {40, 30}, {neg - 500, neg - 500}} {
				a.req(s, wayland.WlSurfaceReqOffset, at[0], at[1])
				a.show(s, 60, 60)
			}
		}},
		{"moved by attach", func(a *attacker, take func(uint32, int, int)) {
			a.older()
			s := a.made()
			take(s, 5, 5)
			for _, at := range [][2]uint32{{40, 30}, {40, 30}, {neg - 500, neg - 500}} {
				a.req(s, wayland.WlSurfaceReqAttach, a.buffer(60, 60), at[0], at[1])
				a.req(s, wayland.WlSurfaceReqCommit)
			}
		}},
		{"that shrinks under its hotspot", func(a *attacker, take func(uint32, int, int)) {
			s := a.made()
			take(s, 55, 55)
			a.show(s, 60, 60)
			a.show(s, 3, 3)
		}},
		{"with children", func(a *attacker, take func(uint32, int, int)) {
			s, c := a.made(), a.made()
			a.show(c, 380, 280)
			a.sub(c, s, -100, -100)
			take(s, 0, 0)
			a.show(s, 10, 10)
		}},
		{"with children that come later", func(a *attacker, take func(uint32, int, int)) {
			s, c := a.made(), a.made()
			take(s, 0, 0)
			a.show(s, 10, 10)
			a.show(c, 380, 280)
			a.sub(c, s, -100, -100)
			a.req(s, wayland.WlSurfaceReqCommit)
		}},
	}
	for _, i := range images {
		for _, by := range []string{"pointer", "pen", "drag"} {
			t.Run(i.name+"/"+by, func(t *testing.T) {
				a := newAttacker(t)
				a.dataDevice()
				ptr, hostPtr := a.device(wayland.WlSeatReqGetPointer, wayland.WlPointer)
				a.rig.host.Send(hostPtr, wayland.WlPointerEvtEnter, goodEnter, a.win.hostSurface, 1<<8, 1<<8)
				a.rig.host.Send(hostPtr, wayland.WlPointerEvtButton, goodPress, 0, buttonLeft, 1)
				a.settle()
				pen := a.pen(goodEnter + 100)
				i.do(a, func(s uint32, x, y int) {
					switch by {
					case "pointer":
						a.req(ptr, wayland.WlPointerReqSetCursor, goodEnter, s, uint32(x), uint32(y))
					case "pen":
						a.req(pen, wayland.ZwpTabletToolV2ReqSetCursor, goodEnter+100, s, uint32(x), uint32(y))
					default:
						a.drag(s, goodPress)
					}
				})
				a.wrong()
				if by != "drag" && !a.gone && a.images == 0 {
					t.Error("no image was told: the test proves little")
				}
			})
		}
	}
}

// pen gives the attacker a pen of a tablet, which comes over its window with a serial.
func (a *attacker) pen(serial uint32) (tool uint32) {
	a.t.Helper()
	const hostTablet, hostTool = 0xff000000, 0xff000001
	i := wayland.ZwpTabletManagerV2
	a.write(a.rig.host, a.reg, wayland.WlRegistryEvtGlobal, uint32(91), i.Name, uint32(1))
	a.settle()
	manager := a.id()
	a.write(a.guest, 2, wayland.WlRegistryReqBind, uint32(91), i.Name, uint32(1), manager)
	seat := a.id()
	a.req(manager, wayland.ZwpTabletManagerV2ReqGetTabletSeat, seat, a.ids[wayland.WlSeat])
	a.heard()
	hostSeat := a.last[wayland.ZwpTabletSeatV2]
	a.objs[hostTablet], a.objs[hostTool] = wayland.ZwpTabletV2, wayland.ZwpTabletToolV2
	a.rig.host.Send(hostSeat, wayland.ZwpTabletSeatV2EvtTabletAdded, hostTablet)
	a.rig.host.Send(hostSeat, wayland.ZwpTabletSeatV2EvtToolAdded, hostTool)
	a.rig.host.Send(hostTool, wayland.ZwpTabletToolV2EvtProximityIn, serial, hostTablet, a.win.hostSurface)
	for tool == 0 {
		m, err := a.guest.Next()
		if err != nil {
			a.t.Fatal(err)
		}
		if m.ID == seat && m.Op == wayland.ZwpTabletSeatV2EvtToolAdded {
			tool = m.Word(0)
		}
	}
	a.settle()
	return tool
}

// strayLime is the colour of the guest's that these tests look for where it must not be.
var strayLime = desktoptest.Near(guestLime, 2)

// stray fails the test for each of the guest's pixels outside the allowed places.
func stray(t *testing.T, img *image.RGBA, allowed ...image.Rectangle) {
	t.Helper()
	n := desktoptest.Count(img, img.Bounds(), strayLime)
	for _, r := range allowed {
		n -= desktoptest.Count(img, r, strayLime)
	}
	if n > 0 {
		t.Errorf("%d of the guest's pixels are outside %v", n, allowed)
	}
}

// shows opens a window of w×h, part of its buffers of bw×bh, and waits for its frame.
func shows(t *testing.T, d *desktoptest.Desktop, socket string, bw, bh, w, h int) *painter {
	t.Helper()
	p := newPainter(t, socket, bw, bh)
	p.bind(p.globals["wl_subcompositor"], "wl_subcompositor", 1)
	p.fill(0, guestRed)
	p.fill(1, guestLime)
	p.view(p.surface, w, h)
	p.present(p.surface, "buffer0")
	p.sync()
	look(t, d, frameShots(atX, atY, w, h)...)
	return p
}

// popup opens a popup of w×h at a place of the window's.
func (p *painter) popup(w, h, x, y int) (surface uint32) {
	p.T.Helper()
	s, pos, xs, pop := p.id(), p.id(), p.id(), p.id()
	p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, s)
	p.Send(p.ids["xdg_wm_base"], wayland.XdgWmBaseReqCreatePositioner, pos)
	p.Send(pos, wayland.XdgPositionerReqSetSize, uint32(w), uint32(h))
	p.Send(pos, wayland.XdgPositionerReqSetAnchorRect, uint32(x), uint32(y), 1, 1)
	p.Send(pos, wayland.XdgPositionerReqSetAnchor, 5)  // top left
	p.Send(pos, wayland.XdgPositionerReqSetGravity, 8) // bottom right
	p.Send(p.ids["xdg_wm_base"], wayland.XdgWmBaseReqGetXdgSurface, xs, s)
	p.Send(xs, wayland.XdgSurfaceReqGetPopup, pop, p.ids["xdg_surface"], pos)
	p.Send(s, wayland.WlSurfaceReqCommit)
	for {
		m, err := p.Next()
		switch {
		case err != nil:
			p.T.Fatal(err)
		case m.ID == 1 && m.Op == wayland.WlDisplayEvtError:
			p.T.Fatalf("%q", m.Body)
		case m.ID == xs:
			p.Send(xs, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
			return s
		}
	}
}

// steady returns the picture once it stays the same, which is the end of what was asked
// of the compositor before.
func steady(t *testing.T, d *desktoptest.Desktop) *image.RGBA {
	t.Helper()
	var last *image.RGBA
	return d.WaitScreen(t, "a picture that stays", func(img *image.RGBA) bool {
		same := last != nil && bytes.Equal(last.Pix, img.Pix)
		last = img
		return same
	})
}

// TestOutsidePixels plays the ways out of a popup's frame that worked on sway: a
// grandchild by its parent's commit, content that pending state hides, a popup larger
// than it was told.
func TestOutsidePixels(t *testing.T) {
	d, socket := startFramed(t, "full")
	for name, do := range map[string]func(p *painter){
		"a grandchild by the commit of its desynchronised parent": func(p *painter) {
			pop := p.popup(40, 40, 0, 0)
			p.view(pop, 40, 40)
			p.present(pop, "buffer0")
			c, cs := p.id(), p.id()
			p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, c)
			p.Send(p.ids["wl_subcompositor"], wayland.WlSubcompositorReqGetSubsurface, cs, c, pop)
			p.Send(cs, wayland.WlSubsurfaceReqSetDesync)
			p.view(c, 1, 1)
			p.present(c, "buffer0")
			p.Send(pop, wayland.WlSurfaceReqCommit)
			b := p.id()
			p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, b)
			p.present(b, "buffer1")
			bs := p.id()
			p.Send(p.ids["wl_subcompositor"], wayland.WlSubcompositorReqGetSubsurface, bs, b, c)
			p.Send(bs, wayland.WlSubsurfaceReqSetPosition, neg-24, neg-40)
			p.Send(c, wayland.WlSurfaceReqCommit)
		},
		"a child of a popup that pending state hides": func(p *painter) {
			pop := p.popup(40, 40, 0, 0)
			p.view(pop, 40, 40)
			p.present(pop, "buffer0")
			b := p.id()
			p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, b)
			p.present(b, "buffer1")
			p.Send(b, wayland.WlSurfaceReqAttach, 0, 0, 0)
			bs := p.id()
			p.Send(p.ids["wl_subcompositor"], wayland.WlSubcompositorReqGetSubsurface, bs, b, pop)
			p.Send(bs, wayland.WlSubsurfaceReqSetPosition, neg-24, neg-40)
			p.Send(pop, wayland.WlSurfaceReqCommit)
		},
		"a popup larger than it was told": func(p *painter) { p.present(p.popup(40, 40, 0, 0), "buffer1") },
	} {
		t.Run(name, func(t *testing.T) {
			p := shows(t, d, socket, 900, 265, 100, 80)
			do(p)
			p.tried()
			if p.ended {
				t.Fatal("the connection ended before all was tried")
			}
			popup := image.Rect(atX, atY, atX+40, atY+40)
			img := look(t, d, shot{what: "the child in its popup", at: popup.Inset(2), color: guestLime})
			stray(t, img, popup)
			p.close()
			d.WaitNoWindow(t, func(*desktoptest.Node) bool { return true })
		})
	}
}

// TestPopupsCoverLittle: popups that are told small and show themselves large, on screens
// of differing shapes. On each most of what is not the window's stays to be seen.
func TestPopupsCoverLittle(t *testing.T) {
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: framedSway + "exec swaymsg create_output\n", Timeout: 30 * time.Second})
	d.WaitTree(t, "two outputs", func(root *desktoptest.Node) bool { return root.Rect.Width > 400 })
	d.Command(t, "output HEADLESS-2 mode 300x400 position 400 0")
	d.WaitTree(t, "the second output's mode", func(root *desktoptest.Node) bool { return root.Rect.Width == 700 && root.Rect.Height == 400 })
	d.Command(t, "focus output HEADLESS-1")
	socket := serveFramed(t, d, "full")
	p := shows(t, d, socket, 900, 400, 60, 40)
	for _, told := range [][4]int{{10, 10, -22, -38}, {900, 265, -22, -38}, {900, 400, -22, 100}, {200, 390, -22, 0}} {
		p.present(p.popup(told[0], told[1], told[2], told[3]), "buffer1")
		p.sync()
		img := steady(t, d)
		for _, out := range []image.Rectangle{image.Rect(0, 0, 400, 300), image.Rect(400, 0, 700, 400)} {
			n := desktoptest.Count(img, out, strayLime) + desktoptest.Count(img, out, desktoptest.Near(frameBlue, 2))
			own := 68 * 64
			if most := out.Dx()*out.Dy()*maxPopups/100 + own; n > most {
				t.Errorf("after a popup told to be %v, the guest and its frames cover %d pixels of %v, more than %d", told, n, out, most)
			}
		}
	}
}

// TestCursorPixels: the image of the pointer is small and at the pointer, on sway.
func TestCursorPixels(t *testing.T) {
	d, socket := startFramed(t, "full")
	p := newPainter(t, socket, 256, 256)
	p.bind(p.globals["wl_seat"], "wl_seat", 5)
	ptr := p.id()
	p.Send(p.ids["wl_seat"], wayland.WlSeatReqGetPointer, ptr)
	p.fill(0, guestRed)
	p.fill(1, guestLime)
	p.view(p.surface, 160, 120)
	p.present(p.surface, "buffer0")
	p.sync()
	look(t, d, frameShots(atX, atY, 160, 120)...)
	for _, hot := range [][2]uint32{{84, 80}, {neg - 100, neg - 100}, {0, 0}, {10000, 10000}, {atX + 80, atY + 60}} {
		at := image.Pt(atX+80, atY+60)
		d.MoveTo(t, 390, 290) // and so it comes anew
		d.MoveTo(t, at.X, at.Y)
		cur := p.id()
		p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, cur)
		p.present(cur, "buffer1")
		p.Send(cur, wayland.WlSurfaceReqAttach, 0, 0, 0) // pending, and never committed
		p.Send(ptr, wayland.WlPointerReqSetCursor, p.entered(ptr), cur, hot[0], hot[1])
		p.sync()
		img := look(t, d, shot{what: "an image at the pointer", at: image.Rect(at.X, at.Y, at.X+1, at.Y+1), color: guestLime})
		stray(t, img, image.Rect(at.X-maxImage, at.Y-maxImage, at.X+maxImage, at.Y+maxImage))
		if n := desktoptest.Count(img, img.Bounds(), strayLime); n > maxImage*maxImage {
			t.Errorf("hotspot %v: an image of %d pixels", hot, n)
		}
	}
}

// entered waits for the pointer to come over the window, and returns the serial.
func (p *painter) entered(ptr uint32) uint32 {
	p.T.Helper()
	for {
		m, err := p.Next()
		if err != nil {
			p.T.Fatal(err)
		}
		if m.ID == ptr && m.Op == wayland.WlPointerEvtEnter {
			return m.Word(0)
		}
	}
}
