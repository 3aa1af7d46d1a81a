package relay

import (
	"fmt"

	"vix/internal/wayland"
)

// A Hook sees a message before it is forwarded. It returns whether the message
// is passed on; with an error the connection ends, for the client's fault with
// one made by Fail. A message to or from an object that the other side does not
// know is never passed on.
type Hook func(c *Conn, m *Msg) (pass bool, err error)

// Hooks says which messages somebody wants to see. It is made once and shared by
// connections.
type Hooks struct {
	tables []*ifaceHooks
}

// ifaceHooks is the engine's plan for one interface: an entry for each opcode.
type ifaceHooks struct {
	requests, events []entry
	gone             func(c *Conn, o *Object)
}

type entry struct {
	def            *wayland.Message
	request, event Hook
	watch          func(c *Conn, m *Msg) // sees an event before its hook
	size           int                   // of the whole message when it is not dynamic
	since          uint32                // 0 and 1 alike
	after          uint32                // the request's hook is called only once the object has had this many
	way            way
	newOff         int // of the new id in the whole message, for wayCreate
}

// A way is how much there is to do with a message that has no hook.
type way uint8

const (
	waySlow    way = iota // anything
	wayFast               // rewrite the object's id
	wayCreate             // the same, and one new object
	wayDestroy            // the same, and the object is gone
)

// wayOf says what a message without a hook needs.
func wayOf(m *wayland.Message) way {
	switch {
	case m.Plain && !m.Destructor:
		return wayFast
	case m.Plain:
		return wayDestroy
	case m.Dynamic || m.New == nil || m.New.Iface == nil || len(m.FDKinds) > 0 || m.Destructor:
		return waySlow
	}
	for k := range m.Args {
		if m.Args[k].Type == 'o' {
			return waySlow
		}
	}
	return wayCreate
}

// NewHooks returns a set that holds what the engine itself needs.
func NewHooks() *Hooks {
	h := &Hooks{}
	for _, i := range wayland.Interfaces() {
		h.tables = append(h.tables, &ifaceHooks{requests: entries(i.Requests), events: entries(i.Events)})
	}
	h.Event(wayland.WlRegistry, wayland.WlRegistryEvtGlobal, onGlobal)
	h.Event(wayland.WlRegistry, wayland.WlRegistryEvtGlobalRemove, onGlobalRemove)
	return h
}

func entries(ms []wayland.Message) []entry {
	es := make([]entry, len(ms))
	for k := range ms {
		m := &ms[k]
		es[k] = entry{def: m, size: wayland.HeaderSize + 4*m.Words, since: m.Since, way: wayOf(m)}
		if m.New != nil {
			es[k].newOff = wayland.HeaderSize + 4*m.New.Word
		}
	}
	return es
}

func (h *Hooks) of(i *wayland.Interface) *ifaceHooks { return h.tables[i.Index] }

// Request sets the hook of a request. A message has one hook: a second is a
// mistake of the program.
func (h *Hooks) Request(i *wayland.Interface, op int, f Hook) {
	e := &h.of(i).requests[op]
	if e.request != nil {
		panic(fmt.Sprintf("relay: a second hook for request %s.%s", i.Name, e.def.Name))
	}
	e.request, e.way = f, waySlow
}

// RequestAfter sets the hook of a request that an object may make n times before
// anybody wants to see it: until then it costs what a request without a hook
// does. Object.Count counts all requests of an object that have such hooks.
func (h *Hooks) RequestAfter(i *wayland.Interface, op int, n uint32, f Hook) {
	e := &h.of(i).requests[op]
	way := e.way
	h.Request(i, op, f)
	e.after, e.way = n, way
}

// Event sets the hook of an event.
func (h *Hooks) Event(i *wayland.Interface, op int, f Hook) {
	e := &h.of(i).events[op]
	if e.event != nil {
		panic(fmt.Sprintf("relay: a second hook for event %s.%s", i.Name, e.def.Name))
	}
	e.event, e.way = f, waySlow
}

// Watch lets f see an event before its hook does, whoever sets that.
func (h *Hooks) Watch(i *wayland.Interface, op int, f func(c *Conn, m *Msg)) {
	e := &h.of(i).events[op]
	if e.watch != nil {
		panic(fmt.Sprintf("relay: a second watcher of event %s.%s", i.Name, e.def.Name))
	}
	e.watch, e.way = f, waySlow
}

// Gone sets what is called when neither side knows an object any more: after
// delete_id, or at the end of the connection.
func (h *Hooks) Gone(i *wayland.Interface, f func(c *Conn, o *Object)) {
	if h.of(i).gone != nil {
		panic("relay: a second Gone hook for " + i.Name)
	}
	h.of(i).gone = f
}
