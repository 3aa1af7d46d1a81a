package vm

import (
	"context"
	"net"
	"os"
	"vix/config"

	"golang.org/x/sys/unix"
)

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
