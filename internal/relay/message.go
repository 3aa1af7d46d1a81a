package relay

import (
	"fmt"

	"vix/internal/wayland"
)

// A Msg is the message that a hook sees: checked against the table, its ids
// still those of the sender. It is valid during the call only.
type Msg struct {
	Obj  *Object
	Def  *wayland.Message
	Body []byte // arguments; a hook may change words that are not ids in place
	// Descs are the message's descriptors, with their kinds. A hook that drops the
	// message may keep one by setting it to KeptDesc; the rest are closed.
	Descs []wayland.Desc
	// New is the object made by the message's new id, without an id on the other
	// side yet. When the hook drops the message it stays local to the sender.
	New *Object
}

// KeptDesc replaces a descriptor in Msg.Descs that a hook took over.
var KeptDesc = wayland.Desc{FD: -1}

// Word returns the k-th word of the arguments: only for what comes before any
// string or array.
func (m *Msg) Word(k int) uint32 { return wayland.Word(m.Body, 4*k) }

// Int returns the k-th word as a signed one.
func (m *Msg) Int(k int) int32 { return int32(m.Word(k)) }

// request handles one message of the client.
func (c *Conn) request(p *pump, b []byte) error {
	id, op := wayland.Word(b, 0), int(wayland.Word(b, 4)&0xffff)
	o := c.objs.client(id)
	if o == nil || o.Dead {
		return &ProtocolError{Object: 1, Code: ErrInvalidObject, Text: fmt.Sprintf("invalid object %d", id)}
	}
	if op >= len(o.hooks.requests) {
		return Fail(o, ErrInvalidMethod, "invalid method %d, object %s#%d", op, o.Iface.Name, id)
	}
	h := &o.hooks.requests[op]
	if h.after != 0 {
		o.Count++
	}
	if h.way == waySlow || o.Server == 0 || o.Version < h.since || p.tap != nil || h.after < o.Count && h.after != 0 {
		return c.slowRequest(p, b, o, h)
	}
	if len(b) != h.size {
		return Fail(o, ErrInvalidMethod, "%s.%s: %d bytes instead of %d", o.Iface.Name, h.def.Name, len(b), h.size)
	}
	wayland.PutWord(b, 0, o.Server)
	switch h.way {
	case wayCreate:
		n, err := c.objs.fromClient(wayland.Word(b, h.newOff), h.def.New.Iface, o.Version)
		if err != nil {
			return Fail(o, newIDCode(err), "%v", err)
		}
		c.objs.toServer(n)
		wayland.PutWord(b, h.newOff, n.Server)
	case wayDestroy:
		c.clientDestroy(o)
	}
	return nil
}

func (c *Conn) slowRequest(p *pump, b []byte, o *Object, h *entry) error {
	def := h.def
	body := b[wayland.HeaderSize:]
	if o.Version < h.since {
		return Fail(o, ErrInvalidMethod, "%s.%s is of version %d, bound is %d", o.Iface.Name, def.Name, h.since, o.Version)
	}
	if err := def.Check(body); err != nil {
		return Fail(o, ErrInvalidMethod, "%s.%s: %v", o.Iface.Name, def.Name, err)
	}
	if p.tap != nil {
		p.tap.Message(c.cfg.ID, true, o.Iface, o.ID, def, body)
	}
	descs, err := p.take(def.FDKinds)
	if err != nil {
		return Fail(o, ErrInvalidMethod, "%s.%s: %v", o.Iface.Name, def.Name, err)
	}
	m := &p.m
	*m = Msg{Obj: o, Def: def, Body: body, Descs: descs}
	pass := o.Server != 0
	if def.New != nil {
		if m.New, err = c.newFromClient(o, def, body); err != nil {
			wayland.CloseAll(descs)
			return err
		}
	}
	if h.request != nil && (h.after == 0 || o.Count > h.after) {
		var ok bool
		if ok, err = h.request(c, m); err != nil {
			wayland.CloseAll(descs)
			return err
		}
		pass = pass && ok
	}
	if pass {
		if m.New != nil && m.New.Server == 0 {
			c.objs.toServer(m.New)
		}
		if err = c.translateRequest(m); err != nil {
			wayland.CloseAll(descs)
			return err
		}
		wayland.PutWord(b, 0, o.Server)
		if len(descs) > 0 {
			p.spanDescs = append(p.spanDescs, descs...)
		}
	} else {
		wayland.CloseAll(descs)
		p.cutAt(p.r-len(b), p.r)
	}
	if def.Destructor {
		c.clientDestroy(o)
	}
	return nil
}

// newFromClient makes the object of a request's new id.
func (c *Conn) newFromClient(o *Object, def *wayland.Message, body []byte) (*Object, error) {
	iface, version, word := def.New.Iface, o.Version, def.New.Word
	if iface == nil {
		if o.Iface != wayland.WlRegistry {
			return nil, Fail(o, ErrImplementation, "%s.%s makes an object of no known interface", o.Iface.Name, def.Name)
		}
		var err error
		if iface, version, err = c.bind(o, body); err != nil {
			return nil, err
		}
		word = len(body)/4 - 1
	}
	if def.Dynamic && iface == def.New.Iface {
		word = dynamicWord(def, body, def.New)
	}
	n, err := c.objs.fromClient(wayland.Word(body, word*4), iface, version)
	if err != nil {
		return nil, Fail(o, newIDCode(err), "%v", err)
	}
	return n, nil
}

// dynamicWord finds an argument's word in a checked body with strings or arrays.
func dynamicWord(def *wayland.Message, body []byte, want *wayland.Arg) int {
	off := 0
	for k := range def.Args {
		a := &def.Args[k]
		if a == want {
			break
		}
		off += argSize(a, body, off)
	}
	return off / 4
}

// argSize is the size in bytes of the argument at off of a checked body.
func argSize(a *wayland.Arg, body []byte, off int) int {
	switch a.Type {
	case 'h':
		return 0
	case 's', 'a':
		return 4 + int((wayland.Word(body, off)+3)&^3)
	}
	return 4
}

// translateRequest rewrites the ids of a checked request from the client's to
// the server's.
func (c *Conn) translateRequest(m *Msg) error {
	off := 0
	for k := range m.Def.Args {
		a := &m.Def.Args[k]
		switch a.Type {
		case 'o':
			id := wayland.Word(m.Body, off)
			if id == 0 {
				if !a.Nullable {
					return Fail(m.Obj, ErrInvalidObject, "%s.%s: argument %d is null", m.Obj.Iface.Name, m.Def.Name, k)
				}
				break
			}
			arg := c.objs.client(id)
			if arg == nil || arg.Dead || a.Iface != nil && arg.Iface != a.Iface {
				return Fail(m.Obj, ErrInvalidObject, "%s.%s: invalid object %d", m.Obj.Iface.Name, m.Def.Name, id)
			}
			if arg.Server == 0 && !a.Nullable {
				return Fail(m.Obj, ErrImplementation, "%s.%s: object %s#%d is not known to the compositor", m.Obj.Iface.Name, m.Def.Name, arg.Iface.Name, id)
			}
			wayland.PutWord(m.Body, off, arg.Server)
		case 'n':
			wayland.PutWord(m.Body, off, m.New.Server)
		}
		off += argSize(a, m.Body, off)
	}
	return nil
}

// event handles one message of the server.
func (c *Conn) event(p *pump, b []byte) error {
	id, op := wayland.Word(b, 0), int(wayland.Word(b, 4)&0xffff)
	o := c.objs.server(id)
	if o == nil {
		return fmt.Errorf("server: event %d for unknown object %d", op, id)
	}
	if op >= len(o.hooks.events) {
		return fmt.Errorf("server: event %d is unknown to %s", op, o.Iface.Name)
	}
	h := &o.hooks.events[op]
	way := h.way
	if !o.Awake && h.asleep != waySlow {
		way = h.asleep
	}
	switch {
	case way == waySlow || way == wayCreate || o.ID == 0 || p.tap != nil:
		return c.slowEvent(p, b, o, h)
	case len(b) != h.size:
		return fmt.Errorf("server: %s.%s: %d bytes instead of %d", o.Iface.Name, h.def.Name, len(b), h.size)
	case id == 1:
		return c.deleteID(p, b)
	}
	wayland.PutWord(b, 0, o.ID)
	return nil
}

// deleteID handles wl_display.delete_id, the display's only plain event: the
// server's id is free, and so is the client's, if it has one.
func (c *Conn) deleteID(p *pump, b []byte) error {
	client, err := c.serverDelete(wayland.Word(b, wayland.HeaderSize))
	if err != nil {
		return err
	}
	if client == 0 {
		p.cutAt(p.r-len(b), p.r)
	} else {
		wayland.PutWord(b, wayland.HeaderSize, client)
	}
	return nil
}

func (c *Conn) slowEvent(p *pump, b []byte, o *Object, h *entry) error {
	def := h.def
	body := b[wayland.HeaderSize:]
	if err := def.Check(body); err != nil {
		return fmt.Errorf("server: %s.%s: %w", o.Iface.Name, def.Name, err)
	}
	if p.tap != nil {
		p.tap.Message(c.cfg.ID, false, o.Iface, o.ID, def, body)
	}
	if o.ID == 1 && def == &wayland.WlDisplay.Events[wayland.WlDisplayEvtDeleteId] {
		return c.deleteID(p, b)
	}
	descs, err := p.take(def.FDKinds)
	if err != nil {
		return fmt.Errorf("server: %s.%s: %w", o.Iface.Name, def.Name, err)
	}
	m := &p.m
	*m = Msg{Obj: o, Def: def, Body: body, Descs: descs}
	if def.New != nil {
		word := def.New.Word
		if def.Dynamic {
			word = dynamicWord(def, body, def.New)
		}
		if m.New, err = c.objs.fromServer(wayland.Word(body, word*4), def.New.Iface, o.Version); err != nil {
			wayland.CloseAll(descs)
			return err
		}
		m.New.Dead = o.ID == 0 // nobody will ever destroy it
	}
	pass := o.ID != 0
	if own, ok := o.Data.(Owner); ok && !pass {
		if !o.Dead {
			err = own.OwnEvent(c, m)
		}
		if err != nil {
			wayland.CloseAll(descs)
			return err
		}
	} else if h.event != nil && !(o.Dead && o.ID == 0) {
		var ok bool
		if ok, err = h.event(c, m); err != nil {
			wayland.CloseAll(descs)
			return err
		}
		pass = pass && ok
	}
	if !pass || !c.nameable(m) {
		wayland.CloseAll(descs)
		p.cutAt(p.r-len(b), p.r)
		return nil
	}
	if m.New != nil && m.New.ID == 0 {
		c.objs.toClient(m.New)
	}
	c.translateEvent(m)
	wayland.PutWord(b, 0, o.ID)
	if len(descs) > 0 {
		p.spanDescs = append(p.spanDescs, descs...)
	}
	return nil
}

// nameable tells whether the client knows every object that an event must name: a server
// also sends that a client's surface entered an owned wl_output.
func (c *Conn) nameable(m *Msg) bool {
	off := 0
	for k := range m.Def.Args {
		a := &m.Def.Args[k]
		if a.Type == 'o' && !a.Nullable {
			if o := c.objs.server(wayland.Word(m.Body, off)); o == nil || o.ID == 0 {
				return false
			}
		}
		off += argSize(a, m.Body, off)
	}
	return true
}

// translateEvent rewrites the ids of a checked event from the server's to the
// client's. An object that the client does not know, or has destroyed and may
// have replaced, becomes null.
func (c *Conn) translateEvent(m *Msg) {
	off := 0
	for k := range m.Def.Args {
		a := &m.Def.Args[k]
		switch a.Type {
		case 'o':
			id := uint32(0)
			if arg := c.objs.server(wayland.Word(m.Body, off)); arg != nil {
				id = arg.ID
			}
			wayland.PutWord(m.Body, off, id)
		case 'n':
			wayland.PutWord(m.Body, off, m.New.ID)
		}
		off += argSize(a, m.Body, off)
	}
}

// ToServer returns where a hook writes messages to the server, with the
// server's ids. They come before the message that the hook is called for.
func (c *Conn) ToServer() *wayland.Encoder { return &c.box(true).Encoder }

// ToClient returns where a hook writes messages to the client, with the
// client's ids.
func (c *Conn) ToClient() *wayland.Encoder { return &c.box(false).Encoder }

// SendDesc sends d to the server with the message that the hook writes to ToServer.
func (c *Conn) SendDesc(d wayland.Desc) {
	if p := c.current; p != nil && p.requests {
		p.spanDescs = append(p.spanDescs, d)
	} else {
		c.server.inject.descs = append(c.server.inject.descs, d)
	}
}

// SendDescToClient sends d to the client with the message that the hook writes to
// ToClient.
func (c *Conn) SendDescToClient(d wayland.Desc) {
	if p := c.current; p != nil && !p.requests {
		p.spanDescs = append(p.spanDescs, d)
	} else {
		c.client.inject.descs = append(c.client.inject.descs, d)
	}
}

// box is the outbox towards the server or the client. In the direction of the
// current batch it is the pump's own: the span is cut before the message being
// handled, so that order is kept.
func (c *Conn) box(toServer bool) *outbox {
	p := c.current
	if p != nil && p.requests == toServer {
		p.cutBefore()
		return p.out.open()
	}
	if toServer {
		return c.server.inject.open()
	}
	return c.client.inject.open()
}

// cutBefore moves the part of the span before the current message to out.
func (p *pump) cutBefore() {
	if msg := p.r - p.size; p.span < msg {
		p.cutAt(msg, msg)
	}
}

// Client returns the object with the client's id, or nil: how a hook of a
// request looks up an argument.
func (c *Conn) Client(id uint32) *Object {
	if o := c.objs.client(id); o != nil && !o.Dead {
		return o
	}
	return nil
}

// Server returns the object with the server's id, or nil.
func (c *Conn) Server(id uint32) *Object { return c.objs.server(id) }

// An Owner is the Data of an owned object, and handles its events. Without one they go
// to the interface's hook, as those of the client's objects do.
type Owner interface {
	// OwnEvent handles an event, which goes no further. The ids are the server's.
	OwnEvent(c *Conn, m *Msg) error
}

// Own makes an object on the server that the client does not know. The caller
// writes the request that creates it.
func (c *Conn) Own(i *wayland.Interface, version uint32, data any) *Object {
	o := c.objs.alloc(i, version)
	o.Data = data
	c.objs.toServer(o)
	return o
}

// Keep takes over the server's half of an object that the client is about to
// destroy, as an owned object. The hook of the destructor then drops it.
func (c *Conn) Keep(o *Object) *Object {
	k := c.objs.alloc(o.Iface, o.Version)
	k.Server, o.Server = o.Server, 0
	c.objs.byServer[k.Server] = k
	return k
}

// Discard destroys an object that the server created and that no hook wants
// the client to know, by its destructor request op.
func (c *Conn) Discard(o *Object, op uint16) {
	c.ToServer().Msg(o.Server, op)
	o.Dead = true
}

// GiveServerID gives a local object of the client's an id on the server. The
// caller writes the request that creates it.
func (c *Conn) GiveServerID(o *Object) { c.objs.toServer(o) }

// GiveClientID makes an object of the server's, which a hook kept from the client,
// known to it. The caller writes the event that creates it, unless the object has
// an id already.
func (c *Conn) GiveClientID(o *Object) {
	if o.ID == 0 {
		c.objs.toClient(o)
	}
}

// Offer makes an object on the client that the server does not know, as the server
// would. The caller writes the event that creates it. Offer returns nil when the
// connection may have no more objects.
func (c *Conn) Offer(i *wayland.Interface, version uint32, data any) *Object {
	if c.objs.full(i) != nil {
		return nil
	}
	o := c.objs.alloc(i, version)
	o.Data = data
	c.objs.toClient(o)
	return o
}
