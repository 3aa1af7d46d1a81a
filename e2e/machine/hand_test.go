package machine

import (
	"slices"

	"vix/internal/wayland"
)

// nth returns a mapped window or popup.
func (c *compositor) nth(role string, n int) (*conn, *surface) {
	for _, k := range c.conns {
		for _, s := range k.world.roots {
			if s.role == role && s.xdg != nil && s.xdg.role != nil && s.xdg.asked {
				if n == 0 {
					return k, s
				}
				n--
			}
		}
	}
	return nil, nil
}

// objectsOf calls f with each object of an interface that a connection has.
func (k *conn) objectsOf(i *wayland.Interface, f func(o *object)) {
	var ids []uint32
	for id, o := range k.world.objects {
		if o.iface == i {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	for _, id := range ids {
		f(k.world.objects[id])
	}
}

// under returns what is under the pointer: the topmost surface of the latest window.
func (c *compositor) under() (k *conn, s *surface, x, y int) {
	for _, n := range c.conns {
		for _, r := range n.world.roots {
			if !r.mapped() || r.role != "toplevel" && r.role != "popup" {
				continue
			}
			ox, oy := c.at(r)
			for _, sh := range tree(r, ox-r.cur.geometry.x, oy-r.cur.geometry.y) {
				if c.px >= sh.at.x && c.py >= sh.at.y && c.px < sh.at.x+sh.at.w && c.py < sh.at.y+sh.at.h {
					k, s, x, y = n, sh.s, c.px-sh.at.x, c.py-sh.at.y
				}
			}
		}
	}
	return k, s, x, y
}

func (c *compositor) frame(k *conn) {
	k.objectsOf(wayland.WlPointer, func(o *object) {
		if o.version >= 5 {
			k.event(o.id, wayland.WlPointerEvtFrame)
		}
	})
}

func (c *compositor) motion() {
	c.time++
	k, s, x, y := c.under()
	if c.pressed != 0 && c.focus != nil {
		return // the grab keeps the focus
	}
	if s != c.focus {
		if c.focus != nil && !c.focus.dead {
			old, id := c.on, c.focus.o.id
			serial := c.next(given{"leave", old, c.focus})
			old.objectsOf(wayland.WlPointer, func(o *object) { old.event(o.id, wayland.WlPointerEvtLeave, serial, id) })
			c.frame(old)
		}
		c.focus, c.on = s, k
		if s != nil {
			serial := c.next(given{"enter", k, s})
			c.latest[k] = serial
			k.objectsOf(wayland.WlPointer, func(o *object) {
				k.event(o.id, wayland.WlPointerEvtEnter, serial, s.o.id, uint32(x<<8), uint32(y<<8))
			})
			c.frame(k)
		}
		return
	}
	if s != nil {
		k.objectsOf(wayland.WlPointer, func(o *object) {
			k.event(o.id, wayland.WlPointerEvtMotion, c.time, uint32(x<<8), uint32(y<<8))
		})
		c.frame(k)
	}
}

// click presses or releases the left button; a press gives its window the keyboard.
func (c *compositor) click(state uint32) {
	c.time++
	if c.focus == nil || c.focus.dead {
		c.pressed = 0
		return
	}
	kind := "button"
	if state == 0 {
		kind = "release"
	}
	serial := c.next(given{kind, c.on, c.focus})
	c.pressed = 0
	if state == 1 {
		c.pressed = serial
	}
	c.on.objectsOf(wayland.WlPointer, func(o *object) {
		c.on.event(o.id, wayland.WlPointerEvtButton, serial, c.time, 0x110, state)
	})
	c.frame(c.on)
	if w := windowOf(c.focus); state == 1 && w != c.window && w != nil && !w.dead {
		c.window, c.keys = w, c.on
		serial := c.next(given{"keys", c.on, w})
		c.on.objectsOf(wayland.WlKeyboard, func(o *object) {
			c.on.text(o.id, wayland.WlKeyboardEvtEnter, serial, w.o.id, []byte{})
			c.on.event(o.id, wayland.WlKeyboardEvtModifiers, serial, 0, 0, 0, 0)
		})
	}
}

// plug adds an output beside the others.
func (c *compositor) plug(w, h int) {
	if len(c.outputs) == 4 {
		return
	}
	x := 0
	for _, o := range c.outputs {
		x = max(x, o.x+o.w)
	}
	c.named++
	c.outputs = append([]*output{{name: c.named, x: x, w: w, h: h}}, c.outputs...)
	for _, k := range c.conns {
		k.world.globals[c.named] = "wl_output"
		k.objectsOf(wayland.WlRegistry, func(o *object) {
			k.text(o.id, wayland.WlRegistryEvtGlobal, c.named, "wl_output", uint32(4))
		})
	}
}

// largest is the size that no output exceeds.
func (c *compositor) largest() (w, h int) {
	for _, o := range c.outputs {
		w, h = max(w, o.w), max(h, o.h)
	}
	return w, h
}

// unplug takes an output away, but not the last one. Windows that fill an output are told
// the size of one that is left, as every compositor does that places them.
func (c *compositor) unplug(n int) {
	if len(c.outputs) < 2 {
		return
	}
	n %= len(c.outputs)
	name := c.outputs[n].name
	c.outputs = slices.Delete(c.outputs, n, n+1)
	for _, k := range c.conns {
		k.objectsOf(wayland.WlRegistry, func(o *object) { k.event(o.id, wayland.WlRegistryEvtGlobalRemove, name) })
		for _, s := range k.world.roots {
			if x := s.xdg; x != nil && x.role != nil && s.role == "toplevel" && x.last.fixed {
				k.configureTop(x, c.outputs[0].w, c.outputs[0].h, x.last.state)
			}
		}
	}
}

// dismiss tells a popup that it is over.
func (c *compositor) dismiss(n int) {
	if k, s := c.nth("popup", n); s != nil {
		k.event(s.xdg.role.id, wayland.XdgPopupEvtPopupDone)
	}
}
