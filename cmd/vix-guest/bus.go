package main

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// The user's session bus. Its socket is there from the beginning; its daemon,
// the root's own, starts when the first program connects, by systemd's protocol
// of passed sockets (sd_listen_fds(3)): a guest whose programs use no bus has none.

const (
	busName   = "bus"
	busDaemon = "/usr/bin/dbus-daemon"
	// busLife is how long a daemon must have lived to be started again.
	busLife = 10 * time.Second
)

// busCommand passes the socket on: LISTEN_PID has to be the daemon's own.
const busCommand = "export LISTEN_FDS=1 LISTEN_PID=$$; exec " + busDaemon + " --session --address=systemd: --nofork --nopidfile --nosyslog"

// listenBus makes the bus's socket; nil where the root has no daemon for it.
func listenBus(u agent.User) (*os.File, error) {
	if unix.Access(busDaemon, unix.X_OK) != nil {
		return nil, nil
	}
	l, err := listenAs(u, busName)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File() // a listener itself cannot be waited for without accepting
}

// serveBus starts the daemon when somebody connects, and again after its end. It
// lasts as long as the machine.
func (g *guest) serveBus(socket *os.File) {
	defer socket.Close()
	for {
		if err := waitReadable(socket); err != nil {
			g.log.Warn("session bus", "err", err)
			return
		}
		begin := time.Now()
		daemon, err := g.startBus(socket)
		if err != nil {
			g.log.Warn("session bus", "err", err)
			return
		}
		status := <-daemon.status
		if time.Since(begin) < busLife {
			g.log.Warn("the session bus ended at once; programs go on without one", "status", status.String())
			return
		}
	}
}

func (g *guest) startBus(socket *os.File) (*child, error) {
	raw, err := socket.SyscallConn()
	if err != nil {
		return nil, err
	}
	var c *child
	var startErr error
	err = raw.Control(func(fd uintptr) {
		c, startErr = g.reaper.start("/bin/sh", []string{"sh", "-c", busCommand}, &syscall.ProcAttr{
			Dir:   homeOf(g.user),
			Env:   g.env,
			Files: []uintptr{0, 1, 2, fd},
			Sys:   &syscall.SysProcAttr{Setsid: true, Credential: credential(g.user)},
		})
	})
	return c, errors.Join(err, startErr)
}

// waitReadable returns when a connection waits to be accepted.
func waitReadable(socket *os.File) error {
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(p, 0)
		return n > 0 || err != nil && !errors.Is(err, unix.EINTR)
	})
}

// listenAs makes a socket of the user's in the runtime directory.
func listenAs(u agent.User, name string) (*net.UnixListener, error) {
	if err := makeRuntimeDir(u); err != nil {
		return nil, err
	}
	path := filepath.Join(runtimeDirOf(u), name)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	if err := os.Chown(path, u.UID, u.GID); err != nil {
		_ = l.Close()
		return nil, err
	}
	return l, nil
}
