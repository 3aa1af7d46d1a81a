package clipboard

import (
	"vix/internal/relay"
	"vix/internal/wayland"
)

// A device is a data device of a program's, of any of the protocols.
type device struct {
	proto *protocol
	obj   *relay.Object
	gen   uint64 // the generation of its last offer
	drag  hover
}

// An offer is a data offer that a program knows.
type offer struct{ src *Source }

// Place is what the hooks need of whoever corrects coordinates: it makes the two
// words at off of body, a place on the compositor's surface, one on the client's, and
// tells whether the client knows that surface.
type Place func(c *relay.Conn, surface uint32, body []byte, off int) (known bool)

// An Env is what the hooks need of the filter.
type Env struct {
	// Member finds a connection's.
	Member func(*relay.Conn) *Member
	Place  Place
	// Icon is asked whether a program's surface, by the client's id, may follow the
	// pointer.
	Icon func(c *relay.Conn, surface uint32) bool
	// May is asked whether a serial gives a program the right to a request about a
	// surface, by the client's id, 0 for none.
	May func(c *relay.Conn, m *relay.Msg, serial, surface uint32) bool
}

// Hooks sets the hooks of all selections.
func Hooks(l relay.Layer, env Env) {
	focusHooks(l, env.Member)
	for _, p := range protocols {
		p.hooks(l, env)
	}
	dragHooks(l, env)
}

// focusHooks follow the keyboard.
func focusHooks(l relay.Layer, member func(*relay.Conn) *Member) {
	l.Event(wayland.WlKeyboard, wayland.WlKeyboardEvtEnter, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		k := member(c)
		k.keyboards[m.Obj] = struct{}{}
		k.enter(c)
		return true, nil
	})
	l.Event(wayland.WlKeyboard, wayland.WlKeyboardEvtLeave, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		member(c).leave(m.Obj)
		return true, nil
	})
	l.Gone(wayland.WlKeyboard, func(c *relay.Conn, o *relay.Object) { member(c).leave(o) })
}

// enter is called before a program hears that it has the keyboard: it is told of the
// selections first (wl_data_device.selection).
func (m *Member) enter(c *relay.Conn) {
	w := m.world
	w.mu.Lock()
	m.focused = true
	w.focus, w.focusTime = m, now()
	w.enters++
	w.yieldLocked(m)
	ended := m.cancels
	m.cancels = nil
	w.ring()
	w.mu.Unlock()
	m.cancel(c, ended)
	for _, d := range m.devices {
		m.tell(c, d)
	}
}

func (m *Member) leave(keyboard *relay.Object) {
	if _, on := m.keyboards[keyboard]; !on {
		return
	}
	delete(m.keyboards, keyboard)
	if len(m.keyboards) == 0 {
		m.world.mu.Lock()
		defer m.world.mu.Unlock()
		m.blurLocked()
	}
}

// tell offers a device its selection.
func (m *Member) tell(c *relay.Conn, d *device) {
	w := m.world
	w.mu.Lock()
	h := &w.slots[d.proto.slot]
	src := h.current()
	d.gen = h.gen
	w.mu.Unlock()
	if d.obj.Dead {
		return
	}
	out, id := c.ToClient(), uint32(0)
	if src != nil {
		o := c.Offer(d.proto.offer, d.obj.Version, &offer{src})
		if o == nil {
			return // it has kept all that it was ever offered
		}
		id = o.ID
		out.Msg(d.obj.ID, uint16(d.proto.newOffer), id)
		for _, kind := range w.kindsOf(src) {
			putString(out, id, d.proto.kind, kind)
		}
	}
	out.Msg(d.obj.ID, uint16(d.proto.selection), id)
}

// putString writes a message of one short string.
func putString(out *wayland.Encoder, id uint32, op int, s string) {
	out.Begin(id, uint16(op))
	out.String(s)
	_ = out.End() // maxKind is less than a message
}

// Woken is relay.Config.Woken: it tells the program of the changes by other connections
// or the host.
func (m *Member) Woken(c *relay.Conn) {
	w := m.world
	w.mu.Lock()
	ended := m.cancels
	m.cancels = nil
	n := min(len(m.asks), asksAtOnce)
	asks := m.asks[:n:n]
	m.asks = m.asks[n:]
	more := len(m.asks) > 0
	focused := m.focused
	var gens [numSlots]uint64
	for s := range w.slots {
		gens[s] = w.slots[s].gen
	}
	w.mu.Unlock()
	m.cancel(c, ended)
	for _, a := range asks {
		if a.src.obj == nil {
			a.to.Close()
			continue
		}
		putString(c.ToClient(), a.src.obj.ID, a.src.proto.send, a.kind)
		c.SendDescToClient(a.to)
	}
	if more {
		c.Wake()
	}
	if !focused {
		return
	}
	for _, d := range m.devices {
		if d.gen != gens[d.proto.slot] {
			m.tell(c, d)
		}
	}
}

// cancel sends the program the cancelled events of its sources.
func (m *Member) cancel(c *relay.Conn, ended []*Source) {
	for _, src := range ended {
		if src.obj != nil {
			c.ToClient().Msg(src.obj.ID, uint16(src.proto.cancelled))
		}
	}
}

// hooks sets those of one protocol. Sources, and offers of selections, are ours: the
// compositor knows neither.
func (p *protocol) hooks(h relay.Layer, env Env) {
	member := env.Member
	h.Request(p.manager, p.createSource, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		k := member(c)
		m.New.Data = &Source{world: k.world, member: k, obj: m.New, proto: p, manager: m.Obj.Server}
		return false, nil
	})
	h.Request(p.manager, p.getDevice, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		k := member(c)
		d := &device{proto: p, obj: m.New}
		m.New.Data = d
		k.devices = append(k.devices, d)
		k.world.countDevices(1)
		if len(k.keyboards) > 0 {
			k.tell(c, d)
		}
		return p.known, nil
	})
	h.Gone(p.device, func(c *relay.Conn, o *relay.Object) { member(c).lose(o) })
	h.Request(p.source, p.addKind, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		d := wayland.NewDecoder(m.Body)
		src := m.Obj.Data.(*Source)
		if err := src.world.addKind(src, string(d.String())); err != nil {
			return false, relay.Fail(m.Obj, relay.ErrNoMemory, "%v", err)
		}
		return false, nil
	})
	h.Gone(p.source, func(_ *relay.Conn, o *relay.Object) {
		if src, ok := o.Data.(*Source); ok {
			src.obj = nil
			src.world.drop(src)
		}
	})
	h.Request(p.device, p.setSelection, func(c *relay.Conn, m *relay.Msg) (bool, error) { return false, p.onSet(c, env, m) })
	h.Request(p.offer, p.receive, onReceive)
}

func (m *Member) lose(device *relay.Object) {
	for k, d := range m.devices {
		if d.obj == device {
			m.devices = append(m.devices[:k:k], m.devices[k+1:]...)
			m.world.countDevices(-1)
			return
		}
	}
}

// errUsedSource is wl_data_device.error.used_source.
const errUsedSource = 1

func (p *protocol) onSet(c *relay.Conn, env Env, m *relay.Msg) error {
	k := env.Member(c)
	var src *Source
	if id := m.Word(0); id != 0 {
		o := c.Client(id)
		if o == nil || o.Iface != p.source {
			return relay.Fail(m.Obj, relay.ErrInvalidObject, "%s.set_selection: invalid object %d", p.device.Name, id)
		}
		if src = o.Data.(*Source); src.place != nil {
			return relay.Fail(m.Obj, errUsedSource, "the source is dragged")
		}
	}
	serial := m.Word(1)
	k.world.set(k, p.slot, src, serial, env.May(c, m, serial, 0))
	return nil
}

// onReceive passes the pipe on to the source's program.
func onReceive(c *relay.Conn, m *relay.Msg) (bool, error) {
	o, ok := m.Obj.Data.(*offer)
	if !ok {
		return false, nil
	}
	d := wayland.NewDecoder(m.Body)
	kind := string(d.String())
	if in := o.src.outside; in != nil {
		in.receive(c, o.src.world, m, kind)
		return false, nil
	}
	to := m.Descs[0]
	m.Descs[0] = relay.KeptDesc
	o.src.world.ask(o.src, kind, to)
	return false, nil
}
