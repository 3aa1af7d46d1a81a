package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/mdlayher/vsock"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A kernelVsock is a vsock connection through the host's kernel. Its context ID is the
// VM's own as long as the device is open, here or in QEMU; the port is the supervisor's.
// Both are random: no other VM can know which port to try.
type kernelVsock struct {
	device  *os.File // /dev/vhost-vsock; nil when QEMU has it
	ln      net.Listener
	cid     uint32 // the guest's
	port    uint32 // the host's
	refused func(error)

	spare *serial // for a guest that does not connect; nil: there is none
	spoke bool    // that it was
}

// openKernelVsock opens the kernel's device, if a guest's kernel has the driver for it.
func (s *channelPart) openKernelVsock() (*kernelVsock, error) {
	c := &kernelVsock{refused: s.refusedGuest}
	var err error
	if c.device, err = qemu.OpenVhost(s.launch.Parts.Vhost); err != nil {
		return nil, err
	}
	if c.cid, err = qemu.Claim(func(cid uint32) error { return qemu.SetGuestCID(c.device, cid) }); err == nil {
		err = checkDriver(s.launch)
	}
	if err == nil {
		c.port, err = qemu.Claim(func(port uint32) (err error) {
			c.ln, err = vsock.ListenContextID(vsock.Host, port, nil)
			return err
		})
	}
	if err != nil {
		c.device.Close()
		return nil, err
	}
	return c, nil
}

// checkDriver reports why the guest's kernel has no vsock.
func checkDriver(l vm.Launch) error {
	kernel, err := findKernel(l)
	if err != nil {
		return err
	}
	return kernel.CheckVsock()
}

func (c *kernelVsock) devices() []qemu.Device {
	list := []qemu.Device{qemu.Vsock(take(&c.device), c.cid, c.port)}
	if c.spare != nil {
		list = append(list, c.spare.devices()...)
	}
	return list
}

func (c *kernelVsock) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithCancel(ctx)
	var port sync.WaitGroup
	if c.spare != nil {
		port.Go(func() {
			if c.spoke = c.spare.spoken(ctx) == nil; c.spoke {
				cancel()
			}
		})
	}
	conn, err := acceptGuest(ctx, c.ln, func(conn net.Conn) error { return checkAddr(conn.RemoteAddr(), c.cid) }, c.refused)
	cancel()
	port.Wait()
	switch {
	case err == nil:
		c.spoke = false
		return conn, nil
	case c.spoke:
		return c.spare.connect(ctx)
	}
	return nil, err
}

func (c *kernelVsock) close() {
	c.ln.Close()
	proc.CloseFiles([]*os.File{c.device})
	if c.spare != nil {
		c.spare.close()
	}
}

func (c *kernelVsock) state() vm.ChannelState {
	if c.spoke {
		return c.spare.state()
	}
	return vm.ChannelState{Kind: config.ChannelVsock, By: "kernel"}
}

// checkAddr: the host's kernel vouches for the context ID of who connects, and the guest's
// kernel, as far as that goes, for the port.
func checkAddr(peer net.Addr, cid uint32) error {
	a, ok := peer.(*vsock.Addr)
	switch {
	case !ok:
		return fmt.Errorf("%v is no vsock address", peer)
	case a.ContextID != cid:
		return fmt.Errorf("context ID %d is not this VM's, which is %d", a.ContextID, cid)
	case a.Port > qemu.MaxPrivileged:
		return fmt.Errorf("port %d of the guest's is any program's", a.Port)
	}
	return nil
}

func (s *channelPart) refusedGuest(err error) {
	s.log.Printf("vix", "agent's channel: a connection is refused: %v", err)
}

// A deviceVsock is a vsock connection through vhost-device-vsock: a process of its own,
// which QEMU speaks vhost-user with, and which connects to the Unix socket DIR/host_PORT
// when the guest connects to PORT. It does not say from which port of the guest's.
type deviceVsock struct {
	qemu    *os.File // QEMU's end; nil when QEMU has it
	ln      *net.UnixListener
	pid     int // the device's
	uid     int // ours, and so its
	refused func(error)
}

const (
	vsockChild = "vhost-device-vsock"
	vsockName  = "vsock" // the directory of its sockets, in the VM's
	vsockPort  = 1024
)

// startVsockDevice starts vhost-device-vsock. It may make sockets in a directory of its
// own, and reaches no other; their names are gone before the guest runs, but for the one
// that the device connects to, which goes with the connection.
func (s *channelPart) startVsockDevice() (_ channel, err error) {
	real, err := filepath.EvalSymlinks(s.launch.Parts.Vsock)
	if err != nil {
		return nil, vm.Failf("%s: cannot be started: %v", vsockChild, proc.Cause(err))
	}
	if err := s.dir.Mkdir(vsockName, 0o700); err != nil {
		return nil, err
	}
	dir := filepath.Join(s.reg.Path, s.launch.VM.Name, vsockName)
	at := func(name string) *net.UnixAddr {
		return &net.UnixAddr{Name: filepath.Join(dir, name), Net: "unix"}
	}
	c := &deviceVsock{uid: s.uid, refused: s.refusedGuest}
	if c.ln, err = net.ListenUnix("unix", at(fmt.Sprintf("host_%d", vsockPort))); err != nil {
		return nil, err
	}
	child, err := s.startConfined(proc.Command{Name: vsockChild, Own: sandbox.Attr(s.uid, os.Getgid())}, sandbox.Spec{
		Files: append(sandbox.ProgramFiles(real), sandbox.File{Path: dir, Sockets: true}),
		Argv:  append([]string{s.launch.Parts.Vsock}, vsockArgs(dir)...),
	})
	if err != nil {
		return nil, errors.Join(err, c.ln.Close())
	}
	c.pid = child.Cmd.Process.Pid
	s.child = child
	s.own(child, vsockChild+" ended", func(p *vm.PIDs) *int { return &p.Vsock })
	if c.qemu, err = s.dialDevice(child, at("device")); err != nil {
		return nil, errors.Join(err, c.ln.Close())
	}
	// By these, other programs of the user's could speak to the device, or to the guest.
	for _, name := range []string{"device", "host"} {
		if err := s.dir.Remove(filepath.Join(vsockName, name)); err != nil {
			c.close()
			return nil, err
		}
	}
	return c, nil
}

// vsockArgs: the guest's context ID is seen by nobody else, and is the first that a guest
// may have.
func vsockArgs(dir string) []string {
	return []string{"--guest-cid=3", "--socket=" + dir + "/device", "--uds-path=" + dir + "/host"}
}

// dialDevice connects to the device's socket for QEMU, as soon as it listens.
func (s *channelPart) dialDevice(device *proc.Child, addr *net.UnixAddr) (*os.File, error) {
	ctx, cancel := context.WithTimeout(s.ctx, deviceLimit)
	defer cancel()
	pace := time.NewTicker(dialPace)
	defer pace.Stop()
	for {
		if conn, err := net.DialUnix("unix", nil, addr); err == nil {
			defer conn.Close()
			return conn.File()
		}
		select {
		case <-pace.C:
		case <-device.Done:
			return nil, s.death(device, vsockChild+" ended").err
		case <-ctx.Done():
			if s.ctx.Err() != nil {
				return nil, context.Cause(s.ctx)
			}
			return nil, vm.Failf("VM %s: %s does not listen within %s", s.launch.VM.Name, vsockChild, deviceLimit)
		}
	}
}

// deviceLimit is for vhost-device-vsock to listen, on a busy machine.
const deviceLimit = 30 * time.Second

func (c *deviceVsock) devices() []qemu.Device {
	return []qemu.Device{qemu.VsockDevice(take(&c.qemu), vsockPort)}
}

func (c *deviceVsock) connect(ctx context.Context) (io.ReadWriteCloser, error) {
	return acceptGuest(ctx, c.ln, c.check, c.refused)
}

// check: the kernel vouches for the process that connects.
func (c *deviceVsock) check(conn net.Conn) error {
	pid, err := vm.CheckPeer(conn.(*net.UnixConn), c.uid)
	if err == nil && pid != c.pid {
		err = fmt.Errorf("process %d is not %s", pid, vsockChild)
	}
	return err
}

func (c *deviceVsock) close() {
	c.ln.Close()
	proc.CloseFiles([]*os.File{c.qemu})
}

func (c *deviceVsock) state() vm.ChannelState {
	return vm.ChannelState{Kind: config.ChannelVsock, By: vsockChild}
}
