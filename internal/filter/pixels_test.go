package filter

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"image"
	"image/color"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/desktoptest"
	"vix/internal/guestproxy"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// serveChain serves both ends' hooks in one process, with a socket where the VM
// would be: client ⇄ guest's hooks ⇄ socket ⇄ filter ⇄ compositor.
func serveChain(t *testing.T, dir, upstream string, blobs *waylandtest.Memfds) (path string) {
	t.Helper()
	path = filepath.Join(dir, "chain")
	log := slog.New(slog.DiscardHandler)
	f := New(Config{
		VM: "vm", Tag: "tag", Log: log,
		Dial: func() (wayland.Transport, error) { return wayland.Dial(upstream) },
	})
	waylandtest.Serve(t, path, func(ctx context.Context, client *wayland.UnixConn) {
		near, far := waylandtest.Pair(t)
		var host sync.WaitGroup
		host.Go(func() { _ = f.Serve(ctx, far) })
		_ = guestproxy.Relay(ctx, guestproxy.Client{Blobs: blobs, Log: log}, client, near)
		host.Wait()
	})
	return path
}

// A painter is a client with one window, whose every pixel is known.
type painter struct {
	*waylandtest.Peer
	ids     map[string]uint32
	globals map[string]uint32 // names
	next    uint32
	surface uint32
	pool    []byte
	w, h    int  // of a buffer
	ended   bool // by the other side
}

const (
	painterBuffers = 3
	painterSide    = 160 // a buffer's longer side
)

// newPainter opens a window of a fixed size on a Wayland socket.
func newPainter(t *testing.T, socket string, w, h int) *painter {
	t.Helper()
	tr, err := wayland.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	p := &painter{Peer: &waylandtest.Peer{T: t, Tr: tr}, ids: map[string]uint32{}, next: 4, w: w, h: h}
	t.Cleanup(func() { p.close() })
	globals := p.Globals()
	for iface, version := range map[string]uint32{"wl_compositor": 5, "wl_shm": 1, "xdg_wm_base": 2, "wp_viewporter": 1} {
		p.bind(globals[iface], iface, version)
	}
	p.globals = globals
	p.window()
	p.buffers()
	return p
}

func (p *painter) bind(name uint32, iface string, version uint32) {
	p.T.Helper()
	p.ids[iface] = p.id()
	p.Put(2, wayland.WlRegistryReqBind, name, iface, version, p.ids[iface])
}

func (p *painter) id() uint32 { p.next++; return p.next - 1 }

func (p *painter) close() {
	_ = p.Tr.Close()
	wayland.CloseAll(p.Descs)
	if p.pool != nil {
		_ = unix.Munmap(p.pool)
		p.pool = nil
	}
}

// window makes the toplevel and waits for its first configure.
func (p *painter) window() {
	p.surface = p.id()
	xs, top := p.id(), p.id()
	p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, p.surface)
	p.Send(p.ids["xdg_wm_base"], wayland.XdgWmBaseReqGetXdgSurface, xs, p.surface)
	p.Send(xs, wayland.XdgSurfaceReqGetToplevel, top)
	p.Send(p.surface, wayland.WlSurfaceReqCommit)
	p.ids["xdg_surface"], p.ids["xdg_toplevel"] = xs, top
	for {
		m, err := p.Next()
		if err != nil {
			p.T.Fatal(err)
		}
		if m.ID == xs {
			p.Send(xs, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
			return
		}
	}
}

// buffers makes the pool and its buffers.
func (p *painter) buffers() {
	size := p.w * p.h * 4 * painterBuffers
	d := waylandtest.Memfd(p.T, int64(size))
	mem, err := unix.Mmap(d.FD, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		p.T.Fatal(err)
	}
	p.pool = mem
	pool := p.id()
	var e wayland.Encoder
	e.Msg(p.ids["wl_shm"], wayland.WlShmReqCreatePool, pool, uint32(size))
	p.Write(e.B, d)
	for k := range painterBuffers {
		id := p.id()
		p.ids[fmt.Sprint("buffer", k)] = id
		p.Send(pool, wayland.WlShmPoolReqCreateBuffer, id, uint32(k*p.w*p.h*4), uint32(p.w), uint32(p.h), uint32(p.w*4), 1)
	}
}

// sync waits until the compositor has handled everything; it answers pings and
// configures on the way.
func (p *painter) sync() {
	p.T.Helper()
	cb := p.id()
	p.Send(1, wayland.WlDisplayReqSync, cb)
	for {
		m, err := p.Next()
		if err != nil {
			p.T.Fatal(err)
		}
		switch {
		case m.ID == 1 && m.Op == wayland.WlDisplayEvtError:
			p.T.Fatalf("the compositor says %q", m.Body)
		case m.ID == p.ids["xdg_surface"]:
			p.Send(m.ID, wayland.XdgSurfaceReqAckConfigure, m.Word(0))
		case m.ID == p.ids["xdg_wm_base"]:
			p.Send(m.ID, wayland.XdgWmBaseReqPong, m.Word(0))
		case m.ID == cb:
			return
		}
	}
}

// A canvas is a picture of opaque pixels, row after row.
type canvas struct {
	pix  []uint32
	w, h int
}

// play draws a sequence that only the seed decides on; after the k-th commit the
// window shows what it always shows then. The client paints its surface, and says
// what it damaged in surface or in buffer coordinates, as the view has it.
func (p *painter) play(seed uint64, v shown, commits int, after func(k int)) {
	rnd := rand.New(rand.NewPCG(seed, 7))
	c := canvas{w: p.w / v.scale, h: p.h / v.scale}
	if v.turns%2 == 1 {
		c.w, c.h = c.h, c.w
	}
	c.pix = make([]uint32, c.w*c.h)
	damage := uint16(wayland.WlSurfaceReqDamage)
	if v.buffer {
		damage = wayland.WlSurfaceReqDamageBuffer
	}
	v.set(p)
	for k := range commits {
		b := k
		if k >= painterBuffers {
			b = rnd.IntN(painterBuffers)
		}
		for n := range 1 + rnd.IntN(6) {
			r := image.Rect(rnd.IntN(c.w), rnd.IntN(c.h), rnd.IntN(c.w), rnd.IntN(c.h))
			if k < painterBuffers && n == 0 {
				r = image.Rect(0, 0, c.w, c.h)
			}
			c.paint(r, rnd.Uint32()|0xff000000)
			p.Send(p.surface, damage, uint32(r.Min.X), uint32(r.Min.Y), uint32(r.Dx()), uint32(r.Dy()))
		}
		copy(p.pool[b*p.w*p.h*4:], c.asBuffer(v))
		p.Send(p.surface, wayland.WlSurfaceReqAttach, p.ids[fmt.Sprint("buffer", b)], 0, 0)
		p.Send(p.surface, wayland.WlSurfaceReqCommit)
		p.sync()
		after(k)
	}
}

func (c *canvas) paint(r image.Rectangle, v uint32) {
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			c.pix[y*c.w+x] = v
		}
	}
}

// asBuffer turns and scales the picture, pixel by pixel, as a client does that
// sets this transform and scale.
func (c *canvas) asBuffer(v shown) []byte {
	pix, w := c.pix, c.w
	if v.flipped {
		q := make([]uint32, len(pix))
		for i, x := range pix {
			q[i/w*w+w-1-i%w] = x
		}
		pix = q
	}
	for range v.turns {
		h := len(pix) / w
		q := make([]uint32, len(pix))
		for i, x := range pix {
			q[(w-1-i%w)*h+i/w] = x
		}
		pix, w = q, h
	}
	out := make([]byte, 0, len(pix)*4*v.scale*v.scale)
	for y := range len(pix) / w * v.scale {
		for x := range w * v.scale {
			out = binary.NativeEndian.AppendUint32(out, pix[y/v.scale*w+x/v.scale])
		}
	}
	return out
}

// shown is a way in which a surface shows its buffer.
type shown struct {
	set     func(p *painter)
	scale   int
	turns   int // by 90°, counter-clockwise, after the flip
	flipped bool
	buffer  bool // damage is said in buffer coordinates
}

func transform(n uint32) func(p *painter) {
	return func(p *painter) { p.Send(p.surface, wayland.WlSurfaceReqSetBufferTransform, n) }
}

var views = map[string]shown{
	"plain":               {func(*painter) {}, 1, 0, false, true},
	"plain, surface":      {func(*painter) {}, 1, 0, false, false},
	"scaled":              {func(p *painter) { p.Send(p.surface, wayland.WlSurfaceReqSetBufferScale, 2) }, 2, 0, false, false},
	"turned":              {transform(1), 1, 1, false, false},
	"turned by 270":       {transform(3), 1, 3, false, false},
	"flipped":             {transform(4), 1, 0, true, false},
	"flipped and turned":  {transform(5), 1, 1, true, false},
	"flipped, turned 270": {transform(7), 1, 3, true, false},
	"stretched": {func(p *painter) {
		v := p.id()
		p.Send(p.ids["wp_viewporter"], wayland.WpViewporterReqGetViewport, v, p.surface)
		p.Send(v, wayland.WpViewportReqSetDestination, painterSide, painterSide*3/4)
	}, 1, 0, false, false},
}

// TestSamePicture compares, pixel for pixel, what sway shows of a window that is
// its own client's with what it shows when all of Vix but the VM is in between.
func TestSamePicture(t *testing.T) {
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300, Sway: "default_border none\nfor_window [app_id=\".*\"] floating enable, border none, move absolute position 20 20\nfor_window [title=\".*\"] floating enable, border none, move absolute position 20 20\n"})
	chain := serveChain(t, d.Dir, d.Socket, &waylandtest.Memfds{})
	for name, v := range views {
		t.Run(name, func(t *testing.T) {
			const commits, seed = 8, 42
			shots := map[string][]*image.RGBA{}
			for _, socket := range []string{d.Socket, chain} {
				p := newPainter(t, socket, painterSide, painterSide*3/4)
				p.play(seed, v, commits, func(k int) {
					if k >= 2 {
						p.sync()
						d.WaitSettled(t, func(*desktoptest.Node) bool { return true })
						shots[socket] = append(shots[socket], d.Screenshot(t))
					}
				})
				p.close()
				d.WaitNoWindow(t, func(*desktoptest.Node) bool { return true })
			}
			for k := range shots[chain] {
				if n := desktoptest.Colors(shots[chain][k], shots[chain][k].Bounds()); n < 3 {
					t.Errorf("picture %d shows %d colours", k, n)
				}
				if at, same := differ(shots[d.Socket][k], shots[chain][k]); !same {
					t.Errorf("picture %d differs at %v: %v and %v", k, at, shots[d.Socket][k].At(at.X, at.Y), shots[chain][k].At(at.X, at.Y))
				}
			}
		})
	}
}

// differ returns the first place where two pictures differ.
func differ(a, b *image.RGBA) (image.Point, bool) {
	for y := a.Rect.Min.Y; y < a.Rect.Max.Y; y++ {
		for x := a.Rect.Min.X; x < a.Rect.Max.X; x++ {
			if a.At(x, y).(color.RGBA) != b.At(x, y).(color.RGBA) {
				return image.Pt(x, y), false
			}
		}
	}
	return image.Point{}, true
}

var connections = flag.Int("connections", 500, "how many connections TestSoak opens, one after the other")

// TestSoak opens and closes connections, with 25 surfaces with buffers in each, through
// all of Vix but the VM, on sway, and holds that nothing is left of them: a tenth of
// the load warms up, and the rest must not grow anything. What a connection leaves shows
// with some hundreds, a few bytes for each surface with thousands (make soak).
func TestSoak(t *testing.T) {
	if s := desktoptest.Lacks(); s != "" {
		t.Skipf("needs %s; make test runs it where they are", s)
	}
	if testing.Short() {
		t.Skip("takes seconds on sway; make test runs it")
	}
	d := desktoptest.Start(t, desktoptest.Config{Width: 400, Height: 300})
	var blobs waylandtest.Memfds
	chain := serveChain(t, d.Dir, d.Socket, &blobs)
	load := func(name string, conns, surfaces int) {
		t.Run(name, func(t *testing.T) { // what the clients themselves leave ends with it
			for range conns {
				p := newPainter(t, chain, 16, 16)
				for range surfaces {
					p.flash()
				}
				p.sync()
				p.close()
			}
		})
	}
	type use struct {
		fds, goroutines, blobs int
		heap                   uint64
	}
	now := func() (u use) {
		// Connections end when both sides have seen the end: wait for that.
		for deadline := time.Now().Add(20 * time.Second); blobs.Live.Load() > 0 && time.Now().Before(deadline); {
			runtime.Gosched()
		}
		for range 3 {
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		fds, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return use{len(fds), runtime.NumGoroutine(), int(blobs.Live.Load()), m.HeapAlloc}
	}
	load("warm up", *connections/10, 25)
	before := now()
	load("load", *connections*9/10, 25)
	after := now()
	t.Logf("before %+v, after %+v", before, after)
	if after.blobs != 0 || after.fds > before.fds+8 || after.goroutines > before.goroutines+8 || after.heap > before.heap+before.heap/2+1<<20 {
		t.Errorf("something grew: before %+v, after %+v", before, after)
	}
}

// flash shows a surface without a role, and takes it away again.
func (p *painter) flash() {
	s, region, cb := p.id(), p.id(), p.id()
	p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateSurface, s)
	p.Send(p.ids["wl_compositor"], wayland.WlCompositorReqCreateRegion, region)
	p.Send(region, wayland.WlRegionReqAdd, 0, 0, 16, 16)
	p.Send(s, wayland.WlSurfaceReqSetInputRegion, region)
	p.Send(region, wayland.WlRegionReqDestroy)
	p.Send(s, wayland.WlSurfaceReqFrame, cb)
	p.Send(s, wayland.WlSurfaceReqAttach, p.ids["buffer0"], 0, 0)
	p.Send(s, wayland.WlSurfaceReqDamage, 0, 0, 16, 16)
	p.Send(s, wayland.WlSurfaceReqCommit)
	p.Send(s, wayland.WlSurfaceReqDestroy)
}
