package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/filter"
	"vix/internal/plain"
	"vix/internal/wayland"
)

// A broker is the way to the compositor for a process that may not connect: its parent
// connects, and passes the socket (internal/display/broker.go has the protocol).
type broker struct {
	mu   sync.Mutex
	conn *net.UnixConn
}

func newBroker(fd int) (*broker, error) {
	c, err := inherited(fd, "broker")
	if err != nil {
		return nil, err
	}
	return &broker{conn: c}, nil
}

func (b *broker) close() { _ = b.conn.Close() }

// ask sends one request and returns the answer's descriptor.
func (b *broker) ask(what string) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.conn.Write([]byte(what)); err != nil {
		return nil, err
	}
	var answer [display.MaxBrokerAnswer]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, on, flags, _, err := b.conn.ReadMsgUnix(answer[:], oob)
	switch {
	case err != nil:
		return nil, err
	case n == 0:
		return nil, errors.New("the supervisor is gone")
	case on == 0 && flags&unix.MSG_CTRUNC == 0:
		return nil, fmt.Errorf("%s", plain.Text(string(answer[:n]), n, plain.OneLine))
	}
	return oneFile(oob[:on], flags)
}

// connect returns a connection to the compositor.
func (b *broker) connect() (wayland.Transport, error) { return b.transport(display.BrokerConnect) }

// through returns a connection to the socket that listen returned last.
func (b *broker) through() (wayland.Transport, error) { return b.transport(display.BrokerThrough) }

func (b *broker) listen() (*os.File, error) { return b.ask(display.BrokerListen) }

func (b *broker) transport(what string) (wayland.Transport, error) {
	f, err := b.ask(what)
	if err != nil {
		return nil, err
	}
	defer f.Close() // FileConn makes a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("not a unix socket"), c.Close())
	}
	return wayland.NewUnixConn(u)
}

// A way is how a verb connects to the compositor.
type way struct {
	dial  func() (wayland.Transport, error)
	close func()
}

// wayThrough connects through b, and a security context if there is one.
func wayThrough(b *broker, d *filter.ContextDialer) way {
	d.Direct, d.Listen, d.Through = b.connect, b.listen, b.through
	return way{dial: d.Dial, close: func() {
		_ = d.Close() // an error at the compositor's end has no remedy
		b.close()
	}}
}
