package clipboard

import (
	"crypto/rand"
	"slices"
	"time"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// A drag within the VM, from program A to program B:
//
//	A ── start_drag(source) ──►  World  ── start_drag(place) ──► compositor
//	                               │          offers one private kind
//	B ◄── enter(offer: A's kinds) ─┘ ◄──── enter(offer: the private kind) ── compositor
//	B ── accept, set_actions, finish ──── of the same offer ───────────────► compositor
//	B ── receive(kind, pipe) ──► World ── send(kind, pipe) ──► A
//
// Actions, motion and the end are the compositor's, which names what it knows;
// the kinds and the data pass by it. An offer without a private kind of this VM's
// is another's: the program does not hear of that drag at all, but where a rule lets
// it in (outside.go).
const privateKind = "application/x-vix-"

// hover is the place of a drag for one device.
type hover struct {
	on      bool
	surface uint32       // the compositor's id
	in      *outsideDrag // from outside; nil for the VM's own
}

func now() time.Time { return time.Now() }

func dragHooks(h relay.Layer, env Env) {
	member := env.Member
	h.Request(wayland.WlDataSource, wayland.WlDataSourceReqSetActions, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		src := m.Obj.Data.(*Source)
		src.actions, src.hasActions = m.Word(0), true
		return false, nil
	})
	h.Request(wayland.WlDataSource, wayland.WlDataSourceReqDestroy, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if src := m.Obj.Data.(*Source); src.place != nil {
			c.Discard(src.place, wayland.WlDataSourceReqDestroy)
			src.place = nil
		}
		return false, nil
	})
	h.Request(wayland.WlDataDevice, wayland.WlDataDeviceReqStartDrag, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		return onStartDrag(c, m, env)
	})
	h.Request(wayland.WlDataOffer, wayland.WlDataOfferReqAccept, func(c *relay.Conn, m *relay.Msg) (bool, error) { return onAccept(c, m, env) })
	h.Request(wayland.WlDataOffer, wayland.WlDataOfferReqSetActions, func(_ *relay.Conn, m *relay.Msg) (bool, error) {
		if of, ok := m.Obj.Data.(*offer); ok && of.src.outside != nil {
			wayland.PutWord(m.Body, 0, m.Word(0)&actionCopy)
			wayland.PutWord(m.Body, 4, m.Word(1)&actionCopy)
		}
		return true, nil
	})
	// The compositor's offer is checked before the program gets it.
	h.Event(wayland.WlDataDevice, wayland.WlDataDeviceEvtDataOffer, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		m.New.Data = &pendingOffer{world: member(c).world, device: m.Obj, obj: m.New}
		return false, nil
	})
	h.Event(wayland.WlDataOffer, wayland.WlDataOfferEvtOffer, func(*relay.Conn, *relay.Msg) (bool, error) { return false, nil })
	h.Event(wayland.WlDataDevice, wayland.WlDataDeviceEvtSelection, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		refuseOffer(c, m.Word(0))
		return false, nil
	})
	overHooks(h, env.Place)
}

// overHooks pass on what happens to a drag over the program's own surfaces, when it
// is the VM's own.
func overHooks(h relay.Layer, place Place) {
	on := func(op int, f func(c *relay.Conn, o *hover, m *relay.Msg) bool) {
		h.Event(wayland.WlDataDevice, op, func(c *relay.Conn, m *relay.Msg) (bool, error) {
			d, ok := m.Obj.Data.(*device)
			return ok && f(c, &d.drag, m), nil
		})
	}
	on(wayland.WlDataDeviceEvtEnter, func(c *relay.Conn, o *hover, m *relay.Msg) bool {
		*o = hover{surface: m.Word(1)}
		id := m.Word(4)
		own := false
		if it := c.Server(id); it != nil {
			if a, ok := it.Data.(*pendingOffer); ok && it.ID == 0 && !it.Dead {
				a.letIn(c)
			}
			if of, ok := it.Data.(*offer); ok && it.ID != 0 {
				own, o.in = true, of.src.outside
			}
		}
		if !own || !place(c, o.surface, m.Body, 8) {
			refuseOffer(c, id)
			return false
		}
		o.on = true
		return true
	})
	on(wayland.WlDataDeviceEvtMotion, func(c *relay.Conn, o *hover, m *relay.Msg) bool {
		return o.on && place(c, o.surface, m.Body, 4)
	})
	on(wayland.WlDataDeviceEvtLeave, func(_ *relay.Conn, o *hover, _ *relay.Msg) bool {
		was := o.on
		o.on = false
		return was
	})
	on(wayland.WlDataDeviceEvtDrop, func(_ *relay.Conn, o *hover, _ *relay.Msg) bool {
		if o.on && o.in != nil {
			o.in.dropped = true
		}
		return o.on
	})
}

// refuseOffer refuses an offer that the program does not know.
func refuseOffer(c *relay.Conn, id uint32) {
	if o := c.Server(id); o != nil && o.ID == 0 && !o.Dead && o.Iface == wayland.WlDataOffer {
		c.Discard(o, wayland.WlDataOfferReqDestroy)
	}
}

// onStartDrag makes the compositor drag a placeholder of the source.
func onStartDrag(c *relay.Conn, m *relay.Msg, env Env) (bool, error) {
	if !env.May(c, m, m.Word(3), m.Word(1)) {
		if o := c.Client(m.Word(0)); o != nil && o.Iface == wayland.WlDataSource {
			c.ToClient().Msg(o.ID, wayland.WlDataSourceEvtCancelled)
		}
		return false, nil
	}
	if m.Word(0) == 0 {
		// Within the program alone. Weston 14 and Mutter 48 end with it, and no toolkit
		// asks for it.
		return false, nil
	}
	if id := m.Word(2); id != 0 && !env.Icon(c, id) {
		wayland.PutWord(m.Body, 8, 0)
	}
	o, origin := c.Client(m.Word(0)), c.Client(m.Word(1))
	if o == nil || o.Iface != wayland.WlDataSource || origin == nil || origin.Iface != wayland.WlSurface || origin.Server == 0 {
		return false, relay.Fail(m.Obj, relay.ErrInvalidObject, "wl_data_device.start_drag: invalid object")
	}
	src := o.Data.(*Source)
	var iconID uint32
	if s := c.Client(m.Word(2)); s != nil && s.Iface == wayland.WlSurface {
		iconID = s.Server
	}
	if !src.world.startDrag(src) {
		return false, relay.Fail(m.Obj, errUsedSource, "the source has been used")
	}
	src.place = c.Own(wayland.WlDataSource, o.Version, (*placeholder)(src))
	out := c.ToServer()
	out.Msg(src.manager, wayland.WlDataDeviceManagerReqCreateDataSource, src.place.Server)
	putString(out, src.place.Server, wayland.WlDataSourceReqOffer, src.token)
	src.offerOut(out)
	if src.hasActions {
		out.Msg(src.place.Server, wayland.WlDataSourceReqSetActions, src.actions)
	}
	out.Msg(m.Obj.Server, wayland.WlDataDeviceReqStartDrag, src.place.Server, origin.Server, iconID, m.Word(3))
	return false, nil
}

// startDrag gives a source its private kind, unless the source was used before.
func (w *World) startDrag(src *Source) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if src.token != "" || src == w.slots[Clipboard].own {
		return false
	}
	src.token = privateKind + rand.Text()
	w.drags[src.token] = src
	return true
}

func (w *World) dragged(token string) *Source {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.drags[token]
}

// A placeholder gets the compositor's events for a source.
type placeholder Source

// OwnEvent implements relay.Owner: what is about the drag goes to the program's own
// source.
func (p *placeholder) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	src := (*Source)(p)
	if src.obj == nil || src.place != m.Obj {
		return nil
	}
	id, out := src.obj.ID, c.ToClient()
	switch m.Def {
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtTarget]:
		d := wayland.NewDecoder(m.Body)
		typ := string(d.String())
		if typ == "" {
			out.Msg(id, wayland.WlDataSourceEvtTarget, 0)
			return nil
		}
		src.world.mu.Lock()
		kind := src.target
		src.world.mu.Unlock()
		if o, ok := src.out[typ]; ok {
			kind = o.typ
		}
		putString(out, id, wayland.WlDataSourceEvtTarget, kind)
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtAction]:
		out.Msg(id, wayland.WlDataSourceEvtAction, m.Word(0))
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtCancelled]:
		out.Msg(id, wayland.WlDataSourceEvtCancelled)
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtDndDropPerformed]:
		src.dropped = true
		out.Msg(id, wayland.WlDataSourceEvtDndDropPerformed)
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtDndFinished]:
		out.Msg(id, wayland.WlDataSourceEvtDndFinished)
	case &wayland.WlDataSource.Events[wayland.WlDataSourceEvtSend]:
		src.sendOut(m) // whoever asks for the private kind finds nothing
	}
	return nil
}

// A pendingOffer is an offer of the compositor's that the program does not know yet.
type pendingOffer struct {
	world       *World
	device, obj *relay.Object
	kinds       []string
	actions     uint32
	hasActions  bool
}

// OwnEvent implements relay.Owner: the first kind tells whose drag it is. When it is
// the VM's own, the offer is the program's from then on; else letIn looks at all of
// it, when the drag enters a surface.
func (a *pendingOffer) OwnEvent(c *relay.Conn, m *relay.Msg) error {
	switch m.Def {
	case &wayland.WlDataOffer.Events[wayland.WlDataOfferEvtOffer]:
	case &wayland.WlDataOffer.Events[wayland.WlDataOfferEvtSourceActions]:
		a.actions, a.hasActions = m.Word(0), true
		return nil
	default:
		return nil
	}
	d := wayland.NewDecoder(m.Body)
	kind := string(d.String())
	src := a.world.dragged(kind)
	switch {
	case a.device.Dead || a.device.ID == 0 || src == nil && len(a.world.cfg.Drags) == 0:
		c.Discard(a.obj, wayland.WlDataOfferReqDestroy)
		return nil
	case src == nil:
		if len(a.kinds) < display.DefaultKinds {
			a.kinds = append(a.kinds, kind)
		}
		return nil
	}
	c.GiveClientID(a.obj)
	a.obj.Data = &offer{src}
	out := c.ToClient()
	out.Msg(a.device.ID, wayland.WlDataDeviceEvtDataOffer, a.obj.ID)
	for _, kind := range a.world.kindsOf(src) {
		putString(out, a.obj.ID, wayland.WlDataOfferEvtOffer, kind)
	}
	return nil
}

// onAccept tells the compositor that something is accepted, and the source's program
// what.
func onAccept(c *relay.Conn, m *relay.Msg, env Env) (bool, error) {
	of, ok := m.Obj.Data.(*offer)
	if !ok || m.Obj.Server == 0 {
		return false, nil
	}
	d := wayland.NewDecoder(m.Body)
	serial, kind := d.Uint(), string(d.String())
	if !env.May(c, m, serial, 0) {
		return false, nil
	}
	w := of.src.world
	w.mu.Lock()
	good := slices.Contains(of.src.kinds, kind)
	if good {
		of.src.target = kind
	}
	token := of.src.token
	if in := of.src.outside; in != nil {
		token = in.kinds[kind].typ
	}
	w.mu.Unlock()
	out := c.ToServer()
	if !good {
		out.Msg(m.Obj.Server, wayland.WlDataOfferReqAccept, serial, 0)
		return false, nil
	}
	out.Begin(m.Obj.Server, wayland.WlDataOfferReqAccept)
	out.Uint(serial)
	out.String(token)
	_ = out.End() // short
	return false, nil
}
