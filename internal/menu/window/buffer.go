package window

import (
	"errors"
	"math"
	"os"
	"time"
	"unsafe"

	"github.com/neurlang/wayland/wl"
	"golang.org/x/sys/unix"

	"vix/internal/menu"
	"vix/internal/menu/draw"
)

// A buffer is one of the two that the menu draws into alternately.
type buffer struct {
	w      *window
	wl     *wl.Buffer
	busy   bool // the compositor reads it
	memory []byte
	canvas *draw.Canvas
}

// HandleBufferRelease frees the buffer for drawing.
func (b *buffer) HandleBufferRelease(wl.BufferReleaseEvent) { b.w.call(func() { b.busy = false }) }

func (b *buffer) unmap() {
	if b.memory != nil {
		_ = unix.Munmap(b.memory)
		b.memory, b.canvas = nil, nil
	}
}

// makeBuffers makes two buffers for the size in pixels, and releases those of another size.
func (w *window) makeBuffers() error {
	for _, b := range w.buffers {
		_ = b.wl.Destroy()
		b.wl.Unregister()
		b.unmap()
	}
	w.buffers = nil
	width, height := w.painter.Pixels()
	for range 2 {
		b, err := w.makeBuffer(width, height)
		if err != nil {
			return err
		}
		w.buffers = append(w.buffers, b)
	}
	lw, lh := draw.Size(w.Setup.Look)
	if w.viewport != nil {
		return w.viewport.SetDestination(int32(lw), int32(lh))
	}
	return w.surface.SetBufferScale(int32(math.Round(w.scale)))
}

func (w *window) makeBuffer(width, height int) (_ *buffer, err error) {
	size := width * height * 4
	fd, err := unix.MemfdCreate("vix-menu", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, os.NewSyscallError("memfd_create", err)
	}
	defer unix.Close(fd) // the compositor has its own copy
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, os.NewSyscallError("ftruncate", err)
	}
	b := &buffer{w: w}
	if b.memory, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, os.NewSyscallError("mmap", err)
	}
	pool, err := w.globals.shm.CreatePool(uintptr(fd), int32(size))
	if err != nil {
		return nil, err
	}
	if b.wl, err = pool.CreateBuffer(0, int32(width), int32(height), int32(width*4), wl.ShmFormatArgb8888); err != nil {
		return nil, err
	}
	b.wl.AddReleaseHandler(b)
	b.canvas = draw.NewCanvas(width, height, unsafe.Slice((*uint32)(unsafe.Pointer(&b.memory[0])), width*height))
	err = pool.Destroy()
	pool.Unregister()
	return b, err
}

// iconsWait is the time that the first frame waits for icons.
const iconsWait = 25 * time.Millisecond

// redraw paints the changes, if there are any and a buffer is free.
func (w *window) redraw() {
	if !w.dirty || !w.configured || !w.items || w.painter.Fonts == nil || w.done {
		return
	}
	var b *buffer
	for _, free := range w.buffers {
		if !free.busy {
			b = free
			break
		}
	}
	if b == nil {
		return // the release event calls redraw
	}
	state := draw.State{Notice: w.notice, Preedit: w.keys.preedit}
	if !w.first {
		w.firstIcons()
	}
	w.dirty = false
	damage := w.painter.Paint(b.canvas, w.model, state)
	if len(damage) == 0 {
		return
	}
	errs := []error{w.surface.Attach(b.wl, 0, 0)}
	for _, r := range damage {
		errs = append(errs, w.damage(r.Min.X, r.Min.Y, r.Dx(), r.Dy()))
	}
	b.busy = true
	if err := errors.Join(append(errs, w.surface.Commit())...); err != nil {
		w.fail, w.done = err, true
	}
	if !w.first {
		w.first = true
		w.Emit(menu.Event{Kind: menu.EventShown, Scale: w.scale})
		w.Shown()
		w.icons.verify()
	}
	if text := w.painter.Missing(); text != "" {
		w.Emit(menu.Event{Kind: menu.EventFont, Text: text})
	}
}

func (w *window) damage(x, y, width, height int) error {
	if w.globals.compositorVersion >= 4 {
		return w.surface.DamageBuffer(int32(x), int32(y), int32(width), int32(height))
	}
	return w.surface.Damage(0, 0, math.MaxInt32, math.MaxInt32)
}

// askIcons requests the icons of the visible rows.
func (w *window) askIcons() {
	for i := range w.model.Lines {
		it, _ := w.model.Line(w.model.Top() + i)
		if it != nil && it.Icon != "" && w.Setup.Look.Icons {
			w.picture(it.Icon, w.painter.IconSide())
		}
	}
}

// firstIcons requests the icons of the visible rows, and waits a moment for them: a menu that
// opens without them and then fills looks slower than one that opens a little later.
// Remembered icons arrive at once.
func (w *window) firstIcons() {
	w.askIcons()
	limit := time.NewTimer(iconsWait)
	defer limit.Stop()
	updates := w.Updates
	for w.icons.isWaiting() {
		select {
		case p := <-w.icons.out:
			w.onLoad(p)
		case u, ok := <-updates:
			if !ok {
				w.done = true
				return
			}
			w.update(u)
		case <-limit.C:
			return
		}
	}
}
