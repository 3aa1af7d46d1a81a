package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/socket"
	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// openAgent opens the agent's channel: a vsock connection, or otherwise the virtio-serial
// port. The guest dials: if it listened, other programs on the host could connect to it.
func openAgent(modules *os.Root) (io.ReadWriteCloser, error) {
	where, err := bootWord("vix.agent", "")
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(where, "vsock:")
	if !ok {
		return openPort(agent.PortName)
	}
	c, err := dialHost(modules, text)
	if err == nil {
		return vsockConn{c}, nil
	}
	err = fmt.Errorf("agent: vsock port %s of the host: %w", text, err)
	if !hasVirtio(virtioConsole) {
		return nil, err
	}
	fmt.Fprintln(os.Stderr, "vix-guest:", err)
	return openPort(agent.PortName)
}

// agentPort is the guest's end of the connection. Only root may use a port below 1024, which
// tells the host that it talks to this process; package vsock has no call for it.
const agentPort = 1023

func dialHost(modules *os.Root, text string) (*socket.Conn, error) {
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, err
	}
	if err := loadModules(modules, groupVsock); err != nil {
		return nil, err
	}
	c, err := socket.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0, "vsock", nil)
	if err != nil {
		return nil, err
	}
	err = c.Bind(&unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: agentPort})
	if err == nil {
		_, err = c.Connect(context.Background(), &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: uint32(port)})
	}
	if err != nil {
		_ = c.Close()
		return nil, err
	}
	return c, nil
}

// maxWrite bounds one write to a vsock connection. A kernel sends a packet of more than 32 KiB,
// headers included, in pieces (virtio_vsock_alloc_skb, since Linux 6.17 and in stable
// kernels); vhost-device-vsock up to 0.3.0 takes one piece and silently drops such a packet,
// and the stream hangs.
const maxWrite = 16 << 10

// A vsockConn writes in packets that every device accepts.
type vsockConn struct{ *socket.Conn }

func (c vsockConn) Write(b []byte) (n int, err error) {
	for part := range slices.Chunk(b, maxWrite) {
		m, err := c.Conn.Write(part)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
