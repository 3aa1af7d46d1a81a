package wayland

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// recvFDs is how many descriptors one recvmsg takes: the kernel's own limit
// (SCM_MAX_FD), so that no valid message is truncated.
const recvFDs = 253

// A UnixConn is a Transport over a unix stream socket. Steady traffic does not
// allocate: the closures for the poller are made once, and the struct holds their
// arguments, one half for each goroutine.
type UnixConn struct {
	conn   *net.UnixConn
	raw    syscall.RawConn
	closed atomic.Bool

	end struct { // of Close and after
		sync.Mutex
		linger bool
		rest   int // our end of a socket that is closed for the peer; -1 without one
	}

	recv struct {
		sync.Mutex
		poll func(fd uintptr) bool
		p    []byte
		oob  []byte
		mh   unix.Msghdr
		iov  unix.Iovec
		n    int
		err  error
	}
	send struct {
		sync.Mutex
		poll func(fd uintptr) bool
		p    []byte
		oob  []byte // the control message of the descriptors not yet sent, or empty
		ctl  []byte
		mh   unix.Msghdr
		iov  unix.Iovec
		err  error
	}
}

// Dial connects to the Wayland socket at path.
func Dial(path string) (*UnixConn, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return NewUnixConn(c)
}

// NewUnixConn returns a UnixConn that owns c.
func NewUnixConn(c *net.UnixConn) (*UnixConn, error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	u := &UnixConn{conn: c, raw: raw}
	u.recv.oob = make([]byte, unix.CmsgSpace(recvFDs*4))
	u.recv.poll = u.pollRecv
	u.send.poll = u.pollSend
	u.end.rest = -1
	return u, nil
}

// Recv implements Transport.
func (u *UnixConn) Recv(p []byte, ds []Desc) (int, []Desc, error) {
	r := &u.recv
	r.Lock()
	defer r.Unlock()
	r.p = p
	err := u.raw.Read(r.poll)
	r.p = nil
	if err == nil {
		err = r.err
	}
	if err != nil {
		return 0, ds, u.wrap("receive", err)
	}
	if r.mh.Controllen > 0 {
		if ds, err = appendRights(ds, r.oob[:r.mh.Controllen]); err != nil {
			return 0, ds, err
		}
	}
	if r.mh.Flags&unix.MSG_CTRUNC != 0 {
		// The buffer had room for all: this process is at its limit of descriptors.
		return 0, ds, fmt.Errorf("receive: no room for a descriptor: %w", unix.EMFILE)
	}
	if r.n == 0 {
		return 0, ds, io.EOF
	}
	return r.n, ds, nil
}

// pollRecv and pollSend never block in the kernel, so they need not notify the
// scheduler (RawSyscall): that would cost as much as the call itself.
func (u *UnixConn) pollRecv(fd uintptr) bool {
	r := &u.recv
	for {
		r.iov.Base = &r.p[0]
		r.iov.SetLen(len(r.p))
		r.mh = unix.Msghdr{Iov: &r.iov, Control: &r.oob[0]}
		r.mh.SetIovlen(1)
		r.mh.SetControllen(len(r.oob))
		n, _, e := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(&r.mh)), unix.MSG_CMSG_CLOEXEC|unix.MSG_DONTWAIT)
		switch e {
		case 0:
			r.n, r.err = int(n), nil
			return true
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			r.n, r.err = 0, e
			return true
		}
	}
}

// appendRights appends the descriptors of a control buffer to ds; it allocates
// only to grow ds.
func appendRights(ds []Desc, oob []byte) ([]Desc, error) {
	for len(oob) >= unix.SizeofCmsghdr {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&oob[0]))
		n := int(h.Len)
		if n < unix.SizeofCmsghdr || n > len(oob) {
			return ds, errors.New("receive: malformed control message")
		}
		if h.Level == unix.SOL_SOCKET && h.Type == unix.SCM_RIGHTS {
			for b := oob[unix.CmsgLen(0):n]; len(b) >= 4; b = b[4:] {
				ds = append(ds, FileDesc(KindOther, int(int32(binary.NativeEndian.Uint32(b)))))
			}
		}
		oob = oob[min(unix.CmsgSpace(n-unix.CmsgLen(0)), len(oob)):]
	}
	return ds, nil
}

// Send implements Transport. A Desc that is not a file is an error.
func (u *UnixConn) Send(p []byte, ds []Desc) error {
	defer CloseAll(ds)
	s := &u.send
	s.Lock()
	defer s.Unlock()
	s.oob = s.oob[:0]
	if len(ds) > 0 {
		if len(ds) > MaxDescs {
			return fmt.Errorf("send: %d descriptors at once, the most is %d", len(ds), MaxDescs)
		}
		if s.ctl == nil {
			s.ctl = make([]byte, unix.CmsgSpace(MaxDescs*4))
		}
		s.oob = s.ctl[:unix.CmsgSpace(len(ds)*4)]
		h := (*unix.Cmsghdr)(unsafe.Pointer(&s.oob[0]))
		h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
		h.SetLen(unix.CmsgLen(len(ds) * 4))
		b := s.oob[unix.CmsgLen(0):]
		for k, d := range ds {
			if d.FD < 0 {
				return errors.New("send: a resource cannot pass a socket")
			}
			binary.NativeEndian.PutUint32(b[k*4:], uint32(d.FD))
		}
	}
	s.p = p
	err := u.raw.Write(s.poll)
	s.p = nil
	if err == nil {
		err = s.err
	}
	if err != nil {
		return u.wrap("send", err)
	}
	return nil
}

func (u *UnixConn) pollSend(fd uintptr) bool {
	s := &u.send
	for len(s.p) > 0 {
		s.iov.Base = &s.p[0]
		s.iov.SetLen(len(s.p))
		s.mh = unix.Msghdr{Iov: &s.iov}
		s.mh.SetIovlen(1)
		if len(s.oob) > 0 {
			s.mh.Control = &s.oob[0]
			s.mh.SetControllen(len(s.oob))
		}
		n, _, e := unix.RawSyscall(unix.SYS_SENDMSG, fd, uintptr(unsafe.Pointer(&s.mh)), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
		switch e {
		case 0:
			s.p, s.oob = s.p[n:], s.oob[:0] // descriptors go with the first byte
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			s.err = e
			return true
		}
	}
	s.err = nil
	return true
}

func (u *UnixConn) wrap(what string, err error) error {
	if u.closed.Load() {
		return ErrClosed
	}
	if what == "receive" && errors.Is(err, unix.ECONNRESET) {
		return io.EOF
	}
	return fmt.Errorf("%s: %w", what, err)
}

// Close implements Transport.
func (u *UnixConn) Close() error {
	u.end.Lock()
	defer u.end.Unlock()
	if u.closed.Swap(true) {
		return nil
	}
	if u.end.linger {
		_ = u.raw.Control(u.keep)
	}
	return u.conn.Close()
}

// Linger implements Lingerer.
func (u *UnixConn) Linger() {
	u.end.Lock()
	defer u.end.Unlock()
	u.end.linger = true
}

// keep ends the connection for the peer, and keeps our end until the peer's end holds
// no more sent data.
func (u *UnixConn) keep(fd uintptr) {
	if unread(int(fd)) == 0 {
		return
	}
	rest, err := unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return // then Pending cannot tell
	}
	u.end.rest = rest
	_ = unix.Shutdown(rest, unix.SHUT_RDWR)
}

// Pending implements Lingerer.
func (u *UnixConn) Pending() bool {
	u.end.Lock()
	defer u.end.Unlock()
	if u.end.rest < 0 {
		return false
	}
	if unread(u.end.rest) > 0 {
		return true
	}
	u.forgetLocked()
	return false
}

// Forget implements Lingerer.
func (u *UnixConn) Forget() {
	u.end.Lock()
	defer u.end.Unlock()
	u.forgetLocked()
}

func (u *UnixConn) forgetLocked() {
	if u.end.rest >= 0 {
		_ = unix.Close(u.end.rest)
		u.end.rest = -1
	}
}

// unread returns the kernel memory of data sent on a unix socket that the peer has
// neither read nor dropped, descriptors included (linux/sock_diag.h:
// SK_MEMINFO_WMEM_ALLOC); 0 if the kernel does not report it.
func unread(fd int) uint32 {
	const wmemAlloc = 2
	var info [9]uint32
	size := uint32(unsafe.Sizeof(info))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&info)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0
	}
	return info[wmemAlloc]
}
