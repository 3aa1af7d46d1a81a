//go:build linux

package hostile

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Node is a render node with a cross-domain context, spoken to by hand: ioctls of
// Linux include/uapi/drm/virtgpu_drm.h, which a program of the guest may call as it
// likes.
type Node struct{ fd int }

type (
	ctxParam struct{ param, value uint64 }
	ctxInit  struct {
		num, pad uint32
		params   *ctxParam
	}
	createBlob struct {
		mem, flags, handle, res uint32
		size                    uint64
		pad, cmdSize            uint32
		cmd                     uint64
		blobID                  uint64
	}
	execBuffer struct {
		flags, size uint32
		command     *byte
		handles     uint64
		num         uint32
		fence       int32
		ring, pad   uint32
	}
)

// OpenNode opens a node and makes its context.
func OpenNode(path string) (*Node, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	n := &Node{fd}
	ps := [...]ctxParam{{1, 5}, {2, 64}} // capability set, rings
	if err := n.ioctl(11, 3, unsafe.Pointer(&ctxInit{num: 2, params: &ps[0]}), unsafe.Sizeof(ctxInit{})); err != nil {
		n.Close()
		return nil, fmt.Errorf("context: %w", err)
	}
	return n, nil
}

// Close ends the context.
func (n *Node) Close() { _ = unix.Close(n.fd) }

// Blob makes a resource of any memory, size and blob id; its memory is not mapped.
func (n *Node) Blob(mem uint32, size, id uint64) (res uint32, err error) {
	b := createBlob{mem: mem, flags: 1, size: size, blobID: id}
	err = n.ioctl(10, 3, unsafe.Pointer(&b), unsafe.Sizeof(b))
	return b.res, err
}

// Exec submits any bytes, with a fence on a ring's timeline unless ring is negative.
// The guest's kernel does not tell what the device answers.
func (n *Node) Exec(cmd []byte, ring int) error {
	e := execBuffer{size: uint32(len(cmd)), command: &cmd[0], fence: -1}
	if ring >= 0 {
		e.flags, e.ring = 2|4, uint32(ring)
	}
	err := n.ioctl(2, 3, unsafe.Pointer(&e), unsafe.Sizeof(e))
	if err == nil && e.fence >= 0 && ring >= 0 {
		_ = unix.Close(int(e.fence)) // nobody waits for it
	}
	return err
}

func (n *Node) ioctl(nr, dir uintptr, arg unsafe.Pointer, size uintptr) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(n.fd), dir<<30|size<<16|'d'<<8|(0x40+nr), uintptr(arg))
	runtime.KeepAlive(arg)
	if errno != 0 {
		return errno
	}
	return nil
}
