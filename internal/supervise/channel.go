package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/vm"
)

// A channel is what carries the agent's channel between the supervisor and the guest.
// What is spoken on it is the same on all of them:
//
//	serial   supervisor ─ socketpair ─ QEMU ─ virtio-serial port ─ guest
//	vsock    supervisor ─ AF_VSOCK ─ the host's kernel (vhost_vsock) ─ guest
//
// It is made before QEMU is started. Over vsock it is the guest that connects, once,
// before any of its programs run; who else connects is refused, and when the guest has,
// there is nothing left to connect to. A guest that cannot connect takes the serial
// port, if it has one too.
type channel interface {
	// devices are QEMU's. It is called once; their files are the caller's.
	devices() []qemu.Device
	// connect waits for the guest, and returns the stream, which is the caller's.
	connect(ctx context.Context) (io.ReadWriteCloser, error)
	// close gives back what devices and connect have not given away.
	close()
	// state may change by connect.
	state() vm.ChannelState
}

// A channelPart is the channel that the VM has.
type channelPart struct {
	passive
	*host
	channel // nil before start
}

func (s *channelPart) start() (err error) {
	if s.channel, err = s.open(); err == nil {
		s.update(func(st *vm.State) { st.Channel = s.channel.state() })
	}
	return err
}

func (s *channelPart) devices() []qemu.Device { return s.channel.devices() }

func (s *channelPart) stop(bool) error {
	if s.channel != nil {
		s.channel.close()
	}
	return nil
}

// open makes the channel that the configuration asks for.
func (s *channelPart) open() (channel, error) {
	v := s.launch.VM
	if v.Channel == config.ChannelSerial {
		return newSerial()
	}
	kernel, err := s.openKernelVsock()
	switch {
	case err == nil && v.Channel != config.ChannelVsock:
		kernel.spare, err = newSerial()
		return kernel, err
	case err == nil:
		return kernel, nil
	case v.Channel != config.ChannelVsock:
		s.log.Printf("vix", "the agent's channel is virtio-serial: no vsock: %v", err)
		return newSerial()
	}
	return nil, vm.Failf(`VM %s: channel = "vsock": %v; load the kernel's vhost_vsock, or set channel = "auto"`, v.Name, err)
}

// A serial is the virtio-serial port.
type serial struct{ ours, theirs *os.File }

func newSerial() (*serial, error) {
	ours, theirs, err := proc.Socketpair("agent")
	return &serial{ours, theirs}, err // of which close closes nothing, after an error
}

func (c *serial) devices() []qemu.Device { return []qemu.Device{qemu.Serial(take(&c.theirs))} }

// spoken waits until the guest has said something, and leaves that to be read.
func (c *serial) spoken(ctx context.Context) error {
	raw, err := c.ours.SyscallConn()
	if err != nil {
		return err
	}
	wake := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(wake)
		_ = c.ours.SetReadDeadline(time.Now())
	})
	n := 0
	if rerr := raw.Read(func(fd uintptr) bool {
		n, _, err = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK)
		return !errors.Is(err, unix.EAGAIN)
	}); rerr != nil {
		err = rerr
	}
	if !stop() {
		<-wake
	}
	_ = c.ours.SetReadDeadline(time.Time{})
	if err == nil && n == 0 {
		err = io.EOF
	}
	return err
}

func (c *serial) connect(context.Context) (io.ReadWriteCloser, error) { return take(&c.ours), nil }
func (c *serial) close()                                              { proc.CloseFiles([]*os.File{c.ours, c.theirs}) }
func (c *serial) state() vm.ChannelState {
	return vm.ChannelState{Kind: config.ChannelSerial, By: qemuChild}
}

// take gives away a file.
func take(from **os.File) *os.File {
	f := *from
	*from = nil
	return f
}

// maxRefusals is how many refused connections are told in the log.
const maxRefusals = 4

// acceptGuest waits for the one connection of ln that is the guest's, which is that of
// which check says nothing, and refuses all others, before and after: it closes ln.
// refused is told of some.
func acceptGuest(ctx context.Context, ln net.Listener, check func(net.Conn) error, refused func(error)) (net.Conn, error) {
	defer ln.Close()
	defer context.AfterFunc(ctx, func() { ln.Close() })()
	for n := 0; ; n++ {
		c, err := ln.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				c.Close()
			}
			return nil, fmt.Errorf("the guest did not open the agent's channel: %w", context.Cause(ctx))
		case err != nil:
			return nil, err
		}
		if err = check(c); err == nil {
			return c, nil
		}
		c.Close()
		if n < maxRefusals {
			refused(err)
		} else if n == maxRefusals {
			refused(errors.New("and so on"))
		}
	}
}

// accept waits for the guest's end of the channel, as long as a start may take.
func (s *channelPart) accept() (io.ReadWriteCloser, error) {
	ctx, cancel := context.WithTimeout(s.ctx, startLimit)
	defer cancel()
	var conn io.ReadWriteCloser
	done, ended := make(chan error, 1), make(chan struct{})
	s.pumps.Go(func() {
		defer close(ended)
		var err error
		conn, err = s.channel.connect(ctx)
		done <- err
	})
	if err := s.wait(done); err != nil {
		cancel()
		<-ended
		if conn != nil {
			conn.Close()
		}
		var f *vm.Failure
		if errors.As(err, &f) && s.channel.state().Kind == config.ChannelVsock {
			return nil, &vm.Failure{Code: f.Code, Text: f.Text + `; or set channel = "serial"`}
		}
		return nil, err
	}
	if now := s.channel.state(); now != s.snapshot().Channel {
		s.log.Printf("vix", "the agent's channel is %s: the guest did not take vsock", now.Kind)
		s.update(func(st *vm.State) { st.Channel = now })
	}
	return conn, nil
}
