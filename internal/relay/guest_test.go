package relay

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

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
	g    *Guest
	m    *testBlobs
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
	r, g, m := newGuestRig(t)
	r.registry()
	s := &scene{rig: r, g: g, m: m, srv: newServerBuffers(t, r.server)}
	s.srv.objects[r.bound(nameShm, "wl_shm", 2, sceneShm)] = "wl_shm"
	r.bound(nameCompositor, "wl_compositor", 6, sceneComp)
	r.client.Send(sceneComp, wayland.WlCompositorReqCreateSurface, sceneSurface)
	msg, err := r.server.Next()
	if err != nil {
		t.Fatal(err)
	}
	s.srv.objects[msg.Word(0)] = "wl_surface"
	s.pool = r.pool(t, sceneShm, scenePool, size)
	return s
}

func (s *scene) copied() uint64 {
	s.conn.mu.Lock()
	defer s.conn.mu.Unlock()
	return s.g.Copied
}

func (s *scene) blobs() int64 { return s.m.Live.Load() }

func (s *scene) buffer(id uint32, off, w, h, stride int32) {
	s.client.Send(scenePool, wayland.WlShmPoolReqCreateBuffer, id, uint32(off), uint32(w), uint32(h), uint32(stride), 1)
}

// TestDamage compares what the server sees with the client's buffer after every
// commit of random histories: several buffers used in any order, damage in both
// kinds of coordinates, scaled, none, or far too large. Clients draw only where
// they declare damage, and repaint what a returning buffer missed, as the
// protocol asks of them.
func TestDamage(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		rnd := rand.New(rand.NewPCG(seed, 1))
		const w, h, n = 40, 30, 3
		stride := 4 * (w + rnd.IntN(3)*8)
		size := stride * h
		s := newScene(t, size*n)
		defer s.close()
		scale := 1 + rnd.IntN(2)
		if scale > 1 {
			s.client.Send(sceneSurface, wayland.WlSurfaceReqSetBufferScale, uint32(scale))
		}
		for k := range n {
			s.buffer(uint32(sceneFirstBuf+k), int32(k*size), w, h, int32(stride))
		}
		truth := make([]byte, size) // what the window shows
		rnd.Uint32()
		seen := [n]bool{}
		for range 25 {
			k := rnd.IntN(n)
			mem := s.pool.mem[k*size : (k+1)*size]
			if !seen[k] {
				for i := range truth {
					truth[i] = byte(rnd.Uint32())
				}
				s.client.Send(sceneSurface, wayland.WlSurfaceReqDamageBuffer, 0, 0, 1<<31-1, 1<<31-1)
				seen[k] = true
			}
			for range rnd.IntN(25) {
				x, y, dw, dh := rnd.IntN(w+10)-5, rnd.IntN(h+10)-5, rnd.IntN(w), rnd.IntN(h/2)
				if rnd.IntN(2) == 0 {
					s.client.Send(sceneSurface, wayland.WlSurfaceReqDamageBuffer, uint32(x), uint32(y), uint32(dw), uint32(dh))
				} else {
					s.client.Send(sceneSurface, wayland.WlSurfaceReqDamage, uint32(x), uint32(y), uint32(dw), uint32(dh))
					x, y, dw, dh = x*scale, y*scale, dw*scale, dh*scale
				}
				for yy := max(y, 0); yy < min(y+dh, h); yy++ {
					for xx := max(x, 0) * 4; xx < min(x+dw, w)*4; xx++ {
						truth[yy*stride+xx] = byte(rnd.Uint32())
					}
				}
			}
			copy(mem, truth)
			s.client.Send(sceneSurface, wayland.WlSurfaceReqAttach, uint32(sceneFirstBuf+k), 0, 0)
			s.client.Send(sceneSurface, wayland.WlSurfaceReqCommit)
			shown := s.srv.until(true)
			for y := range h {
				if !bytes.Equal(shown[y*stride:y*stride+w*4], truth[y*stride:y*stride+w*4]) {
					rt.Fatalf("row %d differs", y)
				}
			}
		}
	})
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
// connection, and nothing else happens.
func TestShrunkFile(t *testing.T) {
	waylandtest.LeakCheck(t)
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
			s.conn.mu.Lock()
			s.m.fail = errors.New("full")
			s.conn.mu.Unlock()
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
		c := New(nil, nil, Config{})
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
			if sl.used != 0 || len(sl.free) != 1 || sl.free[0].size != len(sl.blob.Mem()) {
				t.Fatalf("a slab is left with %d used and free %v", sl.used, sl.free)
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
