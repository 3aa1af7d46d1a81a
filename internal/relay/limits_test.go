package relay

import (
	"strings"
	"testing"
	"time"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestMaxOf holds that an interface's limit ends the connection at the first
// object beyond it, and that objects that are gone do not count.
func TestMaxOf(t *testing.T) {
	waylandtest.LeakCheck(t)
	limits := make([]int32, len(wayland.Interfaces()))
	for k := range limits {
		limits[k] = 100
	}
	limits[wayland.WlCallback.Index] = 2
	r := newRig(t, Config{MaxOf: limits})
	for range 10 {
		r.client.Send(1, wayland.WlDisplayReqSync, 2)
		id := r.server.Want(1, wayland.WlDisplayReqSync).Word(0)
		r.server.Send(1, wayland.WlDisplayEvtDeleteId, id)
		r.client.Want(1, wayland.WlDisplayEvtDeleteId)
	}
	for id := range uint32(3) {
		r.client.Send(1, wayland.WlDisplayReqSync, 2+id)
	}
	if _, code, text := r.client.WantError(); code != ErrNoMemory || !strings.Contains(text, "2 objects of wl_callback") {
		t.Errorf("code %d: %s", code, text)
	}
}

// TestRoom holds that connections share a bound of objects, and give their
// share back.
func TestRoom(t *testing.T) {
	waylandtest.LeakCheck(t)
	room := 2 * roomStep
	r := newRig(t, Config{Room: func(n int) bool {
		if n > room {
			return false
		}
		room -= n
		return true
	}})
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for {
			if _, err := r.server.Next(); err != nil {
				return
			}
		}
	}()
	var e wayland.Encoder
	for id := range uint32(3 * roomStep) {
		e.Msg(1, wayland.WlDisplayReqSync, 2+id)
	}
	_ = r.client.Tr.Send(e.B, nil) // it breaks when the connection is ended
	if _, code, text := r.client.WantError(); code != ErrNoMemory || !strings.Contains(text, "no room") {
		t.Errorf("code %d: %s", code, text)
	}
	<-drained
	<-drained
	_ = r.close()
	if room != 2*roomStep {
		t.Errorf("%d objects were not given back", 2*roomStep-room)
	}
}

// TestRequestAfter holds that a hook sees the requests beyond the number given,
// on the fast path and, with a tap, on the slow one, and that it can start anew.
func TestRequestAfter(t *testing.T) {
	for _, tap := range []Tap{nil, nullTap{}} {
		waylandtest.LeakCheck(t)
		seen := 0
		h := NewHooks()
		h.RequestAfter(wayland.WlRegion, wayland.WlRegionReqAdd, 5, func(_ *Conn, m *Msg) (bool, error) {
			seen++
			if seen == 3 {
				m.Obj.Count = 0
			}
			return false, nil
		})
		taps := &TapSwitch{}
		taps.Set(tap)
		r := newRig(t, Config{Hooks: h, Tap: taps})
		r.registry()
		r.bound(nameCompositor, "wl_compositor", 4, 3)
		r.client.Send(3, wayland.WlCompositorReqCreateRegion, 4)
		r.server.Want(3, wayland.WlCompositorReqCreateRegion)
		for k := range uint32(5 + 3 + 5 + 1) {
			r.client.Send(4, wayland.WlRegionReqAdd, k, 0, 1, 1)
		}
		r.client.Send(4, wayland.WlRegionReqDestroy)
		for _, k := range []uint32{0, 1, 2, 3, 4, 8, 9, 10, 11, 12} {
			if got := r.server.Want(4, wayland.WlRegionReqAdd).Word(0); got != k {
				t.Fatalf("request %d came instead of %d", got, k)
			}
		}
		r.server.Want(4, wayland.WlRegionReqDestroy)
		_ = r.close()
		if seen != 4 {
			t.Errorf("the hook saw %d requests", seen)
		}
	}
}

// nullTap makes every message go the slow way.
type nullTap struct{}

func (nullTap) Message(uint64, bool, *wayland.Interface, uint32, *wayland.Message, []byte) {}

// TestPace holds that every request is counted once.
func TestPace(t *testing.T) {
	waylandtest.LeakCheck(t)
	paced := 0
	r := newRig(t, Config{Pace: func(n int) time.Duration { paced += n; return 0 }})
	var e wayland.Encoder
	for k := range uint32(100) {
		e.Msg(1, wayland.WlDisplayReqSync, 2+k)
	}
	r.client.Write(e.B[:1003])
	r.client.Write(e.B[1003:])
	for range 100 {
		r.server.Want(1, wayland.WlDisplayReqSync)
	}
	_ = r.close()
	if paced != 100 {
		t.Errorf("%d requests were counted", paced)
	}
}
