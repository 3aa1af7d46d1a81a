package filter

import (
	"strings"
	"testing"
	"time"

	"vix/internal/clipflow"
	"vix/internal/desktoptest"
	"vix/internal/wayland"
)

// A window that goes and comes back is a new one to the compositor: xdg-shell discards its
// title and app id (xdg_toplevel, "Unmapping"), as wlroots does. Its identity has to be said
// again before it is shown.
func TestAttackIdentityOfRemapped(t *testing.T) {
	a := newAttacker(t)
	a.titled(a.win.top, "mail")
	a.heard()
	a.req(a.win.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	gone := a.heard()
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	again := a.heard()
	a.configured(a.win, 90)
	a.req(a.win.xdg, wayland.XdgSurfaceReqAckConfigure, 90)
	a.show(a.win.surface, 100, 80)
	all := append(append(gone, again...), a.heard()...)
	if a.gone {
		t.Fatal(a.why)
	}
	if len(named(all, "xdg_toplevel.set_title")) == 0 || len(named(all, "xdg_toplevel.set_app_id")) == 0 {
		t.Error("a window comes back without the tag in its title, and without an app id")
	}
}

// gone takes the window off the screen. It answers no configure event of before.
func (l *listener) gone() {
	delete(l.surfaces, l.ids["xdg_surface"])
	l.Send(l.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
	l.Send(l.surface, wayland.WlSurfaceReqCommit)
}

// again has the window configured anew, after it has gone.
func (l *listener) again() {
	l.T.Helper()
	l.Send(l.surface, wayland.WlSurfaceReqCommit)
	for {
		m, err := l.Next()
		if err != nil {
			l.T.Fatal(err)
		}
		if m.ID == l.ids["xdg_surface"] {
			l.Send(m.ID, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
			return
		}
		l.take(m)
	}
}

// The same on sway: what its bars, its window switcher and the rules of its configuration see.
func TestAttackIdentityOnSway(t *testing.T) {
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: grabSway, Timeout: 30 * time.Second})
	evil := listen(t, d, newPainter(t, serveFramed(t, d, "full"), 60, 40))
	evil.fill(0, guestLime)
	evil.title("mail")
	evil.open("buffer0")
	any := func(n *desktoptest.Node) bool { return n.PID > 0 }
	first := d.WaitWindow(t, any)
	t.Logf("first: name %q, app id %q", first.Name, first.AppID)
	evil.gone()
	d.WaitNoWindow(t, any)
	evil.hear()
	evil.again()
	evil.open("buffer0")
	second := d.WaitWindow(t, any)
	t.Logf("again: name %q, app id %q", second.Name, second.AppID)
	if !strings.HasPrefix(second.Name, "[tag]") || !strings.HasPrefix(second.AppID, "vix.") {
		t.Errorf("the window that came back is %q, app id %q, to the compositor", second.Name, second.AppID)
	}
	sides := clipflow.Sides{Sway: d.IPC}
	if side, err := sides.Focused(t.Context()); err != nil || side != "vm" {
		t.Errorf("vix clipboard copy and paste take the VM's window, which has the focus, for that of %q (%v)", side, err)
	}
}

// A user who keeps new windows of VMs from the focus, as docs/security.md recommends
// (no_focus [app_id="^vix\\."]), keeps it when a window goes and comes back.
func TestAttackNoFocusOnSway(t *testing.T) {
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	for name, c := range map[string]struct{ identity, full bool }{
		"as it is":                            {},
		"with its app id said again":          {identity: true},
		"with its app id, and fullscreen too": {identity: true, full: true},
	} {
		t.Run(name, func(t *testing.T) {
			d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: grabSway + "no_focus [app_id=\"vix.*\"]\n", Timeout: 30 * time.Second})
			socket := serveFramed(t, d, "full")
			host := listen(t, d, newPainter(t, d.Socket, 400, 300))
			host.fill(0, guestRed)
			host.open("buffer0")
			host.until("the host's program to have the keyboard", func() bool { return host.keysIn })
			evil := listen(t, d, newPainter(t, socket, 60, 40))
			evil.fill(0, guestLime)
			evil.open("buffer0")
			host.hear()
			if !host.keysIn {
				t.Fatal("no_focus does not hold")
			}
			d.Command(t, "focus floating")
			evil.until("the hostile VM to have the keyboard", func() bool { return evil.keysIn })
			evil.gone()
			evil.hear()
			host.until("the host's program to have the keyboard again", func() bool { return host.keysIn })
			if c.identity {
				evil.Put(evil.ids["xdg_toplevel"], wayland.XdgToplevelReqSetAppId, "x")
			}
			if c.full {
				evil.Send(evil.ids["xdg_toplevel"], wayland.XdgToplevelReqSetFullscreen, 0)
			}
			evil.again()
			evil.open("buffer0")
			// Sway has laid the window out, and so has said who has the focus.
			d.WaitWindows(t, 2, func(n *desktoptest.Node) bool { return n.PID > 0 })
			evil.hear()
			host.hear()
			before, typed := evil.heard.keys, host.heard.keys
			d.Type(t, "secret")
			host.until("somebody to hear what is typed", func() bool {
				evil.hear()
				return host.heard.keys-typed+evil.heard.keys-before >= len("secret")
			})
			t.Logf("the host's program has the keyboard: %v, the VM: %v; the VM hears %d keys", host.keysIn, evil.keysIn, evil.heard.keys-before)
			if evil.keysIn || evil.heard.keys > before {
				t.Errorf("the VM's window has taken the keyboard, and hears %d keys", evil.heard.keys-before)
			}
		})
	}
}
