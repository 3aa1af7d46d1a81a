// Package wayland is the Wayland wire: messages, the tables that describe
// them, and transports that carry them with their descriptors.
//
//	message  u32 object id │ u32 size<<16 | opcode │ arguments, each padded to 4 bytes
//	i u f    one 32-bit word (signed, unsigned, 24.8 fixed point)
//	o n      one word: an object id, 0 for none; a new id
//	s        u32 length with the final NUL (0: no string) │ bytes │ NUL │ padding
//	a        u32 length │ bytes │ padding
//	h        nothing: the descriptor comes beside the bytes
//
// Words are in the byte order of the machine. Source: the Wayland book, "Wire
// protocol basics", and libwayland's connection.c.
//
// wlgen generates the tables (zproto.go) from the system's protocol
// XML. An interface that is not in them does not exist for Vix. The kinds of
// descriptors are written by hand, in fdkinds.go.
//
// The package has no object map and no policy: see packages relay and
// filter.
package wayland

//go:generate go run ../../scripts/wlgen -o zproto.go -dir /usr/share -list protocols.list

import "strings"

// An Interface describes one Wayland interface.
type Interface struct {
	Name     string
	Version  uint32 // the highest in the table
	Requests []Message
	Events   []Message

	Index int // index in Interfaces
}

// A Message describes one request or event. The fields before Args are
// generated; the rest is derived from them at start.
type Message struct {
	Name       string
	Sig        string // letters as in the package comment, '?' before one that may be null
	Types      string // interfaces of the o and n arguments in order, comma-separated, "" for any
	Since      uint32 // first interface version with this message; 0 means 1
	Destructor bool

	Args    []Arg  // one for each argument, in order
	Words   int    // body length in words when Dynamic is false, otherwise the shortest
	Dynamic bool   // has strings or arrays
	Plain   bool   // only i, u and f arguments: nothing to translate
	FDKinds []Kind // one for each h argument
	New     *Arg   // the n argument, or nil
}

// An Arg is one argument of a message.
type Arg struct {
	Type     byte // one of i u f o n s a h
	Nullable bool
	Iface    *Interface // of o and n; nil if any is possible
	// Word is the argument's offset in words from the start of the body; it is valid
	// only if no string or array comes before it.
	Word int
}

var byName = map[string]*Interface{}

// Lookup returns the interface called name, or nil.
func Lookup(name string) *Interface { return byName[name] }

// Interfaces returns all tables, in the order of their protocols.
func Interfaces() []*Interface { return interfaces }

func init() {
	for k, i := range interfaces {
		i.Index = k
		byName[i.Name] = i
	}
	for _, i := range interfaces {
		for k := range i.Requests {
			i.Requests[k].link(i.Name)
		}
		for k := range i.Events {
			i.Events[k].link(i.Name)
		}
	}
}

// link derives a message's plan from its signature.
func (m *Message) link(iface string) {
	types := strings.Split(m.Types, ",")
	m.Plain = true
	nullable := false
	for k := range len(m.Sig) {
		t := m.Sig[k]
		if t == '?' {
			nullable = true
			continue
		}
		a := Arg{Type: t, Nullable: nullable, Word: m.Words}
		nullable = false
		switch t {
		case 'o', 'n':
			a.Iface = byName[types[0]]
			types = types[1:]
			m.Plain = false
		case 's', 'a':
			m.Dynamic, m.Plain = true, false
		case 'h':
			m.Plain = false
			m.FDKinds = append(m.FDKinds, fdKinds[iface+"."+m.Name])
		}
		if t != 'h' {
			m.Words++
		}
		m.Args = append(m.Args, a)
	}
	for k := range m.Args {
		if m.Args[k].Type == 'n' {
			m.New = &m.Args[k]
		}
	}
}
