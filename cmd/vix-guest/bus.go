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

// The user's session bus. Its socket exists from the beginning; its daemon, from the root,
// starts when the first program connects, by systemd's protocol for passed sockets
// (sd_listen_fds(3)): a guest whose programs use no bus runs no daemon.

const (
	busName   = "bus"
	busDaemon = "/usr/bin/dbus-daemon"
	// busLife is the least life of a daemon that may be started again.
	busLife = 10 * time.Second
)

// busCommand passes the socket to the daemon: LISTEN_PID has to be the daemon's own pid.
const busCommand = "export LISTEN_FDS=1 LISTEN_PID=$$; exec " + busDaemon + " --session --address=systemd: --nofork --nopidfile --nosyslog"

// listenBus makes the bus's socket; nil if the root has no daemon for it.
func listenBus(u agent.User) (*os.File, error) {
	if unix.Access(busDaemon, unix.X_OK) != nil {
		return nil, nil
	}
	l, err := listenAs(u, busName)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File() // a listener cannot be polled without accepting
}

// serveBus starts the daemon when a program connects, and again after the daemon's end. It
// runs as long as the machine.
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
			Env:   withHabits("/", g.env, g.boot.msg.Zone),
			Files: []uintptr{0, 1, 2, fd},
			Sys:   &syscall.SysProcAttr{Setsid: true, Credential: credential(g.user)},
		})
	})
	return c, errors.Join(err, startErr)
}

// waitReadable returns when a connection can be accepted.
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

// listenAs makes a socket that belongs to the user, in the runtime directory.
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
