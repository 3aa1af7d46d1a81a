package vm

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"vix/config"
)

// What a VM's programs have selected goes past the supervisor, as a trace does: it
// hands one end of a socket to the display process, and never sees what is said on
// the other.

// An Exchange is what is asked of a VM's clipboard.
type Exchange string

// The exchanges (package clipboard).
const (
	TakeSelection   Exchange = opTake
	GiveSelection   Exchange = opGive
	FollowSelection Exchange = opFollow
)

// Exchange returns a connection to the display process of a VM, which has been told
// what for.
func (r *Registry) Exchange(ctx context.Context, name string, what Exchange) (net.Conn, error) {
	if err := config.CheckName(name); err != nil {
		return nil, failf("%v", err)
	}
	conn, _, err := r.dial(name)
	if err != nil {
		return nil, failf("VM %s: %v", name, err)
	}
	defer conn.Close()
	unhook := context.AfterFunc(ctx, func() { conn.Close() })
	defer unhook()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(fds[0]), "clipboard"), os.NewFile(uintptr(fds[1]), "clipboard")
	defer near.Close() // FileConn makes a copy
	defer far.Close()
	c := &control{conn: conn}
	var rep reply
	if err = c.send(request{Version: controlVersion, Op: string(what)}, far); err == nil {
		err = c.recv(&rep, maxFrame)
	}
	switch {
	case err != nil:
		return nil, failf("VM %s: %v", name, err)
	case rep.Fail != nil:
		return nil, rep.Fail
	}
	return net.FileConn(near)
}

const flowChild = "clipboard"

// keepFlow keeps the process that carries out the VM's profile, one for each session. The
// VM does not depend on it: when it ends, nothing flows until there is another session.
func (s *supervisor) keepFlow(ctx context.Context) {
	l := s.launch
	if l.VM.NoGUI || l.VM.Clipboard == "" || l.VM.Clipboard == config.ClipIsolated {
		return
	}
	for first := true; ctx.Err() == nil; first = false {
		now, renewed := s.broker.now()
		c, err := startChild(s.nest, s.log, command{
			name: flowChild, path: l.Parts.Self, args: []string{"clipboard-flow", l.VM.Name},
			env: []string{"XDG_RUNTIME_DIR=" + l.RuntimeDir, "WAYLAND_DISPLAY=" + now.Wayland, "SWAYSOCK=" + now.Sway, "XDG_CONFIG_HOME=" + l.ConfigDir},
		})
		switch {
		case err != nil:
			s.note("VM %s: its clipboard is isolated: %v", l.VM.Name, err)
		case !first:
			s.note("VM %s: its clipboard follows the new session", l.VM.Name)
		}
		if err == nil {
			select {
			case <-c.done:
				if ctx.Err() != nil {
					return
				}
				s.note("VM %s: its clipboard is isolated until there is another session: %s; vix-launcher logs tells why", l.VM.Name, c.status())
			case <-ctx.Done():
				c.kill()
			}
		}
		select {
		case <-renewed:
		case <-ctx.Done():
		}
	}
}
