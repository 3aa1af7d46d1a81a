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
	c := wayland.NewClient(up)
	defer func() { err = errors.Join(err, c.Close()) }()
	if err := c.Registry(); err != nil {
		return nil, contextError(err)
	}
	manager := c.Bind(wayland.WpSecurityContextManagerV1.Name, 1)
	if manager == 0 {
		return nil, contextError(ErrNoSecurityContext)
	}
	alive, ours, err := os.Pipe()
	if err != nil {
		return nil, contextError(err)
	}
	defer alive.Close()
	if err := createContext(c, manager, vm, listen, int(alive.Fd())); err != nil {
		return nil, errors.Join(contextError(err), ours.Close())
	}
	return ours, nil
}

func contextError(err error) error {
	var refusal *wayland.DisplayError
	if errors.As(err, &refusal) {
		err = fmt.Errorf("the compositor refused: error %d: %s", refusal.Code, refusal.Text)
	}
	return fmt.Errorf("security context: %w", err)
}

// createContext makes the context and hears whether the compositor took it.
func createContext(c *wayland.Client, manager uint32, vm string, listen, alive int) error {
	context := c.NewID()
	c.Msg(manager, wayland.WpSecurityContextManagerV1ReqCreateListener, context)
	err := errors.Join(
		c.Put(context, wayland.WpSecurityContextV1ReqSetSandboxEngine, SandboxEngine),
		c.Put(context, wayland.WpSecurityContextV1ReqSetAppId, "vix."+vm),
		c.Put(context, wayland.WpSecurityContextV1ReqSetInstanceId, vm))
	c.Msg(context, wayland.WpSecurityContextV1ReqCommit)
	if err != nil {
		return err
	}
	var ds []wayland.Desc
	for _, fd := range []int{listen, alive} {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			wayland.CloseAll(ds)
			return err
		}
		ds = append(ds, wayland.FileDesc(wayland.KindOther, dup))
	}
	if err := c.Flush(ds...); err != nil {
		return err
	}
	return c.Roundtrip(nil)
}
