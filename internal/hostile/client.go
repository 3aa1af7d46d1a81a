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

	"golang.org/x/sys/unix"

	"vix/internal/virtwl"
	"vix/internal/wayland"
)

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
	*wayland.Client
	// On hears of every event that no handler takes.
	On func(id uint32, op uint16, body []byte)
	// Take, if set, owns the descriptors that come; else they are closed.
	Take func(ds []wayland.Desc)

	memory   func(size int) (*Memory, error)
	handlers map[uint32]func(op uint16, d *wayland.Decoder)
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
	return &Client{Client: wayland.NewClient(t), memory: memory, handlers: make(map[uint32]func(uint16, *wayland.Decoder))}
}

// ID returns a new object id, and has its events given to f.
func (c *Client) ID(f func(op uint16, d *wayland.Decoder)) uint32 {
	id := c.NewID()
	if f != nil {
		c.handlers[id] = f
	}
	return id
}

// Req appends a request: arguments are numbers and strings. Flush sends it. Too long a
// message is not sent: its caller sees no effect.
func (c *Client) Req(id uint32, op uint16, args ...any) { _ = c.Put(id, op, args...) }

// registry is the id of every client's.
const registry = 2

// Bind binds a global by its interface, and returns 0 when there is none.
func (c *Client) Bind(iface string, version uint32, f func(op uint16, d *wayland.Decoder)) uint32 {
	id := c.Client.Bind(iface, version)
	if id != 0 && f != nil {
		c.handlers[id] = f
	}
	return id
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
		var refusal *wayland.DisplayError
		if rerr := c.Read(); errors.As(rerr, &refusal) {
			return rerr
		} else if rerr != nil {
			break
		}
	}
	return err
}

// Read receives and handles an event.
func (c *Client) Read() error {
	m, err := c.Next()
	if err != nil {
		return err
	}
	if c.Take != nil {
		c.Take(c.Descs)
	} else {
		wayland.CloseAll(c.Descs)
	}
	c.Descs = nil
	if h := c.handlers[m.ID]; h != nil {
		d := m.Args()
		h(m.Op, &d)
	}
	if c.On != nil {
		c.On(m.ID, m.Op, m.Body)
	}
	return c.Flush()
}
