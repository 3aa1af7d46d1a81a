package hostile

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"vix/internal/wayland"
)

// A Run is one attack, with what it may use. What it sees it writes to Out, a fact a
// line, for the test on the host to judge.
type Run struct {
	Open func() (*Client, error) // a new connection
	Node func() (*Node, error)   // a new context, without INIT; nil outside a VM
	Out  io.Writer
	Args []string
	Hold func() // until the test has seen enough
}

// Attacks by name.
var Attacks = map[string]func(*Run) error{
	"globals":    globals,
	"titles":     titles,
	"fullscreen": fullscreen,
	"popup":      popup,
	"clipboard":  clipboard,
	"kinds":      kinds,
	"flood":      flood,
	"garbage":    garbage,
	"raw":        raw,
	"window":     window,
	"outputs":    outputs,
	"animate":    animate,
	"oversize":   oversize,
	"outside":    outside,
	"keys":       keys,
	"take-input": takeInput,
	"confuse":    confuse,
	"cursor":     cursor,
	"amplify":    amplify,
	"pin":        pin,

	"drag-source": dragSource,
	"drag-target": dragTarget,

	"select-flood":  selectFlood,
	"select-forged": selectForged,
	"select-pipe":   selectPipe,
	"select-sniff":  selectSniff,
}

func (r *Run) say(format string, args ...any) { fmt.Fprintf(r.Out, format+"\n", args...) }

// client is an open connection that knows its globals.
func (r *Run) client() (*Client, error) {
	c, err := r.Open()
	if err == nil {
		err = c.Registry()
	}
	return c, err
}

// Privileged are interfaces that a guest must not have: they see, hear, move or
// imitate what is not its own.
var Privileged = []string{
	"zwlr_screencopy_manager_v1", "ext_image_copy_capture_manager_v1", "ext_output_image_capture_source_manager_v1",
	"zwlr_export_dmabuf_manager_v1", "zwlr_layer_shell_v1", "zwp_virtual_keyboard_manager_v1", "zwlr_virtual_pointer_manager_v1",
	"zwlr_data_control_manager_v1", "ext_data_control_manager_v1",
	"zwlr_foreign_toplevel_manager_v1", "ext_foreign_toplevel_list_v1", "zwp_input_method_manager_v2", "ext_session_lock_manager_v1",
	"ext_idle_notifier_v1", "zwp_idle_inhibit_manager_v1", "zwp_keyboard_shortcuts_inhibit_manager_v1", "zwlr_output_manager_v1",
	"zwlr_output_power_manager_v1", "zwlr_gamma_control_manager_v1", "wp_security_context_manager_v1", "wp_drm_lease_device_v1",
	"xdg_activation_v1", "ext_workspace_manager_v1", "ext_transient_seat_manager_v1",
}

// globals lists the globals, and then binds what was not offered: by the number of
// another global, and by numbers at a guess.
func globals(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	for _, g := range c.Globals {
		r.say("global %s %d %d", g.Interface, g.Version, g.Name)
	}
	name := c.Globals[0].Name
	_ = c.Close()
	for _, iface := range Privileged {
		for _, number := range []uint32{name, 60, 1 << 20} {
			c, err := r.client()
			if err != nil {
				return err
			}
			c.Req(registry, wayland.WlRegistryReqBind, number, iface, uint32(1), c.ID(nil))
			r.say("bind %s by %d: %v", iface, number, c.Sync())
			_ = c.Close()
		}
	}
	return nil
}

// titles opens a window for each pair of arguments, a title and an app id, quoted as
// in Go.
func titles(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	for i := 0; i+1 < len(r.Args); i += 2 {
		title, err := strconv.Unquote(r.Args[i])
		if err != nil {
			return err
		}
		app, err := strconv.Unquote(r.Args[i+1])
		if err != nil {
			return err
		}
		w, err := c.NewWindow(title, app)
		if err != nil {
			return err
		}
		if err := w.Show(200, 100, 0x804020); err != nil {
			return err
		}
	}
	r.say("shown")
	r.Hold()
	return nil
}

// window opens a window of the given colour, size and title.
func window(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	rgb, err := strconv.ParseUint(r.Args[0], 16, 32)
	if err != nil {
		return err
	}
	w, err := c.NewWindow("a window", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(0, 0, uint32(rgb)); err != nil {
		return err
	}
	r.say("shown %d %d", w.Width, w.Height)
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

const stateFullscreen = 2

// fullscreen draws over the whole screen, and claims more than it was given.
func fullscreen(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	w, err := c.NewWindow("the whole screen", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(0, 0, 0xff0000); err != nil { // it must be shown before
		return err
	}
	c.Req(w.Toplevel, wayland.XdgToplevelReqSetFullscreen, uint32(0))
	c.Req(w.Surface, wayland.WlSurfaceReqCommit)
	if err := c.Until(func() bool { return w.Has(stateFullscreen) }); err != nil {
		return err
	}
	r.say("told fullscreen %d %d", w.Width, w.Height)
	if err := w.Show(w.Width, w.Height, 0xff0000); err != nil {
		return err
	}
	if err := c.Until(func() bool { return true }); err != nil {
		return err
	}
	r.say("shown")
	// Now larger than it may be, and with a geometry that would put the frame outside.
	b, err := c.Buffer(w.Width+400, w.Height+400, 0xff0000)
	if err != nil {
		return err
	}
	c.Req(w.XdgSurface, wayland.XdgSurfaceReqSetWindowGeometry, 200, 200, w.Width, w.Height)
	w.Attach(b)
	r.say("larger: %v", c.Sync())
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

// popup opens a popup of the size given, at a place given from its parent's.
func popup(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	width, height, x0, y0, err := place(r.Args)
	if err != nil {
		return err
	}
	w, err := c.NewWindow("with a popup", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(0, 0, 0x2040ff); err != nil {
		return err
	}
	pos, surface, xdg := c.ID(nil), c.ID(nil), uint32(0)
	c.Req(c.wm, wayland.XdgWmBaseReqCreatePositioner, pos)
	c.Req(pos, wayland.XdgPositionerReqSetSize, width, height)
	c.Req(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
	c.Req(pos, wayland.XdgPositionerReqSetOffset, x0, y0)
	configured := 0
	xdg = c.ID(func(_ uint16, d *wayland.Decoder) {
		configured++
		c.Req(xdg, wayland.XdgSurfaceReqAckConfigure, d.Uint())
	})
	var x, y, gw, gh int32
	pop := c.ID(func(op uint16, d *wayland.Decoder) {
		if op == wayland.XdgPopupEvtConfigure {
			x, y, gw, gh = d.Int(), d.Int(), d.Int(), d.Int()
		}
	})
	c.Req(c.comp, wayland.WlCompositorReqCreateSurface, surface)
	c.Req(c.wm, wayland.XdgWmBaseReqGetXdgSurface, xdg, surface)
	c.Req(xdg, wayland.XdgSurfaceReqGetPopup, pop, w.XdgSurface, pos)
	c.Req(surface, wayland.WlSurfaceReqCommit)
	if err := c.Until(func() bool { return configured > 0 }); err != nil {
		r.say("refused: %v", err)
		return nil
	}
	r.say("popup at %d %d of %d %d", x, y, gw, gh)
	b, err := c.Buffer(min(width, 4000), min(height, 4000), 0xff00ff)
	if err != nil {
		return err
	}
	c.Req(surface, wayland.WlSurfaceReqAttach, b, 0, 0)
	c.Req(surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<30, 1<<30)
	c.Req(surface, wayland.WlSurfaceReqCommit)
	r.say("shown: %v", c.Sync())
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

// outside puts pixels where no frame is: sub-surfaces beside, above and far around a
// window, one in another, and a cursor as large as they.
func outside(r *Run) error {
	c, err := r.ready()
	if err != nil {
		return err
	}
	w, err := c.NewWindow("with sub-surfaces", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(300, 200, 0x2040ff); err != nil {
		return err
	}
	sub := c.Bind("wl_subcompositor", 1, nil)
	big, err := c.Buffer(600, 400, 0xff00ff)
	if err != nil {
		return err
	}
	parent := w.Surface
	for i, at := range [][2]int{{-300, -200}, {310, 0}, {0, -60}, {-20, -20}, {40, 40}} {
		s, ss := c.ID(nil), c.ID(nil)
		c.Req(c.comp, wayland.WlCompositorReqCreateSurface, s)
		c.Req(sub, wayland.WlSubcompositorReqGetSubsurface, ss, s, parent)
		c.Req(ss, wayland.WlSubsurfaceReqSetPosition, at[0], at[1])
		c.Req(ss, wayland.WlSubsurfaceReqSetDesync)
		c.Req(s, wayland.WlSurfaceReqAttach, big, 0, 0)
		c.Req(s, wayland.WlSurfaceReqDamage, 0, 0, 1<<30, 1<<30)
		c.Req(s, wayland.WlSurfaceReqCommit)
		c.Req(w.Surface, wayland.WlSurfaceReqCommit)
		if err := c.Sync(); err != nil {
			r.say("refused: %d: %v", i, err)
			return nil
		}
		if i == 3 {
			parent = s // the last is a child's child
		}
	}
	r.say("shown")
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

// place reads WIDTH HEIGHT X Y.
func place(args []string) (w, h, x, y int, err error) {
	_, err = fmt.Sscan(strings.Join(args, " "), &w, &h, &x, &y)
	return w, h, x, y, err
}

// clipboard reads every selection that it is offered, sets one with many types, and
// says what it hears.
func clipboard(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	seat := c.Bind("wl_seat", 5, nil)
	manager := c.Bind("wl_data_device_manager", 3, nil)
	if seat == 0 || manager == 0 {
		return errors.New("no seat or data device manager")
	}
	device := c.ID(func(op uint16, d *wayland.Decoder) {
		switch op {
		case wayland.WlDataDeviceEvtDataOffer:
			offer := d.Uint()
			r.say("offer %d", offer)
			c.handlers[offer] = func(_ uint16, d *wayland.Decoder) { r.say("offered %q", d.String()) }
		case wayland.WlDataDeviceEvtSelection:
			r.say("selection %v", d.Uint() != 0)
		}
	})
	var serial uint32
	c.Req(manager, wayland.WlDataDeviceManagerReqGetDataDevice, device, seat)
	keyboard := c.ID(func(op uint16, d *wayland.Decoder) {
		if op == 1 { // enter
			serial = d.Uint()
		}
	})
	c.Req(seat, wayland.WlSeatReqGetKeyboard, keyboard)
	w, err := c.NewWindow("clipboard", "hostile")
	if err != nil {
		return err
	}
	if err := w.Show(0, 0, 0x40ff40); err != nil {
		return err
	}
	if err := c.Until(func() bool { return serial != 0 }); err != nil {
		return err
	}
	r.say("focused")
	source := c.ID(func(op uint16, d *wayland.Decoder) { r.say("source event %d", op) })
	c.Req(manager, wayland.WlDataDeviceManagerReqCreateDataSource, source)
	for i := range 50 {
		c.Req(source, wayland.WlDataSourceReqOffer, fmt.Sprintf("text/x-flood-%d", i))
	}
	c.Req(source, wayland.WlDataSourceReqOffer, "text/plain;charset=utf-8")
	r.say("setting")
	c.Req(device, wayland.WlDataDeviceReqSetSelection, source, serial)
	r.say("set: %v", c.Sync())
	go func() {
		for c.Read() == nil {
		}
	}()
	r.Hold()
	return nil
}

// kinds offers ten thousand kinds of data.
func kinds(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	manager := c.Bind("wl_data_device_manager", 3, nil)
	source := c.ID(nil)
	c.Req(manager, wayland.WlDataDeviceManagerReqCreateDataSource, source)
	for i := range 10_000 {
		c.Req(source, wayland.WlDataSourceReqOffer, fmt.Sprintf("text/x-flood-%d", i))
	}
	r.say("kinds: %v", c.Sync())
	return nil
}

// outputs says everything that the outputs tell.
func outputs(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	c.Bind("wl_output", 4, func(op uint16, d *wayland.Decoder) {
		switch op {
		case wayland.WlOutputEvtGeometry:
			d.Uint()
			d.Uint()
			pw, ph := d.Int(), d.Int()
			d.Uint()
			r.say("geometry %d %d make %q model %q", pw, ph, d.String(), d.String())
		case wayland.WlOutputEvtName, wayland.WlOutputEvtDescription:
			r.say("text %d %q", op, d.String())
		}
	})
	return c.Sync()
}

// oversize makes pools that are larger than their memory.
func oversize(r *Run) error {
	for _, said := range []int{4097, 8192, 1 << 30, 1<<31 - 1, 0, -1, -1 << 31} {
		c, err := r.ready()
		if err != nil {
			return err
		}
		if _, _, err = c.Pool(4096, said); err == nil {
			err = c.Sync()
		}
		if err == nil {
			r.say("accepted: %d", said)
		} else {
			r.say("refused: %v", err)
		}
		_ = c.Close()
	}
	return nil
}

// garbage sends N connections of random messages, each seeded by its number.
func garbage(r *Run) error {
	n, err := strconv.Atoi(r.Args[0])
	if err != nil {
		return err
	}
	var refused, survived int
	for seed := range n {
		c, err := r.client()
		if err != nil {
			return fmt.Errorf("connection %d: %w", seed, err)
		}
		if Scramble(c, uint64(seed)) != nil {
			refused++
		} else {
			survived++
		}
		_ = c.Close()
	}
	r.say("garbage: %d refused, %d survived", refused, survived)
	return nil
}

// animate commits frames at the pace of frame callbacks for the seconds given, and
// says the time of each frame in microseconds.
func animate(r *Run) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	secs, err := strconv.ParseFloat(r.Args[0], 64)
	if err != nil {
		return err
	}
	w, err := c.NewWindow("animation", "animation")
	if err != nil {
		return err
	}
	if err := w.Show(300, 200, 0x303030); err != nil {
		return err
	}
	var bs [2]uint32
	for i := range bs {
		if bs[i], err = c.Buffer(300, 200, uint32(0x101010*(i+1))); err != nil {
			return err
		}
	}
	r.say("shown")
	begin := time.Now()
	for i := 0; time.Since(begin).Seconds() < secs; i++ {
		done, start := false, time.Now()
		cb := c.ID(func(uint16, *wayland.Decoder) { done = true })
		c.Req(w.Surface, wayland.WlSurfaceReqFrame, cb)
		w.Attach(bs[i%2])
		if err := c.Until(func() bool { return done }); err != nil {
			return err
		}
		delete(c.handlers, cb)
		r.say("frame %d %d", time.Since(begin).Milliseconds(), time.Since(start).Microseconds())
	}
	return nil
}

// names returns the attacks' names, for a message.
func names() string {
	var ns []string
	for n := range Attacks {
		ns = append(ns, n)
	}
	slices.Sort(ns)
	return strings.Join(ns, ", ")
}

// Do runs an attack by name.
func Do(name string, r *Run) error {
	f := Attacks[name]
	if f == nil {
		return fmt.Errorf("no attack %q; there are %s", name, names())
	}
	return f(r)
}
