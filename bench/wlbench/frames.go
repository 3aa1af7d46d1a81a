package main

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Frames of a window with wl_shm buffers.

type frameOpts struct {
	w, h    int // buffer
	dw, dh  int // damage, 0 is all
	content string
	stamp   bool // the compositor is `wlbench server`
	d       time.Duration
	begin   func() error // called when all is warm
}

// Set and String make the buffer's size a flag.
func (o *frameOpts) Set(v string) error { return parseSize(v, &o.w, &o.h) }
func (o *frameOpts) String() string     { return fmt.Sprintf("%dx%d", o.w, o.h) }

type damageFlag struct{ *frameOpts }

func (f damageFlag) Set(v string) error { return parseSize(v, &f.dw, &f.dh) }

// String may be called on a zero damageFlag, by package flag.
func (f damageFlag) String() string {
	if f.frameOpts == nil || f.dw == 0 {
		return ""
	}
	return fmt.Sprintf("%dx%d", f.dw, f.dh)
}

// maxSide bounds a size given on the command line, so that a buffer fits wl_shm's
// 31 bits.
const maxSide = 1 << 14

func parseSize(v string, w, h *int) error {
	if _, err := fmt.Sscanf(v, "%dx%d", w, h); err != nil {
		return fmt.Errorf("not WIDTHxHEIGHT: %q", v)
	}
	if *w < 1 || *h < 1 || *w > maxSide || *h > maxSide {
		return fmt.Errorf("%s: sides are 1 to %d", v, maxSide)
	}
	return nil
}

// A window is a toplevel with buffers of one size in one pool.
type shmWindow struct {
	*client
	o                       frameOpts
	stride, size            int
	surf, wm, xdg, top      uint32
	damageOp                uint16
	fd                      int
	pix                     []byte
	bufs                    []uint32
	busy                    []bool
	configured              bool
	callback, callbackStamp uint32
}

// openWindow connects and waits until the window is configured. The caller closes
// it.
func openWindow(path string, o frameOpts, nbuf int, title string) (*shmWindow, error) {
	c, err := connect(path)
	if err != nil {
		return nil, err
	}
	w := &shmWindow{client: c, o: o, stride: o.w * 4, size: o.w * 4 * o.h, fd: -1}
	if err := w.open(nbuf, title); err != nil {
		w.close()
		return nil, err
	}
	return w, nil
}

func (w *shmWindow) open(nbuf int, title string) error {
	comp, version, err := w.bind("wl_compositor", 4)
	if err != nil {
		return err
	}
	w.damageOp = 9 // damage_buffer
	if version < 4 {
		w.damageOp = 2
	}
	shm, _, err := w.bind("wl_shm", 1)
	if err != nil {
		return err
	}
	if w.wm, _, err = w.bind("xdg_wm_base", 1); err != nil {
		return err
	}
	w.surf, w.xdg, w.top = w.newID(), w.newID(), w.newID()
	w.msg(comp, 0, w.surf)
	w.msg(w.wm, 2, w.xdg, w.surf)
	w.msg(w.xdg, 1, w.top)
	at := w.begin(w.top, 2)
	w.s(title)
	w.end(at)
	at = w.begin(w.top, 3)
	w.s("wlbench")
	w.end(at)
	w.msg(w.surf, 6)
	if err := w.pool(shm, nbuf); err != nil {
		return err
	}
	return w.until(func() bool { return w.configured })
}

// pool makes the buffers.
func (w *shmWindow) pool(shm uint32, nbuf int) error {
	var err error
	if w.fd, err = unix.MemfdCreate("wlbench", unix.MFD_CLOEXEC); err != nil {
		return err
	}
	if err := unix.Ftruncate(w.fd, int64(nbuf*w.size)); err != nil {
		return err
	}
	if w.pix, err = unix.Mmap(w.fd, 0, nbuf*w.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return err
	}
	id := w.newID()
	at := w.begin(shm, 0)
	w.u(id)
	w.i(int32(nbuf * w.size))
	w.end(at)
	w.outFds = append(w.outFds, w.fd)
	w.bufs, w.busy = make([]uint32, nbuf), make([]bool, nbuf)
	for i := range w.bufs {
		w.bufs[i] = w.newID()
		w.msg(id, 0, w.bufs[i], uint32(i*w.size), uint32(w.o.w), uint32(w.o.h), uint32(w.stride), 1)
	}
	return w.flush()
}

func (w *shmWindow) close() {
	w.client.close()
	if w.pix != nil {
		_ = unix.Munmap(w.pix) // ours, so it cannot fail
	}
	if w.fd >= 0 {
		unix.Close(w.fd)
	}
}

func (w *shmWindow) event(id uint32, op uint16, body []byte) error {
	switch {
	case id == w.wm && op == 0:
		w.msg(w.wm, 3, ne.Uint32(body))
		return w.flush()
	case id == w.xdg && op == 0:
		w.configured = true
		w.msg(w.xdg, 4, ne.Uint32(body))
	case w.callback != 0 && id == w.callback:
		w.callback, w.callbackStamp = 0, ne.Uint32(body)
	case op == 0:
		if i := slices.Index(w.bufs, id); i >= 0 {
			w.busy[i] = false
		}
	}
	return nil
}

func (w *shmWindow) until(cond func() bool) error {
	if cond() {
		return nil
	}
	return w.each(func(id uint32, op uint16, body []byte) (bool, error) {
		err := w.event(id, op, body)
		return cond(), err
	})
}

// commit shows buffer i with the damage given, and waits for the frame callback.
func (w *shmWindow) commit(i, x, y, dw, dh int) error {
	w.busy[i] = true
	w.msg(w.surf, 1, w.bufs[i], 0, 0)
	w.msg(w.surf, w.damageOp, uint32(x), uint32(y), uint32(dw), uint32(dh))
	w.callback = w.newID()
	w.msg(w.surf, 3, w.callback)
	w.msg(w.surf, 6)
	if err := w.flush(); err != nil {
		return err
	}
	return w.until(func() bool { return w.callback == 0 })
}

// benchFrames paints, commits and awaits frame callback and buffer release.
func benchFrames(path string, o frameOpts) (metrics, error) {
	if o.dw == 0 {
		o.dw, o.dh = o.w, o.h
	}
	if o.dw > o.w || o.dh > o.h {
		return nil, fmt.Errorf("damage of %dx%d is larger than the buffer of %dx%d", o.dw, o.dh, o.w, o.h)
	}
	const nbuf = 2
	w, err := openWindow(path, o, nbuf, "wlbench frames")
	if err != nil {
		return nil, err
	}
	defer w.close()
	p := painter{w: w, srcs: contents(o.content, o.dw*4, o.dh)}
	for k := range 2 * nbuf { // warm up, whole buffers first
		if err := p.frame(k < nbuf); err != nil {
			return nil, err
		}
	}
	if o.begin != nil {
		if err := o.begin(); err != nil {
			return nil, err
		}
	}
	var lat []time.Duration
	p.painting = p.painting[:0]
	t0 := time.Now()
	for len(lat) == 0 || time.Since(t0) < o.d {
		t := time.Now()
		if err := p.frame(false); err != nil {
			return nil, err
		}
		lat = append(lat, time.Since(t))
	}
	el := time.Since(t0).Seconds()
	slices.Sort(lat)
	slices.Sort(p.painting)
	n := float64(len(lat))
	return metrics{
		"count": n, "seconds": el, "per_s": n / el, "p50_us": pct(lat, .5), "p99_us": pct(lat, .99), "paint_us": pct(p.painting, .5),
		"mb_per_s": n * float64(o.dw*o.dh*4) / el / 1e6,
	}, nil
}

// painter paints the frames of benchFrames, each with its number.
type painter struct {
	w    *shmWindow
	srcs [][]byte
	n    uint32 // the last frame's number

	painting []time.Duration
}

func (p *painter) frame(full bool) error {
	w, o := p.w, p.w.o
	i := int(p.n) % len(w.bufs)
	if err := w.until(func() bool { return !w.busy[i] }); err != nil {
		return err
	}
	p.n++
	t0 := time.Now()
	pix := w.pix[i*w.size : (i+1)*w.size]
	x, y, dw, dh := (o.w-o.dw)/2, (o.h-o.dh)/2, o.dw, o.dh
	if full {
		x, y, dw, dh = 0, 0, o.w, o.h
		clear(pix)
	} else {
		p.paint(pix[y*w.stride+4*x:])
	}
	p.stamp(pix, x, y, dw, dh)
	p.painting = append(p.painting, time.Since(t0))
	if err := w.commit(i, x, y, dw, dh); err != nil {
		return err
	}
	if o.stamp && w.callbackStamp != p.n {
		return fmt.Errorf("frame %d: the compositor saw the pixels of frame %d", p.n, int32(w.callbackStamp))
	}
	return nil
}

// paint fills the damaged rectangle, which begins at dst[0].
func (p *painter) paint(dst []byte) {
	src := p.srcs[int(p.n)%len(p.srcs)]
	row := 4 * p.w.o.dw
	if row == p.w.stride {
		copy(dst, src)
		return
	}
	for r := range p.w.o.dh {
		copy(dst[r*p.w.stride:], src[r*row:(r+1)*row])
	}
}

// stamp paints a block around each of the stamp points.
func (p *painter) stamp(pix []byte, x, y, dw, dh int) {
	for _, at := range stampPoints(int32(x), int32(y), int32(dw), int32(dh)) {
		for py := max(int(at[1])-2, y); py < min(int(at[1])+3, y+dh); py++ {
			for px := max(int(at[0])-2, x); px < min(int(at[0])+3, x+dw); px++ {
				ne.PutUint32(pix[py*p.w.stride+4*px:], p.n)
			}
		}
	}
}

// benchCopied tells what a proxy copies: the whole buffer is painted anew for each
// frame, but only a rectangle of it is damaged, and the null compositor answers
// how many pixels it sees changed. Where the memory itself is shared (no VM) it
// sees all of them. There is one buffer, so what is stale is this frame's damage.
func benchCopied(path string, o frameOpts, frames int) (metrics, error) {
	if o.dw > o.w || o.dh > o.h {
		return nil, fmt.Errorf("damage of %dx%d is larger than the buffer of %dx%d", o.dw, o.dh, o.w, o.h)
	}
	w, err := openWindow(path, o, 1, countTitle)
	if err != nil {
		return nil, err
	}
	defer w.close()
	rng := rand.New(rand.NewPCG(3, 4))
	t0 := time.Now()
	var seen uint64
	for n := range frames + 1 {
		if err := w.until(func() bool { return !w.busy[0] }); err != nil {
			return nil, err
		}
		for i := 0; i < len(w.pix); i += 4 {
			ne.PutUint32(w.pix[i:], uint32(n+1))
		}
		x, y, dw, dh := rng.IntN(o.w-o.dw+1), rng.IntN(o.h-o.dh+1), o.dw, o.dh
		if n == 0 { // the first frame of a buffer is all new
			x, y, dw, dh = 0, 0, o.w, o.h
		}
		if err := w.commit(0, x, y, dw, dh); err != nil {
			return nil, err
		}
		if n > 0 {
			seen += uint64(w.callbackStamp)
		}
	}
	k := float64(frames)
	return metrics{
		"count": k, "seconds": time.Since(t0).Seconds(),
		"damaged_bytes": float64(4 * o.dw * o.dh), "copied_bytes": 4 * float64(seen) / k,
	}, nil
}

// contents makes a few different pictures to copy from, so that painting a
// frame is one memory copy whatever is painted.
//
//	flat:  one colour (compresses to nothing)
//	text:  black on white with rows of glyph-like noise (compresses well)
//	noise: random bits (does not compress)
func contents(kind string, rowBytes, rows int) [][]byte {
	out := make([][]byte, 3)
	rng := rand.New(rand.NewPCG(1, 2))
	for k := range out {
		b := make([]byte, rowBytes*rows)
		switch kind {
		case "noise":
			for i := 0; i+8 <= len(b); i += 8 {
				ne.PutUint64(b[i:], rng.Uint64())
			}
		case "text":
			for y := range rows {
				row := b[y*rowBytes : (y+1)*rowBytes]
				for x := 0; x+4 <= len(row); x += 4 {
					v := uint32(0xffffff)
					if y%16 < 11 && x/4%9 < 7 && rng.Uint32()&3 == 0 {
						v = 0
					}
					ne.PutUint32(row[x:], v)
				}
			}
		default:
			for i := 0; i+4 <= len(b); i += 4 {
				ne.PutUint32(b[i:], uint32(k+1)*0x203040)
			}
		}
		out[k] = b
	}
	return out
}
