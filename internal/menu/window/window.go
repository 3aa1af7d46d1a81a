// Package window shows a menu on a Wayland compositor: a layer surface on the output that has
// the focus, or an ordinary window if there is no layer shell.
//
//	compositor ─► reader (goroutine: wl.Context.Run) ─► handler ─┐ waits until it is done
//	vix-launcher ─► Updates ──────────────────────────────────────┼─► loop ─► menu.Model ─► draw.Painter ─► wl_buffer
//	fonts, icons (goroutines) ─► read, pictures ──────────────────┤      └─► Emit: menu.Event
//	key repeat, long press ─► timers ─────────────────────────────┘
//
// One goroutine, the loop, owns all state. It runs an event's handler while the reader waits.
// So objects are made only in handlers: the library drops an event that comes before its
// handler was added, and numbers objects in the order in which they are made. So no frame
// callbacks are used: a frame is drawn when one of the two buffers is free.
//
// The first frame waits for three things that arrive in parallel: the compositor's configure
// event, the fonts, and the items.
//
// The library assumes a trusted compositor, and this one is trusted. The only data from a
// guest here are names and icons, which vix-launcher has checked.
package window

import (
	"context"
	"errors"
	"fmt"
	"image"
	"log/slog"
	"time"

	"github.com/neurlang/wayland/wl"
	"github.com/neurlang/wayland/wlclient"
	"github.com/neurlang/wayland/xdg"

	"vix/internal/icon"
	"vix/internal/label"
	"vix/internal/menu"
	"vix/internal/menu/draw"
	"vix/internal/menu/proto"
)

// A Config holds the inputs of a menu.
type Config struct {
	Setup     menu.Setup
	Fonts     func() (regular, bold *label.Fonts) // called once, in parallel to the loop
	ReadFont  func(path string) []byte            // nil if the file is unreadable
	Themes    *icon.Themes
	Updates   <-chan menu.Update // the first has the items; closed when the other side has gone
	Emit      func(menu.Event)
	Connected func() // called once, when the connection is made
	Shown     func() // called once, when the first frame is committed
	Log       *slog.Logger
}

// AppID is the app id of the ordinary window, and the layer surface's namespace.
const AppID = "dev.vix.Menu"

type window struct {
	Config
	model   *menu.Model
	painter *draw.Painter
	notice  *menu.Notice
	icons   *loader

	calls   chan func() // handlers from the reader
	handled chan struct{}
	quit    chan struct{} // closed when the loop has ended
	reading bool
	done    bool
	fail    error

	globals  globals
	surface  *wl.Surface
	layer    *proto.ZwlrLayerSurfaceV1
	shell    *xdg.Surface
	top      *xdg.Toplevel
	viewport *proto.WpViewport

	scale      float64
	configured bool
	fonts      chan [2]*label.Fonts // yields once, when the fonts are read
	items      bool                 // the items have arrived
	prepared   bool                 // prepare has run, or it is too late for it
	dirty      bool
	first      bool // a frame has been shown
	buffers    []*buffer

	keys  keyboard
	mouse pointer
	touch finger

	leaveTimer *time.Timer // runs after the keyboard's focus has gone
	token      *time.Timer // limits the wait for an activation token
	choice     *menu.Event // waits for the token
}

// Run shows the menu until the user chooses something or dismisses it. Its last event is
// menu.EventClosed.
func Run(ctx context.Context, cfg Config) (err error) {
	// The library panics on a malformed message.
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the compositor at %s does not speak Wayland: %v", cfg.Setup.Socket, r)
		}
	}()
	w := &window{Config: cfg, scale: 1, calls: make(chan func()), handled: make(chan struct{}), quit: make(chan struct{}), fonts: make(chan [2]*label.Fonts, 1)}
	w.model = menu.NewModel(nil, nil, cfg.Setup.Look.Lines)
	w.painter = &draw.Painter{Look: cfg.Setup.Look, Scale: 1, Icons: w.picture}
	w.painter.Reset()
	go func() { // ends by itself: fonts may no longer be needed
		regular, bold := cfg.Fonts()
		w.fonts <- [2]*label.Fonts{regular, bold}
	}()
	w.icons = newLoader(cfg.Themes, cfg.Setup.Icons)
	defer w.icons.close()
	display, err := wl.Connect(cfg.Setup.Socket)
	if err != nil {
		return fmt.Errorf("no compositor at %s: %w; start a Wayland session, or set WAYLAND_DISPLAY", cfg.Setup.Socket, err)
	}
	if err := w.connect(display); err != nil {
		wlclient.DisplayDisconnect(display)
		return err
	}
	cfg.Connected() // while the compositor handles the surface
	err = w.loop(ctx, display)
	w.keys.loads.Wait()
	cfg.Emit(menu.Event{Kind: menu.EventClosed})
	return err
}

// connect binds the globals and makes the surface, before the reader starts.
func (w *window) connect(display *wl.Display) error {
	display.AddErrorHandler(w)
	registry, err := display.GetRegistry()
	if err != nil {
		return err
	}
	w.globals.registry = registry
	registry.AddGlobalHandler(&w.globals)
	if err := wlclient.DisplayRoundtrip(display); err != nil {
		return err
	}
	if err := w.globals.bind(display.Context()); err != nil {
		return err
	}
	w.listen()
	return w.makeSurface(display.Context())
}

func (w *window) makeSurface(ctx *wl.Context) error {
	g := &w.globals
	var err error
	if w.surface, err = g.compositor.CreateSurface(); err != nil {
		return err
	}
	w.surface.AddEnterHandler(w)
	w.surface.AddPreferredBufferScaleHandler(w)
	if g.viewporter != nil && g.fractional != nil {
		if w.viewport, err = g.viewporter.GetViewport(w.surface); err != nil {
			return err
		}
		f, err := g.fractional.GetScale(w.surface)
		if err != nil {
			return err
		}
		f.AddPreferredScaleHandler(w)
	}
	width, height := draw.Size(w.Setup.Look)
	if g.layers != nil {
		const overlay, exclusive = 3, 1
		// Without an output, the compositor uses the one that has the focus.
		if w.layer, err = g.layers.GetLayerSurface(w.surface, nil, overlay, AppID); err != nil {
			return err
		}
		w.layer.AddConfigureHandler(w)
		w.layer.AddClosedHandler(w)
		return errors.Join(w.layer.SetSize(uint32(width), uint32(height)),
			w.layer.SetKeyboardInteractivity(exclusive), w.surface.Commit())
	}
	if w.shell, err = g.shell.GetSurface(w.surface); err != nil {
		return err
	}
	w.shell.AddConfigureHandler(w)
	if w.top, err = w.shell.GetToplevel(); err != nil {
		return err
	}
	w.top.AddConfigureHandler(w)
	w.top.AddCloseHandler(w)
	return errors.Join(w.top.SetTitle("Vix"), w.top.SetAppId(AppID),
		w.top.SetMinSize(int32(width), int32(height)), w.top.SetMaxSize(int32(width), int32(height)), w.surface.Commit())
}

// read runs the library, whose handlers pass their work to the loop (call).
func (w *window) read(ctx *wl.Context) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("a malformed message of the compositor: %v", r)
		}
	}()
	for {
		err := ctx.Run()
		select {
		case <-w.quit:
			return nil
		default:
		}
		// Events of released objects may still be in transit.
		if err != nil && !errors.Is(err, wl.ErrContextRunProxyNil) {
			return err
		}
	}
}

// call runs a handler's work in the loop.
func (w *window) call(f func()) {
	if !w.reading {
		f() // during connect
		return
	}
	select {
	case w.calls <- f:
		<-w.handled
	case <-w.quit:
	}
}

func (w *window) loop(ctx context.Context, display *wl.Display) error {
	w.reading = true
	ended := make(chan error, 1)
	go func() { ended <- w.read(display.Context()) }()
	updates := w.Updates
	for !w.done {
		select {
		case f := <-w.calls:
			f()
			w.redraw()
			w.handled <- struct{}{}
			continue
		case u, ok := <-updates:
			if !ok {
				w.done = true
			}
			w.update(u)
			w.prepare()
		case f := <-w.fonts:
			w.painter.Fonts, w.painter.Bold, w.dirty = f[0], f[1], true
			w.prepare()
		case p := <-w.icons.out:
			w.onLoad(p)
		case <-timerOf(w.keys.repeat):
			w.repeat()
		case <-timerOf(w.touch.long):
			w.longPress()
		case <-timerOf(w.leaveTimer):
			w.done = true
		case <-timerOf(w.token):
			w.choose("")
		case err := <-ended:
			close(w.quit)
			wlclient.DisplayDisconnect(display)
			return errors.Join(w.fail, fmt.Errorf("the compositor has ended the connection: %w", err))
		case <-ctx.Done():
			w.done = true
		}
		w.redraw()
	}
	return w.end(display, ended)
}

// end removes the surface at once, and waits for the reader. The reader's last event is the
// answer to a request that comes after all others.
func (w *window) end(display *wl.Display, ended <-chan error) error {
	close(w.quit)
	if w.layer != nil {
		_ = w.layer.Destroy()
	}
	if w.top != nil {
		_ = w.top.Destroy()
		_ = w.shell.Destroy()
	}
	_ = w.surface.Destroy()
	_, _ = display.Sync()
	err := w.fail
	select {
	case rerr := <-ended: // nil, since quit is closed
		err = errors.Join(err, rerr)
	case <-time.After(time.Second):
		// The compositor does not answer; closing the connection ends the reader.
		wlclient.DisplayDisconnect(display)
		return errors.Join(err, <-ended)
	}
	wlclient.DisplayDisconnect(display)
	for _, b := range w.buffers {
		b.unmap()
	}
	return err
}

// timerOf returns a timer's channel; for nil, one that is never ready.
func timerOf(t *time.Timer) <-chan time.Time {
	if t == nil {
		return nil
	}
	return t.C
}

func (w *window) update(u menu.Update) {
	if u.HaveVMs {
		w.model.SetVMs(u.VMs) // first: they order the items
	}
	if u.Items != nil {
		w.model.SetItems(u.Items)
		w.items = true
	}
	if u.Actions != nil {
		w.model.SetActions(u.Actions)
	}
	if u.Notice != nil {
		w.notice = u.Notice
	}
	if u.Scheme != "" && u.Scheme != w.painter.Look.Scheme {
		w.painter.Look.Scheme = u.Scheme
		w.repaint()
	}
	if u.Font != "" {
		if b := w.ReadFont(u.Font); b != nil && w.painter.Fonts != nil && w.painter.Fonts.Add(b) {
			w.painter.Bold.Add(b)
			w.repaint()
		}
	}
	if u.Icon != nil {
		w.icons.onRasterised(*u.Icon)
	}
	w.done = w.done || u.Close
	w.dirty = true
}

// repaint marks everything for painting.
func (w *window) repaint() {
	w.painter.Reset()
	for _, b := range w.buffers {
		b.canvas.Forget()
	}
	w.dirty = true
}

// HandleDisplayError stores the compositor's message before it ends the connection.
func (w *window) HandleDisplayError(ev wl.DisplayErrorEvent) {
	w.call(func() { w.fail = fmt.Errorf("the compositor: error %d: %s", ev.Code, ev.Message) })
}

// HandleZwlrLayerSurfaceV1Configure allows drawing.
func (w *window) HandleZwlrLayerSurfaceV1Configure(ev proto.ZwlrLayerSurfaceV1ConfigureEvent) {
	w.call(func() {
		_ = w.layer.AckConfigure(ev.Serial)
		w.configure()
	})
}

// HandleZwlrLayerSurfaceV1Closed means that the output has gone.
func (w *window) HandleZwlrLayerSurfaceV1Closed(proto.ZwlrLayerSurfaceV1ClosedEvent) {
	w.call(func() { w.done = true })
}

// HandleSurfaceConfigure allows drawing in an ordinary window.
func (w *window) HandleSurfaceConfigure(ev xdg.SurfaceConfigureEvent) {
	w.call(func() {
		_ = w.shell.AckConfigure(ev.Serial)
		w.configure()
	})
}

// HandleToplevelConfigure suggests a size, which the menu ignores.
func (w *window) HandleToplevelConfigure(xdg.ToplevelConfigureEvent) {}

// HandleToplevelClose closes the menu.
func (w *window) HandleToplevelClose(xdg.ToplevelCloseEvent) { w.call(func() { w.done = true }) }

// HandleWmBasePing answers the ping.
func (w *window) HandleWmBasePing(ev xdg.WmBasePingEvent) {
	w.call(func() { _ = w.globals.shell.Pong(ev.Serial) })
}

// HandleWpScaleV1PreferredScale sets the scale, in 120ths.
func (w *window) HandleWpScaleV1PreferredScale(ev proto.WpScaleV1PreferredScaleEvent) {
	w.call(func() { w.rescale(float64(ev.Scale) / 120) })
}

// HandleSurfacePreferredBufferScale sets the integer scale, if there is no other.
func (w *window) HandleSurfacePreferredBufferScale(ev wl.SurfacePreferredBufferScaleEvent) {
	w.call(func() {
		if w.viewport == nil {
			w.rescale(float64(ev.Factor))
		}
	})
}

// HandleSurfaceEnter takes the scale of the output, if the compositor sends no other.
func (w *window) HandleSurfaceEnter(ev wl.SurfaceEnterEvent) {
	w.call(func() {
		if w.viewport == nil && w.globals.compositorVersion < 6 {
			w.rescale(float64(w.globals.scaleOf(ev.Output)))
		}
	})
}

// Bounds beyond the scale of any screen.
const (
	minScale = 0.25
	maxScale = 8
)

func (w *window) rescale(scale float64) {
	if scale < minScale || scale > maxScale || scale == w.scale {
		return
	}
	w.scale = scale
	if w.configured {
		w.configure()
	}
}

// prepare does the work for the first frame, most of its time, while the compositor's configure
// event has not arrived.
func (w *window) prepare() {
	if w.configured || w.prepared || !w.items || w.painter.Fonts == nil {
		return
	}
	w.prepared = true
	if s := w.Setup.Scale; s >= minScale && s <= maxScale {
		w.painter.Scale = s
		w.painter.Reset()
	}
	w.askIcons()
	w.painter.Prepare(w.model, draw.State{})
}

// configure makes buffers for the scale. Only handlers call it.
func (w *window) configure() {
	if w.configured && w.painter.Scale == w.scale && len(w.buffers) > 0 {
		return
	}
	if w.painter.Scale != w.scale {
		w.painter.Scale = w.scale
		w.painter.Reset()
	}
	w.configured = true
	if err := w.makeBuffers(); err != nil {
		w.fail, w.done = err, true
	}
	w.dirty = true
}

// picture implements draw.Icons.
func (w *window) picture(name string, side int) (*image.RGBA, bool) { return w.icons.get(name, side) }

func (w *window) onLoad(p picture) {
	if p.found {
		w.Emit(menu.Event{Kind: menu.EventIcon, Name: p.name, Path: p.path, Side: p.side})
	}
	w.icons.keep(p)
	w.dirty = true
}
