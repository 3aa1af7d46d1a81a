package filter

import (
	"math"
	"runtime/debug"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vix/internal/label"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// labels draws a VM's labels for all connections, and keeps the last pictures of the tag
// alone. A picture with a title belongs to one window, and nobody keeps it.
type labels struct {
	tag  string
	font []byte
	rgb  [3]uint8

	mu     sync.Mutex
	images map[labelKey]*label.Image // without a title
	// fonts is nil while no label changes: a font in memory is larger than everything else
	// in this process. idle forgets it.
	fonts  *label.Fonts
	idle   *time.Timer
	titles bucket // of titlesPerSecond
}

// A labelKey identifies a label's picture.
type labelKey struct {
	scale int32 // in 120ths
	room  int32 // the logical width that it has to fit; 0 for any
	title string
	focus bool
}

// A VM has titlesPerSecond drawn, and after a rest as many at once: each takes milliseconds,
// and a guest may say thousands. Until then a label has the title of before, or the tag alone.
// A window's titles wait for titleWait in any case, so that of many the last is drawn.
const (
	titlesPerSecond = 20
	titleWait       = 50 * time.Millisecond
)

const (
	maxLabels = 8 // pictures of the tag: a few scales and widths
	fontsIdle = 5 * time.Second
)

func (l *labels) init(tag string, font []byte, rgb [3]uint8) {
	l.tag, l.font, l.rgb = tag, font, rgb
	l.images = map[labelKey]*label.Image{}
}

// get returns a label's picture, or nil.
func (l *labels) get(k labelKey) *label.Image {
	l.mu.Lock()
	defer l.mu.Unlock()
	if k.title != "" {
		return l.draw(k)
	}
	img, ok := l.images[k]
	if !ok {
		img = l.draw(k)
		if len(l.images) >= maxLabels {
			clear(l.images)
		}
		l.images[k] = img
	}
	return img
}

// draw runs with l.mu held.
func (l *labels) draw(k labelKey) *label.Image {
	if l.fonts == nil {
		l.fonts = label.NewFonts(l.font)
		l.idle = time.AfterFunc(fontsIdle, func() {
			l.mu.Lock()
			l.fonts = nil
			l.mu.Unlock()
			debug.FreeOSMemory()
		})
	} else {
		l.idle.Reset(fontsIdle)
	}
	return label.Draw(label.Options{
		Tag: l.tag, Title: k.title, Focus: k.focus, Fonts: l.fonts, Background: l.rgb,
		Scale:  float64(k.scale) / 120,
		Height: labelHeight, Width: tagRoom(k), Room: int(k.room),
	})
}

// tagRoom returns the width that the tag has to fit: beside a title it does.
func tagRoom(k labelKey) int {
	if k.title != "" {
		return 0
	}
	return int(k.room)
}

// The room for tags goes in steps, so that a resized window needs few pictures; a window
// narrower than minRoom has no label. Titles are cut where the window ends, without another
// picture, and leave endRoom of plain colour, so that the frame is seen to go on.
const (
	minRoom   = 32
	roomStep  = 16
	titleStep = 128
	minTagged = 48 // a label this wide has a letter of the tag at least
	endRoom   = 24
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
	k := labelKey{scale: f.scaleOf(p), focus: v.hasFocus()}
	title := ""
	if w := v.window(); w != nil && !w.shell.hasBlank() {
		title = w.name
	}
	img := f.labels.get(k)
	shown := width
	switch {
	case img == nil:
	case img.W > width:
		k.room = width &^ (roomStep - 1)
		if img = nil; k.room >= minRoom {
			img = f.labels.get(k)
		}
	case title != "" && img.W+minRoom+endRoom <= width:
		with := k
		with.title, with.room = title, (width-endRoom+titleStep-1)/titleStep*titleStep
		if with = f.titled(c, v, p, with); with.title != "" {
			k, shown = with, width-endRoom
		}
	}
	if img == nil {
		wrote = wrote || p.shown
		f.hide(c, p)
		return wrote, nil
	}
	fresh := !p.shown || p.key != k
	if k.title != "" && fresh {
		img = f.labels.get(k)
	}
	if fresh {
		p.w, p.pixW, p.pixH = img.W, img.PixW, img.PixH
	}
	at := rect(x, y, min(p.w, shown), labelHeight)
	if !fresh && p.at == at {
		return wrote, nil
	}
	e := c.ToServer()
	e.Msg(p.sub.Server, wayland.WlSubsurfaceReqSetPosition, uint32(at.X), uint32(at.Y))
	if fresh {
		if err := f.drawLabel(c, p, img, k); err != nil {
			return false, err
		}
	}
	if fresh || p.at.W != at.W {
		part := uint32(int64(p.pixW) << 8 * int64(at.W) / int64(p.w))
		e.Msg(p.viewport.Server, wayland.WpViewportReqSetSource, 0, 0, part, uint32(p.pixH)<<8)
		e.Msg(p.viewport.Server, wayland.WpViewportReqSetDestination, uint32(at.W), labelHeight)
		e.Msg(p.surface.Server, wayland.WlSurfaceReqDamage, 0, 0, math.MaxInt32, math.MaxInt32)
		f.commit(c, p.surface.Server)
	}
	p.at, p.shown = at, true
	return true, nil
}

// titled returns the label that a window can have now, of the one that it is to have: that
// one, the one of before, or the tag alone.
func (f *frames) titled(c *relay.Conn, v *view, p *piece, want labelKey) labelKey {
	if p.shown && p.key == want {
		return want
	}
	had := p.key
	had.title = want.title
	old := p.shown && p.key.title != "" && had == want // all but the title
	if (!old || f.woken) && f.labels.titles.has(titlesPerSecond, time.Now()) {
		return want
	}
	f.labelLater(c, v)
	if old {
		return p.key
	}
	return labelKey{}
}

// labelLater has a window's label drawn soon.
func (f *frames) labelLater(c *relay.Conn, v *view) {
	f.late[v] = struct{}{}
	if f.lateTimer == nil {
		f.lateTimer = time.AfterFunc(titleWait, c.Wake)
	}
}

// lateLabels draws the labels whose time has come. It is called after a Wake.
func (f *frames) lateLabels(c *relay.Conn) {
	if len(f.late) == 0 {
		return
	}
	late := f.late
	f.late, f.lateTimer, f.woken = map[*view]struct{}{}, nil, true
	for v := range late {
		if v.shell == nil || !v.shell.mapped {
			continue
		}
		if err := f.show(c, v); err != nil {
			filterOf(c).cfg.Log.Warn("a label cannot be drawn", "vm", filterOf(c).cfg.VM, "err", err)
		}
	}
	f.woken = false
}

// hasFocus tells whether a window, or the window of a popup, has the focus.
func (v *view) hasFocus() bool {
	s := v.shell
	for s != nil && s.popup != nil {
		s = s.popup.parent
	}
	return s != nil && s.window != nil && s.next.active
}

// staleLabel tells whether a window's label still shows that it has the focus, or has not.
func (v *view) staleLabel() bool {
	if v.border == nil {
		return false
	}
	p := v.border.pieces[pieceLabel]
	return p != nil && p.shown && p.key.focus != v.hasFocus()
}

// drawLabel attaches a label's picture to its piece; the caller commits.
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
