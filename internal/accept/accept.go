// Package accept serves the connections of a unix socket for as long as it listens.
//
// A process without a free descriptor cannot accept, but need not end. It keeps a spare
// descriptor to refuse the next client at once, and goes on serving the others:
//
//	AcceptUnix ─┬─ a connection ──► serve
//	            ├─ EMFILE, ENFILE, … ──► close the spare ─► AcceptUnix ─┬─ a spare again ──► serve
//	            │                                                       └─ none ──► refuse
//	            └─ closed ──► return
//
// The package does not know the protocol, and starts no goroutine.
package accept

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// retryAfter is the time between two attempts if even the spare descriptor does not help:
// no event announces a free descriptor.
const retryAfter = 50 * time.Millisecond

// A Listener is a *net.UnixListener or a *net.TCPListener, whose connections are C.
type Listener interface {
	Accept() (net.Conn, error)
	File() (*os.File, error)
}

// Serve passes the connections of l to serve, which owns them, one after the other, until l
// is closed (nil) or cannot listen any more (an error). If there is no descriptor for a
// client, Serve passes it to refuse with the reason, and then closes the connection.
func Serve[C net.Conn](l Listener, serve func(C), refuse func(C, error)) error {
	s := spare[C]{l: l}
	s.keep()
	defer s.free()
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
			s.keep()
			serve(conn.(C))
		case errors.Is(err, net.ErrClosed):
			return nil
		case Short(err):
			s.acceptOne(err, serve, refuse)
		default:
			return err
		}
	}
}

// Short reports whether err is a temporary shortage of descriptors, or of the kernel's
// memory for them.
func Short(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A spare is a descriptor that is kept to be given up.
type spare[C net.Conn] struct {
	l    Listener
	file *os.File // a duplicate of l; nil while there is no descriptor for it
}

func (s *spare[C]) keep() {
	if s.file == nil {
		s.file, _ = s.l.File()
	}
}

func (s *spare[C]) free() {
	if s.file != nil {
		s.file.Close()
		s.file = nil
	}
}

// acceptOne accepts the next client in place of the spare descriptor, and refuses it if no
// descriptor is free for another spare. (The kernel reports a lack of descriptors before it
// checks for a client.)
func (s *spare[C]) acceptOne(why error, serve func(C), refuse func(C, error)) {
	if s.file == nil {
		time.Sleep(retryAfter)
		s.keep()
		return
	}
	s.free()
	c, err := s.l.Accept()
	if err != nil { // another process was quicker; or l is closed, which the next attempt reports
		return
	}
	conn := c.(C)
	if s.keep(); s.file != nil {
		serve(conn)
		return
	}
	refuse(conn, cause(why))
	conn.Close()
	s.keep()
}

// cause returns the system's error without its context.
func cause(err error) error {
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
