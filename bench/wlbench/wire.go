package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// wireConn is one end of a Wayland connection over a blocking unix stream
// socket. It does no allocation per message: what it measures should be the
// program in the middle and not this one. It is used by one goroutine.
type wireConn struct {
	fd int

	in   []byte // received, not yet consumed bytes are in[r:w]
	r, w int
	fds  []int // received, not yet consumed descriptors

	out    []byte
	outFds []int

	iov unix.Iovec
	mh  unix.Msghdr
	oob []byte
}

const (
	recvBuf  = 64 << 10
	maxFds   = 28 // what libwayland sends at most in one sendmsg
	maxMsg   = 4096
	hdrBytes = 8
	backlog  = 128
	flushAt  = 4096 // bytes waiting at which libwayland writes
)

var ne = binary.NativeEndian

func newWireConn(fd int) *wireConn {
	return &wireConn{
		fd:  fd,
		in:  make([]byte, recvBuf),
		out: make([]byte, 0, 16<<10),
		oob: make([]byte, unix.CmsgSpace(253*4)),
	}
}

func dialWire(path string) (*wireConn, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("connect %s: %w", path, err)
	}
	return newWireConn(fd), nil
}

func (c *wireConn) close() {
	unix.Close(c.fd)
	for _, fd := range c.fds {
		unix.Close(fd)
	}
	c.fds = nil
}

// next returns the next complete buffered message. The body is valid until
// the next call of fill.
func (c *wireConn) next() (id uint32, op uint16, body []byte, ok bool, err error) {
	n := c.w - c.r
	if n < hdrBytes {
		return 0, 0, nil, false, nil
	}
	b := c.in[c.r:c.w]
	id = ne.Uint32(b)
	so := ne.Uint32(b[4:])
	size := int(so >> 16)
	if size < hdrBytes || size&3 != 0 || size > maxMsg {
		return 0, 0, nil, false, fmt.Errorf("bad message size %d for object %d", size, id)
	}
	if n < size {
		return 0, 0, nil, false, nil
	}
	c.r += size
	return id, uint16(so), b[hdrBytes:size:size], true, nil
}

// fill blocks until at least one more byte has been received.
func (c *wireConn) fill() error {
	if c.r > 0 {
		copy(c.in, c.in[c.r:c.w])
		c.w -= c.r
		c.r = 0
	}
	if c.w == len(c.in) {
		return errors.New("receive buffer is full of one incomplete message")
	}
	for {
		c.iov.Base = &c.in[c.w]
		c.iov.SetLen(len(c.in) - c.w)
		c.mh = unix.Msghdr{Iov: &c.iov, Control: &c.oob[0]}
		c.mh.SetIovlen(1)
		c.mh.SetControllen(len(c.oob))
		n, _, e := unix.Syscall(unix.SYS_RECVMSG, uintptr(c.fd), uintptr(unsafe.Pointer(&c.mh)), unix.MSG_CMSG_CLOEXEC)
		runtime.KeepAlive(c)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		if c.mh.Controllen > 0 {
			if err := c.takeFds(c.oob[:c.mh.Controllen]); err != nil {
				return err
			}
		}
		if c.mh.Flags&unix.MSG_CTRUNC != 0 {
			return errors.New("received descriptors were truncated")
		}
		if n == 0 {
			return io.EOF
		}
		c.w += int(n)
		return nil
	}
}

func (c *wireConn) takeFds(oob []byte) error {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return err
	}
	for i := range ms {
		if ms[i].Header.Level != unix.SOL_SOCKET || ms[i].Header.Type != unix.SCM_RIGHTS {
			continue
		}
		fds, err := unix.ParseUnixRights(&ms[i])
		if err != nil {
			return err
		}
		c.fds = append(c.fds, fds...)
	}
	return nil
}

func (c *wireConn) takeFd() (int, error) {
	if len(c.fds) == 0 {
		return -1, errors.New("message needs a descriptor but none was received")
	}
	fd := c.fds[0]
	c.fds = c.fds[1:]
	return fd, nil
}

// flush sends everything queued.
func (c *wireConn) flush() error {
	b := c.out
	for len(b) > 0 {
		var n int
		var err error
		if len(c.outFds) > 0 {
			// More than fit: the first go ahead with a single byte. A
			// descriptor may come before its message but not after it.
			k, p := len(c.outFds), b
			if k > maxFds {
				k, p = maxFds, b[:1]
			}
			if n, err = unix.SendmsgN(c.fd, p, unix.UnixRights(c.outFds[:k]...), nil, unix.MSG_NOSIGNAL); err == nil {
				c.outFds = c.outFds[k:]
			}
		} else {
			r, _, e := unix.Syscall6(unix.SYS_SENDTO, uintptr(c.fd), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)), unix.MSG_NOSIGNAL, 0, 0)
			n = int(r)
			if e != 0 {
				err = e
			}
		}
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	c.out = c.out[:0]
	return nil
}

// listenWire makes a socket that listens at path.
func listenWire(path string) (int, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return -1, err
	}
	l, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(l, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(l)
		return -1, fmt.Errorf("bind %s: %w", path, err)
	}
	if err := unix.Listen(l, backlog); err != nil {
		unix.Close(l)
		return -1, fmt.Errorf("listen on %s: %w", path, err)
	}
	return l, nil
}

// accepting hands each connection to f, in a goroutine of its own, until ctx is
// done. The connections end with their clients.
func accepting(ctx context.Context, path string, f func(fd int)) error {
	l, err := listenWire(path)
	if err != nil {
		return err
	}
	defer unix.Close(l)
	// A blocked accept returns when its socket is shut down.
	defer context.AfterFunc(ctx, func() { _ = unix.Shutdown(l, unix.SHUT_RDWR) })()
	for {
		fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
		switch {
		case ctx.Err() != nil:
			if err == nil {
				unix.Close(fd)
			}
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED):
		case err != nil:
			return fmt.Errorf("accept: %w", err)
		default:
			go f(fd)
		}
	}
}

// Message building. begin returns the offset to hand to end.

func (c *wireConn) begin(id uint32, op uint16) int {
	at := len(c.out)
	c.out = ne.AppendUint32(c.out, id)
	c.out = ne.AppendUint32(c.out, uint32(op))
	return at
}

func (c *wireConn) end(at int) {
	so := ne.Uint32(c.out[at+4:])
	ne.PutUint32(c.out[at+4:], so|uint32(len(c.out)-at)<<16)
}

func (c *wireConn) u(v uint32) { c.out = ne.AppendUint32(c.out, v) }
func (c *wireConn) i(v int32)  { c.out = ne.AppendUint32(c.out, uint32(v)) }

func (c *wireConn) s(v string) {
	c.u(uint32(len(v) + 1))
	c.out = append(c.out, v...)
	c.out = append(c.out, 0)
	for len(c.out)&3 != 0 {
		c.out = append(c.out, 0)
	}
}

func (c *wireConn) array(v []byte) {
	c.u(uint32(len(v)))
	c.out = append(c.out, v...)
	for len(c.out)&3 != 0 {
		c.out = append(c.out, 0)
	}
}

// msg queues a message whose arguments are all 32-bit words.
func (c *wireConn) msg(id uint32, op uint16, args ...uint32) {
	c.out = ne.AppendUint32(c.out, id)
	c.out = ne.AppendUint32(c.out, uint32(hdrBytes+4*len(args))<<16|uint32(op))
	for _, a := range args {
		c.out = ne.AppendUint32(c.out, a)
	}
}

// args reads message arguments; a short message makes it bad.
type args struct {
	b   []byte
	bad bool
}

func (a *args) u() uint32 {
	if len(a.b) < 4 {
		a.bad = true
		return 0
	}
	v := ne.Uint32(a.b)
	a.b = a.b[4:]
	return v
}

func (a *args) i() int32 { return int32(a.u()) }

func (a *args) bytes() []byte {
	n := int(a.u())
	p := (n + 3) &^ 3
	if n < 0 || p > len(a.b) {
		a.bad = true
		return nil
	}
	v := a.b[:n]
	a.b = a.b[p:]
	return v
}

func (a *args) s() string {
	v := a.bytes()
	if len(v) == 0 {
		return ""
	}
	return string(v[:len(v)-1])
}
