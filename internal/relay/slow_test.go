package relay

import (
	"sync/atomic"
	"testing"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestSlowPeer holds that a peer that does not read holds up who writes to it, and
// nobody else: what is on its way stays within the buffers of the sockets and the
// relay, other connections and the other direction go on, and nothing is lost when
// it reads again.
func TestSlowPeer(t *testing.T) {
	const (
		total = 3 << 20
		// most is what sockets and pumps may hold: a kernel's socket buffers are
		// some 200 KiB each, a pump's has 32.
		most = 2 << 20
	)
	for name, fromServer := range map[string]bool{"client": true, "server": false} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			r, other := newRig(t, Config{}), newRig(t, Config{})
			r.registry()
			r.bound(nameSeat, "wl_seat", 8, 3)
			r.client.Send(3, wayland.WlSeatReqGetPointer, 4)
			m, err := r.server.Next()
			if err != nil {
				t.Fatal(err)
			}
			pointer := m.Word(0)
			writer, reader := r.client, r.server
			one := func(e *wayland.Encoder, k uint32) { e.Msg(4, wayland.WlPointerReqSetCursor, k, 0, 0, 0) }
			if fromServer {
				writer, reader = r.server, r.client
				one = func(e *wayland.Encoder, k uint32) { e.Msg(pointer, wayland.WlPointerEvtMotion, k, 0, 0) }
			}
			var sent atomic.Int64
			flooded := make(chan error, 1)
			count := uint32(0)
			go func() {
				k := uint32(0)
				for sent.Load() < total {
					var e wayland.Encoder
					for len(e.B) < 4000 {
						one(&e, k)
						k++
					}
					if err := writer.Tr.Send(e.B, nil); err != nil {
						flooded <- err
						return
					}
					sent.Add(int64(len(e.B)))
				}
				count = k
				flooded <- nil
			}()
			for k := range uint32(500) {
				other.client.Send(1, wayland.WlDisplayReqSync, 2)
				id := other.server.Want(1, wayland.WlDisplayReqSync).Word(0)
				other.server.Send(1, wayland.WlDisplayEvtDeleteId, id)
				other.client.Want(1, wayland.WlDisplayEvtDeleteId)
				if k == 250 && fromServer { // the slow connection's other direction
					r.client.Send(4, wayland.WlPointerReqSetCursor, 7, 0, 0, 0)
					r.server.Want(pointer, wayland.WlPointerReqSetCursor)
				}
			}
			if n := sent.Load(); n > most {
				t.Errorf("%d bytes were taken from who writes while nobody read", n)
			}
			var next uint32
			for done := false; !done || next < count; {
				m, err := reader.Next()
				if err != nil {
					t.Fatal(err)
				}
				if m.Word(0) != next {
					t.Fatalf("message %d arrives as number %d", m.Word(0), next)
				}
				next++
				if !done {
					select {
					case err := <-flooded:
						if err != nil {
							t.Fatal(err)
						}
						done = true
					default:
					}
				}
			}
		})
	}
}
