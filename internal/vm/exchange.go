package vm

import (
	"context"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"vix/config"
)

// An Exchange is a kind of request to a VM's clipboard.
type Exchange string

// The exchanges (package clipboard).
const (
	TakeSelection   Exchange = OpTake
	GiveSelection   Exchange = OpGive
	FollowSelection Exchange = OpFollow
)

// Exchange returns a connection to the display process of a VM, after telling the process
// its purpose.
func (r *Registry) Exchange(ctx context.Context, name string, what Exchange) (net.Conn, error) {
	if err := config.CheckName(name); err != nil {
		return nil, Failf("%v", err)
	}
	conn, _, err := r.Dial(name)
	if err != nil {
		return nil, Failf("VM %s: %v", name, err)
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
	c := &Control{Conn: conn}
	var rep Reply
	if err = c.Send(Request{Version: ControlVersion, Op: string(what)}, far); err == nil {
		err = c.Recv(&rep, MaxFrame)
	}
	switch {
	case err != nil:
		return nil, Failf("VM %s: %v", name, err)
	case rep.Fail != nil:
		return nil, rep.Fail
	}
	return net.FileConn(near)
}
