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

	"vix/internal/ledger"
	"vix/internal/relay"
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
		limit Limit
		value int64
		use   func(r *rig)
	}{
		{Surfaces, 3, func(r *rig) { newSurface(r) }},
		{Toplevels, 3, func(r *rig) {
			s, x := newSurface(r), newID()
			r.guest.Send(wmBase, wayland.XdgWmBaseReqGetXdgSurface, x, s)
			r.guest.Send(x, wayland.XdgSurfaceReqGetToplevel, newID())
		}},
		{Pools, 3, func(r *rig) { newPool(r, 4096) }},
		{Rectangles, 3, func(r *rig) {
			if id == surfaceObj {
				r.guest.Send(compositor, wayland.WlCompositorReqCreateRegion, newID())
			}
			r.guest.Send(surfaceObj, wayland.WlRegionReqAdd, id, 0, 1, 1)
		}},
		{Textures, 3 * 32 * 32 * 4, func(r *rig) {
			s := newSurface(r)
			newPool(r, 4096)
			pool := id - 1
			buf := newID()
			r.guest.Send(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, 32, 32, 128, 0)
			r.guest.Send(s, wayland.WlSurfaceReqAttach, buf, 0, 0)
			r.guest.Send(s, wayland.WlSurfaceReqCommit)
		}},
		{Memory, 3 * 4096, func(r *rig) { newPool(r, 4096) }},
	} {
		t.Run(c.limit.String(), func(t *testing.T) {
			waylandtest.LeakCheck(t)
			var log bytes.Buffer
			var l Limits
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
					t.Errorf("%d %s are not given back", n, Limit(k))
				}
			}
		})
	}
}

// TestConnectionsLimit holds that a program beyond the limit hears why, and that
// an ended one makes room.
func TestConnectionsLimit(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newLimitedRig(t, Limits{Connections: 1}, slog.New(slog.DiscardHandler))
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
	if n := r.filter.used[Connections].Load(); n != 0 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestCommitsAreDelayed holds that a flood of commits passes at the limit's
// rate, whole and in order.
func TestCommitsAreDelayed(t *testing.T) {
	waylandtest.LeakCheck(t)
	const perSecond, commits = 4000, 10_000 // more than a second's worth and what one receive brings
	var log bytes.Buffer
	r := newLimitedRig(t, Limits{Commits: perSecond}, slog.New(slog.NewTextHandler(&log, nil)))
	r.setUp(t)
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	s := r.host.Next
	m, err := s()
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	go func() {
		var e wayland.Encoder
		for range commits {
			e.Msg(surfaceObj, wayland.WlSurfaceReqCommit)
		}
		_ = r.guest.Tr.Send(e.B, nil) // what does not arrive is missed below
	}()
	surface := m.Word(0)
	for range commits {
		r.host.Want(surface, wayland.WlSurfaceReqCommit)
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
	r := newLimitedRig(t, Limits{Requests: perSecond}, slog.New(slog.DiscardHandler))
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
		VM: "work", Tag: "w", Limits: Limits{Connects: perSecond},
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
	r := newLimitedRig(t, Limits{Opens: perSecond}, slog.New(slog.DiscardHandler))
	host := r.setUp(t)
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	r.host.Want(host[compositor], wayland.WlCompositorReqCreateSurface)
	r.guest.Send(wmBase, wayland.XdgWmBaseReqGetXdgSurface, xdgSurface, surfaceObj)
	xdg := r.host.Want(host[wmBase], wayland.XdgWmBaseReqGetXdgSurface).Word(0)
	begin := time.Now()
	for k := range uint32(opens) {
		r.guest.Send(xdgSurface, wayland.XdgSurfaceReqGetToplevel, toplevel+k)
		r.host.Want(xdg, wayland.XdgSurfaceReqGetToplevel)
		for range 2 { // title and app id
			if _, err := r.host.Next(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if d := time.Since(begin); d < 500*time.Millisecond {
		t.Errorf("%d windows took %v", opens, d)
	}
}

// TestMuchDamage holds that a frame with too many rectangles becomes one that is
// damaged everywhere, and that the next starts anew.
func TestMuchDamage(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newLimitedRig(t, Limits{Rectangles: 2}, slog.New(slog.DiscardHandler))
	host := r.setUp(t)
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	surface := r.host.Want(host[compositor], wayland.WlCompositorReqCreateSurface).Word(0)
	for range 2 {
		for k := range uint32(4) {
			r.guest.Send(surfaceObj, wayland.WlSurfaceReqDamageBuffer, k, 0, 1, 1)
		}
		r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
		for k := range uint32(2) {
			if m := r.host.Want(surface, wayland.WlSurfaceReqDamageBuffer); m.Word(0) != k {
				t.Errorf("rectangle %d came instead of %d", m.Word(0), k)
			}
		}
		if m := r.host.Want(surface, wayland.WlSurfaceReqDamage); m.Word(0) != 0 || m.Word(2) != math.MaxInt32 {
			t.Error("not all is damaged")
		}
		r.host.Want(surface, wayland.WlSurfaceReqCommit)
	}
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqDamage, 0, 0, 1, 1)
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
	r.host.Want(surface, wayland.WlSurfaceReqDamage)
	r.host.Want(surface, wayland.WlSurfaceReqCommit)
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
	var l Limits
	for _, name := range LimitNames() {
		if err := l.Set(name, 7); err != nil {
			t.Error(err)
		}
	}
	for k := range l {
		if l[k] != 7 {
			t.Errorf("%s is not set", Limit(k))
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
// surface shows them.
func TestMemoryIsHeld(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t)
	host := r.setUp(t)
	const poolObj, bufObj, size = surfaceObj + 1, surfaceObj + 2, 32 * 32 * 4
	want := func(when string, bytes int64) {
		t.Helper()
		// What was sent before has been handled when the compositor hears of it.
		r.guest.Send(1, wayland.WlDisplayReqSync, bufObj+1)
		id := r.host.Want(1, wayland.WlDisplayReqSync).Word(0)
		r.host.Send(1, wayland.WlDisplayEvtDeleteId, id)
		r.guest.Want(1, wayland.WlDisplayEvtDeleteId)
		if u := r.filter.ledger.Use(); u.Shown != bytes || u.Bytes != bytes {
			t.Errorf("%s: %d bytes are counted, %d of them as shown, not %d", when, u.Bytes, u.Shown, bytes)
		}
	}
	destroy := func(id uint32, op uint16, server uint32) {
		r.guest.Send(id, op)
		r.host.Want(server, op)
		r.host.Send(1, wayland.WlDisplayEvtDeleteId, server)
		r.guest.Want(1, wayland.WlDisplayEvtDeleteId)
	}
	r.guest.Send(compositor, wayland.WlCompositorReqCreateSurface, surfaceObj)
	surface := r.host.Want(host[compositor], wayland.WlCompositorReqCreateSurface).Word(0)
	var e wayland.Encoder
	e.Msg(shm, wayland.WlShmReqCreatePool, poolObj, size)
	r.guest.Write(e.B, waylandtest.Memfd(t, size))
	pool := r.host.Want(host[shm], wayland.WlShmReqCreatePool).Word(0)
	r.guest.Send(poolObj, wayland.WlShmPoolReqCreateBuffer, bufObj, 0, 32, 32, 128, 0)
	buf := r.host.Want(pool, wayland.WlShmPoolReqCreateBuffer).Word(0)
	commit := func() {
		r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
		r.host.Want(surface, wayland.WlSurfaceReqCommit)
	}
	attach := func(id, server uint32) {
		r.guest.Send(surfaceObj, wayland.WlSurfaceReqAttach, id, 0, 0)
		r.host.Want(surface, wayland.WlSurfaceReqAttach)
		commit()
	}
	attach(bufObj, buf)
	destroy(poolObj, wayland.WlShmPoolReqDestroy, pool)
	want("pool destroyed", size)
	destroy(bufObj, wayland.WlBufferReqDestroy, buf)
	want("buffer destroyed", size)
	commit()
	commit()
	want("commits without a buffer", size)
	attach(0, 0)
	want("first null buffer", size)
	// Now the compositor is to forget it, and says so, twice: after that the guest's
	// next requests are answered too.
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqAttach, 0, 0, 0)
	r.host.Want(surface, wayland.WlSurfaceReqAttach)
	r.guest.Send(surfaceObj, wayland.WlSurfaceReqCommit)
	fence := r.host.Want(1, wayland.WlDisplayReqSync).Word(0)
	r.host.Want(surface, wayland.WlSurfaceReqCommit)
	want("second null buffer, not answered", size)
	for _, bytes := range []int64{size, 0} {
		r.host.Send(fence, wayland.WlCallbackEvtDone, 0)
		r.host.Send(1, wayland.WlDisplayEvtDeleteId, fence)
		if bytes != 0 {
			fence = r.host.Want(1, wayland.WlDisplayReqSync).Word(0)
		}
		want("second null buffer, answered", bytes)
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
			if u := r.filter.ledger.Use(); u.Shown != size || r.filter.used[Pools].Load() != 1 || r.filter.used[Connections].Load() != 1 {
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
			if u := r.filter.ledger.Use(); u != (ledger.Use{}) || r.filter.used[Pools].Load() != 0 || r.filter.used[Connections].Load() != 0 {
				t.Errorf("%+v is left", u)
			}
		})
	}
}
