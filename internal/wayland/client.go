package wayland

import (
	"errors"
	"fmt"
	"io"
)

// A Msg is a received message.
type Msg struct {
	ID   uint32
	Op   uint16
	Body []byte // the arguments, the reader's to keep
}

// Word returns the k-th word of the arguments. The body must have it, and no string
// or array may come before it.
func (m Msg) Word(k int) uint32 { return Word(m.Body, 4*k) }

// Args returns a decoder of the arguments.
func (m Msg) Args() Decoder { return NewDecoder(m.Body) }

// A Reader reads whole messages from a Transport. It is for one goroutine.
type Reader struct {
	Transport
	Descs []Desc // received, not yet taken; whoever takes one closes it
	// MaxDescs bounds the descriptors that wait for the end of their message; 0 means no bound.
	MaxDescs int
	buf      []byte
}

// Next returns the next message.
func (r *Reader) Next() (Msg, error) {
	for {
		id, op, size, err := Next(r.buf)
		if err != nil {
			return Msg{}, err
		}
		if size > 0 {
			m := Msg{id, op, r.buf[HeaderSize:size:size]}
			r.buf = r.buf[size:]
			return m, nil
		}
		if len(r.Descs) > r.MaxDescs && r.MaxDescs > 0 {
			return Msg{}, fmt.Errorf("%d descriptors without messages", len(r.Descs))
		}
		in := make([]byte, len(r.buf)+8<<10)
		n := copy(in, r.buf)
		k, ds, err := r.Recv(in[n:], r.Descs)
		r.Descs = ds
		if err != nil {
			return Msg{}, err
		}
		r.buf = in[:n+k]
	}
}

// A Client is a client of a compositor, for code that needs some globals and answers, and
// no toolkit:
//
//	c := NewClient(transport)           // owns it
//	c.Registry()                        → c.Globals
//	seat := c.Bind(WlSeat.Name, 1)      // 0 if there is none
//	c.Put(seat, op, c.NewID())          // requests wait …
//	c.Roundtrip(event), c.Flush(ds…)    // … until one of these sends them
//	c.Next()                            // one event
//
// One goroutine may read events while another sends requests; any may call Close. No id is
// used twice, so wl_display's delete_id does not matter. Registry, Roundtrip without a
// function, and every error close unexpected descriptors.
type Client struct {
	Encoder // of requests
	Reader  // of events
	Globals []Global
	last    uint32 // the last id used
}

// A Global is one that a registry has announced.
type Global struct {
	Name      uint32
	Interface string
	Version   uint32
}

// maxGlobals bounds what a registry may announce.
const maxGlobals = 4096

// Ids of every Client.
const (
	displayID  = 1
	registryID = 2
)

// NewClient returns a client on t, which it owns.
func NewClient(t Transport) *Client {
	return &Client{Reader: Reader{Transport: t, MaxDescs: MaxDescs}, last: registryID}
}

// NewID returns an id for a new object.
func (c *Client) NewID() uint32 {
	c.last++
	return c.last
}

// Registry reads the globals. It must be the first call, and the only one.
func (c *Client) Registry() error {
	defer c.drop()
	c.Msg(displayID, WlDisplayReqGetRegistry, registryID)
	return c.Roundtrip(func(m Msg) error {
		if m.ID != registryID || m.Op != WlRegistryEvtGlobal {
			return nil
		}
		if len(c.Globals) == maxGlobals {
			return fmt.Errorf("the compositor has more than %d globals", maxGlobals)
		}
		d := m.Args()
		c.Globals = append(c.Globals, Global{d.Uint(), string(d.String()), d.Uint()})
		return d.Done()
	})
}

// Bind binds the first global of an interface, at the highest version that both sides know,
// and returns its id: 0 if there is none.
func (c *Client) Bind(iface string, version uint32) uint32 {
	for _, g := range c.Globals {
		if g.Interface == iface {
			id := c.NewID()
			_ = c.Put(registryID, WlRegistryReqBind, g.Name, iface, min(version, g.Version), id) // fits, as the announcement did
			return id
		}
	}
	return 0
}

// Flush sends the pending requests, and ds with them.
func (c *Client) Flush(ds ...Desc) error {
	b := c.B
	c.B = nil
	if len(b) == 0 {
		CloseAll(ds)
		return nil
	}
	return c.Send(b, ds)
}

// Roundtrip sends the pending requests, and passes events to see, which may be nil, until
// the compositor has handled them all.
func (c *Client) Roundtrip(see func(Msg) error) error {
	done := c.NewID()
	c.Msg(displayID, WlDisplayReqSync, done)
	if err := c.Flush(); err != nil {
		return err
	}
	for {
		m, err := c.Next()
		if err != nil || m.ID == done {
			return err
		}
		if see != nil {
			err = see(m)
		}
		if see == nil || err != nil {
			c.drop()
		}
		if err != nil {
			return err
		}
	}
}

// A DisplayError is wl_display.error: the end of the connection.
type DisplayError struct {
	Object, Code uint32
	Text         string // one line, bounded
}

func (e *DisplayError) Error() string {
	return fmt.Sprintf("object %d, error %d: %s", e.Object, e.Code, e.Text)
}

// ErrGone means that the other side has closed the connection without an error message.
var ErrGone = errors.New("the compositor closed the connection")

// Next returns the next event of any object except wl_display, or a *DisplayError, or
// ErrGone.
func (c *Client) Next() (Msg, error) {
	for {
		m, err := c.Reader.Next()
		switch {
		case errors.Is(err, io.EOF):
			err = ErrGone
		case err == nil && m.ID == displayID && m.Op == WlDisplayEvtError:
			d := m.Args()
			err = &DisplayError{d.Uint(), d.Uint(), Printable(string(d.String()))}
		}
		if err != nil {
			c.drop()
			return Msg{}, err
		}
		if m.ID != displayID {
			return m, nil
		}
	}
}

// drop closes the descriptors that were not taken.
func (c *Client) drop() {
	CloseAll(c.Descs)
	c.Descs = nil
}
