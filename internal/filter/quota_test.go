package filter

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"vix/internal/display"
	"vix/internal/ledger"
	"vix/internal/relay"
	"vix/internal/surface"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestLimits reaches each limit that a request can reach: one below it is fine,
// the next is an error that names it, the log says so, and once the connection is
// gone all is given back.
func TestLimits(t *testing.T) {
	id := uint32(surfaceObj)
	newID := func() uint32 { id++; return id - 1 }
	newSurface := func(r *rig) uint32 {
		s := newID()
		r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, s)
		return s
	}
	newPool := func(r *rig, size uint32) {
		var e wayland.Encoder
		e.Msg(shm, wayland.WlShmReqCreatePool, newID(), size)
		r.guest.Write(e.B, waylandtest.Memfd(r.guest.T, int64(size)))
	}
	for _, c := range []struct {
		limit display.Limit
		value int64
		use   func(r *rig)
	}{
		{display.Surfaces, 3, func(r *rig) { newSurface(r) }},
		{display.Toplevels, 3, func(r *rig) {
			s, x := newSurface(r), newID()
			r.guest.Send(wmBase, wayland.XdgWmBaseReqGetXdgSurface, x, s)
			r.guest.Send(x, wayland.XdgSurfaceReqGetToplevel, newID())
		}},
		{display.Pools, 3, func(r *rig) { newPool(r, 4096) }},
		{display.Memory, 3 * 4096, func(r *rig) { newPool(r, 4096) }},
	} {
		t.Run(c.limit.String(), func(t *testing.T) {
			waylandtest.LeakCheck(t)
			var log bytes.Buffer
			var l display.Limits
			l[c.limit] = c.value
			r := newLimitedRig(t, l, slog.New(slog.NewTextHandler(&log, nil)))
			id = surfaceObj
			r.setUp(t)
			drained := make(chan struct{})
			go func() {
				defer close(drained)
				for {
					if _, err := r.host.Next(); err != nil {
						return
					}
				}
			}()
			for range 3 {
				c.use(r)
			}
			r.guest.Send(1, wayland.WlDisplayReqSync, newID())
			c.use(r)
			_, code, text := r.guest.WantError()
			if want := fmt.Sprintf("VM work may have %d %s", c.value, c.limit); code != relay.ErrNoMemory || !strings.Contains(text, want) {
				t.Errorf("code %d: %s", code, text)
			}
			<-r.done
			<-drained
			if want := fmt.Sprintf("vm=work limit=%s value=%d", c.limit, c.value); !strings.Contains(log.String(), want) {
				t.Errorf("the log does not say %q:\n%s", want, log.String())
			}
			for k := range r.filter.used {
				if n := r.filter.used[k].Load(); n != 0 {
					t.Errorf("%d %s are not given back", n, display.Limit(k))
				}
			}
		})
	}
}

// TestConnectionsLimit holds that a program beyond the limit hears why, and that
// an ended one makes room.
func TestConnectionsLimit(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newLimitedRig(t, display.Limits{display.Connections: 1}, slog.New(slog.DiscardHandler))
	r.guest.Send(1, wayland.WlDisplayReqSync, 2)
	r.host.Want(1, wayland.WlDisplayReqSync)
	near, far := waylandtest.Pair(t)
	if err := r.filter.Serve(context.Background(), far); err == nil {
		t.Error("a second connection is served")
	}
	second := &waylandtest.Peer{T: t, Tr: near}
	if _, _, text := second.WantError(); !strings.Contains(text, "may have 1 connections") {
		t.Error(text)
	}
	_ = near.Close()
	_ = r.guest.Tr.Close()
	<-r.done
	if n := r.filter.used[display.Connections].Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestManyRects holds that a region of too many rectangles, which a compositor might have
// to make the square of, becomes the default.
func TestManyRects(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "none")
	w := r.window()
	region := r.id()
	r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion, region)
	host := r.skip(r.host[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion).Word(0)
	for k := range uint32(200) {
		r.guest.Send(region, uint16(wayland.WlRegionReqAdd+k%2), k, 0, 1, 1<<20)
	}
	r.guest.Send(w.surface, wayland.WlSurfaceReqSetInputRegion, region)
	n := 0
	for {
		m, err := r.rig.host.Next()
		if err != nil {
			t.Fatal(err)
		}
		if m.ID == host {
			n++
		}
		if m.ID == w.hostSurface && m.Op == wayland.WlSurfaceReqSetInputRegion {
			if m.Word(0) != 0 {
				t.Errorf("region %d is set", m.Word(0))
			}
			break
		}
	}
	if n != int(new(display.Limits).Of(display.Rectangles)) {
		t.Errorf("%d rectangles are passed", n)
	}
}

// TestRegions holds that regions are counted, and given back.
func TestRegions(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramedWith(t, "none", display.Limits{display.Regions: 2})
	for range 5 {
		region := r.id()
		r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion, region)
		host := r.skip(r.host[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion).Word(0)
		r.guest.Send(region, wayland.WlRegionReqDestroy)
		r.skip(host, wayland.WlRegionReqDestroy)
	}
	for range 3 {
		r.guest.Send(r.ids[wayland.WlCompositor], wayland.WlCompositorReqCreateRegion, r.id())
	}
	if _, code, text := r.guest.WantError(); code != relay.ErrNoMemory || !strings.Contains(text, "2 regions") {
		t.Errorf("code %d: %s", code, text)
	}
	<-r.done
	if n := r.filter.used[display.Regions].Load(); n != 0 {
		t.Errorf("%d regions are counted", n)
	}
}

// TestTextures holds that what the compositor may copy to a GPU is counted when it is
// shown, and given back when it is not.
func TestTextures(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramedWith(t, "none", display.Limits{display.Textures: 3 * 32 * 32 * 4})
	var last framedWindow
	for range 3 {
		last = r.window()
		r.show(last, r.buffer(32, 32))
	}
	r.guest.Send(last.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
	r.guest.Send(last.surface, wayland.WlSurfaceReqCommit)
	r.skip(last.hostSurface, wayland.WlSurfaceReqCommit)
	r.show(r.window(), r.buffer(32, 32))
	fourth := r.window()
	r.guest.Send(fourth.surface, wayland.WlSurfaceReqAttach, r.buffer(32, 32), 0, 0)
	r.guest.Send(fourth.surface, wayland.WlSurfaceReqCommit)
	if _, code, text := r.guest.WantError(); code != relay.ErrNoMemory || !strings.Contains(text, "textures") {
		t.Errorf("code %d: %s", code, text)
	}
	<-r.done
	if n := r.filter.used[display.Textures].Load(); n != 0 {
		t.Errorf("%d bytes are not given back", n)
	}
}

// TestCommitsAreDelayed holds that a flood of commits passes at the limit's
// rate, whole and in order.
func TestCommitsAreDelayed(t *testing.T) {
	waylandtest.LeakCheck(t)
	const perSecond, commits = 4000, 10_000 // more than a second's worth and what one receive brings
	var log bytes.Buffer
	r := newLimitedRig(t, display.Limits{display.Commits: perSecond}, slog.New(slog.NewTextHandler(&log, nil)))
	surface, _ := r.newToplevel(r.setUp(t))
	begin := time.Now()
	go func() {
		var e wayland.Encoder
		for range commits {
			e.Msg(surfaceObj, wayland.WlSurfaceReqCommit)
		}
		_ = r.guest.Tr.Send(e.B, nil) // what does not arrive is missed below
	}()
	for range commits {
		r.skip(surface, wayland.WlSurfaceReqCommit)
	}
	if d := time.Since(begin); d < 400*time.Millisecond {
		t.Errorf("%d commits took %v", commits, d)
	}
	_ = r.guest.Tr.Close()
	<-r.done
	if !strings.Contains(log.String(), "limit=commits value=4000") {
		t.Errorf("the log: %s", log.String())
	}
}

// TestRequestsAreDelayed holds that a flood of any requests passes at the
// limit's rate.
func TestRequestsAreDelayed(t *testing.T) {
	waylandtest.LeakCheck(t)
	const perSecond, requests = 4000, 10_000
	r := newLimitedRig(t, display.Limits{display.Requests: perSecond}, slog.New(slog.DiscardHandler))
	begin := time.Now()
	go func() {
		var e wayland.Encoder
		for k := range uint32(requests) {
			e.Msg(1, wayland.WlDisplayReqSync, 2+k)
		}
		_ = r.guest.Tr.Send(e.B, nil) // what does not arrive is missed below
	}()
	for range requests {
		r.host.Want(1, wayland.WlDisplayReqSync)
	}
	if d := time.Since(begin); d < 400*time.Millisecond {
		t.Errorf("%d requests took %v", requests, d)
	}
}

// TestConnectsAreDelayed holds that connections cannot come and go as fast as a
// program likes.
func TestConnectsAreDelayed(t *testing.T) {
	waylandtest.LeakCheck(t)
	const perSecond, connects = 20, 40
	f := New(Config{
		VM: "work", Tag: "w", Limits: display.Limits{display.Connects: perSecond},
		Dial: func() (wayland.Transport, error) { return nil, errors.New("none today") },
		Log:  slog.New(slog.DiscardHandler),
	})
	serve := func(ctx context.Context) error {
		near, far := waylandtest.Pair(t)
		defer near.Close()
		return f.Serve(ctx, far)
	}
	begin := time.Now()
	for range connects {
		if err := serve(context.Background()); err == nil {
			t.Fatal("connected to nothing")
		}
	}
	if d := time.Since(begin); d < 500*time.Millisecond {
		t.Errorf("%d connections took %v", connects, d)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := serve(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("the end of the VM waits: %v", err)
	}
}

// TestOpensAreDelayed holds that windows cannot come and go as fast as a program
// likes.
func TestOpensAreDelayed(t *testing.T) {
	waylandtest.LeakCheck(t)
	const perSecond, opens = 20, 40
	r := newLimitedRig(t, display.Limits{display.Opens: perSecond}, slog.New(slog.DiscardHandler))
	_, xdg := r.firstXdgSurface(r.setUp(t))
	begin := time.Now()
	for k := range uint32(opens) {
		r.guest.Send(xdgSurface, wayland.XdgSurfaceReqGetToplevel, toplevel+k)
		r.skip(xdg, wayland.XdgSurfaceReqGetToplevel)
		r.guest.Send(toplevel+k, wayland.XdgToplevelReqDestroy)
	}
	if d := time.Since(begin); d < 500*time.Millisecond {
		t.Errorf("%d windows took %v", opens, d)
	}
}

// TestMuchDamage holds that a frame with too many rectangles becomes one that is
// damaged everywhere, and that the next starts anew.
func TestMuchDamage(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "none")
	w := r.window()
	r.show(w, r.buffer(100, 100))
	damages := func(n uint32) (rects int, all bool) {
		for k := range n {
			r.guest.Send(w.surface, wayland.WlSurfaceReqDamageBuffer, k, 0, 1, 1)
		}
		r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
		for {
			m, err := r.rig.host.Next()
			switch {
			case err != nil:
				t.Fatal(err)
			case m.ID != w.hostSurface:
			case m.Op == wayland.WlSurfaceReqDamageBuffer:
				rects++
			case m.Op == wayland.WlSurfaceReqDamage:
				all = all || m.Word(2) == math.MaxInt32
			case m.Op == wayland.WlSurfaceReqCommit:
				return rects, all
			}
		}
	}
	for _, n := range []uint32{surface.MaxDamage + 1, surface.MaxDamage, 3, 10_000} {
		if rects, all := damages(n); all != (n > surface.MaxDamage) || !all && rects != int(n) {
			t.Errorf("%d rectangles became %d, all: %v", n, rects, all)
		}
	}
}

// TestBucket holds against any pattern of use that no second lets through more
// than two seconds' worth, and that who stays below the rate never waits.
func TestBucket(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const rate = 1000
		var b bucket
		now := time.Unix(1e9, 0)
		begin, passed := now, int64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now = now.Add(time.Duration(rapid.IntRange(0, 300).Draw(t, "ms")) * time.Millisecond)
			n := int64(rapid.IntRange(1, 500).Draw(t, "n"))
			d := b.take(n, rate, now)
			passed += n
			if d > 0 {
				now = now.Add(d)
			}
			if most := rate*now.Sub(begin).Seconds() + rate + 1; float64(passed) > most {
				t.Fatalf("%d passed in %v", passed, now.Sub(begin))
			}
		}
		now = now.Add(time.Hour)
		if d := b.take(rate, rate, now); d > 0 {
			t.Fatalf("after a rest a second's worth waits %v", d)
		}
	})
}

func TestLimitNames(t *testing.T) {
	var l display.Limits
	for _, name := range display.LimitNames() {
		if err := l.Set(name, 7); err != nil {
			t.Error(err)
		}
	}
	for k := range l {
		if l[k] != 7 {
			t.Errorf("%s is not set", display.Limit(k))
		}
	}
	for name, value := range map[string]int64{"windows": 1, "surfaces": 0, "popups": -1, "": 1} {
		if err := l.Set(name, value); err == nil {
			t.Errorf("%q = %d is taken", name, value)
		}
	}
}

// TestMemoryIsHeld holds that memory counts for as long as the compositor can
// hold it: destroying the pool, the buffer, or both gives nothing back while a
// surface shows them, or is going to.
func TestMemoryIsHeld(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newFramed(t, "none")
	w := r.window()
	const size = 32 * 32 * 4
	want := func(when string, bytes int64) {
		t.Helper()
		// What was sent before has been handled when the compositor hears of it.
		r.guest.Send(1, wayland.WlDisplayReqSync, r.id())
		r.skip(1, wayland.WlDisplayReqSync)
		if u := r.filter.ledger.Use(); u.Shown != bytes {
			t.Errorf("%s: %d bytes are counted as shown, not %d", when, u.Shown, bytes)
		}
	}
	buf := r.buffer(32, 32)
	pool := buf - 1
	r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
	for id, op := range map[uint32]uint16{pool: wayland.WlShmPoolReqDestroy, buf: wayland.WlBufferReqDestroy} {
		r.guest.Send(id, op)
	}
	want("destroyed before the commit", size)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	r.skip(w.hostSurface, wayland.WlSurfaceReqAttach)
	want("shown", size)
	for range 3 {
		r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
		r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	}
	_ = r.guest.Tr.Close()
	<-r.done
	_ = r.rig.host.Tr.Close()
	r.filter.Wait()
	if u := r.filter.ledger.Use(); u != (ledger.Use{}) {
		t.Errorf("%+v is not given back", u)
	}
}

// waitFor waits until so many bytes are shown.
func (r *rig) waitFor(t *testing.T, bytes int64) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); r.filter.ledger.Use().Shown != bytes; {
		if time.Now().After(deadline) {
			t.Fatalf("%+v, not %d bytes", r.filter.ledger.Use(), bytes)
		}
		time.Sleep(time.Millisecond) // a counter has no event
	}
}

// TestMemoryOfStoppedCompositor holds that what an ended connection has left unread
// with the compositor counts until that reads it, or ends, whatever the guest does.
func TestMemoryOfStoppedCompositor(t *testing.T) {
	for _, how := range []string{"reads", "ends"} {
		t.Run(how, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			r := newRig(t)
			host := r.setUp(t)
			const size = 1 << 20
			var e wayland.Encoder
			e.Msg(shm, wayland.WlShmReqCreatePool, surfaceObj, size)
			r.guest.Write(e.B, waylandtest.Memfd(t, size))
			r.guest.Send(1, wayland.WlDisplayReqSync, surfaceObj+1)
			r.waitFor(t, size)
			_ = r.guest.Tr.Close()
			<-r.done
			if u := r.filter.ledger.Use(); u.Shown != size || r.filter.used[display.Pools].Load() != 1 || r.filter.used[display.Connections].Load() != 1 {
				t.Fatalf("%+v after the end, with the descriptor in the compositor's socket", u)
			}
			switch how {
			case "reads":
				r.host.Want(host[shm], wayland.WlShmReqCreatePool)
				r.host.Want(1, wayland.WlDisplayReqSync)
			case "ends":
				_ = r.host.Tr.Close()
			}
			r.filter.Wait()
			if u := r.filter.ledger.Use(); u != (ledger.Use{}) || r.filter.used[display.Pools].Load() != 0 || r.filter.used[display.Connections].Load() != 0 {
				t.Errorf("%+v is left", u)
			}
		})
	}
}
