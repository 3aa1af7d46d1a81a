package guestproxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"vix/internal/relay"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// clientPool is a client's pool, mapped for drawing.
type clientPool struct {
	id  uint32
	fd  int
	mem []byte
}

// pool makes a pool of the client's; id is its object.
func (r *rig) pool(t testing.TB, shm, id uint32, size int) *clientPool {
	t.Helper()
	d := waylandtest.Memfd(t, int64(size))
	fd, err := unix.FcntlInt(uintptr(d.FD), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &clientPool{id: id, fd: fd}
	p.mmap(t, size)
	t.Cleanup(func() {
		if p.mem != nil {
			_ = unix.Munmap(p.mem)
		}
		_ = unix.Close(fd)
	})
	var e wayland.Encoder
	e.Msg(shm, wayland.WlShmReqCreatePool, id, uint32(size))
	r.client.Write(e.B, d)
	return p
}

func (p *clientPool) mmap(t testing.TB, size int) {
	t.Helper()
	if p.mem != nil {
		if err := unix.Munmap(p.mem); err != nil {
			t.Fatal(err)
		}
	}
	var err error
	if p.mem, err = unix.Mmap(p.fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		t.Fatal(err)
	}
}

// serverBuffers follows what the server is told, and maps its pools.
type serverBuffers struct {
	t       testing.TB
	p       *waylandtest.Peer
	pools   map[uint32][]byte
	buffers map[uint32][]byte
	pending map[uint32]uint32 // surface → buffer
	current map[uint32]uint32
	objects map[uint32]string
}

func newServerBuffers(t testing.TB, p *waylandtest.Peer) *serverBuffers {
	return &serverBuffers{t, p, map[uint32][]byte{}, map[uint32][]byte{}, map[uint32]uint32{}, map[uint32]uint32{}, map[uint32]string{}}
}

// until handles requests up to a wl_surface.commit and returns what the
// surface then shows.
func (s *serverBuffers) until(commit bool) []byte {
	s.t.Helper()
	for {
		m, err := s.p.Next()
		if err != nil {
			s.t.Fatal(err)
		}
		kind := s.objects[m.ID]
		switch {
		case kind == "wl_shm" && m.Op == wayland.WlShmReqCreatePool:
			d := s.p.Descs[0]
			s.p.Descs = s.p.Descs[1:]
			mem, err := unix.Mmap(d.FD, 0, int(m.Word(1)), unix.PROT_READ, unix.MAP_SHARED)
			if err != nil {
				s.t.Fatal(err)
			}
			d.Close()
			s.t.Cleanup(func() { _ = unix.Munmap(mem) })
			s.pools[m.Word(0)], s.objects[m.Word(0)] = mem, "wl_shm_pool"
		case kind == "wl_shm_pool" && m.Op == wayland.WlShmPoolReqCreateBuffer:
			off, size := m.Word(1), m.Word(3)*m.Word(4)
			s.buffers[m.Word(0)] = s.pools[m.ID][off : off+size]
			s.objects[m.Word(0)] = "wl_buffer"
		case kind == "wl_shm_pool" && m.Op == wayland.WlShmPoolReqDestroy, kind == "wl_buffer" && m.Op == wayland.WlBufferReqDestroy:
			delete(s.objects, m.ID)
			s.p.Send(1, wayland.WlDisplayEvtDeleteId, m.ID)
			if !commit {
				return nil
			}
		case kind == "wl_surface" && m.Op == wayland.WlSurfaceReqAttach:
			s.pending[m.ID] = m.Word(0)
		case kind == "wl_surface" && m.Op == wayland.WlSurfaceReqCommit:
			if b, ok := s.pending[m.ID]; ok {
				s.current[m.ID] = b
				delete(s.pending, m.ID)
			}
			if commit {
				return s.buffers[s.current[m.ID]]
			}
		case kind == "wl_surface": // damage, scale
		default:
			s.t.Fatalf("unexpected request %d of %s#%d", m.Op, kind, m.ID)
		}
	}
}

// scene is a client with a surface, ready to draw.
type scene struct {
	*rig
	srv  *serverBuffers
	pool *clientPool
}

const (
	sceneShm      = 3
	sceneComp     = 4
	sceneSurface  = 5
	scenePool     = 6
	sceneFirstBuf = 7
)

func newScene(t testing.TB, size int) *scene {
	r := newRig(t)
	r.client.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	registry := r.server.Want(1, wayland.WlDisplayReqGetRegistry).Word(0)
	s := &scene{rig: r, srv: newServerBuffers(t, r.server)}
	s.srv.objects[r.bound(registry, 1, "wl_shm", 2, sceneShm)] = "wl_shm"
	r.bound(registry, 2, "wl_compositor", 6, sceneComp)
	r.client.Send(sceneComp, wayland.WlCompositorReqCreateSurface, sceneSurface)
	msg, err := r.server.Next()
	if err != nil {
		t.Fatal(err)
	}
	s.srv.objects[msg.Word(0)] = "wl_surface"
	s.pool = r.pool(t, sceneShm, scenePool, size)
	return s
}

func (s *scene) copied() uint64 { return s.g.copyBytes.Load() }

func (s *scene) blobs() int64 { return s.m.Live.Load() }

func (s *scene) buffer(id uint32, off, w, h, stride int32) {
	s.client.Send(scenePool, wayland.WlShmPoolReqCreateBuffer, id, uint32(off), uint32(w), uint32(h), uint32(stride), 1)
}

// damageFormats are formats with their bytes for a pixel; of the last one the relay
// does not know them.
var damageFormats = []struct{ format, pixel int }{
	{1, 4}, {0x36314752 /* RG16 */, 2}, {0x34324752 /* RG24 */, 3}, {0x48344258 /* XB4H */, 8}, {0x20203843 /* C8 */, 1},
}

// A damagePlay is a client that draws what it likes and declares honestly what of
// its surfaces that changes, which is all that the protocol asks of it.
type damagePlay struct {
	*scene
	rnd      *rand.Rand
	pixel    int
	scale    int
	surfaces [2]struct {
		id   uint32
		w, h int
		pix  []byte // what it shows
	}
	buffers []damageBuf
}

type damageBuf struct{ off, w, h, stride int }

// TestDamage compares what the server sees with the client's buffer after every
// commit of a thousand random histories: buffers of any stride and format, of two
// sizes, that may overlap in their pool, used in any order by two surfaces, with
// damage in both kinds of coordinates, in many rectangles, too large, or none.
func TestDamage(t *testing.T) {
	const sequences, each = 1000, 16 // as many as rapid does by default, each
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		for k := range uint64(sequences / 100) {
			part := &partTB{TB: t}
			p := newDamagePlay(part, rand.New(rand.NewPCG(seed, k)))
			for range each {
				if err := p.commit(); err != nil {
					rt.Fatalf("sequence %d: %v", k, err)
				}
			}
			part.end()
		}
	})
}

// partTB is a part of a test, whose cleanups need not wait for the test's end.
type partTB struct {
	testing.TB
	cleanups []func()
}

func (p *partTB) Cleanup(f func()) { p.cleanups = append(p.cleanups, f) }

func (p *partTB) end() {
	for _, f := range slices.Backward(p.cleanups) {
		f()
	}
}

func newDamagePlay(t testing.TB, rnd *rand.Rand) *damagePlay {
	f := damageFormats[rnd.IntN(len(damageFormats))]
	p := &damagePlay{rnd: rnd, pixel: f.pixel, scale: 1 + rnd.IntN(2)}
	const n, side = 3, 24
	size := 0
	for range n {
		b := damageBuf{off: size, w: side, h: side * 3 / 4}
		if rnd.IntN(4) == 0 {
			b.w, b.h = side/2, side
		}
		b.stride = b.w*p.pixel + rnd.IntN(3)*rnd.IntN(20)
		if size > 0 && rnd.IntN(3) == 0 {
			b.off -= rnd.IntN(size) // overlaps the ones before
		}
		size = max(size, b.off+b.stride*b.h)
		p.buffers = append(p.buffers, b)
	}
	p.scene = newScene(t, size)
	p.surfaces[0].id, p.surfaces[1].id = sceneSurface, sceneFirstBuf
	p.client.Send(sceneComp, wayland.WlCompositorReqCreateSurface, sceneFirstBuf)
	for k, b := range p.buffers {
		p.client.Send(scenePool, wayland.WlShmPoolReqCreateBuffer, uint32(sceneFirstBuf+1+k),
			uint32(b.off), uint32(b.w), uint32(b.h), uint32(b.stride), uint32(f.format))
	}
	for {
		m, err := p.server.Next()
		if err != nil {
			t.Fatal(err)
		}
		if p.srv.objects[m.ID] == "" { // the compositor: the second surface
			p.srv.objects[m.Word(0)] = "wl_surface"
			break
		}
	}
	for _, s := range p.surfaces {
		if p.scale > 1 {
			p.client.Send(s.id, wayland.WlSurfaceReqSetBufferScale, uint32(p.scale))
		}
	}
	return p
}

// commit draws into a buffer, shows it, and compares.
func (p *damagePlay) commit() error {
	// Some buffers come back seldom, and the second surface does.
	k := p.rnd.IntN(1 + p.rnd.IntN(len(p.buffers)))
	b := p.buffers[k]
	s := &p.surfaces[p.rnd.IntN(10)/9]
	mem := p.pool.mem[b.off : b.off+b.stride*b.h]
	row := b.w * p.pixel
	if s.w == b.w && s.h == b.h && p.rnd.IntN(8) > 0 { // goes on from what is shown, as clients do
		for y := range b.h {
			copy(mem[y*b.stride:], s.pix[y*row:(y+1)*row])
		}
	}
	for range p.rnd.IntN(3) {
		x0, y0 := p.rnd.IntN(b.w), p.rnd.IntN(b.h)
		x1, y1 := x0+1+p.rnd.IntN(b.w-x0), y0+1+p.rnd.IntN(min(b.h-y0, 4))
		for y := y0; y < y1; y++ {
			for i := x0 * p.pixel; i < x1*p.pixel; i++ {
				mem[y*b.stride+i] = byte(p.rnd.Uint32())
			}
		}
	}
	now := make([]byte, 0, b.w*b.h*p.pixel)
	for y := range b.h {
		now = append(now, mem[y*b.stride:y*b.stride+row]...)
	}
	if s.w != b.w || s.h != b.h {
		p.client.Send(s.id, wayland.WlSurfaceReqDamageBuffer, 0, 0, 1<<31-1, 1<<31-1)
	} else {
		p.declare(s.id, s.pix, now, b)
	}
	s.w, s.h, s.pix = b.w, b.h, now
	p.client.Send(s.id, wayland.WlSurfaceReqAttach, uint32(sceneFirstBuf+1+k), 0, 0)
	p.client.Send(s.id, wayland.WlSurfaceReqCommit)
	seen := p.srv.until(true)
	for y := range b.h {
		if !bytes.Equal(seen[y*b.stride:y*b.stride+row], now[y*row:(y+1)*row]) {
			return fmt.Errorf("row %d of buffer %d (%+v, %d bytes a pixel, scale %d) differs", y, k, b, p.pixel, p.scale)
		}
	}
	return nil
}

// declare says what differs between two pictures, and sometimes more.
func (p *damagePlay) declare(surface uint32, was, now []byte, b damageBuf) {
	say := func(x, y, w, h int) {
		if p.rnd.IntN(2) == 0 {
			p.client.Send(surface, wayland.WlSurfaceReqDamageBuffer, uint32(x), uint32(y), uint32(w), uint32(h))
			return
		}
		x1, y1 := (x+w+p.scale-1)/p.scale, (y+h+p.scale-1)/p.scale
		x, y = x/p.scale, y/p.scale
		p.client.Send(surface, wayland.WlSurfaceReqDamage, uint32(x), uint32(y), uint32(x1-x), uint32(y1-y))
	}
	for y := range b.h {
		first, last := -1, -1
		for x := range b.w {
			at := (y*b.w + x) * p.pixel
			if !bytes.Equal(was[at:at+p.pixel], now[at:at+p.pixel]) {
				if first < 0 {
					first = x
				}
				last = x
			}
		}
		if first >= 0 {
			say(first, y, last+1-first, 1)
		}
	}
	for range p.rnd.IntN(2) {
		say(p.rnd.IntN(b.w)-5, p.rnd.IntN(b.h)-5, p.rnd.IntN(2*b.w), p.rnd.IntN(2*b.h))
	}
}

// TestCopiesOnlyDamage holds that a small damage costs a small copy.
func TestCopiesOnlyDamage(t *testing.T) {
	waylandtest.LeakCheck(t)
	const w, h = 1920, 1080
	s := newScene(t, 2*w*h*4)
	for k := range int32(2) {
		s.buffer(uint32(sceneFirstBuf+k), k*w*h*4, w, h, w*4)
	}
	frame := func(k uint32) uint64 {
		was := s.copied()
		s.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, sceneFirstBuf+k, 0, 0)
		s.client.Send(sceneSurface, wayland.WlSurfaceReqDamageBuffer, 100, 100, 64, 64)
		s.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
		s.srv.until(true)
		return s.copied() - was
	}
	for k := range uint32(2) {
		if n := frame(k); n != w*h*4 {
			t.Errorf("the first frame of a buffer copied %d bytes", n)
		}
	}
	for k := range uint32(6) {
		if n := frame(k % 2); n != 64*64*4 {
			t.Errorf("64×64 pixels copied %d bytes", n)
		}
	}
}

// TestPoolLife holds that pools grow, that buffers outlive their pool, that
// shadows are used again, and that a large one is given back.
func TestPoolLife(t *testing.T) {
	waylandtest.LeakCheck(t)
	s := newScene(t, 4096)
	s.buffer(sceneFirstBuf, 0, 32, 32, 128)
	const large = 48 << 20 // whose slab is larger than maxSpare
	if err := unix.Ftruncate(s.pool.fd, large); err != nil {
		t.Fatal(err)
	}
	s.pool.mmap(t, large)
	s.client.Send(scenePool, wayland.WlShmPoolReqResize, large)
	s.buffer(sceneFirstBuf+1, 4096, 4096, 2560, 16384)
	s.client.Send(scenePool, wayland.WlShmPoolReqDestroy)
	s.client.Want(1, wayland.WlDisplayEvtDeleteId)
	copy(s.pool.mem[4096:], "grown")
	s.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, sceneFirstBuf+1, 0, 0)
	s.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
	if shown := s.srv.until(true); !bytes.HasPrefix(shown, []byte("grown")) {
		t.Errorf("the server sees %q", shown[:8])
	}
	if n := s.blobs(); n != 2 {
		t.Errorf("%d blobs for a small and a large buffer", n)
	}
	s.client.Send(sceneFirstBuf+1, wayland.WlBufferReqDestroy)
	s.srv.until(false) // the buffer
	s.srv.until(false) // our pool of the large slab
	s.client.Want(1, wayland.WlDisplayEvtDeleteId)
	if n := s.blobs(); n != 1 {
		t.Errorf("%d blobs after the large buffer went", n)
	}
}

// TestReleasedShm holds that a client may release wl_shm and go on.
func TestReleasedShm(t *testing.T) {
	waylandtest.LeakCheck(t)
	s := newScene(t, 4096)
	s.client.Send(sceneShm, wayland.WlShmReqRelease)
	s.client.Want(1, wayland.WlDisplayEvtDeleteId)
	s.buffer(sceneFirstBuf, 0, 32, 32, 128)
	copy(s.pool.mem, "shown")
	s.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, sceneFirstBuf, 0, 0)
	s.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
	if shown := s.srv.until(true); !bytes.HasPrefix(shown, []byte("shown")) {
		t.Errorf("the server sees %q", shown[:8])
	}
}

// TestShrunkFile holds that a client which takes its memory away loses its
// connection, and that another's goes on.
func TestShrunkFile(t *testing.T) {
	waylandtest.LeakCheck(t)
	other := newScene(t, 4096)
	other.buffer(sceneFirstBuf, 0, 32, 32, 128)
	s := newScene(t, 1<<20)
	s.buffer(sceneFirstBuf, 0, 256, 256, 1024)
	if err := unix.Ftruncate(s.pool.fd, 0); err != nil {
		t.Fatal(err)
	}
	s.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, sceneFirstBuf, 0, 0)
	s.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
	if object, code, text := s.client.WantError(); object != sceneSurface || code != shmInvalidFD || !strings.Contains(text, "accessing SHM buffer") {
		t.Error(object, code, text)
	}
	s.client.WantEnd()
	copy(other.pool.mem, "unharmed")
	other.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, sceneFirstBuf, 0, 0)
	other.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
	if shown := other.srv.until(true); !bytes.HasPrefix(shown, []byte("unharmed")) {
		t.Errorf("the server sees %q", shown[:8])
	}
}

func TestBadShm(t *testing.T) {
	for name, do := range map[string]func(s *scene){
		"pool of nothing":   func(s *scene) { s.rig.pool(s.client.T, sceneShm, sceneFirstBuf, 4096); s.poolOf(0) },
		"negative pool":     func(s *scene) { s.poolOf(-1) },
		"no memory":         func(s *scene) { s.poolFile(t, -1) },
		"shrinking pool":    func(s *scene) { s.client.Send(scenePool, wayland.WlShmPoolReqResize, 100) },
		"buffer too long":   func(s *scene) { s.buffer(sceneFirstBuf, 0, 32, 33, 128) },
		"buffer too wide":   func(s *scene) { s.buffer(sceneFirstBuf, 0, 33, 32, 128) },
		"stride overflow":   func(s *scene) { s.buffer(sceneFirstBuf, 0, 1, 1<<30, 1<<30) },
		"negative offset":   func(s *scene) { s.buffer(sceneFirstBuf, -4, 1, 1, 4) },
		"negative height":   func(s *scene) { s.buffer(sceneFirstBuf, 0, 1, -1, 4) },
		"offset at the end": func(s *scene) { s.buffer(sceneFirstBuf, 4096, 1, 1, 4) },
		"no host memory": func(s *scene) {
			s.m.full.Store(true)
			s.buffer(sceneFirstBuf, 0, 1, 1, 4)
		},
	} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			s := newScene(t, 4096)
			do(s)
			s.client.WantError()
			s.client.WantEnd()
		})
	}
}

func (s *scene) poolOf(size int32) {
	var e wayland.Encoder
	e.Msg(sceneShm, wayland.WlShmReqCreatePool, sceneFirstBuf+1, uint32(size))
	s.client.Write(e.B, waylandtest.Memfd(s.client.T, 4096))
}

// poolFile sends a pool whose descriptor is no memory.
func (s *scene) poolFile(t testing.TB, _ int) {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(p[1])
	var e wayland.Encoder
	e.Msg(sceneShm, wayland.WlShmReqCreatePool, sceneFirstBuf, 4096)
	s.client.Write(e.B, wayland.FileDesc(wayland.KindMemory, p[0]))
}

// TestShadow holds the allocator against a model: ranges never overlap, and
// everything comes back.
func TestShadow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &testBlobs{}
		s := shadow{blobs: m}
		c := relay.New(nil, nil, relay.Config{})
		var live []*extent
		defer s.close()
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			if len(live) > 0 && rapid.Bool().Draw(t, "free") {
				k := rapid.IntRange(0, len(live)-1).Draw(t, "which")
				if err := s.release(c, live[k]); err != nil {
					t.Fatal(err)
				}
				live = append(live[:k], live[k+1:]...)
				continue
			}
			e, err := s.alloc(rapid.IntRange(1, 20<<20).Draw(t, "size"))
			if err != nil {
				t.Fatal(err)
			}
			for _, x := range live {
				if x.slab == e.slab && x.off < e.off+e.size && e.off < x.off+x.size {
					t.Fatalf("%v and %v overlap", x.span, e.span)
				}
			}
			live = append(live, e)
		}
		for _, e := range live {
			if err := s.release(c, e); err != nil {
				t.Fatal(err)
			}
		}
		if len(s.slabs) > 1 {
			t.Fatalf("%d empty slabs are kept", len(s.slabs))
		}
		for _, sl := range s.slabs {
			if len(sl.blob.Mem()) > minSlab {
				t.Fatalf("an empty slab of %d bytes is kept", len(sl.blob.Mem()))
			}
			if sl.ranges != 0 || len(sl.free) != 1 || sl.free[0].size != len(sl.blob.Mem()) {
				t.Fatalf("a slab is left with %d used and free %v", sl.ranges, sl.free)
			}
		}
	})
}

// BenchmarkFrame is a 1080p frame through commit alone, by damage.
func BenchmarkFrame(b *testing.B) {
	for _, c := range []struct {
		name string
		d    rect
	}{{"64x64", rect{100, 100, 164, 164}}, {"full", rect{0, 0, 1920, 1080}}} {
		b.Run(c.name, func(b *testing.B) {
			src, dst := make([]byte, 1920*1080*4), make([]byte, 1920*1080*4)
			b.ReportAllocs()
			rs := []rect{c.d}
			for b.Loop() {
				n, _ := copyRegion(dst, src, 1920*4, 4, rs)
				b.SetBytes(int64(n))
			}
		})
	}
}
