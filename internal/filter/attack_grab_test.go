package filter

import (
	"encoding/xml"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/display"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// reachable returns the interfaces that a guest can have objects of: the globals that
// some configuration lets it see, and all that their requests and events make.
func reachable() map[*wayland.Interface]bool {
	can := map[*wayland.Interface]bool{wayland.WlDisplay: true}
	todo := []*wayland.Interface{wayland.WlDisplay}
	add := func(i *wayland.Interface) {
		if i != nil && !can[i] {
			can[i] = true
			todo = append(todo, i)
		}
	}
	for i := range display.Rules {
		if !display.Never[i] {
			add(i)
		}
	}
	for len(todo) > 0 {
		i := todo[0]
		todo = todo[1:]
		for _, ms := range [][]wayland.Message{i.Requests, i.Events} {
			for k := range ms {
				if ms[k].New != nil {
					add(ms[k].New.Iface)
				}
			}
		}
	}
	return can
}

// serialRequests reads the names of the requests with an argument called serial from the
// XML that the tables are made of: the tables do not keep the names of arguments.
func serialRequests(t *testing.T) (names map[string]bool) {
	t.Helper()
	const dir = "../wayland"
	list, err := os.ReadFile(filepath.Join(dir, "protocols.list"))
	if err != nil {
		t.Fatal(err)
	}
	names = map[string]bool{}
	for name := range strings.FieldsSeq(string(list)) {
		path := filepath.Join("/usr/share", name)
		if strings.HasPrefix(name, "./") {
			path = filepath.Join(dir, name)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Skipf("lacks the protocols' XML (%v); make test runs it where they are", err)
		}
		var p struct {
			Interfaces []struct {
				Name     string `xml:"name,attr"`
				Requests []struct {
					Name string `xml:"name,attr"`
					Args []struct {
						Name string `xml:"name,attr"`
					} `xml:"arg"`
				} `xml:"request"`
			} `xml:"interface"`
		}
		if err := xml.Unmarshal(b, &p); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		for _, i := range p.Interfaces {
			for _, r := range i.Requests {
				for _, a := range r.Args {
					if strings.Contains(a.Name, "serial") {
						names[i.Name+"."+r.Name] = true
					}
				}
			}
		}
	}
	return names
}

// TestAuthorityIsComplete holds that every request with a serial or a seat that a guest
// can make is in the table that says what it needs, and that the table has no other.
func TestAuthorityIsComplete(t *testing.T) {
	serials := serialRequests(t)
	if len(serials) < 15 {
		t.Fatalf("only %d requests with a serial: the XML is not read", len(serials))
	}
	can := reachable()
	ruled := map[*wayland.Message]bool{}
	for m := range authority {
		ruled[m] = true
	}
	for m := range seats {
		ruled[m] = true
	}
	for i := range can {
		for k := range i.Requests {
			m := &i.Requests[k]
			name := i.Name + "." + m.Name
			has := serials[name] || slices.ContainsFunc(m.Args, func(a wayland.Arg) bool { return a.Iface == wayland.WlSeat })
			switch {
			case name == "xdg_positioner.set_parent_configure": // kept from the compositor until it is checked: popup.go
			case has && !ruled[m]:
				t.Errorf("%s names a serial or a seat, and the table of authority does not have it", name)
			case !has && ruled[m]:
				t.Errorf("%s is in the table of authority, and names neither a serial nor a seat", name)
			}
			delete(ruled, m)
		}
	}
	for m := range ruled {
		t.Errorf("%s is in the table of authority, and no guest can make it", m.Name)
	}
	for m, n := range authority {
		if n.why == "" || !n.never && !n.answer && n.of == 0 {
			t.Errorf("%s: the table does not say what it needs", m.Name)
		}
	}
}

// TestGrabIsNotPassed holds that no request of a guest's becomes a grab: whenever it is
// made, with whatever serial and seat, of whatever popup.
func TestGrabIsNotPassed(t *testing.T) {
	grab := func(a *attacker, p, seat, serial uint32) { a.req(p, wayland.XdgPopupReqGrab, seat, serial) }
	seat := func(a *attacker) uint32 { return a.ids[wayland.WlSeat] }
	for name, do := range map[string]func(a *attacker){
		"before the first commit, with an invented serial": func(a *attacker) {
			a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 12345) })
		},
		"before it is shown": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			grab(a, m.popup, seat(a), 1)
			a.show(m.surface, 40, 30)
		},
		"when it is shown": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			a.show(m.surface, 40, 30)
			grab(a, m.popup, seat(a), 1)
		},
		"again and again": func(a *attacker) {
			a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) {
				for k := range uint32(50) {
					grab(a, m.popup, seat(a), k)
				}
			})
		},
		"of a nested popup": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 1) })
			a.show(m.surface, 40, 30)
			n := a.menu(m.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 1) })
			a.show(n.surface, 40, 30)
		},
		"before a reposition": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 1) })
			a.show(m.surface, 40, 30)
			pos := a.id()
			a.positioner(pos, 50, 40, 8, 8)
			a.req(m.popup, wayland.XdgPopupReqReposition, pos, 77)
		},
		"of a popup of its second window": func(a *attacker) {
			w := a.window()
			a.know(w)
			a.show(w.surface, 60, 40)
			m := a.menu(w.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 1) })
			a.show(m.surface, 40, 30)
		},
		"with a second seat object": func(a *attacker) {
			second := a.id()
			a.write(a.guest, 2, wayland.WlRegistryReqBind, uint32(framedName+4), wayland.WlSeat.Name, uint32(5), second)
			a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, second, 1) })
		},
		"with the serial of a real press": func(a *attacker) {
			_, hostPtr := a.device(wayland.WlSeatReqGetPointer, wayland.WlPointer)
			a.rig.host.Send(hostPtr, wayland.WlPointerEvtEnter, 11, a.win.hostSurface, 1<<8, 1<<8)
			a.rig.host.Send(hostPtr, wayland.WlPointerEvtButton, 12, 0, buttonLeft, 1)
			a.settle()
			a.menu(a.win.xdg, 40, 30, 5, 5, func(m menu) { grab(a, m.popup, seat(a), 12) })
		},
		"of a popup that was destroyed": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			a.req(m.popup, wayland.XdgPopupReqDestroy)
			grab(a, m.popup, seat(a), 1)
		},
		"of a popup whose parent is gone": func(a *attacker) {
			m := a.menu(a.win.xdg, 40, 30, 5, 5)
			a.req(a.win.top, wayland.XdgToplevelReqDestroy)
			grab(a, m.popup, seat(a), 1)
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAttacker(t)
			do(a)
			a.wrong()
			if len(a.grabs) > 0 {
				t.Errorf("the compositor hears %v", a.grabs)
			}
		})
	}
}

// A pressing is a pointer of the attacker's with a button held.
type pressing struct{ ptr, hostPtr uint32 }

// asks are the requests that take something by a serial, each made with the serial given
// about the attacker's window.
var asks = map[string]func(a *attacker, p pressing, serial uint32){
	"xdg_toplevel.move": func(a *attacker, _ pressing, serial uint32) {
		a.req(a.win.top, wayland.XdgToplevelReqMove, a.ids[wayland.WlSeat], serial)
	},
	"xdg_toplevel.resize": func(a *attacker, _ pressing, serial uint32) {
		a.req(a.win.top, wayland.XdgToplevelReqResize, a.ids[wayland.WlSeat], serial, edgeLeft)
	},
	"xdg_toplevel.show_window_menu": func(a *attacker, _ pressing, serial uint32) {
		a.req(a.win.top, wayland.XdgToplevelReqShowWindowMenu, a.ids[wayland.WlSeat], serial, 5, 5)
	},
	"wl_data_device.start_drag": func(a *attacker, _ pressing, serial uint32) {
		a.drag(0, serial)
	},
	"wl_pointer.set_cursor": func(a *attacker, p pressing, serial uint32) {
		s := a.made()
		a.req(p.ptr, wayland.WlPointerReqSetCursor, serial, s, 0, 0)
		a.show(s, 10, 10)
	},
	"wp_cursor_shape_device_v1.set_shape": func(a *attacker, p pressing, serial uint32) {
		d := a.id()
		a.req(a.ids[wayland.WpCursorShapeManagerV1], wayland.WpCursorShapeManagerV1ReqGetPointer, d, p.ptr)
		a.req(d, wayland.WpCursorShapeDeviceV1ReqSetShape, serial, shapeDefault)
	},
}

// dataDevice returns the attacker's wl_data_device.
func (a *attacker) dataDevice() uint32 {
	a.t.Helper()
	if a.data == 0 {
		i := wayland.WlDataDeviceManager
		a.write(a.rig.host, a.reg, wayland.WlRegistryEvtGlobal, uint32(90), i.Name, uint32(3))
		a.settle()
		a.offers = a.id()
		a.write(a.guest, 2, wayland.WlRegistryReqBind, uint32(90), i.Name, uint32(3), a.offers)
		a.data = a.id()
		a.req(a.offers, wayland.WlDataDeviceManagerReqGetDataDevice, a.data, a.ids[wayland.WlSeat])
		a.heard()
	}
	return a.data
}

// drag asks for a drag of the attacker's window, with an icon, 0 for none.
func (a *attacker) drag(icon, serial uint32) {
	device, source := a.dataDevice(), a.id()
	a.req(a.offers, wayland.WlDataDeviceManagerReqCreateDataSource, source)
	a.req(device, wayland.WlDataDeviceReqStartDrag, source, a.win.surface, icon, serial)
}

// TestSerials holds that nothing is taken by a serial that no event gave for it, or whose
// event is over, and that a good one works.
func TestSerials(t *testing.T) {
	const enter, pressed, second, released, away = 11, 12, 13, 14, 15
	image := map[string]bool{"wl_pointer.set_cursor": true, "wp_cursor_shape_device_v1.set_shape": true}
	for request, ask := range asks {
		for _, c := range []struct {
			name   string
			serial uint32
			until  func(a *attacker, p pressing) // after the press
			good   bool
		}{
			{name: "invented", serial: 4711},
			{name: "nought", serial: 0},
			{name: "of another kind", serial: map[bool]uint32{false: enter, true: pressed}[image[request]]},
			{name: "the right one", serial: map[bool]uint32{false: pressed, true: enter}[image[request]], good: true},
			{name: "of a press on another window", serial: second, until: func(a *attacker, p pressing) {
				w := a.window()
				a.know(w)
				a.show(w.surface, 60, 40)
				a.heard()
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtButton, released, 0, buttonLeft, 0)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtLeave, away, a.win.hostSurface)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtEnter, away+1, w.hostSurface, 1<<8, 1<<8)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtButton, second, 0, buttonLeft, 1)
			}},
			{name: "that was right, after the release and the leave", serial: map[bool]uint32{false: pressed, true: enter}[image[request]], until: func(a *attacker, p pressing) {
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtButton, released, 0, buttonLeft, 0)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtLeave, away, a.win.hostSurface)
			}},
			{name: "of a press that the compositor took away", serial: map[bool]uint32{false: pressed, true: enter}[image[request]], until: func(a *attacker, p pressing) {
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtLeave, away, a.win.hostSurface)
			}},
			{name: "of a pointer that was released", serial: map[bool]uint32{false: pressed, true: 4711}[image[request]], until: func(a *attacker, p pressing) {
				if image[request] {
					return // there is nothing to ask it of any more
				}
				a.req(p.ptr, wayland.WlPointerReqRelease)
				a.heard()
				a.rig.host.Send(1, wayland.WlDisplayEvtDeleteId, p.hostPtr)
			}},
		} {
			t.Run(request+"/"+c.name, func(t *testing.T) {
				a := newAttacker(t)
				a.dataDevice()
				var p pressing
				p.ptr, p.hostPtr = a.device(wayland.WlSeatReqGetPointer, wayland.WlPointer)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtEnter, enter, a.win.hostSurface, 1<<8, 1<<8)
				a.rig.host.Send(p.hostPtr, wayland.WlPointerEvtButton, pressed, 0, buttonLeft, 1)
				a.settle()
				if c.until != nil {
					c.until(a, p)
					a.settle()
				}
				ask(a, p, c.serial)
				all := a.heard()
				if n := len(named(all, request)); n > 0 != c.good {
					t.Errorf("the compositor hears it %d times", n)
				}
				a.wrong()
			})
		}
	}
}

// TestActivationNeedsInput holds that a token of activation, where the user allows the
// interface, needs an input of a moment ago and the keyboard.
func TestActivationNeedsInput(t *testing.T) {
	st := &state{keyboards: nil}
	n := authority[request(wayland.XdgActivationTokenV1, wayland.XdgActivationTokenV1ReqSetSerial)]
	st.addGrant(grant{serial: 1, kind: keyPress})
	st.addGrant(grant{serial: 2, kind: keyIn, lasts: true})
	st.addGrant(grant{serial: 3, kind: keyPress})
	st.grants[2].at = time.Now().Add(-time.Minute)
	for serial, want := range map[uint32]bool{1: true, 2: false, 3: false, 4: false} {
		if got := st.hasGrant(&n, serial, nil); got != want {
			t.Errorf("serial %d: %v", serial, got)
		}
	}
	if !n.keyboard {
		t.Error("a window without the keyboard may have a token")
	}
}

// TestGivenIsBounded holds that serials that still hold outlast a flood of others.
func TestGivenIsBounded(t *testing.T) {
	st := &state{}
	st.addGrant(grant{serial: 1, kind: press, lasts: true})
	for k := range uint32(10 * maxGrants) {
		st.addGrant(grant{serial: 2 + k, kind: keyPress})
	}
	if len(st.grants) != maxGrants {
		t.Errorf("%d serials are remembered", len(st.grants))
	}
	if !st.hasGrant(&need{of: press, lasts: true}, 1, nil) {
		t.Error("the press that lasts is forgotten")
	}
}

// A listener is a program with a window that hears keys and the pointer.
type listener struct {
	*painter
	keyboard, pointer uint32
	surfaces          map[uint32]uint32 // of its xdg_surfaces
	heard             struct{ enters, leaves, keys, motions, buttons int }
	keysIn            bool // its window has the keyboard
}

// listen gives a painter's client a pointer and a keyboard. On sway a program that gets
// its pointer when the pointer has come and before it has a window hears nothing of it.
func listen(t *testing.T, d *desktoptest.Desktop, p *painter) *listener {
	t.Helper()
	l := &listener{painter: p, surfaces: map[uint32]uint32{p.ids["xdg_surface"]: p.surface}}
	p.bind(p.globals["wl_seat"], "wl_seat", 5)
	l.pointer, l.keyboard = p.id(), p.id()
	p.Send(p.ids["wl_seat"], wayland.WlSeatReqGetPointer, l.pointer)
	p.Send(p.ids["wl_seat"], wayland.WlSeatReqGetKeyboard, l.keyboard)
	l.hear()
	d.MoveTo(t, 50, 50)
	return l
}

// take counts one event.
func (l *listener) take(m waylandtest.Msg) {
	l.T.Helper()
	switch {
	case m.ID == 1 && m.Op == wayland.WlDisplayEvtError:
		l.T.Fatalf("the compositor says %q", m.Body)
	case m.ID == l.ids["xdg_wm_base"]:
		l.Send(m.ID, wayland.XdgWmBaseReqPong, m.Word(0))
	case l.surfaces[m.ID] != 0: // sway waits for the commit
		l.Send(m.ID, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
		l.Send(l.surfaces[m.ID], wayland.WlSurfaceReqCommit)
	case m.ID == l.keyboard && m.Op == wayland.WlKeyboardEvtEnter:
		l.heard.enters, l.keysIn = l.heard.enters+1, true
	case m.ID == l.keyboard && m.Op == wayland.WlKeyboardEvtLeave:
		l.heard.leaves, l.keysIn = l.heard.leaves+1, false
	case m.ID == l.keyboard && m.Op == wayland.WlKeyboardEvtKey && m.Word(3) == 1:
		l.heard.keys++
	case m.ID == l.pointer && m.Op == wayland.WlPointerEvtMotion:
		l.heard.motions++
	case m.ID == l.pointer && m.Op == wayland.WlPointerEvtButton:
		l.heard.buttons++
	}
}

// hear takes in all that the compositor has said by now.
func (l *listener) hear() {
	l.T.Helper()
	cb := l.id()
	l.Send(1, wayland.WlDisplayReqSync, cb)
	for {
		m, err := l.Next()
		if err != nil {
			l.T.Fatal(err)
		}
		if m.ID == cb {
			return
		}
		l.take(m)
	}
}

// until takes events in until ok.
func (l *listener) until(what string, ok func() bool) {
	l.T.Helper()
	for deadline := time.Now().Add(15 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			l.T.Fatalf("waiting for %s", what)
		}
		l.hear()
	}
}

// open shows a window of a colour.
func (l *listener) open(buffer string) {
	l.surfaces[l.ids["xdg_surface"]] = l.surface
	l.present(l.surface, buffer)
	l.hear()
}

// grabbing opens a popup of a window, with a grab by an invented serial.
func (l *listener) grabbing(parent uint32) {
	s, pos, xs, pop := l.id(), l.id(), l.id(), l.id()
	l.Send(l.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, s)
	l.Send(l.ids["xdg_wm_base"], wayland.XdgWmBaseReqCreatePositioner, pos)
	l.Send(pos, wayland.XdgPositionerReqSetSize, 20, 20)
	l.Send(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
	l.Send(l.ids["xdg_wm_base"], wayland.XdgWmBaseReqGetXdgSurface, xs, s)
	l.Send(xs, wayland.XdgSurfaceReqGetPopup, pop, parent, pos)
	l.Send(pop, wayland.XdgPopupReqGrab, l.ids["wl_seat"], 12345)
	l.Send(s, wayland.WlSurfaceReqCommit)
	configured := false
	for !configured {
		m, err := l.Next()
		if err != nil {
			l.T.Fatal(err)
		}
		configured = m.ID == xs
		if configured {
			l.Send(xs, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
		} else {
			l.take(m)
		}
	}
	l.surfaces[xs] = s
	l.present(s, "buffer1")
	l.hear()
}

// grabSway floats the VM's windows over the host's program, which fills the screen.
const grabSway = "default_border none\nfor_window [app_id=\"vix.*\"] floating enable, border none, move absolute position 300 200\n"

// newGrabbers starts sway with a program of the host's and a hostile VM of two windows,
// the second of which has the focus.
func newGrabbers(t *testing.T) (d *desktoptest.Desktop, host, evil *listener, first uint32) {
	t.Helper()
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d = desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: grabSway, Timeout: 30 * time.Second})
	socket := serveFramed(t, d, "full")
	host = listen(t, d, newPainter(t, d.Socket, 400, 300))
	host.fill(0, guestRed)
	host.open("buffer0")
	host.until("the host's program to have the keyboard", func() bool { return host.keysIn })
	evil = listen(t, d, newPainter(t, socket, 60, 40))
	evil.fill(0, guestLime)
	evil.fill(1, guestLime)
	evil.open("buffer0")
	first = evil.ids["xdg_surface"]
	evil.window()
	evil.open("buffer0")
	evil.until("the hostile VM to have the keyboard", func() bool { return evil.keysIn })
	return d, host, evil, first
}

// TestGrabTakesNoPointer: a popup with a grab that no input asked for leaves the pointer
// where it is. Seen to fail where the grab is passed.
func TestGrabTakesNoPointer(t *testing.T) {
	d, host, evil, first := newGrabbers(t)
	d.Command(t, "focus tiling")
	host.until("the host's program to have the focus", func() bool { return host.keysIn })
	host.until("the host's program to have the pointer", func() bool {
		d.MoveTo(t, 51, 51)
		d.MoveTo(t, 50, 50)
		return host.heard.motions > 0
	})
	for k, parent := range []uint32{evil.ids["xdg_surface"], first} {
		evil.grabbing(parent)
		before := host.heard
		d.MoveTo(t, 60+10*k, 60)
		d.MoveTo(t, 65+10*k, 70)
		d.Click(t, 65+10*k, 70)
		host.hear()
		evil.hear()
		if n := host.heard.motions - before.motions; n < 2 {
			t.Errorf("grab %d: the host's program hears %d motions over its window", k, n)
		}
		if n := host.heard.buttons - before.buttons; n != 2 {
			t.Errorf("grab %d: the host's program hears %d of a click's two events", k, n)
		}
		if evil.heard.motions+evil.heard.buttons > 0 {
			t.Errorf("grab %d: the hostile VM hears %+v", k, evil.heard)
		}
	}
}

// TestGrabTakesNoKeys: with a grab by a popup of its other window, a VM does not keep the
// keyboard when the user goes elsewhere, or locks the screen. Seen to fail where the grab
// is passed.
func TestGrabTakesNoKeys(t *testing.T) {
	d, host, evil, first := newGrabbers(t)
	const word = "secret"
	evil.grabbing(first)
	evil.grabbing(evil.ids["xdg_surface"])
	d.Command(t, "focus tiling") // as by a key of sway's
	host.until("the host's program to have the focus", func() bool { return host.keysIn })
	before, heard := host.heard, evil.heard
	d.Type(t, word)
	host.until("what was typed", func() bool { return host.heard.keys-before.keys >= len(word) })
	evil.hear()
	if evil.heard.keys != heard.keys || evil.keysIn {
		t.Errorf("the hostile VM hears %d keys that were typed into the host's program, has the keyboard: %v", evil.heard.keys-heard.keys, evil.keysIn)
	}

	d.Command(t, "focus floating")
	evil.until("the hostile VM to have the focus again", func() bool { return evil.keysIn })
	evil.grabbing(first)
	l := d.Lock(t)
	heard = evil.heard
	d.Type(t, word)
	if n := len(l.Pressed(t)); n != len(word) {
		t.Errorf("the lock screen hears %d of %d keys", n, len(word))
	}
	evil.hear()
	if evil.heard.keys != heard.keys {
		t.Errorf("the hostile VM hears %d keys of the password", evil.heard.keys-heard.keys)
	}
	l.Unlock(t)
}
