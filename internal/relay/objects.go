package relay

import (
	"errors"
	"fmt"

	"vix/internal/wayland"
)

// An Object is one object of a connection, as both sides know it.
//
//	             created             destroyed           delete_id
//	client's id  ─────────► live ──────────────► dead ──────────────► free
//	server's id  ─────────► live ──────────────► free for the client at once; the
//	                                             server's id stays known until reused
//	local        ─────────► live ──────────────► free (we answer with delete_id)
//	owned        ─────────► live ──────────────► dead ──────────────► free
type Object struct {
	Iface   *wayland.Interface
	Version uint32
	// ID is the client's id, 0 for an object that the client does not know (owned).
	ID uint32
	// Server is the server's id, 0 for an object that the server does not know (local).
	Server uint32
	// Data belongs to the hooks, More to a second layer of them.
	Data, More any
	// Count is the number of its requests that RequestAfter counts. Hooks may
	// reset it.
	Count uint32
	// Awake belongs to the hooks: see Layer.EventWhile.
	Awake bool
	// Dead is set when the client destroyed the object; events may still come.
	Dead  bool
	hooks *ifaceHooks
}

// objects maps the ids of both sides: dense slices by id, each split into the ids
// that the client allocates and those that the server allocates.
type objects struct {
	hooks *Hooks
	// byClient and byServer hold client-allocated ids from 1.
	byClient, byServer []*Object
	// upClient and upServer hold server-allocated ids, from wayland.ServerIDs.
	upClient, upServer []*Object
	// freeServer holds the free ids of byServer, freeUp those of upClient. We allocate
	// them, as the server's client and as the client's server.
	freeServer, freeUp []uint32
	spare              []*Object
	live               int
	// room is the number of objects reserved from Config.Room. count is the number of
	// objects of each interface, max its bound, nil for none.
	room  int
	ask   func(n int) bool
	count []int32
	max   []int32
}

// roomStep is how many objects a connection reserves at a time, so that it seldom
// touches what connections share.
const roomStep = 1024

func (m *objects) init(cfg *Config) {
	m.hooks = cfg.Hooks
	m.ask, m.max = cfg.Room, cfg.MaxOf
	m.count = make([]int32, len(m.hooks.tables))
	m.byClient = make([]*Object, 1, 64)
	m.byServer = make([]*Object, 1, 64)
	d := m.alloc(wayland.WlDisplay, 1)
	d.ID, d.Server = 1, 1
	m.byClient = append(m.byClient, d)
	m.byServer = append(m.byServer, d)
}

func (m *objects) alloc(i *wayland.Interface, version uint32) *Object {
	var o *Object
	if n := len(m.spare); n > 0 {
		o, m.spare = m.spare[n-1], m.spare[:n-1]
	} else {
		o = new(Object)
	}
	*o = Object{Iface: i, Version: version, hooks: m.hooks.of(i)}
	m.live++
	m.count[i.Index]++
	return o
}

// errFull says that a connection has all the objects that it may have.
var errFull = errors.New("limit reached")

// newIDCode returns the wl_display.error code for a refused new id.
func newIDCode(err error) uint32 {
	if errors.Is(err, errFull) {
		return ErrNoMemory
	}
	return ErrInvalidObject
}

// full returns why there cannot be one more object of the interface, or nil.
func (m *objects) full(i *wayland.Interface) error {
	if m.max != nil && m.count[i.Index] >= m.max[i.Index] {
		return fmt.Errorf("%w: %d objects of %s", errFull, m.max[i.Index], i.Name)
	}
	if m.live < m.room {
		return nil
	}
	if m.room >= MaxObjects {
		return fmt.Errorf("%w: %d objects", errFull, MaxObjects)
	}
	if m.ask != nil && !m.ask(roomStep) {
		return fmt.Errorf("%w: no room for more objects", errFull)
	}
	m.room += roomStep
	return nil
}

// client returns the object with the client's id, or nil.
func (m *objects) client(id uint32) *Object { return at(m.byClient, m.upClient, id) }

// server returns the object with the server's id, or nil.
func (m *objects) server(id uint32) *Object { return at(m.byServer, m.upServer, id) }

func at(low, up []*Object, id uint32) *Object {
	if id < uint32(len(low)) {
		return low[id]
	}
	if i := id - wayland.ServerIDs; id >= wayland.ServerIDs && i < uint32(len(up)) {
		return up[i]
	}
	return nil
}

// fromClient makes the object that the client created with id. As in
// libwayland, a client's new id is a free one or the next.
func (m *objects) fromClient(id uint32, i *wayland.Interface, version uint32) (*Object, error) {
	switch {
	case id == 0 || id >= wayland.ServerIDs || id > uint32(len(m.byClient)):
		return nil, fmt.Errorf("invalid new id %d", id)
	case id < uint32(len(m.byClient)) && m.byClient[id] != nil:
		return nil, fmt.Errorf("new id %d is in use", id)
	}
	if err := m.full(i); err != nil {
		return nil, err
	}
	o := m.alloc(i, version)
	o.ID = id
	if id == uint32(len(m.byClient)) {
		m.byClient = append(m.byClient, o)
	} else {
		m.byClient[id] = o
	}
	return o, nil
}

// toServer gives o an id on the server.
func (m *objects) toServer(o *Object) {
	if n := len(m.freeServer); n > 0 {
		o.Server, m.freeServer = m.freeServer[n-1], m.freeServer[:n-1]
		m.byServer[o.Server] = o
		return
	}
	o.Server = uint32(len(m.byServer))
	m.byServer = append(m.byServer, o)
}

// fromServer makes the object that the server created with id. An object of
// the client's that had the id before is gone.
func (m *objects) fromServer(id uint32, i *wayland.Interface, version uint32) (*Object, error) {
	k := id - wayland.ServerIDs
	if id < wayland.ServerIDs || k > uint32(len(m.upServer)) {
		return nil, fmt.Errorf("server: invalid new id %d", id)
	}
	if err := m.full(i); err != nil {
		return nil, fmt.Errorf("server: %w", err)
	}
	o := m.alloc(i, version)
	o.Server = id
	if k == uint32(len(m.upServer)) {
		m.upServer = append(m.upServer, o)
		return o, nil
	}
	if old := m.upServer[k]; old != nil {
		if !old.Dead {
			m.recycle(o)
			return nil, fmt.Errorf("server: new id %d is in use", id)
		}
		m.recycle(old)
	}
	m.upServer[k] = o
	return o, nil
}

// toClient gives o, which the server created, an id on the client.
func (m *objects) toClient(o *Object) {
	if n := len(m.freeUp); n > 0 {
		o.ID, m.freeUp = m.freeUp[n-1], m.freeUp[:n-1]
		m.upClient[o.ID-wayland.ServerIDs] = o
		return
	}
	o.ID = wayland.ServerIDs + uint32(len(m.upClient))
	m.upClient = append(m.upClient, o)
}

// recycle keeps o's memory for another object.
func (m *objects) recycle(o *Object) {
	m.live--
	m.count[o.Iface.Index]--
	*o = Object{}
	m.spare = append(m.spare, o)
}

// clientDestroy handles the client's destructor request.
func (c *Conn) clientDestroy(o *Object) {
	m := &c.objs
	o.Dead = true
	switch {
	case o.ID >= wayland.ServerIDs:
		// The client may use the id again at once. The server's id keeps the
		// object, so that events on their way can be read and dropped.
		c.gone(o)
		m.upClient[o.ID-wayland.ServerIDs] = nil
		m.freeUp = append(m.freeUp, o.ID)
		o.ID = 0
		if o.Server == 0 {
			m.recycle(o)
		}
	case o.Server == 0:
		c.gone(o)
		m.byClient[o.ID] = nil
		c.ToClient().Msg(1, wayland.WlDisplayEvtDeleteId, o.ID)
		m.recycle(o)
	}
}

// serverDelete handles wl_display.delete_id of the server.
func (c *Conn) serverDelete(id uint32) (client uint32, err error) {
	m := &c.objs
	o := m.server(id)
	if o == nil || id >= wayland.ServerIDs || id == 1 {
		return 0, fmt.Errorf("server: delete_id of unknown object %d", id)
	}
	m.byServer[id] = nil
	m.freeServer = append(m.freeServer, id)
	c.gone(o)
	client = o.ID
	if client != 0 {
		m.byClient[client] = nil
	}
	m.recycle(o)
	return client, nil
}

func (c *Conn) gone(o *Object) {
	for _, f := range o.hooks.onGone {
		f(c, o)
	}
}

// releaseAll ends every object at the end of the connection.
func (m *objects) releaseAll(c *Conn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, o := range m.byClient {
		if o != nil {
			c.gone(o)
		}
	}
	for _, o := range m.upClient {
		if o != nil {
			c.gone(o)
		}
	}
	for _, o := range m.byServer {
		if o != nil && o.ID == 0 {
			c.gone(o)
		}
	}
	if m.ask != nil {
		m.ask(-m.room)
	}
}
