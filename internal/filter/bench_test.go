package filter

import (
	"context"
	"log/slog"
	"testing"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// BenchmarkFilter sends the same requests through two sockets and the engine
// without a hook, and through the filter with all that a VM has (allow-list, tags,
// limits, frame): the difference is the filter's cost.
//
//	regions  add, the plainest request
//	sync     one round trip
//
// Frames are BenchmarkFrameCommit's: what is asked of a surface is written anew.
func BenchmarkFilter(b *testing.B) {
	for _, mix := range []struct {
		name     string
		per      int // requests for one operation
		requests func(e *wayland.Encoder, surface, region, callback uint32)
	}{
		{"regions", 100, func(e *wayland.Encoder, _, region, _ uint32) {
			for range 100 {
				e.Msg(region, wayland.WlRegionReqAdd, 0, 0, 64, 64)
			}
		}},
		{"sync", 1, func(e *wayland.Encoder, _, _, callback uint32) {
			e.Msg(1, wayland.WlDisplayReqSync, callback)
		}},
	} {
		b.Run(mix.name+"/engine", func(b *testing.B) {
			benchmarkThrough(b, mix.per, mix.requests, func(guest, host wayland.Transport) {
				_ = relay.New(guest, host, relay.Config{}).Run(context.Background())
			})
		})
		b.Run(mix.name+"/filter", func(b *testing.B) {
			l := display.Limits{display.Commits: Unlimited, display.Rectangles: Unlimited}
			l[display.Requests] = Unlimited - 1 // counted, and never reached
			benchmarkThrough(b, mix.per, mix.requests, func(guest, host wayland.Transport) {
				f := New(Config{
					VM: "vm", Tag: "tag", Color: "#2f6fde", Frame: "full", Limits: l,
					Dial: func() (wayland.Transport, error) { return host, nil },
					Log:  slog.New(slog.DiscardHandler),
				})
				_ = f.Serve(context.Background(), guest)
			})
		})
	}
}

// benchmarkThrough times operations from the guest's socket to the host's and
// back: the host answers a callback that ends each.
func benchmarkThrough(b *testing.B, per int, requests func(*wayland.Encoder, uint32, uint32, uint32), serve func(guest, host wayland.Transport)) {
	gn, gf := waylandtest.Pair(b)
	hn, hf := waylandtest.Pair(b)
	done := make(chan struct{})
	go func() {
		defer close(done)
		serve(gf, hf)
	}()
	defer func() {
		_ = gn.Close()
		_ = hn.Close()
		<-done
	}()
	r := &rig{guest: &waylandtest.Peer{T: b, Tr: gn}, host: &waylandtest.Peer{T: b, Tr: hn}}
	host := r.setUp(b)
	const region, callback = surfaceObj + 1, surfaceObj + 2
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	r.host.Want(host[compositor], wayland.WlCompositorReqCreateSurface)
	r.guest.Send(compositor, wayland.WlCompositorReqCreateRegion, region)
	r.host.Want(host[compositor], wayland.WlCompositorReqCreateRegion)
	var e wayland.Encoder
	requests(&e, surfaceObj, region, callback)
	answered := len(e.B) > 0 && per < 100
	in, out := make([]byte, 64<<10), make([]byte, 64<<10)
	var a wayland.Encoder
	b.ReportAllocs()
	for b.Loop() {
		if err := gn.Send(e.B, nil); err != nil {
			b.Fatal(err)
		}
		receive(b, hn, in, len(e.B))
		if !answered {
			continue
		}
		id := callbackOf(in[:len(e.B)])
		a.B = a.B[:0]
		a.Msg(id, wayland.WlCallbackEvtDone, 0)
		a.Msg(1, wayland.WlDisplayEvtDeleteId, id)
		if err := hn.Send(a.B, nil); err != nil {
			b.Fatal(err)
		}
		receive(b, gn, out, len(a.B))
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*per), "ns/request")
}

func receive(b *testing.B, u *wayland.UnixConn, buf []byte, n int) {
	for got := 0; got < n; {
		k, _, err := u.Recv(buf[got:], nil)
		if err != nil {
			b.Fatal(err)
		}
		got += k
	}
}

// callbackOf finds the new id of the frame or sync request among the requests.
func callbackOf(b []byte) (id uint32) {
	for len(b) > 0 {
		size := int(wayland.Word(b, 4) >> 16)
		if size == 12 {
			id = wayland.Word(b, 8)
		}
		b = b[size:]
	}
	return id
}
