package relay

import (
	"fmt"
	"slices"

	"vix/internal/wayland"
)

// A Hook sees a message before it is forwarded. It returns whether to pass the message
// on. An error ends the connection; Fail makes the error for a client's fault. A message
// of an object that the other side does not know is never passed on.
type Hook func(c *Conn, m *Msg) (pass bool, err error)

// Hooks holds the hooks of all messages. Connections share it.
type Hooks struct {
	Layer
	tables []*ifaceHooks
}

// A Layer is a part of the hooks that knows nothing of the others. A message may
// have one hook in each layer. They are called in the order of the layers' numbers;
// the first that drops the message, or fails, is the last that sees it. So a layer
// that counts or checks comes before one that replaces the message.
type Layer struct {
	hooks *Hooks
	order uint8
}

// At returns the layer with a number.
func (h *Hooks) At(order uint8) Layer { return Layer{h, order} }

// ifaceHooks is the engine's plan for one interface: an entry for each opcode.
type ifaceHooks struct {
	requests, events []entry
	onGone           []func(c *Conn, o *Object)
}

// A layerHook is the hook of one layer.
type layerHook struct {
	order uint8
	call  Hook
}

type entry struct {
	def            *wayland.Message
	request, event Hook        // calls the hooks of all layers; nil without any
	layers         []layerHook // the hooks of the layers
	size           int         // the size of the whole message when it is not dynamic
	since          uint32      // 0 and 1 alike
	after          uint32      // the request's hook is called only once the object has had this many
	way            way
	asleep         way // the way of an event whose object is not Awake; waySlow: the same as way
	newOff         int // of the new id in the whole message, for wayCreate
}

// A way is the work that a message without a hook needs.
type way uint8

const (
	waySlow    way = iota // anything
	wayFast               // rewrite the object's id
	wayCreate             // the same, and one new object
	wayDestroy            // the same, and the object is gone
)

// wayOf returns the way of a message.
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

// NewHooks returns a set with the hooks of the engine itself.
func NewHooks() *Hooks {
	h := &Hooks{}
	h.Layer = h.At(0)
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

// Request sets the layer's hook of a request. A second is a mistake of the program.
func (l Layer) Request(i *wayland.Interface, op int, f Hook) {
	e := &l.hooks.of(i).requests[op]
	e.request = e.add(i, l.order, f)
}

// RequestAfter sets the hook of a request that an object may make n times without it:
// until then the request costs as little as one without a hook. Object.Count counts all
// such requests of an object. Such a request has this hook only.
func (l Layer) RequestAfter(i *wayland.Interface, op int, n uint32, f Hook) {
	e := &l.hooks.of(i).requests[op]
	way := e.way
	l.Request(i, op, f)
	if len(e.layers) > 1 {
		panic(fmt.Sprintf("relay: another hook for %s.%s, which has one that is seldom called", i.Name, e.def.Name))
	}
	e.after, e.way = n, way
}

// Event sets the layer's hook of an event.
func (l Layer) Event(i *wayland.Interface, op int, f Hook) {
	e := &l.hooks.of(i).events[op]
	e.event = e.add(i, l.order, f)
}

// EventWhile sets the layer's hook of an event for objects that are Awake: for all others
// the event costs as little as one without a hook. Such an event has this hook only.
func (l Layer) EventWhile(i *wayland.Interface, op int, f Hook) {
	e := &l.hooks.of(i).events[op]
	way := e.way
	l.Event(i, op, f)
	if len(e.layers) > 1 {
		panic(fmt.Sprintf("relay: another hook for %s.%s, which has one that sleeps", i.Name, e.def.Name))
	}
	e.asleep = way
}

// Gone adds a function to call when neither side knows an object any more: after
// delete_id, or at the end of the connection.
func (l Layer) Gone(i *wayland.Interface, f func(c *Conn, o *Object)) {
	t := l.hooks.of(i)
	t.onGone = append(t.onGone, f)
}

// add puts a layer's hook among the others, and returns the hook that calls all.
func (e *entry) add(i *wayland.Interface, order uint8, f Hook) Hook {
	k := len(e.layers)
	for k > 0 && e.layers[k-1].order >= order {
		k--
	}
	if k < len(e.layers) && e.layers[k].order == order || e.after != 0 || e.asleep != waySlow {
		panic(fmt.Sprintf("relay: a second hook of layer %d for %s.%s", order, i.Name, e.def.Name))
	}
	e.layers = slices.Insert(e.layers, k, layerHook{order, f})
	e.way = waySlow
	if len(e.layers) == 1 {
		return f
	}
	layers := e.layers
	return func(c *Conn, m *Msg) (bool, error) {
		for k := range layers {
			if pass, err := layers[k].call(c, m); !pass || err != nil {
				return false, err
			}
		}
		return true, nil
	}
}
