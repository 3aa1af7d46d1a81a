package hostile

import (
	"errors"
	"slices"

	"vix/internal/wayland"
)

// A Window is a toplevel of one colour.
type Window struct {
	c                             *Client
	Surface, XdgSurface, Toplevel uint32
	Width, Height                 int      // what the compositor asks for last; 0: as the client likes
	States                        []uint32 // what it was told to be
	Configured                    int      // how often
	serial                        uint32
}

// setUp binds what windows need.
func (c *Client) setUp() error {
	if c.comp != 0 {
		return nil
	}
	c.comp = c.Bind("wl_compositor", 6, nil)
	c.shm = c.Bind("wl_shm", 1, nil)
	c.wm = c.ID(nil)
	for _, g := range c.Globals {
		if g.Interface == "xdg_wm_base" {
			c.Req(registry, wayland.WlRegistryReqBind, g.Name, g.Interface, min(g.Version, 3), c.wm)
			c.handlers[c.wm] = func(_ uint16, d *wayland.Decoder) { c.Req(c.wm, wayland.XdgWmBaseReqPong, d.Uint()) }
		}
	}
	if c.comp == 0 || c.shm == 0 || c.handlers[c.wm] == nil {
		return errors.New("no wl_compositor, wl_shm or xdg_wm_base")
	}
	return nil
}

// Pool makes memory and a pool of it, as large as is said, whatever the memory's size.
func (c *Client) Pool(size, said int) (id uint32, m *Memory, err error) {
	if err := c.setUp(); err != nil {
		return 0, nil, err
	}
	if m, err = c.memory(size); err != nil {
		return 0, nil, err
	}
	id, err = c.PoolOf(m, said)
	return id, m, err
}

// PoolOf makes a pool of memory.
func (c *Client) PoolOf(m *Memory, said int) (uint32, error) {
	if err := c.Flush(); err != nil { // descriptors go with their own message
		return 0, err
	}
	d, err := m.desc()
	if err != nil {
		return 0, err
	}
	id := c.ID(nil)
	c.Req(c.shm, wayland.WlShmReqCreatePool, id, said)
	return id, c.Flush(d)
}

// Buffer makes an XRGB buffer of one colour (0xrrggbb) with memory of its own.
func (c *Client) Buffer(w, h int, rgb uint32) (uint32, error) {
	pool, m, err := c.Pool(4*w*h, 4*w*h)
	if err != nil {
		return 0, err
	}
	for i := 0; i+4 <= 4*w*h; i += 4 {
		wayland.PutWord(m.Mem, i, rgb)
	}
	id := c.ID(nil)
	c.Req(pool, wayland.WlShmPoolReqCreateBuffer, id, 0, w, h, 4*w, uint32(1))
	c.Req(pool, wayland.WlShmPoolReqDestroy)
	return id, nil
}

// NewWindow makes a toplevel, without a buffer, and waits until it is configured.
func (c *Client) NewWindow(title, appID string) (*Window, error) {
	if err := c.setUp(); err != nil {
		return nil, err
	}
	w := &Window{c: c, Surface: c.ID(nil)}
	w.XdgSurface = c.ID(func(_ uint16, d *wayland.Decoder) {
		w.serial = d.Uint()
		w.Configured++
		c.Req(w.XdgSurface, wayland.XdgSurfaceReqAckConfigure, w.serial)
	})
	w.Toplevel = c.ID(func(op uint16, d *wayland.Decoder) {
		if op != wayland.XdgToplevelEvtConfigure {
			return
		}
		w.Width, w.Height = int(d.Int()), int(d.Int())
		w.States = w.States[:0]
		for s := d.Array(); len(s) >= 4; s = s[4:] {
			w.States = append(w.States, wayland.Word(s, 0))
		}
	})
	c.Req(c.comp, wayland.WlCompositorReqCreateSurface, w.Surface)
	c.Req(c.wm, wayland.XdgWmBaseReqGetXdgSurface, w.XdgSurface, w.Surface)
	c.Req(w.XdgSurface, wayland.XdgSurfaceReqGetToplevel, w.Toplevel)
	c.Req(w.Toplevel, wayland.XdgToplevelReqSetTitle, title)
	c.Req(w.Toplevel, wayland.XdgToplevelReqSetAppId, appID)
	c.Req(w.Surface, wayland.WlSurfaceReqCommit)
	return w, c.Until(func() bool { return w.Configured > 0 })
}

// Show gives the window a buffer of a size and colour; 0: of what it is told.
func (w *Window) Show(width, height int, rgb uint32) error {
	if width == 0 {
		width, height = w.Width, w.Height
	}
	if width <= 0 || height <= 0 {
		width, height = 400, 300
	}
	b, err := w.c.Buffer(width, height, rgb)
	if err != nil {
		return err
	}
	w.Attach(b)
	return w.c.Sync()
}

// Attach attaches a buffer, damages all and commits.
func (w *Window) Attach(buffer uint32) {
	w.c.Req(w.Surface, wayland.WlSurfaceReqAttach, buffer, 0, 0)
	w.c.Req(w.Surface, wayland.WlSurfaceReqDamage, 0, 0, 1<<30, 1<<30)
	w.c.Req(w.Surface, wayland.WlSurfaceReqCommit)
}

// Has says whether the window was told of a state (xdg_toplevel.state).
func (w *Window) Has(state uint32) bool { return slices.Contains(w.States, state) }
