package filter

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vix/internal/display"
	"vix/internal/wayland"
)

// pictures counts the labels' pictures that the compositor is given, and their bytes.
func pictures(all []said) (n int, bytes uint32) {
	for _, m := range all {
		if m.name == "wl_shm.create_pool" {
			n++
			bytes += m.Word(1)
		}
	}
	return n, bytes
}

func (a *attacker) titled(top uint32, text string) {
	a.write(a.guest, top, wayland.XdgToplevelReqSetTitle, text)
}

// configured says a configure sequence of the compositor's, with states.
func (a *attacker) configured(w framedWindow, serial uint32, states ...byte) {
	a.t.Helper()
	var b []byte
	for _, s := range states {
		b = append(b, s, 0, 0, 0)
	}
	var e wayland.Encoder
	e.Begin(w.hostTop, wayland.XdgToplevelEvtConfigure)
	e.Uint(0)
	e.Uint(0)
	e.Array(b)
	if err := e.End(); err != nil {
		a.t.Fatal(err)
	}
	a.rig.host.Write(e.B)
	a.rig.host.Send(w.hostXdg, wayland.XdgSurfaceEvtConfigure, serial)
	a.settle()
}

// remap takes a window off the screen and shows it again.
func (a *attacker) remap(w framedWindow, buf, serial uint32, states ...byte) {
	a.req(w.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
	a.req(w.surface, wayland.WlSurfaceReqCommit)
	a.req(w.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	a.configured(w, serial, states...)
	a.req(w.xdg, wayland.XdgSurfaceReqAckConfigure, serial)
	a.req(w.surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
	a.req(w.surface, wayland.WlSurfaceReqCommit)
}

// A window that goes and comes counts as one that opens.
func TestAttackLabelRemap(t *testing.T) {
	a := newAttacker(t)
	buf := a.buffer(300, 80)
	a.titled(a.win.top, strings.Repeat("W", 64))
	a.req(a.win.surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	drawn := 0
	opens := func() int64 {
		b := &a.filter.rates[display.Opens]
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.free.UnixNano()
	}
	first := opens()
	const times = 32
	for k := range uint32(times) {
		a.remap(a.win, buf, 100+k, stateActivated)
		n, _ := pictures(a.heard())
		drawn += n
	}
	if a.gone {
		t.Fatal(a.why)
	}
	t.Logf("%d labels drawn", drawn)
	if opens() == first {
		t.Errorf("%d windows came onto the screen, and none counts as opened", times)
	}
}

// A window that had the focus, goes, and asks to be fullscreen before it comes back has no
// focus: the request waits, as that of any other window.
func TestAttackStaleFocus(t *testing.T) {
	a := newAttacker(t)
	a.configured(a.win, 50, stateActivated)
	a.req(a.win.xdg, wayland.XdgSurfaceReqAckConfigure, 50)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	a.req(a.win.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
	a.req(a.win.surface, wayland.WlSurfaceReqCommit)
	a.heard()
	// The compositor has nothing to say to a window that is not there.
	a.req(a.win.top, wayland.XdgToplevelReqSetFullscreen, 0)
	if len(named(a.heard(), "xdg_toplevel.set_fullscreen")) > 0 {
		t.Error("a window that is not on the screen becomes fullscreen, by a focus that it had")
	}
}

// Label pictures are as long as the title, however little of them is shown.
func TestAttackLabelMemory(t *testing.T) {
	a := newAttacker(t)
	a.show(a.win.surface, 120, 40)
	a.heard()
	used := a.filter.used[display.Memory].Load()
	a.titled(a.win.top, strings.Repeat("W", 64))
	n, bytes := pictures(a.heard())
	shown := uint32(120 * labelHeight * 4)
	t.Logf("%d pictures, %d bytes, %d shown; charged %d", n, bytes, shown, a.filter.used[display.Memory].Load()-used)
	if bytes > 2*shown {
		t.Errorf("a window 120 wide has a label of %d bytes, of which %d are shown; 256 windows: %d MiB", bytes, shown, bytes*256>>20)
	}
}

// Of the titles that one batch of requests brings, only the last is ever on the screen. Each
// is drawn all the same, with the connection locked: nothing that the compositor says is heard
// meanwhile.
func TestAttackTitleBatch(t *testing.T) {
	a := newAttacker(t)
	a.show(a.win.surface, 300, 80)
	a.heard()
	var e wayland.Encoder
	n := 0
	for ; len(e.B) < bufferOfRelay-300; n++ {
		e.Begin(a.win.top, wayland.XdgToplevelReqSetTitle)
		e.String(fmt.Sprint(n, strings.Repeat("▒", 61)))
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
	}
	begin := time.Now()
	if err := a.guest.Tr.Send(e.B, nil); err != nil {
		t.Fatal(err)
	}
	drawn, _ := pictures(a.heard())
	t.Logf("%d titles in one batch: %d pictures, in %v", n, drawn, time.Since(begin))
	if drawn > 2 {
		t.Errorf("%d titles in one batch have %d pictures drawn", n, drawn)
	}
}

const bufferOfRelay = 32 << 10
