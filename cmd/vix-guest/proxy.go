package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
	"vix/internal/guestproxy"
)

const (
	proxyName   = "vix-waylandproxy"
	displayName = "wayland-0"

	// renderGroup owns the render node. The proxy is its only member: programs that find a GPU
	// without drawing support lose seconds trying it.
	renderGroup = 992
)

// A display is the socket that the guest's programs connect to for windows, with its proxy.
type display struct {
	node     string
	user     agent.User
	listener *os.File // outlives a proxy: clients wait in it for the next one
	proxy    *child   // the present one
}

// startDisplay makes the display's socket, and returns when a proxy serves it.
func (g *guest) startDisplay(node string, u agent.User) (*display, error) {
	if err := giveNode(node); err != nil {
		return nil, err
	}
	listener, err := listenDisplay(u)
	if err != nil {
		return nil, fmt.Errorf("wayland socket: %w", err)
	}
	d := &display{node: node, user: u, listener: listener}
	if d.proxy, err = g.startProxy(d); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return d, nil
}

const (
	// A proxy must last this long to count as a success.
	proxyLife = 10 * time.Second
	// freeProxies is how many failures in a row are followed by a new proxy at once. A pause that
	// grows comes before each later one.
	freeProxies = 3
	leastPause  = time.Second
	mostPause   = time.Minute
)

// proxyPause returns the pause before the next proxy, after short failures in a row.
func proxyPause(short int) time.Duration {
	if short <= freeProxies {
		return 0
	}
	return min(leastPause<<min(short-freeProxies-1, 6), mostPause)
}

// keepDisplay starts another proxy whenever one ends or fails to start, until ctx ends. Programs
// with windows lose them, as when a compositor ends; new clients wait for the next proxy.
// keepDisplay reports each end to the host.
func (g *guest) keepDisplay(ctx context.Context, d *display) {
	defer d.listener.Close()
	ends := uint64(0)
	for short := 0; ; {
		began := uptime()
		how := (<-d.proxy.status).String()
		if ctx.Err() != nil {
			return // the guest is switching itself off
		}
		if uptime()-began > proxyLife {
			short = 0
		}
		for started := false; !started; {
			ends++
			short++
			pause := proxyPause(short)
			g.log.Warn("the wayland proxy ended: its windows are gone", "how", how, "pause", pause)
			g.agent.WindowLoss(how, ends, pause)
			select {
			case <-time.After(pause):
			case <-ctx.Done():
				return
			}
			next, err := g.startProxy(d)
			if started = err == nil; started {
				d.proxy = next
			} else {
				how = err.Error()
			}
		}
	}
}

// startProxy starts the Wayland proxy as the guest's user and returns when it serves.
func (g *guest) startProxy(d *display) (*child, error) {
	ready, readyW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer ready.Close()
	attr := &syscall.ProcAttr{
		Dir:   "/",
		Env:   []string{"HOME=/", "XDG_RUNTIME_DIR=" + runtimeDirOf(d.user)},
		Files: []uintptr{0, 1, 2, d.listener.Fd(), readyW.Fd()},
		Sys:   &syscall.SysProcAttr{Setsid: true, Credential: credential(d.user, renderGroup)},
	}
	c, err := g.reaper.start("/proc/self/exe", []string{proxyName, "--device", d.node}, attr)
	_ = readyW.Close()
	if err != nil {
		return nil, fmt.Errorf("start the wayland proxy: %w", err)
	}
	// Without the proxy the whole guest ends: for want of memory, the kernel should kill any other
	// process.
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.pid), []byte("-900"), 0); err != nil {
		g.log.Warn("the proxy may be ended for want of memory", "err", err)
	}
	if n, _ := ready.Read(make([]byte, 1)); n != 1 {
		return nil, fmt.Errorf("the guest's wayland proxy did not start: %s", <-c.status)
	}
	return c, nil
}

func giveNode(node string) error {
	if err := os.Chown(node, 0, renderGroup); err != nil {
		return err
	}
	return os.Chmod(node, 0o660)
}

// listenDisplay makes the socket before the proxy runs: a program that connects early waits
// instead of failing. The socket is in the initramfs' /run, which moves to the new root with
// everything in it.
func listenDisplay(u agent.User) (*os.File, error) {
	if err := lockDisplay(u); err != nil {
		return nil, err
	}
	l, err := listenAs(u, displayName)
	if err != nil {
		return nil, err
	}
	defer l.Close()
	return l.File()
}

// lockDisplay takes libwayland's lock on the name (wl_display_add_socket), for as long as the
// machine is on: a compositor in the guest would take over a socket without a lock, as that of
// a dead one.
func lockDisplay(u agent.User) error {
	if err := makeRuntimeDir(u); err != nil {
		return err
	}
	path := filepath.Join(runtimeDirOf(u), displayName+".lock")
	fd, err := unix.Open(path, unix.O_CREAT|unix.O_CLOEXEC|unix.O_RDWR, 0o660)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return errors.Join(unix.Fchown(fd, u.UID, u.GID), unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB))
}

// proxyMain is the proxy: descriptor 3 is its listening socket; it writes one byte to 4 when
// it serves.
func proxyMain(args []string) int {
	flags := flag.NewFlagSet(proxyName, flag.ContinueOnError)
	device := flags.String("device", "", "render node of the virtio-gpu `device`")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	// The name in ps: the kernel's default is from the executed path.
	_ = os.WriteFile("/proc/self/comm", []byte(proxyName), 0)
	socket := os.NewFile(3, "wayland")
	l, err := net.FileListener(socket)
	_ = socket.Close()
	if err != nil {
		fmt.Fprintln(os.Stderr, proxyName+": descriptor 3:", err)
		return 1
	}
	ready := os.NewFile(4, "ready")
	_, err = ready.Write([]byte{1})
	_ = ready.Close()
	if err == nil {
		err = guestproxy.Run(context.Background(), guestproxy.Config{
			Listen: l.(*net.UnixListener), Device: *device,
			Stats: filepath.Join(os.Getenv("XDG_RUNTIME_DIR"), proxyName+".stats"),
			Log:   slog.New(slog.NewTextHandler(os.Stderr, nil)).With("part", proxyName),
		})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, proxyName+":", err)
		return 1
	}
	return 0
}
