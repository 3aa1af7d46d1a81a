package relay

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// globalName is the name under which the test's server announces an interface.
const (
	nameCompositor = 1 + iota
	nameShm
	nameDataDevice
	nameSeat
	nameUnknown
)

func announce(p *waylandtest.Peer, registry, name uint32, iface string, version uint32) {
	p.T.Helper()
	p.Put(registry, wayland.WlRegistryEvtGlobal, name, iface, version)
}

func bindTo(p *waylandtest.Peer, registry, name uint32, iface string, version, id uint32) {
	p.T.Helper()
	p.Put(registry, wayland.WlRegistryReqBind, name, iface, version, id)
}

// registry makes the client's registry #2 and returns the server's id of it.
func (r *rig) registry() uint32 {
	r.client.T.Helper()
	r.client.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	id := r.server.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	for _, g := range []struct {
		name    uint32
		iface   string
		version uint32
	}{{nameCompositor, "wl_compositor", 6}, {nameShm, "wl_shm", 2}, {nameDataDevice, "wl_data_device_manager", 3}, {nameSeat, "wl_seat", 8}} {
		announce(r.server, id, g.name, g.iface, g.version)
		r.client.Want(2, wayland.WlRegistryEvtGlobal)
	}
	return id
}

// bound binds a global and returns the server's id of the new object.
func (r *rig) bound(name uint32, iface string, version, id uint32) uint32 {
	r.client.T.Helper()
	bindTo(r.client, 2, name, iface, version, id)
	m, err := r.server.Next()
	if err != nil {
		r.client.T.Fatal(err)
	}
	return m.Word(len(m.Body)/4 - 1)
}

func TestGlobals(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t, Config{Globals: func(i *wayland.Interface, v uint32) uint32 {
		switch i {
		case wayland.WlCompositor:
			return 4
		case wayland.WlShm:
			return 0
		}
		return v
	}})
	r.client.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	r.server.Want(1, wayland.WlDisplayReqGetRegistry)
	announce(r.server, 2, nameUnknown, "zwlr_layer_shell_v1", 4)
	announce(r.server, 2, nameShm, "wl_shm", 2)
	announce(r.server, 2, nameCompositor, "wl_compositor", 6)
	m := r.client.Want(2, wayland.WlRegistryEvtGlobal)
	if m.Word(0) != nameCompositor || m.Word(len(m.Body)/4-1) != 4 {
		t.Errorf("offered % x", m.Body)
	}
	r.server.Send(2, wayland.WlRegistryEvtGlobalRemove, nameShm)
	r.server.Send(2, wayland.WlRegistryEvtGlobalRemove, nameCompositor)
	if m := r.client.Want(2, wayland.WlRegistryEvtGlobalRemove); m.Word(0) != nameCompositor {
		t.Errorf("removed %d", m.Word(0))
	}
	bindTo(r.client, 2, nameShm, "wl_shm", 1, 3)
	if _, _, text := r.client.WantError(); !strings.Contains(text, "invalid global wl_shm") {
		t.Error(text)
	}
	r.server.WantEnd()
}

// TestMistakes is every way in which a client may break the protocol: the error
// reaches it, and the server hears nothing of it.
func TestMistakes(t *testing.T) {
	for name, c := range map[string]struct {
		do           func(p *waylandtest.Peer)
		object, code uint32
		text         string
	}{
		"unknown object":   {func(p *waylandtest.Peer) { p.Send(77, 0) }, 1, ErrInvalidObject, "invalid object 77"},
		"null object":      {func(p *waylandtest.Peer) { p.Send(0, 0) }, 1, ErrInvalidObject, "invalid object 0"},
		"server's range":   {func(p *waylandtest.Peer) { p.Send(0xff000003, 0) }, 1, ErrInvalidObject, "invalid object"},
		"opcode":           {func(p *waylandtest.Peer) { p.Send(1, 9) }, 1, ErrInvalidMethod, "invalid method 9, object wl_display#1"},
		"short":            {func(p *waylandtest.Peer) { p.Send(1, 0) }, 1, ErrInvalidMethod, "wl_display.sync"},
		"long":             {func(p *waylandtest.Peer) { p.Send(3, 0, 4, 5) }, 3, ErrInvalidMethod, "wl_compositor.create_surface"},
		"new id taken":     {func(p *waylandtest.Peer) { p.Send(1, 0, 2) }, 1, ErrInvalidObject, "new id 2 is in use"},
		"new id gap":       {func(p *waylandtest.Peer) { p.Send(1, 0, 900) }, 1, ErrInvalidObject, "invalid new id 900"},
		"new id of server": {func(p *waylandtest.Peer) { p.Send(1, 0, 0xff000000) }, 1, ErrInvalidObject, "invalid new id"},
		"version 0":        {func(p *waylandtest.Peer) { bindTo(p, 2, nameSeat, "wl_seat", 0, 4) }, 2, ErrInvalidObject, "invalid version"},
		"version":          {func(p *waylandtest.Peer) { bindTo(p, 2, nameSeat, "wl_seat", 9, 4) }, 2, ErrInvalidObject, "have 8, wanted 9"},
		"wrong interface":  {func(p *waylandtest.Peer) { bindTo(p, 2, nameSeat, "wl_shm", 1, 4) }, 2, ErrInvalidObject, "invalid global wl_shm"},
		"size":             {func(p *waylandtest.Peer) { p.Write([]byte{1, 0, 0, 0, 0, 0, 3, 0}) }, 1, ErrInvalidMethod, "size"},
		"missing fd": {func(p *waylandtest.Peer) {
			bindTo(p, 2, nameShm, "wl_shm", 1, 4)
			p.Send(4, wayland.WlShmReqCreatePool, 5, 4096)
		}, 4, ErrInvalidMethod, "descriptor is missing"},
		"since": {func(p *waylandtest.Peer) {
			bindTo(p, 2, nameSeat, "wl_seat", 1, 4)
			p.Send(4, wayland.WlSeatReqRelease)
		}, 4, ErrInvalidMethod, "wl_seat.release is of version 5"},
		"object of another kind": {func(p *waylandtest.Peer) {
			p.Send(3, wayland.WlCompositorReqCreateSurface, 4)
			p.Send(4, wayland.WlSurfaceReqSetInputRegion, 4)
		}, 4, ErrInvalidObject, "set_input_region: invalid object 4"},
		"use after destroy": {func(p *waylandtest.Peer) {
			p.Send(3, wayland.WlCompositorReqCreateSurface, 4)
			p.Send(4, wayland.WlSurfaceReqDestroy)
			p.Send(4, wayland.WlSurfaceReqCommit)
		}, 1, ErrInvalidObject, "invalid object 4"},
	} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			r := newRig(t, Config{})
			r.registry()
			r.bound(nameCompositor, "wl_compositor", 4, 3)
			c.do(r.client)
			object, code, text := r.client.WantError()
			if object != c.object || code != c.code || !strings.Contains(text, c.text) {
				t.Errorf("error on %d, code %d: %s", object, code, text)
			}
			r.client.WantEnd()
			r.server.WantEnd()
			var pe *ProtocolError
			if err := r.close(); !errors.As(err, &pe) {
				t.Errorf("Run returned %v", err)
			}
		})
	}
}

// TestIDs holds that ids are recycled on both sides as libwayland expects.
func TestIDs(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t, Config{})
	for round := range 3 {
		for k := uint32(2); k < 12; k++ {
			r.client.Send(1, wayland.WlDisplayReqSync, k)
			if got := r.server.Want(1, wayland.WlDisplayReqSync).Word(0); got >= 12 {
				t.Fatalf("round %d: the server's ids grow to %d", round, got)
			} else {
				r.server.Send(got, wayland.WlCallbackEvtDone, k)
				r.server.Send(1, wayland.WlDisplayEvtDeleteId, got)
			}
		}
		for k := uint32(2); k < 12; k++ {
			if m := r.client.Want(k, wayland.WlCallbackEvtDone); m.Word(0) != k {
				t.Fatalf("callback %d was called with %d", k, m.Word(0))
			}
			if m := r.client.Want(1, wayland.WlDisplayEvtDeleteId); m.Word(0) != k {
				t.Fatalf("deleted %d, not %d", m.Word(0), k)
			}
		}
	}
}

// TestServerError holds that the server's error reaches the client with the
// client's id, also when requests still under way fail to be sent.
func TestServerError(t *testing.T) {
	waylandtest.LeakCheck(t)
	h := NewHooks()
	h.Request(wayland.WlCompositor, wayland.WlCompositorReqCreateRegion, func(c *Conn, _ *Msg) (bool, error) {
		c.Own(wayland.WlRegion, 1, nil) // ids of the two sides differ from here on
		return true, nil
	})
	r := newRig(t, Config{Hooks: h})
	r.registry()
	r.bound(nameCompositor, "wl_compositor", 6, 3)
	r.client.Send(3, wayland.WlCompositorReqCreateRegion, 4)
	if _, err := r.server.Next(); err != nil {
		t.Fatal(err)
	}
	r.client.Send(3, wayland.WlCompositorReqCreateSurface, 5)
	m, _ := r.server.Next()
	surface := m.Word(0)
	if surface == 5 {
		t.Fatal("the ids do not differ")
	}
	r.server.Put(1, wayland.WlDisplayEvtError, surface, 3, "bad size")
	r.server.Tr.Close()
	if object, code, text := r.client.WantError(); object != 5 || code != 3 || text != "bad size" {
		t.Error(object, code, text)
	}
	r.client.WantEnd()
}

// TestServerObjects holds the life of objects that the server creates.
func TestServerObjects(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t, Config{})
	r.registry()
	r.bound(nameDataDevice, "wl_data_device_manager", 3, 3)
	r.bound(nameSeat, "wl_seat", 8, 4)
	r.client.Send(3, wayland.WlDataDeviceManagerReqGetDataDevice, 5, 4)
	m, _ := r.server.Next()
	dev := m.Word(0)
	for range 3 {
		for k := range uint32(4) {
			id := wayland.ServerIDs + k
			r.server.Send(dev, wayland.WlDataDeviceEvtDataOffer, id)
			if m := r.client.Want(5, wayland.WlDataDeviceEvtDataOffer); m.Word(0) != id {
				t.Fatalf("the client sees %#x", m.Word(0))
			}
		}
		for k := range uint32(4) {
			id := wayland.ServerIDs + 3 - k
			r.client.Send(id, wayland.WlDataOfferReqDestroy)
			m := r.server.Want(id, wayland.WlDataOfferReqDestroy)
			r.server.Send(m.ID, wayland.WlDataOfferEvtSourceActions, 1) // was on its way: dropped
		}
	}
	r.server.Send(dev, wayland.WlDataDeviceEvtLeave)
	r.client.Want(5, wayland.WlDataDeviceEvtLeave)
}

// TestDescriptors holds that descriptors stay with their messages, whatever
// pieces they arrive in.
func TestDescriptors(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t, Config{})
	r.registry()
	r.bound(nameShm, "wl_shm", 1, 3)
	var e wayland.Encoder
	var ds []wayland.Desc
	const pools = 20
	for k := range uint32(pools) {
		e.Msg(3, wayland.WlShmReqCreatePool, 4+k, 100+k)
		ds = append(ds, waylandtest.Memfd(t, int64(100+k)))
	}
	r.client.Write(e.B[:5], ds[:10]...)
	r.client.Write(e.B[5:21], ds[10:]...)
	r.client.Write(e.B[21:])
	for k := range uint32(pools) {
		m, err := r.server.Next()
		if err != nil || m.Word(1) != 100+k {
			t.Fatal(err, m)
		}
		var st unix.Stat_t
		if err := unix.Fstat(r.server.Descs[0].FD, &st); err != nil || st.Size != int64(100+k) {
			t.Fatalf("pool %d came with a file of %d bytes (%v)", k, st.Size, err)
		}
		r.server.Descs[0].Close()
		r.server.Descs = r.server.Descs[1:]
	}
}

// TestTooManyDescriptors holds that descriptors without messages do not pile up.
func TestTooManyDescriptors(t *testing.T) {
	waylandtest.LeakCheck(t)
	r := newRig(t, Config{})
	r.registry()
	for range maxAhead/wayland.MaxDescs + 2 {
		var ds []wayland.Desc
		for range wayland.MaxDescs {
			ds = append(ds, waylandtest.Memfd(t, 1))
		}
		if r.client.Tr.Send([]byte{0}, ds) != nil {
			break
		}
	}
	r.server.WantEnd()
	if err := r.close(); err == nil {
		t.Error("the connection ended without a reason")
	}
}

// TestClientGoneWhileAnswered holds that a connection ends when the client goes
// while an answer of ours is under way to it.
func TestClientGoneWhileAnswered(t *testing.T) {
	waylandtest.LeakCheck(t)
	h := NewHooks()
	h.Request(wayland.WlDisplay, wayland.WlDisplayReqSync, func(c *Conn, m *Msg) (bool, error) {
		c.ToClient().Msg(m.New.ID, wayland.WlCallbackEvtDone, 0)
		return false, nil
	})
	for range 100 {
		r := newRig(t, Config{Hooks: h})
		r.client.Send(1, wayland.WlDisplayReqSync, 2)
		r.client.Tr.Close()
		r.server.WantEnd()
	}
}

// fencer is a transport whose fences are signalled by hand.
type fencer struct {
	wayland.Transport
	tell func(what string, begin, end time.Time)
}

func (f *fencer) OnFence(tell func(string, time.Time, time.Time)) { f.tell = tell }

// fenceTap notes fences.
type fenceTap struct {
	silentTap
	got []string
}

func (f *fenceTap) Fence(conn uint64, what string, begin, end time.Time) {
	f.got = append(f.got, fmt.Sprintf("%d %s %v", conn, what, end.Sub(begin)))
}

// TestFences holds that a tap hears of a transport's fences while it is set.
func TestFences(t *testing.T) {
	var f, none fencer
	var tap fenceTap
	cfg := Config{ID: 7, Tap: &TapSwitch{}}
	New(&none, &none, cfg)
	if none.tell != nil {
		t.Error("fences are watched without a tap")
	}
	cfg.Tap.Set(&tap)
	New(&f, &none, cfg)
	now := time.Now()
	f.tell("POLL", now, now.Add(time.Second))
	cfg.Tap.Set(nil)
	f.tell("SEND", now, now)
	if len(tap.got) != 1 || tap.got[0] != "7 POLL 1s" {
		t.Errorf("heard of %q", tap.got)
	}
}

// TestDelay holds that a delay keeps the next requests back, and neither events
// nor the end of the connection.
func TestDelay(t *testing.T) {
	waylandtest.LeakCheck(t)
	const short, long = 30 * time.Millisecond, time.Hour
	h := NewHooks()
	h.Request(wayland.WlDisplay, wayland.WlDisplayReqSync, func(c *Conn, m *Msg) (bool, error) {
		switch m.New.ID {
		case 3:
			c.Delay(short)
		case 5:
			c.Delay(long)
		}
		c.Delay(1)
		return true, nil
	})
	r := newRig(t, Config{Hooks: h})
	r.registry()
	begin := time.Now()
	r.client.Send(1, wayland.WlDisplayReqSync, 3)
	r.server.Want(1, wayland.WlDisplayReqSync)
	r.client.Send(1, wayland.WlDisplayReqSync, 4)
	r.server.Want(1, wayland.WlDisplayReqSync)
	if d := time.Since(begin); d < short {
		t.Errorf("the next request came after %v, not %v", d, short)
	}
	r.client.Send(1, wayland.WlDisplayReqSync, 5)
	r.server.Want(1, wayland.WlDisplayReqSync)
	r.client.Send(1, wayland.WlDisplayReqSync, 6)
	r.server.Send(5, wayland.WlCallbackEvtDone, 7)
	r.client.Want(5, wayland.WlCallbackEvtDone)
	other := newRig(t, Config{Hooks: h})
	other.client.Send(1, wayland.WlDisplayReqSync, 2)
	other.server.Want(1, wayland.WlDisplayReqSync)
	r.server.Tr.Close()
	r.client.WantEnd()
}

func TestManyConnections(t *testing.T) {
	waylandtest.LeakCheck(t)
	for k := range 200 {
		r := newRig(t, Config{})
		r.client.Send(1, wayland.WlDisplayReqSync, 2)
		r.server.Want(1, wayland.WlDisplayReqSync)
		if k%2 == 0 {
			r.server.Tr.Close()
			r.client.WantEnd()
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// benchmarkPump measures the engine without sockets: batches of one message are
// handled again and again.
func benchmarkPump(b *testing.B, words int, build func(e *wayland.Encoder)) {
	r := newRig(b, Config{})
	r.registry()
	r.bound(nameCompositor, "wl_compositor", 6, 3)
	r.client.Send(3, wayland.WlCompositorReqCreateRegion, 4)
	if _, err := r.server.Next(); err != nil {
		b.Fatal(err)
	}
	r.client.Send(3, wayland.WlCompositorReqCreateSurface, 5)
	if _, err := r.server.Next(); err != nil {
		b.Fatal(err)
	}
	var e wayland.Encoder
	for len(e.B)+words*4 < 16<<10 {
		build(&e)
	}
	n := 0
	for rest := e.B; len(rest) > 0; n++ {
		_, _, size, _ := wayland.Next(rest)
		rest = rest[size:]
	}
	p := &pump{c: r.conn, from: &r.conn.client, to: &r.conn.server, requests: true, buf: make([]byte, bufSize)}
	p.handle = r.conn.request
	b.ReportAllocs()
	b.ResetTimer()
	for range b.N {
		p.r, p.span, p.w = 0, 0, copy(p.buf, e.B)
		for p.r < p.w {
			_, _, size, _ := wayland.Next(p.buf[p.r:p.w])
			msg := p.buf[p.r : p.r+size]
			p.r += size
			p.size = size
			if err := p.handle(p, msg); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/message")
}

func BenchmarkAdd(b *testing.B) {
	benchmarkPump(b, 6, func(e *wayland.Encoder) { e.Msg(4, wayland.WlRegionReqAdd, 0, 0, 64, 64) })
}

func BenchmarkSetInputRegion(b *testing.B) {
	benchmarkPump(b, 3, func(e *wayland.Encoder) { e.Msg(5, wayland.WlSurfaceReqSetInputRegion, 4) })
}

// BenchmarkRelay sends through two sockets and the relay, and directly through
// one, in turn: the baseline of the same run.
func BenchmarkRelay(b *testing.B) {
	var e wayland.Encoder
	for len(e.B) < 4000 {
		e.Msg(4, wayland.WlRegionReqAdd, 0, 0, 64, 64)
	}
	pass := func(b *testing.B, from, to *wayland.UnixConn) {
		buf := make([]byte, 64<<10)
		b.SetBytes(int64(len(e.B)))
		b.ReportAllocs()
		for b.Loop() {
			if err := from.Send(e.B, nil); err != nil {
				b.Fatal(err)
			}
			for n := 0; n < len(e.B); {
				k, _, err := to.Recv(buf, nil)
				if err != nil {
					b.Fatal(err)
				}
				n += k
			}
		}
	}
	b.Run("direct", func(b *testing.B) {
		x, y := waylandtest.Pair(b)
		defer x.Close()
		defer y.Close()
		pass(b, x, y)
	})
	b.Run("relay", func(b *testing.B) {
		r := newRig(b, Config{})
		r.registry()
		r.bound(nameCompositor, "wl_compositor", 6, 3)
		r.client.Send(3, wayland.WlCompositorReqCreateRegion, 4)
		if _, err := r.server.Next(); err != nil {
			b.Fatal(err)
		}
		pass(b, r.client.Tr, r.server.Tr)
	})
}

func ExampleProtocolError() {
	fmt.Println(&ProtocolError{Object: 3, Code: ErrInvalidMethod, Text: "invalid method 9"})
	// Output: protocol error 1 on object 3: invalid method 9
}
