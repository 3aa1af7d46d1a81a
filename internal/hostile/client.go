// Package hostile is a Wayland client that obeys nobody: the tests of the threat
// table (e2e/threats) run it inside a VM, instead of the guest's proxy and programs,
// and outside of one against the host's filter.
//
//	attack ─► Client: any message for any object ─► wayland.Transport
//	                                                  ├─ virtwl.GuestConn: a cross-domain context of its own
//	                                                  └─ wayland.UnixConn: vix-waylandproxy local
//	attack ─► Node: any bytes as a cross-domain command ─► ioctl on the render node
//
// The client checks nothing: it sends what it is told and notes what it hears. Its
// memory comes from the transport, a blob of the host or a file.
//
// It serves tests only; nothing of Vix imports it.
package hostile

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// A Global is one that the registry has told of.
type Global struct {
	Name      uint32
	Interface string
	Version   uint32
}

// A ProtocolError is wl_display.error: what the other side objects to.
type ProtocolError struct {
	Object, Code uint32
	Text         string
}

func (e *ProtocolError) Error() string {
	return fmt.Sprintf("object %d, error %d: %s", e.Object, e.Code, e.Text)
}

// Memory is what a pool can be made of.
type Memory struct {
	Mem  []byte
	Free func() error // lets go of this end
	// Resize changes the size of the file; nil where there is none.
	Resize func(size int64) error

	desc func() (wayland.Desc, error)
}

// Client is one connection. It is for one goroutine.
type Client struct {
	T       wayland.Transport
	Globals []Global
	// On hears of every event that no handler takes.
	On func(id uint32, op uint16, body []byte)
	// Take, if set, owns the descriptors that come; else they are closed.
	Take func(ds []wayland.Desc)

	memory   func(size int) (*Memory, error)
	handlers map[uint32]func(op uint16, d *wayland.Decoder)
	next     uint32
	enc      wayland.Encoder
	in       []byte
	shm      uint32
	wm       uint32
	comp     uint32
	seat     uint32 // of the attacks that listen
}

// OverGPU makes a client of a cross-domain context.
func OverGPU(conn *virtwl.GuestConn) *Client {
	return newClient(conn, func(size int) (*Memory, error) {
		b, err := conn.NewBlob(size)
		if err != nil {
			return nil, err
		}
		return &Memory{Mem: b.Mem, Free: b.Close, desc: func() (wayland.Desc, error) { return wayland.ResDesc(b.Res), nil }}, nil
	})
}

// OverSocket opens a connection to a compositor's socket.
func OverSocket(path string) (*Client, error) {
	u, err := wayland.Dial(path)
	if err != nil {
		return nil, err
	}
	return newClient(u, fileMemory), nil
}

// fileMemory makes memory of a file that can change its size under a reader.
func fileMemory(size int) (*Memory, error) {
	fd, err := unix.MemfdCreate("hostile", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	m, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	free := func() error { return errors.Join(unix.Munmap(m), unix.Close(fd)) }
	resize := func(size int64) error { return unix.Ftruncate(fd, size) }
	return &Memory{Mem: m, Free: free, Resize: resize, desc: func() (wayland.Desc, error) {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return wayland.FileDesc(wayland.KindMemory, dup), err
	}}, nil
}

func newClient(t wayland.Transport, memory func(int) (*Memory, error)) *Client {
	return &Client{T: t, memory: memory, next: 2, handlers: make(map[uint32]func(uint16, *wayland.Decoder))}
}

// ID returns a new object id, and has its events given to f.
func (c *Client) ID(f func(op uint16, d *wayland.Decoder)) uint32 {
	id := c.next
	c.next++
	if f != nil {
		c.handlers[id] = f
	}
	return id
}

// Req appends a request: arguments are numbers and strings. Flush sends it.
func (c *Client) Req(id uint32, op uint16, args ...any) {
	c.enc.Begin(id, op)
	for _, a := range args {
		switch a := a.(type) {
		case uint32:
			c.enc.Uint(a)
		case int:
			c.enc.Int(int32(a))
		case string:
			c.enc.String(a)
		default:
			panic(fmt.Sprintf("hostile: argument %T", a))
		}
	}
	_ = c.enc.End() // too long a message is not sent: its caller sees no effect
}

// Flush sends what Req has made, with descriptors.
func (c *Client) Flush(ds ...wayland.Desc) error {
	b := c.enc.B
	c.enc.B = nil
	if len(b) == 0 {
		return nil
	}
	return c.T.Send(b, ds)
}

// Registry gets a registry and learns the globals.
func (c *Client) Registry() error {
	id := c.ID(func(op uint16, d *wayland.Decoder) {
		if op == wayland.WlRegistryEvtGlobal {
			c.Globals = append(c.Globals, Global{d.Uint(), string(d.String()), d.Uint()})
		}
	})
	c.Req(1, wayland.WlDisplayReqGetRegistry, id)
	return c.Sync()
}

// registry is the id that Registry gave: the first.
const registry = 2

// Bind binds a global by its interface, and returns 0 when there is none.
func (c *Client) Bind(iface string, version uint32, f func(op uint16, d *wayland.Decoder)) uint32 {
	for _, g := range c.Globals {
		if g.Interface == iface {
			id := c.ID(f)
			c.Req(registry, wayland.WlRegistryReqBind, g.Name, iface, min(version, g.Version), id)
			return id
		}
	}
	return 0
}

// Sync waits until the other side has done everything so far, or says what it
// objects to.
func (c *Client) Sync() error {
	done := false
	id := c.ID(func(uint16, *wayland.Decoder) { done = true })
	c.Req(1, wayland.WlDisplayReqSync, id)
	return c.Until(func() bool { return done })
}

// Until handles events until ok.
func (c *Client) Until(ok func() bool) error {
	if err := c.Flush(); err != nil {
		return c.last(err)
	}
	for !ok() {
		if err := c.Read(); err != nil {
			return err
		}
	}
	return nil
}

// last looks for the protocol error behind a broken connection.
func (c *Client) last(err error) error {
	for range 1000 {
		var pe *ProtocolError
		if rerr := c.Read(); errors.As(rerr, &pe) {
			return rerr
		} else if rerr != nil {
			break
		}
	}
	return err
}

// Read receives and handles some events.
func (c *Client) Read() error {
	buf := make([]byte, 16<<10)
	n, ds, err := c.T.Recv(buf, nil)
	if c.Take != nil {
		c.Take(ds)
	} else {
		wayland.CloseAll(ds)
	}
	if err != nil {
		return err
	}
	c.in = append(c.in, buf[:n]...)
	for {
		id, op, size, err := wayland.Next(c.in)
		if err != nil {
			return err
		}
		if size == 0 || len(c.in) < size {
			return nil
		}
		body := c.in[wayland.HeaderSize:size]
		c.in = c.in[size:]
		if err := c.event(id, op, body); err != nil {
			return err
		}
	}
}

func (c *Client) event(id uint32, op uint16, body []byte) error {
	d := wayland.NewDecoder(body)
	switch h := c.handlers[id]; {
	case id == 1 && op == wayland.WlDisplayEvtError:
		return &ProtocolError{d.Uint(), d.Uint(), string(d.String())}
	case id == 1:
	case h != nil:
		h(op, &d)
		if c.On != nil {
			c.On(id, op, body)
		}
	case c.On != nil:
		c.On(id, op, body)
	}
	return c.Flush()
}
