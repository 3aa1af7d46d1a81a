// Package accept serves the connections of a unix socket for as long as it listens.
//
// A process that has no free descriptor cannot accept; that is no reason to end. The
// client whose turn it is is refused at once, by means of a descriptor that is kept for
// that, and the others are served on:
//
//	AcceptUnix ─┬─ a connection ──► serve
//	            ├─ EMFILE, ENFILE, … ──► close the spare ─► AcceptUnix ─┬─ a spare again ──► serve
//	            │                                                       └─ none ──► refuse
//	            └─ closed ──► return
//
// The package knows nothing of what is spoken, and starts no goroutine.
package accept

import (
	"errors"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// retryAfter is the time between two attempts where not even the spare descriptor helps:
// that others let go of theirs has no event.
const retryAfter = 50 * time.Millisecond

// A Listener is a *net.UnixListener or a *net.TCPListener, whose connections are C.
type Listener interface {
	Accept() (net.Conn, error)
	File() (*os.File, error)
}

// Serve hands every connection of l to serve, which owns it, one after the other, until l is
// closed (nil) or cannot listen any more (an error). A client for which there is no
// descriptor is handed to refuse, with the reason, and its connection then closed.
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

// Short reports whether err is the want of descriptors, or of the kernel's memory for
// them, which passes.
func Short(err error) bool {
	for _, e := range []error{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// A spare is a descriptor that is there to be given up.
type spare[C net.Conn] struct {
	l    Listener
	file *os.File // another name of l; nil while there is no descriptor for it
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

// acceptOne takes the next client in the spare descriptor's place, and refuses it if there
// is none for another spare then. (The kernel says that there is no descriptor before it
// looks whether there is a client.)
func (s *spare[C]) acceptOne(why error, serve func(C), refuse func(C, error)) {
	if s.file == nil {
		time.Sleep(retryAfter)
		s.keep()
		return
	}
	s.free()
	c, err := s.l.Accept()
	if err != nil { // somebody was quicker; or l is closed, as the next attempt tells
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

// cause is the system's word alone.
func cause(err error) error {
	var number unix.Errno
	if errors.As(err, &number) {
		return number
	}
	return err
}
