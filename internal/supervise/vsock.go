package supervise

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"sync"

	"github.com/mdlayher/vsock"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/qemu"
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
