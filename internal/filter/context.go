package filter

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A security context (wp_security_context_v1) is how a VM's connections reach
// the compositor when it can make one: it listens on a socket of ours, and knows of
// each connection there which VM's it is.
//
//	up ── wl_display.get_registry, bind wp_security_context_manager_v1
//	   ── create_listener(listening socket, read end of a pipe)
//	   ── set_sandbox_engine "dev.vix", set_app_id "vix.NAME", set_instance_id NAME, commit
//
// What a compositor does with the knowledge (hide its privileged globals, match
// windows by VM) comes on top of the filter, never instead of it.

// SandboxEngine is Vix's name among the engines that make security contexts.
const SandboxEngine = "dev.vix"

// ErrNoSecurityContext tells that the compositor cannot make one: the filter
// alone has to do.
var ErrNoSecurityContext = errors.New("the compositor has no " + wayland.WpSecurityContextManagerV1.Name)

// NewSecurityContext makes the compositor accept the connections of a listening
// unix socket as the VM's, until the returned Closer is closed. It uses up, a fresh
// connection, and closes it. listen stays the caller's.
func NewSecurityContext(up wayland.Transport, vm string, listen int) (_ io.Closer, err error) {
	defer func() { err = errors.Join(err, up.Close()) }()
	c := contextClient{up: up}
	name, err := c.manager()
	if err != nil {
		return nil, fmt.Errorf("security context: %w", err)
	}
	alive, ours, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("security context: %w", err)
	}
	defer alive.Close()
	if err := c.create(name, vm, listen, int(alive.Fd())); err != nil {
		return nil, errors.Join(fmt.Errorf("security context: %w", err), ours.Close())
	}
	return ours, nil
}

// Objects of a contextClient, which uses none twice.
const (
	ctxRegistry = 2 + iota
	ctxFound
	ctxManager
	ctxContext
	ctxDone
)

// A contextClient speaks just enough Wayland to make a security context.
type contextClient struct {
	up  wayland.Transport
	buf []byte
}

// manager finds the manager's name among the compositor's globals.
func (c *contextClient) manager() (name uint32, err error) {
	var e wayland.Encoder
	e.Msg(1, wayland.WlDisplayReqGetRegistry, ctxRegistry)
	e.Msg(1, wayland.WlDisplayReqSync, ctxFound)
	if err := c.up.Send(e.B, nil); err != nil {
		return 0, err
	}
	found := false
	err = c.until(ctxFound, func(id uint32, op uint16, body []byte) {
		d := wayland.NewDecoder(body)
		if id == ctxRegistry && op == wayland.WlRegistryEvtGlobal {
			n, iface := d.Uint(), d.String()
			if string(iface) == wayland.WpSecurityContextManagerV1.Name {
				name, found = n, true
			}
		}
	})
	if err == nil && !found {
		err = ErrNoSecurityContext
	}
	return name, err
}

// create makes the context and hears whether the compositor took it.
func (c *contextClient) create(name uint32, vm string, listen, alive int) error {
	var ds []wayland.Desc
	for _, fd := range []int{listen, alive} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			wayland.CloseAll(ds)
			return err
		}
		ds = append(ds, wayland.FileDesc(wayland.KindOther, dup))
	}
	var e wayland.Encoder
	e.Begin(ctxRegistry, wayland.WlRegistryReqBind)
	e.Uint(name)
	e.String(wayland.WpSecurityContextManagerV1.Name)
	e.Uint(1)
	e.Uint(ctxManager)
	err := e.End()
	e.Msg(ctxManager, wayland.WpSecurityContextManagerV1ReqCreateListener, ctxContext)
	for _, s := range []struct {
		op   uint16
		text string
	}{
		{wayland.WpSecurityContextV1ReqSetSandboxEngine, SandboxEngine},
		{wayland.WpSecurityContextV1ReqSetAppId, "vix." + vm},
		{wayland.WpSecurityContextV1ReqSetInstanceId, vm},
	} {
		e.Begin(ctxContext, s.op)
		e.String(s.text)
		err = errors.Join(err, e.End())
	}
	e.Msg(ctxContext, wayland.WpSecurityContextV1ReqCommit)
	e.Msg(1, wayland.WlDisplayReqSync, ctxDone)
	if err != nil {
		wayland.CloseAll(ds)
		return err
	}
	if err := c.up.Send(e.B, ds); err != nil {
		return err
	}
	return c.until(ctxDone, func(uint32, uint16, []byte) {})
}

// until gives events to see until the callback done is called.
func (c *contextClient) until(done uint32, see func(id uint32, op uint16, body []byte)) error {
	for {
		for {
			id, op, size, err := wayland.Next(c.buf)
			if err != nil {
				return err
			}
			if size == 0 {
				break
			}
			body := c.buf[wayland.HeaderSize:size]
			c.buf = c.buf[size:]
			switch {
			case id == 1 && op == wayland.WlDisplayEvtError:
				d := wayland.NewDecoder(body)
				d.Uint()
				return fmt.Errorf("the compositor refused: error %d: %s", d.Uint(), wayland.Printable(string(d.String())))
			case id == done:
				return nil
			}
			see(id, op, body)
		}
		var in [wayland.MaxMessage]byte
		n, ds, err := c.up.Recv(in[:], nil)
		wayland.CloseAll(ds)
		if errors.Is(err, io.EOF) {
			return errors.New("the compositor closed the connection")
		}
		if err != nil {
			return err
		}
		c.buf = append(c.buf, in[:n]...)
	}
}
