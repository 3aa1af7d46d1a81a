package filter

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// A VM's connections reach the compositor through a security context
// (wp_security_context_v1) where the compositor supports it: it then listens on a
// socket of ours, and knows the VM of each connection there.
//
//	up ── wl_display.get_registry, bind wp_security_context_manager_v1
//	   ── create_listener(listening socket, read end of a pipe)
//	   ── set_sandbox_engine "dev.vix", set_app_id "vix.NAME", set_instance_id NAME, commit
//
// What a compositor does with it (hide its privileged globals, match windows by VM)
// comes on top of the filter, and never replaces it.

// SandboxEngine is the name by which Vix makes security contexts.
const SandboxEngine = "dev.vix"

// ErrNoSecurityContext says that the compositor has no security contexts: the filter
// alone protects it.
var ErrNoSecurityContext = errors.New("the compositor has no " + wayland.WpSecurityContextManagerV1.Name)

// NewSecurityContext makes the compositor accept the connections of a listening
// unix socket as the VM's, until the returned Closer is closed. It takes over and closes
// up, a fresh connection. The caller keeps listen.
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

// createContext makes the context and waits for the compositor's answer.
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
