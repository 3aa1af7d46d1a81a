package clipboard

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A drag between VMs, or a VM and the host, where a rule of the user's allows it:
//
//	A ── start_drag ──► its World ── place: the private kind, and what may go out ──► compositor
//	                                  text/plain, …            to the host
//	                                  application/x-vix.drag.… to other VMs
//	                                  application/x-vix.from.A whose it is
//	compositor ── offer ──► B's World ── what may come in, by the rule from A to B ──► B
//
// So the source VM's rules decide what may leave, and the target VM's rules what may
// enter. Neither gives anything before the drop, and both convert the data as for a paste.
const dragKind = "application/x-vix.drag."

// maxDragTransfers bounds the transfers at a time: each may hold MaxData.
const maxDragTransfers = 2

// A DragRule says what of a drag may pass from one side to another: a VM's name, "host",
// or "*".
type DragRule struct {
	From, To string
	Limits   map[string]int64 // bytes, by kind; none: nothing
	Strip    bool
}

const (
	hostSide = "host"
	anySide  = "*"
)

func fits(word, side string) bool { return word == anySide || word == side }

// drag returns the rule from one side to another.
func (w *World) drag(from, to string) (rule DragRule) {
	for _, r := range w.cfg.Drags {
		if fits(r.From, from) && fits(r.To, to) {
			return r
		}
	}
	return rule
}

// outMost returns the largest limit of a kind by any rule to another VM.
func (w *World) outMost(kind string) (most int64) {
	for _, r := range w.cfg.Drags {
		if fits(r.From, w.cfg.VM) && r.To != hostSide {
			most = max(most, r.Limits[kind])
		}
	}
	return most
}

// An export is the request to a source for a type that another side asks for.
type export struct {
	kind, typ string
	limit     int64
	strip     bool
}

// offerOut adds to a drag's place what may leave the VM.
func (src *Source) offerOut(out *wayland.Encoder) {
	w := src.world
	kinds := w.kindsOf(src)
	if namesFiles(kinds) {
		return
	}
	src.out = map[string]export{}
	host := w.drag(w.cfg.VM, hostSide)
	add := func(offer string, o export) {
		src.out[offer] = o
		putString(out, src.place.Server, wayland.WlDataSourceReqOffer, offer)
	}
	for _, kind := range Kinds() {
		typ := Best(kinds, kind)
		if typ == "" {
			continue
		}
		if n := host.Limits[kind]; n > 0 {
			for _, t := range hostTypes[kind] {
				add(t, export{kind, typ, n, host.Strip})
			}
		}
		if n := w.outMost(kind); n > 0 {
			add(dragKind+kind, export{kind, typ, n, false})
		}
	}
	if len(src.out) > 0 {
		putString(out, src.place.Server, wayland.WlDataSourceReqOffer, origin+w.cfg.VM)
	}
}

// sendOut answers another side. Before the drop nothing leaves.
func (src *Source) sendOut(m *relay.Msg) {
	d := wayland.NewDecoder(m.Body)
	o, ok := src.out[string(d.String())]
	if !ok || !src.dropped || len(m.Descs) != 1 {
		return // the pipe is closed
	}
	r, far, err := askingPipe()
	if err != nil {
		return
	}
	src.world.ask(src, o.typ, wayland.FileDesc(wayland.KindWritePipe, far))
	to := m.Descs[0]
	m.Descs[0] = relay.KeptDesc
	src.world.carry(r, to, o)
}

// carry reads from a source, converts the data, and writes it to a target's pipe.
func (w *World) carry(from *os.File, to wayland.Desc, o export) {
	_ = unix.SetNonblock(to.FD, true)
	f := os.NewFile(uintptr(to.FD), "drop")
	if to.Held != nil {
		to.Held.Release() // maxDragTransfers bounds it from here on
	}
	if w.transfers.Add(1) > maxDragTransfers {
		w.transfers.Add(-1)
		_ = from.Close()
		_ = f.Close()
		return
	}
	go func() {
		defer w.transfers.Add(-1)
		it, err := read(from, o.kind, o.limit)
		if err != nil {
			w.cfg.Log.Debug("a drag ends without data", "vm", w.cfg.VM, "kind", o.kind, "err", err)
			_ = f.Close()
			return
		}
		if o.strip && o.kind == Text {
			it.Data = Strip(it.Data)
		}
		offer := NewOffer([]Item{it})
		offer.Write(hostTypes[o.kind][0], f)
		offer.Wipe()
	}()
}

// An outsideDrag is a drag from outside that a rule lets in.
type outsideDrag struct {
	kinds   map[string]export // by the type that the program asks for
	dropped bool
}

// letIn makes an offer of the compositor's the program's, as far as the rule from its
// side lets it.
func (a *pendingOffer) letIn(c *relay.Conn) {
	w := a.world
	from := Origin(a.kinds)
	if from == w.cfg.VM || a.device.Dead || a.device.ID == 0 {
		return
	}
	find := func(kind string) string {
		if t := dragKind + kind; slices.Contains(a.kinds, t) {
			return t
		}
		return ""
	}
	if from == "" {
		if namesFiles(a.kinds) {
			return
		}
		from = hostSide
		find = func(kind string) string { return Best(a.kinds, kind) }
	}
	rule := w.drag(from, w.cfg.VM)
	in := &outsideDrag{kinds: map[string]export{}}
	var kinds []string
	for _, kind := range Kinds() {
		typ, n := find(kind), rule.Limits[kind]
		if typ == "" || n <= 0 {
			continue
		}
		for _, t := range hostTypes[kind] {
			in.kinds[t] = export{kind, typ, n, rule.Strip}
			kinds = append(kinds, t)
		}
	}
	if len(kinds) == 0 {
		return
	}
	c.GiveClientID(a.obj)
	a.obj.Data = &offer{&Source{world: w, kinds: kinds, outside: in}}
	out := c.ToClient()
	out.Msg(a.device.ID, wayland.WlDataDeviceEvtDataOffer, a.obj.ID)
	for _, t := range kinds {
		putString(out, a.obj.ID, wayland.WlDataOfferEvtOffer, t)
	}
	if a.hasActions {
		out.Msg(a.obj.ID, wayland.WlDataOfferEvtSourceActions, a.actions&actionCopy)
	}
}

// actionCopy is wl_data_device_manager.dnd_action.copy: a VM does not let a program
// elsewhere give away what it has.
const actionCopy = 1

// receive asks the compositor for what a program wants of a drag from outside. Before
// the drop it gets nothing.
func (in *outsideDrag) receive(c *relay.Conn, w *World, m *relay.Msg, kind string) {
	o, ok := in.kinds[kind]
	if !ok || !in.dropped || m.Obj.Server == 0 {
		return // the pipe is closed
	}
	r, far, err := askingPipe()
	if err != nil {
		return
	}
	putString(c.ToServer(), m.Obj.Server, wayland.WlDataOfferReqReceive, o.typ)
	c.SendDesc(wayland.FileDesc(wayland.KindWritePipe, far))
	to := m.Descs[0]
	m.Descs[0] = relay.KeptDesc
	w.carry(r, to, o)
}
