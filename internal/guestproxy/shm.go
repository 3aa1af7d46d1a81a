package guestproxy

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A client's wl_shm memory is a file of the guest, which the
// server cannot see. So each wl_buffer gets a shadow in memory that it can:
//
//	wl_shm.create_pool          the pool stays local, its file is mapped here
//	wl_shm_pool.create_buffer   → create_buffer on the owned pool of the slab in which
//	                              the shadow lies
//	wl_surface.attach, damage   are noted, and passed on
//	wl_surface.commit           the rows damaged since this buffer's last commit are copied,
//	                            once, into the shadow; then the commit is passed on
//	wl_buffer gone              the shadow is free when the server has deleted the buffer
//
// Every other descriptor passes as it is; the transport knows how.

// Codes of wl_shm.error (wayland.xml).
const (
	shmInvalidFormat = 0
	shmInvalidStride = 1
	shmInvalidFD     = 2
)

// globals hides the globals that cannot work from a guest, which pass descriptors neither
// of memory nor of pipes, or memory that no hook turns into a resource yet.
func globals(i *wayland.Interface, version uint32) uint32 {
	switch i {
	case wayland.ZwpLinuxDmabufV1, wayland.WpLinuxDrmSyncobjManagerV1,
		wayland.WpSecurityContextManagerV1, wayland.WpColorManagerV1:
		return 0
	}
	return version
}

// state is the hooks' state of a connection.
type state struct {
	Client
	shm       *relay.Object // the wl_shm for which our pools are made; kept when the client releases it
	shadow    shadow
	stale     region        // scratch of commit
	copyBytes atomic.Uint64 // the number of copied bytes of pixels
}

func newState(c Client) *state { return &state{Client: c, shadow: shadow{blobs: c.Blobs}} }

func stateOf(c *relay.Conn) *state { return c.State.(*state) }

// hooks returns the hooks of the guest's side, which all connections share.
var hooks = sync.OnceValue(func() *relay.Hooks {
	h := relay.NewHooks()
	h.Request(wayland.WlShm, wayland.WlShmReqCreatePool, createPool)
	h.Request(wayland.WlShm, wayland.WlShmReqRelease, releaseShm)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqCreateBuffer, createBuffer)
	h.Request(wayland.WlShmPool, wayland.WlShmPoolReqResize, resizePool)
	h.Gone(wayland.WlShmPool, func(_ *relay.Conn, o *relay.Object) {
		if p, ok := o.Data.(*shmPool); ok {
			p.unref()
		}
	})
	h.Gone(wayland.WlBuffer, func(c *relay.Conn, o *relay.Object) {
		if b, ok := o.Data.(*shmBuffer); ok {
			b.release(c)
		}
	})
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqAttach, attach)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqDamage, damageSurface)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqDamageBuffer, damageBuffer)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetBufferScale, setScale)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqSetBufferTransform, setTransform)
	h.Request(wayland.WlSurface, wayland.WlSurfaceReqCommit, commit)
	h.Request(wayland.WpViewporter, wayland.WpViewporterReqGetViewport, getViewport)
	h.Request(wayland.WpViewport, wayland.WpViewportReqSetSource, setSource)
	h.Request(wayland.WpViewport, wayland.WpViewportReqSetDestination, setDestination)
	h.Request(wayland.WpViewport, wayland.WpViewportReqDestroy, destroyViewport)
	return h
})

// An shmPool is a client's pool, mapped here as long as the pool object or a
// buffer needs it.
type shmPool struct {
	fd   int
	size int32
	mem  []byte
	refs int
}

func createPool(c *relay.Conn, m *relay.Msg) (bool, error) {
	size := m.Int(1)
	if size <= 0 {
		return false, relay.Fail(m.Obj, shmInvalidStride, "invalid size (%d)", size)
	}
	if g := stateOf(c); g.shm == nil {
		g.shm = m.Obj
	}
	p := &shmPool{fd: m.Descs[0].FD, size: size, refs: 1}
	if err := p.remap(); err != nil {
		return false, relay.Fail(m.Obj, shmInvalidFD, "failed mmap fd: %v", err)
	}
	m.Descs[0] = relay.KeptDesc
	m.New.Data = p
	return false, nil
}

func releaseShm(c *relay.Conn, m *relay.Msg) (bool, error) {
	g := stateOf(c)
	if g.shm != m.Obj {
		return true, nil
	}
	g.shm = c.Keep(m.Obj)
	return false, nil
}

// remap maps the file at its present size.
func (p *shmPool) remap() error {
	mem, err := unix.Mmap(p.fd, 0, int(p.size), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	old := p.mem
	p.mem = mem
	if old != nil {
		return unix.Munmap(old)
	}
	return nil
}

func (p *shmPool) unref() {
	if p.refs--; p.refs == 0 {
		_ = unix.Munmap(p.mem)
		_ = unix.Close(p.fd)
	}
}

func resizePool(_ *relay.Conn, m *relay.Msg) (bool, error) {
	p := m.Obj.Data.(*shmPool)
	size := m.Int(0)
	if size < p.size {
		return false, relay.Fail(m.Obj, shmInvalidFD, "shrinking pool invalid")
	}
	p.size = size
	if err := p.remap(); err != nil {
		return false, relay.Fail(m.Obj, shmInvalidFD, "failed mremap: %v", err)
	}
	return false, nil
}

// An shmBuffer is a client's wl_buffer and its shadow.
type shmBuffer struct {
	pool   *shmPool
	off    int
	w, h   int32
	stride int32
	pixel  int // bytes, 0 when not known
	shadow *extent
	// last and seq identify the commit at which the shadow last equalled the buffer.
	last *surface
	seq  uint64
}

func (b *shmBuffer) src() []byte { return b.pool.mem[b.off : b.off+int(b.stride)*int(b.h)] }

func createBuffer(c *relay.Conn, m *relay.Msg) (bool, error) {
	g, p := stateOf(c), m.Obj.Data.(*shmPool)
	off, w, h, stride, format := m.Int(1), m.Int(2), m.Int(3), m.Int(4), m.Word(5)
	pixel := pixelSize(format)
	// The same test as libwayland's, and rows that hold their pixels.
	if off < 0 || w <= 0 || h <= 0 || stride < w || int64(w)*int64(pixel) > int64(stride) ||
		int64(off)+int64(stride)*int64(h) > int64(p.size) {
		return false, relay.Fail(m.Obj, shmInvalidStride, "invalid width, height or stride (%dx%d, %d)", w, h, stride)
	}
	b := &shmBuffer{pool: p, off: int(off), w: w, h: h, stride: stride, pixel: pixel}
	var err error
	if b.shadow, err = g.shadow.alloc(int(stride) * int(h)); err != nil {
		g.Log.Warn("no memory for a buffer", "bytes", int(stride)*int(h), "err", err)
		return false, relay.Fail(m.Obj, relay.ErrNoMemory, "no host memory for a buffer: %v", err)
	}
	p.refs++
	m.New.Data = b
	pool, err := serverPool(c, b.shadow.slab)
	if err != nil {
		return false, err
	}
	c.GiveServerID(m.New)
	c.ToServer().Msg(pool.Server, wayland.WlShmPoolReqCreateBuffer,
		m.New.Server, uint32(b.shadow.off), uint32(w), uint32(h), uint32(stride), format)
	return false, nil
}

// serverPool returns the slab's pool on the server, made at its first use.
func serverPool(c *relay.Conn, sl *slab) (*relay.Object, error) {
	if sl.pool != nil {
		return sl.pool, nil
	}
	shm := stateOf(c).shm
	d, err := sl.blob.Desc()
	if err != nil {
		return nil, fmt.Errorf("pass a blob: %w", err)
	}
	sl.pool = c.Own(wayland.WlShmPool, shm.Version, nil)
	c.SendDesc(d)
	c.ToServer().Msg(shm.Server, wayland.WlShmReqCreatePool, sl.pool.Server, uint32(len(sl.blob.Mem())))
	return sl.pool, nil
}

func (b *shmBuffer) release(c *relay.Conn) {
	g := stateOf(c)
	if err := g.shadow.release(c, b.shadow); err != nil {
		g.Log.Warn("free a blob", "err", err)
	}
	b.pool.unref()
}

// pixelSize returns the bytes of a pixel of the wl_shm formats in daily use, 0
// for others: they are copied by whole rows. Source: wl_shm.format, which are
// DRM's fourccs but for the first two.
func pixelSize(format uint32) int {
	fourcc := func(s string) uint32 {
		return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
	}
	switch format {
	case 0, 1, // argb8888, xrgb8888
		fourcc("AB24"), fourcc("XB24"), fourcc("RA24"), fourcc("RX24"), fourcc("BA24"), fourcc("BX24"),
		fourcc("AR30"), fourcc("XR30"), fourcc("AB30"), fourcc("XB30"):
		return 4
	case fourcc("RG16"), fourcc("BG16"):
		return 2
	case fourcc("RG24"), fourcc("BG24"):
		return 3
	case fourcc("AB4H"), fourcc("XB4H"), fourcc("AR4H"), fourcc("XR4H"), fourcc("AB48"), fourcc("XB48"):
		return 8
	}
	return 0
}

// A surface is what the guest's side knows of a wl_surface.
type surface struct {
	pending struct {
		attached bool
		buf      *relay.Object
		buffer   region // damage in buffer pixels
		surface  region // damage in surface coordinates
	}
	cur     *relay.Object // the buffer of the last commit; its Data says whether it still lives
	curBuf  *shmBuffer
	view    view
	history history
}

func surfaceOf(o *relay.Object) *surface {
	s, ok := o.Data.(*surface)
	if !ok {
		s = &surface{view: view{scale: 1}}
		o.Data = s
	}
	return s
}

func attach(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceOf(m.Obj)
	s.pending.attached = true
	s.pending.buf = nil
	if id := m.Word(0); id != 0 {
		s.pending.buf = c.Client(id)
	}
	return true, nil
}

func damageSurface(_ *relay.Conn, m *relay.Msg) (bool, error) {
	surfaceOf(m.Obj).pending.surface.add(rectOf(m.Int(0), m.Int(1), m.Int(2), m.Int(3)))
	return true, nil
}

func damageBuffer(_ *relay.Conn, m *relay.Msg) (bool, error) {
	surfaceOf(m.Obj).pending.buffer.add(rectOf(m.Int(0), m.Int(1), m.Int(2), m.Int(3)))
	return true, nil
}

func setScale(_ *relay.Conn, m *relay.Msg) (bool, error) {
	surfaceOf(m.Obj).view.scale = max(m.Int(0), 1)
	return true, nil
}

func setTransform(_ *relay.Conn, m *relay.Msg) (bool, error) {
	surfaceOf(m.Obj).view.transform = m.Int(0)
	return true, nil
}

// getViewport stores the viewport's surface. The viewport's state takes effect with the
// surface's next commit, which reads it.
func getViewport(c *relay.Conn, m *relay.Msg) (bool, error) {
	if o := c.Client(m.Word(1)); o != nil && o.Iface == wayland.WlSurface {
		m.New.Data = surfaceOf(o)
	}
	return true, nil
}

func setSource(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s, ok := m.Obj.Data.(*surface); ok {
		s.view.src = [4]int32{m.Int(0), m.Int(1), m.Int(2), m.Int(3)}
	}
	return true, nil
}

func setDestination(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s, ok := m.Obj.Data.(*surface); ok {
		s.view.dst = [2]int32{m.Int(0), m.Int(1)}
	}
	return true, nil
}

func destroyViewport(_ *relay.Conn, m *relay.Msg) (bool, error) {
	if s, ok := m.Obj.Data.(*surface); ok {
		s.view.src, s.view.dst = [4]int32{}, [2]int32{}
	}
	return true, nil
}

func commit(c *relay.Conn, m *relay.Msg) (bool, error) {
	s := surfaceOf(m.Obj)
	b := s.takePending()
	if b == nil {
		return true, nil
	}
	g := stateOf(c)
	g.stale = region{}
	if b.last != s || !s.history.since(b.seq, b.w, b.h, &g.stale) {
		g.stale = region{}
		g.stale.add(rect{0, 0, b.w, b.h})
	}
	var begin time.Time
	tell := c.Spanner()
	if tell != nil || g.Meter != nil {
		begin = time.Now()
	}
	n, ok := copyRegion(b.shadow.mem(), b.src(), int(b.stride), b.pixel, g.stale.rects())
	if tell != nil {
		tell(fmt.Sprintf("copy %d bytes", n), begin, time.Now())
	}
	if g.Meter != nil {
		g.Meter.Pixels(n, time.Since(begin))
	}
	g.copyBytes.Add(uint64(n))
	if !ok {
		return false, relay.Fail(m.Obj, shmInvalidFD, "error accessing SHM buffer")
	}
	b.last, b.seq = s, s.history.seq
	return true, nil
}

// takePending makes the pending state current and notes the damage. It returns
// the buffer whose shadow must be brought up to date, if any.
func (s *surface) takePending() *shmBuffer {
	p := &s.pending
	damaged := p.buffer.n > 0 || p.surface.n > 0
	if !p.attached && !damaged {
		return nil
	}
	if p.attached {
		s.cur, s.curBuf = p.buf, nil
		if p.buf != nil && !p.buf.Dead {
			s.curBuf, _ = p.buf.Data.(*shmBuffer)
		}
	}
	b := s.curBuf
	if b != nil && s.cur.Data != any(b) {
		b = nil // destroyed since
	}
	if b != nil {
		f := s.history.next()
		f.w, f.h = b.w, b.h
		for _, r := range p.buffer.rects() {
			f.add(r.clip(b.w, b.h))
		}
		for _, r := range p.surface.rects() {
			f.add(s.view.toBuffer(r, b.w, b.h))
		}
	}
	p.attached, p.buf = false, nil
	p.buffer.n, p.surface.n = 0, 0
	return b
}
