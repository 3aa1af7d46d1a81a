package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/mdlayher/vsock"

	"vix/internal/agent"
)

// openAgent opens the agent's channel: the virtio-serial port, or a vsock connection. It
// is the guest that dials: did it listen, other programs of the host could connect to it.
func openAgent(modules *os.Root) (io.ReadWriteCloser, error) {
	where, err := bootWord("vix.agent", "")
	if err != nil {
		return nil, err
	}
	text, ok := strings.CutPrefix(where, "vsock:")
	if !ok {
		return openPort(agent.PortName)
	}
	port, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return nil, fmt.Errorf("vix.agent=%s: %w", where, err)
	}
	if err := loadModules(modules, groupVsock); err != nil {
		return nil, err
	}
	c, err := vsock.Dial(vsock.Host, uint32(port), nil)
	if err != nil {
		return nil, fmt.Errorf("agent: vsock port %d of the host: %w", port, err)
	}
	return vsockConn{c}, nil
}

// maxWrite bounds one write to a vsock connection. A kernel sends a packet of more than
// 32 KiB, headers included, in pieces (virtio_vsock_alloc_skb, since Linux 6.17 and in
// stable kernels); vhost-device-vsock up to 0.3.0 takes one piece, drops such a packet
// without a word, and the stream hangs.
const maxWrite = 16 << 10

// A vsockConn writes in packets that every device takes.
type vsockConn struct{ *vsock.Conn }

func (c vsockConn) Write(b []byte) (n int, err error) {
	for part := range slices.Chunk(b, maxWrite) {
		m, err := c.Conn.Write(part)
		if n += m; err != nil {
			return n, err
		}
	}
	return n, nil
}
