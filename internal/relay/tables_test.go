package relay

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// TestTables carries every request and every event of every interface of the
// tables through the engine, with random valid arguments, many in one batch: each
// arrives in order and equal, its ids translated and its descriptors with it, of the
// kinds that the tables name. The filter may hide an interface; the engine carries
// it all the same.
//
//	for each interface: a fresh connection, objects whose ids differ on the two sides
//	  rounds   all requests that end nothing, shuffled, cut anywhere; then all events
//	  the end  each destructor on an object of its own, then delete_id
func TestTables(t *testing.T) {
	seen := map[*wayland.Message]bool{}
	for _, i := range wayland.Interfaces() {
		for _, tapped := range []bool{false, true} { // with a tap every message goes the slow way
			t.Run(fmt.Sprintf("%s/tap=%v", i.Name, tapped), func(t *testing.T) {
				waylandtest.LeakCheck(t)
				x := newExchange(t, uint64(i.Index), tapped, seen)
				x.carry(i)
			})
		}
	}
	for _, i := range wayland.Interfaces() {
		for _, ms := range [][]wayland.Message{i.Requests, i.Events} {
			for k := range ms {
				if !seen[&ms[k]] {
					t.Errorf("%s.%s was not carried", i.Name, ms[k].Name)
				}
			}
		}
	}
}

// TestTablesSince holds that a request that the bound version does not have is the
// client's mistake.
func TestTablesSince(t *testing.T) {
	for _, i := range wayland.Interfaces() {
		for op := range i.Requests {
			m := &i.Requests[op]
			if m.Since < 2 {
				continue
			}
			t.Run(i.Name+"."+m.Name, func(t *testing.T) {
				x := newExchange(t, 1, false, map[*wayland.Message]bool{})
				o := x.bind(i, m.Since-1)
				p := x.make(o, op, true)
				x.send(clientSide, []*parcel{p})
				if id, code, text := x.client.WantError(); id != o.id[clientSide] || code != ErrInvalidMethod {
					t.Errorf("error %d on %d: %s", code, id, text)
				}
			})
		}
	}
}

// The sides of an exchange, as indexes.
const (
	clientSide = iota
	serverSide
)

// A twin is an object with its id on each side, 0 where it is not known yet.
type twin struct {
	iface *wayland.Interface
	id    [2]uint32
}

// A parcel is one message with its arguments, told so that it can be written as
// either side sees it.
type parcel struct {
	obj  *twin
	op   int
	def  *wayland.Message
	args []argument
}

type argument struct {
	typ  byte
	word uint32
	blob []byte       // of s, without the NUL, and a
	null bool         // of s
	obj  *twin        // of o, nil for null, and n
	file wayland.Desc // of h, until it is sent
	ino  uint64
}

// An exchange is a client and a server that talk through the engine.
type exchange struct {
	*rig
	t       *testing.T
	rnd     *rand.Rand
	kinds   [2]kindLog // what was sent to each side
	seen    map[*wayland.Message]bool
	display *twin
	reg     *twin
	twins   map[*wayland.Interface][]*twin
	next    [2]uint32 // the next id that each side allocates
}

// A kindLog is a transport that notes the kinds of what it sends.
type kindLog struct {
	wayland.Transport
	mu    sync.Mutex
	kinds []wayland.Kind
}

func (l *kindLog) Send(p []byte, ds []wayland.Desc) error {
	l.mu.Lock()
	for _, d := range ds {
		l.kinds = append(l.kinds, d.Kind)
	}
	l.mu.Unlock()
	return l.Transport.Send(p, ds)
}

func (l *kindLog) take(n int) []wayland.Kind {
	l.mu.Lock()
	defer l.mu.Unlock()
	n = min(n, len(l.kinds))
	ks := slices.Clone(l.kinds[:n])
	l.kinds = l.kinds[n:]
	return ks
}

type silentTap struct{}

func (silentTap) Message(uint64, bool, *wayland.Interface, uint32, *wayland.Message, []byte) {}

// newExchange connects the two, and lets their ids differ: the server has objects
// that the client does not know, in both ranges.
func newExchange(t *testing.T, seed uint64, tapped bool, seen map[*wayland.Message]bool) *exchange {
	t.Helper()
	const strangers = 3
	dropped := 0
	h := NewHooks()
	h.Event(wayland.WlDataDevice, wayland.WlDataDeviceEvtDataOffer, func(*Conn, *Msg) (bool, error) {
		dropped++
		return dropped > strangers, nil
	})
	cfg := Config{Hooks: h, Tap: &TapSwitch{}}
	if tapped {
		cfg.Tap.Set(silentTap{})
	}
	x := &exchange{t: t, rnd: rand.New(rand.NewPCG(seed, 7)), seen: seen, twins: map[*wayland.Interface][]*twin{}}
	x.next = [2]uint32{2, wayland.ServerIDs}
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	x.kinds[clientSide].Transport, x.kinds[serverSide].Transport = cf, sf
	x.rig = &rig{
		client: &waylandtest.Peer{T: t, Tr: cn},
		server: &waylandtest.Peer{T: t, Tr: sn},
		conn:   New(&x.kinds[clientSide], &x.kinds[serverSide], cfg),
		done:   make(chan error, 1),
	}
	x.conn.mu.Lock()
	for range strangers {
		x.conn.Own(wayland.WlRegion, 1, nil)
	}
	x.conn.mu.Unlock()
	go func() { x.done <- x.conn.Run(context.Background()) }()
	t.Cleanup(func() { x.close() })
	x.display = &twin{wayland.WlDisplay, [2]uint32{1, 1}}
	x.twins[wayland.WlDisplay] = []*twin{x.display}
	p := x.make(x.display, wayland.WlDisplayReqGetRegistry, true)
	x.pass(clientSide, []*parcel{p})
	x.reg = p.args[0].obj
	device := x.bind(wayland.WlDataDevice, wayland.WlDataDevice.Version)
	for range strangers {
		x.server.Send(device.id[serverSide], wayland.WlDataDeviceEvtDataOffer, x.next[serverSide])
		x.next[serverSide]++
	}
	return x
}

// carry passes all messages of i.
func (x *exchange) carry(i *wayland.Interface) {
	o := x.bind(i, i.Version)
	const rounds = 4
	for range rounds {
		for side, ms := range [][]wayland.Message{i.Requests, i.Events} {
			var ps []*parcel
			for _, op := range x.rnd.Perm(len(ms)) {
				if !ms[op].Destructor && !ours(&ms[op]) {
					ps = append(ps, x.make(o, op, side == clientSide))
				}
			}
			x.pass(side, ps)
		}
	}
	for side, ms := range [][]wayland.Message{i.Requests, i.Events} {
		for op := range ms {
			if ms[op].Destructor {
				o := x.bind(i, i.Version)
				x.pass(side, []*parcel{x.make(o, op, side == clientSide)})
				x.deleteID(o)
			}
		}
	}
	// What ended before did not disturb what lives.
	x.pass(clientSide, []*parcel{x.make(x.display, wayland.WlDisplayReqSync, true)})
}

// ours tells of the messages with which an exchange makes and ends objects.
func ours(m *wayland.Message) bool {
	return m == &wayland.WlRegistry.Requests[wayland.WlRegistryReqBind] ||
		m == &wayland.WlRegistry.Events[wayland.WlRegistryEvtGlobal] ||
		m == &wayland.WlRegistry.Events[wayland.WlRegistryEvtGlobalRemove] ||
		m == &wayland.WlDisplay.Events[wayland.WlDisplayEvtDeleteId]
}

// bind makes an object of any interface, by announcing it as a global, binding
// that, and removing it.
func (x *exchange) bind(i *wayland.Interface, version uint32) *twin {
	x.t.Helper()
	name := x.rnd.Uint32()
	r := x.reg
	o := &twin{iface: i}
	say := func(side, op int, args ...argument) {
		x.t.Helper()
		def := &r.iface.Events[op]
		if side == clientSide {
			def = &r.iface.Requests[op]
		}
		x.pass(side, []*parcel{{r, op, def, args}})
	}
	say(serverSide, wayland.WlRegistryEvtGlobal,
		argument{typ: 'u', word: name}, argument{typ: 's', blob: []byte(i.Name)}, argument{typ: 'u', word: version})
	say(clientSide, wayland.WlRegistryReqBind,
		argument{typ: 'u', word: name}, argument{typ: 's', blob: []byte(i.Name)}, argument{typ: 'u', word: version}, argument{typ: 'n', obj: o})
	say(serverSide, wayland.WlRegistryEvtGlobalRemove, argument{typ: 'u', word: name})
	return o
}

// deleteID ends an object as the server does after a destructor.
func (x *exchange) deleteID(o *twin) {
	x.t.Helper()
	x.server.Send(1, wayland.WlDisplayEvtDeleteId, o.id[serverSide])
	if m := x.client.Want(1, wayland.WlDisplayEvtDeleteId); m.Word(0) != o.id[clientSide] {
		x.t.Fatalf("delete_id of %d, not %d", m.Word(0), o.id[clientSide])
	}
	x.seen[&wayland.WlDisplay.Events[wayland.WlDisplayEvtDeleteId]] = true
	x.twins[o.iface] = slices.DeleteFunc(x.twins[o.iface], func(y *twin) bool { return y == o })
}

// make invents a message.
func (x *exchange) make(o *twin, op int, request bool) *parcel {
	x.t.Helper()
	ms := o.iface.Events
	if request {
		ms = o.iface.Requests
	}
	def := &ms[op]
	p := &parcel{obj: o, op: op, def: def}
	for k := range def.Args {
		a := &def.Args[k]
		v := argument{typ: a.Type, word: x.rnd.Uint32()}
		switch a.Type {
		case 's':
			v.null = a.Nullable && x.rnd.IntN(2) == 0
			for range x.rnd.IntN(40) {
				v.blob = append(v.blob, byte(1+x.rnd.IntN(255)))
			}
		case 'a':
			for range x.rnd.IntN(60) {
				v.blob = append(v.blob, byte(x.rnd.Uint32()))
			}
		case 'o':
			if !a.Nullable || x.rnd.IntN(4) > 0 {
				v.obj = x.some(a.Iface)
			}
		case 'n':
			v.obj = &twin{iface: a.Iface}
		case 'h':
			v.file = waylandtest.Memfd(x.t, 1)
			v.ino = inode(x.t, v.file) // tells it from others
		}
		p.args = append(p.args, v)
	}
	return p
}

// some returns an object of the interface, nil being any, that both sides know.
func (x *exchange) some(i *wayland.Interface) *twin {
	x.t.Helper()
	if i == nil {
		i = wayland.WlSurface
	}
	if known := x.twins[i]; len(known) > 0 && x.rnd.IntN(3) > 0 {
		return known[x.rnd.IntN(len(known))]
	}
	if i == wayland.WlDisplay {
		return x.display
	}
	return x.bind(i, i.Version)
}

func inode(t *testing.T, d wayland.Desc) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(d.FD, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// encode writes a parcel as a side sees it.
func (p *parcel) encode(e *wayland.Encoder, side int) error {
	e.Begin(p.obj.id[side], uint16(p.op))
	for _, a := range p.args {
		switch a.typ {
		case 's':
			if a.null {
				e.Uint(0)
			} else {
				e.String(string(a.blob))
			}
		case 'a':
			e.Array(a.blob)
		case 'o', 'n':
			id := uint32(0)
			if a.obj != nil {
				id = a.obj.id[side]
			}
			e.Uint(id)
		case 'h':
		default:
			e.Uint(a.word)
		}
	}
	return e.End()
}

// send writes parcels in pieces that end anywhere, with all descriptors in front.
func (x *exchange) send(side int, ps []*parcel) {
	x.t.Helper()
	var e wayland.Encoder
	var files []wayland.Desc
	for _, p := range ps {
		for _, a := range p.args {
			switch a.typ {
			case 'n': // in the order in which they are sent
				a.obj.id[side] = x.next[side]
				x.next[side]++
			case 'h':
				files = append(files, a.file)
			}
		}
		if err := p.encode(&e, side); err != nil {
			x.t.Fatalf("%s.%s: %v", p.obj.iface.Name, p.def.Name, err)
		}
	}
	peer := x.client
	if side == serverSide {
		peer = x.server
	}
	for rest := e.B; len(rest) > 0; {
		n := 1 + x.rnd.IntN(len(rest))
		var ds []wayland.Desc
		k := min(len(files), wayland.MaxDescs)
		if ds, files = files[:k], files[k:]; len(files) > 0 {
			n = 1
		}
		peer.Write(rest[:n], ds...)
		rest = rest[n:]
	}
}

// pass sends parcels from a side and checks each on the other.
func (x *exchange) pass(from int, ps []*parcel) {
	x.t.Helper()
	x.send(from, ps)
	to := 1 - from
	peer := x.server
	if to == clientSide {
		peer = x.client
	}
	for _, p := range ps {
		m, err := peer.Next()
		if err != nil {
			x.t.Fatalf("%s.%s: %v: %v", p.obj.iface.Name, p.def.Name, err, x.close())
		}
		x.learn(p, to, m)
		var e wayland.Encoder
		if err := p.encode(&e, to); err != nil {
			x.t.Fatal(err)
		}
		if m.ID != p.obj.id[to] || int(m.Op) != p.op || !bytes.Equal(m.Body, e.B[wayland.HeaderSize:]) {
			x.t.Fatalf("%s.%s arrives as %d.%d % x\nwant %d.%d % x", p.obj.iface.Name, p.def.Name,
				m.ID, m.Op, m.Body, p.obj.id[to], p.op, e.B[wayland.HeaderSize:])
		}
		x.checkFiles(p, to, peer)
		x.seen[p.def] = true
	}
}

// learn takes the receiver's id of a new object out of the message: it is a new one
// of the sender's range.
func (x *exchange) learn(p *parcel, to int, m waylandtest.Msg) {
	x.t.Helper()
	for k := range p.args {
		a := &p.args[k]
		if a.typ != 'n' {
			continue
		}
		word := 0
		for _, b := range p.args[:k] {
			switch {
			case b.typ == 's' && !b.null:
				word += 1 + (len(b.blob)+1+3)/4
			case b.typ == 'a':
				word += 1 + (len(b.blob)+3)/4
			case b.typ != 'h':
				word++
			}
		}
		id := m.Word(word)
		if (id >= wayland.ServerIDs) != (to == clientSide) {
			x.t.Fatalf("%s.%s: new id %#x", p.obj.iface.Name, p.def.Name, id)
		}
		for _, known := range x.twins {
			for _, o := range known {
				if o.id[to] == id {
					x.t.Fatalf("%s.%s: new id %d is a %s's", p.obj.iface.Name, p.def.Name, id, o.iface.Name)
				}
			}
		}
		a.obj.id[to] = id
		if a.obj.id[0] == a.obj.id[1] {
			x.t.Fatalf("%s.%s: the ids of the two sides do not differ", p.obj.iface.Name, p.def.Name)
		}
		x.twins[a.obj.iface] = append(x.twins[a.obj.iface], a.obj)
	}
}

// checkFiles takes the parcel's descriptors from the peer that received it.
func (x *exchange) checkFiles(p *parcel, to int, peer *waylandtest.Peer) {
	x.t.Helper()
	n := 0
	for _, a := range p.args {
		if a.typ != 'h' {
			continue
		}
		if len(peer.Descs) == 0 {
			x.t.Fatalf("%s.%s came without its descriptor", p.obj.iface.Name, p.def.Name)
		}
		d := peer.Descs[0]
		peer.Descs = peer.Descs[1:]
		if inode(x.t, d) != a.ino {
			x.t.Errorf("%s.%s came with another's descriptor", p.obj.iface.Name, p.def.Name)
		}
		d.Close()
		n++
	}
	if ks := x.kinds[to].take(n); !slices.Equal(ks, p.def.FDKinds) {
		x.t.Errorf("%s.%s: descriptors of the kinds %v, want %v", p.obj.iface.Name, p.def.Name, ks, p.def.FDKinds)
	}
}

// TestTablesServerObjects holds what the engine takes for granted: no event ends
// an object that the server made, so that its id is free by the client's word only.
func TestTablesServerObjects(t *testing.T) {
	for _, i := range wayland.Interfaces() {
		for k := range i.Events {
			n := i.Events[k].New
			if n == nil {
				continue
			}
			if n.Iface == nil {
				t.Errorf("%s.%s makes an object of no known interface", i.Name, i.Events[k].Name)
				continue
			}
			for _, e := range n.Iface.Events {
				if e.Destructor {
					t.Errorf("%s.%s makes a %s, which %s ends", i.Name, i.Events[k].Name, n.Iface.Name, e.Name)
				}
			}
		}
	}
}

// resourceEnd is a server's end that takes virtio-gpu resources beside files, as
// a cross-domain context does.
type resourceEnd struct {
	wayland.Transport
	got chan wayland.Desc
}

func (r resourceEnd) Send(p []byte, ds []wayland.Desc) error {
	var files []wayland.Desc
	for _, d := range ds {
		if d.Res != 0 {
			r.got <- d
		} else {
			files = append(files, d)
		}
	}
	return r.Transport.Send(p, files)
}

// TestDmabufByResource holds that a plane of a dmabuf whose memory is a virtio-gpu
// resource passes by the resource's id: a hook names it in place of the client's
// file, and the message, with others on both sides of it, goes out with the resource.
func TestDmabufByResource(t *testing.T) {
	waylandtest.LeakCheck(t)
	const resource = 42
	h := NewHooks()
	h.Request(wayland.ZwpLinuxBufferParamsV1, wayland.ZwpLinuxBufferParamsV1ReqAdd, func(_ *Conn, m *Msg) (bool, error) {
		m.Descs[0].Close()
		m.Descs[0] = wayland.ResDesc(resource)
		return true, nil
	})
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	end := resourceEnd{sf, make(chan wayland.Desc, 8)}
	r := &rig{
		client: &waylandtest.Peer{T: t, Tr: cn}, server: &waylandtest.Peer{T: t, Tr: sn},
		conn: New(cf, end, Config{Hooks: h}), done: make(chan error, 1),
	}
	go func() { r.done <- r.conn.Run(context.Background()) }()
	defer r.close()
	r.client.Send(1, wayland.WlDisplayReqGetRegistry, 2)
	r.server.Want(1, wayland.WlDisplayReqGetRegistry)
	announce(r.server, 2, 1, "zwp_linux_dmabuf_v1", 5)
	r.client.Want(2, wayland.WlRegistryEvtGlobal)
	dmabuf := r.bound(1, "zwp_linux_dmabuf_v1", 5, 3)
	var e wayland.Encoder
	e.Msg(3, wayland.ZwpLinuxDmabufV1ReqCreateParams, 4)
	for plane := range uint32(3) {
		e.Msg(4, wayland.ZwpLinuxBufferParamsV1ReqAdd, plane, 0, 256, 0, 0)
	}
	e.Msg(4, wayland.ZwpLinuxBufferParamsV1ReqCreateImmed, 5, 64, 64, 0x34325258 /* XR24 */, 0)
	r.client.Write(e.B, waylandtest.Memfd(t, 1), waylandtest.Memfd(t, 1), waylandtest.Memfd(t, 1))
	params := r.server.Want(dmabuf, wayland.ZwpLinuxDmabufV1ReqCreateParams).Word(0)
	for plane := range uint32(3) {
		if m := r.server.Want(params, wayland.ZwpLinuxBufferParamsV1ReqAdd); m.Word(0) != plane || m.Word(2) != 256 {
			t.Errorf("plane %d arrives as % x", plane, m.Body)
		}
		if d := <-end.got; d != wayland.ResDesc(resource) {
			t.Errorf("plane %d is %+v", plane, d)
		}
	}
	r.server.Want(params, wayland.ZwpLinuxBufferParamsV1ReqCreateImmed)
}
