package threats

import (
	"encoding/binary"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// connected counts the connections between two processes, by the kernel's own table
// of who is connected with whom (sock_diag(7)).
func connected(t *testing.T, a, b int) (n int) {
	t.Helper()
	ofA, ofB := socketsOf(t, a), socketsOf(t, b)
	for _, s := range unixSockets(t) {
		if ofA[s.inode] && ofB[s.peer] {
			n++
		}
	}
	return n
}

// socketsOf returns the inodes of a process's sockets.
func socketsOf(t *testing.T, pid int) map[uint32]bool {
	t.Helper()
	own := make(map[uint32]bool)
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	es, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		link, _ := os.Readlink(dir + "/" + e.Name())
		var inode uint32
		if _, err := fmt.Sscanf(link, "socket:[%d]", &inode); err == nil {
			own[inode] = true
		}
	}
	return own
}

type unixSocket struct{ inode, peer uint32 }

func unixSockets(t *testing.T) []unixSocket {
	t.Helper()
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	le := binary.NativeEndian
	// nlmsghdr: dump, type SOCK_DIAG_BY_FAMILY; unix_diag_req: every state, and the peer.
	req := make([]byte, 16+24)
	le.PutUint32(req, uint32(len(req)))
	le.PutUint16(req[4:], 20)
	le.PutUint16(req[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	req[16] = unix.AF_UNIX
	le.PutUint32(req[20:], ^uint32(0))
	le.PutUint32(req[28:], 4)
	if err := unix.Sendto(fd, req, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		t.Fatal(err)
	}
	var all []unixSocket
	buf := make([]byte, 64<<10)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		if err != nil {
			t.Fatal(err)
		}
		for b := buf[:n]; len(b) >= 16; {
			size, typ := int(le.Uint32(b)), le.Uint16(b[4:])
			if typ == unix.NLMSG_DONE {
				return all
			}
			if typ == unix.NLMSG_ERROR || size < 32 || size > len(b) {
				t.Fatalf("sock_diag: message of type %d", typ)
			}
			all = append(all, diag(b[16:size]))
			b = b[min((size+3)&^3, len(b)):]
		}
	}
}

// diag reads a unix_diag_msg with its attributes.
func diag(b []byte) unixSocket {
	le := binary.NativeEndian
	s := unixSocket{inode: le.Uint32(b[4:])}
	for a := b[16:]; len(a) >= 4; {
		size, typ := int(le.Uint16(a)), le.Uint16(a[2:])
		if size < 4 || size > len(a) {
			break
		}
		if typ == 2 && size >= 8 { // UNIX_DIAG_PEER
			s.peer = le.Uint32(a[4:])
		}
		a = a[min((size+3)&^3, len(a)):]
	}
	return s
}
