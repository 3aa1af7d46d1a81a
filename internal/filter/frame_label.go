package filter

import (
	"math"
	"runtime/debug"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"vix/internal/label"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// labels draws a VM's label and keeps the last pictures, for all connections.
type labels struct {
	text   string
	font   []byte
	rgb    [3]uint8
	mu     sync.Mutex
	images map[labelKey]*label.Image
}

// A labelKey identifies a label's picture: the scale in 120ths, and the logical
// width that it has to fit, 0 for any.
type labelKey struct{ scale, room int32 }

// maxLabels bounds the pictures: a few scales and widths.
const maxLabels = 8

func (l *labels) init(text string, font []byte, rgb [3]uint8) {
	l.text, l.font, l.rgb = text, font, rgb
	l.images = map[labelKey]*label.Image{}
}

// get returns the label's picture, or nil.
func (l *labels) get(k labelKey) *label.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	img, ok := l.images[k]
	if !ok {
		img = label.Draw(label.Options{
			Text: l.text, Font: l.font, Background: l.rgb,
			Scale:  float64(k.scale) / 120,
			Height: labelHeight, Width: int(k.room),
		})
		// A font in memory is larger than everything else in this process, and needed
		// only once for each scale.
		debug.FreeOSMemory()
		if len(l.images) >= maxLabels {
			clear(l.images)
		}
		l.images[k] = img
	}
	return img
}

// The room for labels goes in steps, so that a resized window needs few pictures; a
// window narrower than minRoom has no label.
const (
	minRoom  = 32
	roomStep = 16
)

// label puts the label on the top strip of a frame of the given width. It tells
// whether v must be committed.
func (f *frames) label(c *relay.Conn, v *view, x, y, width int32) (wrote bool, err error) {
	p := v.border.pieces[pieceLabel]
	if p == nil {
		p = f.newPiece(c, v, pieceLabel)
		v.border.pieces[pieceLabel] = p
		wrote = true
	}
	room := width &^ (roomStep - 1)
	k := labelKey{f.scaleOf(p), 0}
	img := f.labels.get(k)
	if img != nil && img.W > width {
		k.room = room
		img = nil
		if room >= minRoom {
			img = f.labels.get(k)
		}
	}
	if img == nil {
		wrote = wrote || p.shown
		f.hide(c, p)
		return wrote, nil
	}
	at := rect(x, y, img.W, labelHeight)
	if p.shown && p.at == at && p.key == k {
		return wrote, nil
	}
	c.ToServer().Msg(p.sub.Server, wayland.WlSubsurfaceReqSetPosition, uint32(at.X), uint32(at.Y))
	if !p.shown || p.key != k {
		if err := f.drawLabel(c, p, img, k); err != nil {
			return false, err
		}
	}
	p.at, p.shown = at, true
	return true, nil
}

// drawLabel gives a label piece its picture.
func (f *frames) drawLabel(c *relay.Conn, p *piece, img *label.Image, k labelKey) error {
	d, err := pixelFile(len(img.Pix), func(pix []uint32) { copy(pix, img.Pix) })
	if err != nil {
		return err
	}
	pool := f.newPool(c, d, int32(len(img.Pix)))
	b := c.Own(wayland.WlBuffer, 1, nil)
	e := c.ToServer()
	e.Msg(pool.Server, wayland.WlShmPoolReqCreateBuffer, b.Server, 0, uint32(img.PixW), uint32(img.PixH), uint32(img.PixW*4), shmXRGB)
	c.Discard(pool, wayland.WlShmPoolReqDestroy)
	e.Msg(p.surface.Server, wayland.WlSurfaceReqAttach, b.Server, 0, 0)
	e.Msg(p.viewport.Server, wayland.WpViewportReqSetDestination, uint32(img.W), labelHeight)
	e.Msg(p.surface.Server, wayland.WlSurfaceReqDamage, 0, 0, math.MaxInt32, math.MaxInt32)
	f.commit(c, p.surface.Server)
	if p.buffer != nil {
		c.Discard(p.buffer, wayland.WlBufferReqDestroy)
	}
	p.buffer, p.key = b, k
	return nil
}

// scaleOf returns a label's scale: the one that the compositor prefers for it, else the
// largest of the outputs.
func (f *frames) scaleOf(p *piece) int32 {
	scale := p.scale
	if scale == 0 {
		scale = 120
		for _, o := range f.outputs {
			scale = max(scale, o.scale120())
		}
	}
	return min(scale, maxScale)
}

// maxScale bounds labels: no screen is that fine.
const maxScale = 8 * 120

// scale120 returns an output's scale: pixels by logical pixels where both are known.
func (o *monitor) scale120() int32 {
	w := o.w
	if o.transform&1 != 0 {
		w = o.h
	}
	if w > 0 && w < 1<<20 && o.logW > 0 {
		return max((w*120+o.logW/2)/o.logW, 1)
	}
	return o.scale * 120
}

// OwnEvent stores the compositor's preferred scale for a label, and draws the label
// again.
func (p *piece) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	f := framesOf(c)
	if p.place != pieceLabel || p.of == nil {
		return nil
	}
	switch m.Def {
	case &wayland.WpFractionalScaleV1.Events[wayland.WpFractionalScaleV1EvtPreferredScale]:
		p.scale = clamp(m.Int(0), 1, maxScale)
		f.mu.Lock()
		f.preferred = p.scale
		f.mu.Unlock()
		f.refit(c)
	case &wayland.WlSurface.Events[wayland.WlSurfaceEvtPreferredBufferScale]:
		if p.scaling == nil {
			p.scale = clamp(m.Int(0), 1, maxScale/120) * 120
		}
	default:
		return nil
	}
	if !p.shown {
		return nil
	}
	return f.show(c, p.of)
}

// pixelFile returns a file of n pixels that draw fills.
func pixelFile(n int, draw func(pix []uint32)) (wayland.Desc, error) {
	fd, err := unix.MemfdCreate("frame", unix.MFD_CLOEXEC)
	if err != nil {
		return wayland.Desc{}, err
	}
	pix := make([]uint32, n)
	draw(pix)
	for b := unsafe.Slice((*byte)(unsafe.Pointer(&pix[0])), 4*n); len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			_ = unix.Close(fd)
			return wayland.Desc{}, err
		}
		b = b[n:]
	}
	return wayland.FileDesc(wayland.KindMemory, fd), nil
}
