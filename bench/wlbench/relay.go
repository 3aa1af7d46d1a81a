package main

import (
	"context"

	"golang.org/x/sys/unix"
)

// relay is the cheapest proxy there is: it copies bytes and descriptors and
// understands nothing. What a real proxy costs above it is the cost of
// understanding.
func relay(ctx context.Context, listen, upstream string) error {
	return accepting(ctx, listen, func(fd int) { relayConn(fd, upstream) })
}

func relayConn(fd int, upstream string) {
	down := newWireConn(fd)
	defer down.close()
	up, err := dialWire(upstream)
	if err != nil {
		return
	}
	defer up.close()
	end := make(chan struct{}, 2)
	go func() { pump(down, up); end <- struct{}{} }()
	go func() { pump(up, down); end <- struct{}{} }()
	<-end
	_ = unix.Shutdown(down.fd, unix.SHUT_RDWR) // wakes the other pump
	_ = unix.Shutdown(up.fd, unix.SHUT_RDWR)
	<-end
}

// pump reads with from and writes on to's descriptor; it owns from's input
// side and to's output side only.
func pump(from, to *wireConn) {
	for {
		if err := from.fill(); err != nil {
			return
		}
		to.out = append(to.out[:0], from.in[from.r:from.w]...)
		to.outFds = append(to.outFds[:0], from.fds...)
		fds := from.fds
		from.r, from.w, from.fds = 0, 0, nil
		err := to.flush()
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil {
			return
		}
	}
}
