package relay

import (
	"strings"
	"testing"

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
