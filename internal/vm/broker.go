package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// The display process may make no connection of its own (package sandbox): the
// supervisor connects, and passes the socket. Their channel is a seqpacket pair; a
// request and its answer are a packet each, one after the other:
//
//	display     supervisor
//	"connect" ──►           "ok" + a connection to the compositor
//	"listen"  ──►           "ok" + a listening socket, VM's directory/wayland, in place of the last one
//	"through" ──►           "ok" + a connection to that socket
//	          ◄── or the reason why not, as text, without a descriptor
//
// The listening socket is for wp_security_context_v1: the display hands it to the
// compositor, which knows of every connection made to it whose it is. What the
// display asks for is nothing that it could not have by asking for a VM's window.
const (
	brokerConnect = "connect"
	brokerListen  = "listen"
	brokerThrough = "through"
	brokerOK      = "ok"

	maxBrokerRequest = 16
	maxBrokerAnswer  = 256
)

// waylandName is the listening socket's name in the VM's directory.
const waylandName = "wayland"

// brokerFiles makes the channel.
func brokerFiles() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "broker")
	f := os.NewFile(uintptr(fds[0]), "broker")
	defer f.Close() // FileConn makes a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c.(*net.UnixConn), theirs, nil
}

// serveBroker answers the display until it or the channel ends.
func (s *supervisor) serveBroker(c *net.UnixConn) {
	buf := make([]byte, maxBrokerRequest)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			return
		}
		f, err := s.broke(string(buf[:n]))
		if err != nil {
			text := err.Error()
			s.log.printf("vix", "display: %s: %s", cleanLine(string(buf[:n])), text)
			_, err = c.Write([]byte(text[:min(len(text), maxBrokerAnswer)]))
		} else {
			_, _, err = c.WriteMsgUnix([]byte(brokerOK), unix.UnixRights(int(f.Fd())), nil)
			f.Close()
		}
		if err != nil {
			return
		}
	}
}

func (s *supervisor) broke(what string) (*os.File, error) {
	path := filepath.Join(s.reg.path, s.launch.VM.Name, waylandName)
	switch what {
	case brokerConnect:
		return connectFile(s.launch.Wayland)
	case brokerThrough:
		return connectFile(path)
	case brokerListen:
		if err := s.dir.Remove(waylandName); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			return nil, err
		}
		ln.SetUnlinkOnClose(false)
		defer ln.Close() // once the display has given it away, only the compositor has it
		return ln.File()
	}
	return nil, fmt.Errorf("unknown request")
}

func connectFile(path string) (*os.File, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}
