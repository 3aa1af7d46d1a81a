// Command vix-guest is the first process of a Vix guest (its /init, PID 1) and the agent that
// the host talks to. It is static, and is part of the initramfs.
//
//  1. mount /proc /sys /dev, load the bus's modules
//  2. open the agent's channel, say hello                         stage "init"
//     then, side by side:
//  3. a. mount the shared root read-only, an overlay in memory
//     over it, and make that the root                        stage "root"
//     b. load the display's modules, start the Wayland proxy    stage "proxy"
//     c. take the host's boot message: clock, name, user
//     d. loopback up; where there is a network card, an
//     address by DHCP                                        stage "network"
//  4. ready: start programs as the ordinary user, report how they end
//  5. power off at the host's request, or when the channel ends; start the proxy again
//     whenever it ends
//
// The host relies on nothing that it does: a guest that replaces it harms only itself.
// Under the name vix-waylandproxy it is the guest's Wayland proxy; under the names vix-copy,
// vix-mount and vix-drivers it carries out a request (own.go): the guest's end of
// vix cp, of mount and umount, and of usb attach. A program runs as the ordinary
// user, unless the host asks for another user of the guest.
//
// The kernel's command line names the root share, vix.root=TAG (default "root"), or the root
// disk, vix.root=/dev/NAME. It also names the agent's channel, if that is not the
// virtio-serial port: vix.agent=vsock:PORT, a port of the host. A guest that cannot connect
// to that port uses the virtio-serial port.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

func main() {
	switch filepath.Base(os.Args[0]) {
	case proxyName:
		os.Exit(proxyMain(os.Args[1:]))
	case copyName, driversName, mountName:
		os.Exit(ownMain(os.Args[1:]))
	}
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "vix-guest: runs only as the first process of a Vix guest; use vix run")
		os.Exit(2)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey { // the clock is not set yet
				return slog.Duration("up", uptime())
			}
			return a
		},
	}))
	switch err := serve(log); {
	case errors.Is(err, io.EOF):
		log.Warn("guest powers off: the host closed the agent channel")
	case err != nil:
		log.Error("guest powers off", "err", err)
	}
	powerOff()
}

// A guest is the state of PID 1.
type guest struct {
	log    *slog.Logger
	agent  *agent.Guest
	reaper *reaper
	trees  *trees
	boot   bootMessage

	hotplug  sync.Once // of the first USB device
	resolver string    // last content written to resolv.conf; used by the name service's goroutine

	ready chan struct{} // closed when programs can start; the fields below are then set
	user  agent.User
	env   []string
}

// serve runs the guest; it returns when the machine has to go off.
func serve(log *slog.Logger) error {
	if err := mountEarly(); err != nil {
		return err
	}
	modules, err := os.OpenRoot(moduleDir)
	if err != nil {
		return err
	}
	defer modules.Close()
	if err := loadModules(modules, groupBase); err != nil {
		return err
	}
	port, err := openAgent(modules)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	var g *guest
	kills, killsErr := openKillLog(func(program string, count uint64) { g.agent.Shortage(program, count) })
	g = &guest{log: log, reaper: newReaper(kills.look), trees: &trees{ended: map[string]bool{}}, boot: bootMessage{came: make(chan struct{})}, ready: make(chan struct{})}
	g.agent = agent.NewGuest(port, agent.GuestConfig{
		Log: log, Kernel: kernelRelease(),
		Boot:  g.boot.set,
		Clock: setClock,
		Start: g.start,
	})
	go g.reaper.run()
	go func() {
		if err := errors.Join(killsErr, kills.run()); err != nil {
			log.Warn("who is ended for want of memory is not told", "err", err)
		}
	}()
	go func() {
		if err := g.bring(ctx, modules); err != nil && ctx.Err() == nil {
			g.agent.Fail(err.Error())
			cancel(err)
		}
	}()
	return g.agent.Run(ctx)
}

// bring boots the guest up to ready, and then watches the proxy. It returns an error when the
// guest cannot continue.
func (g *guest) bring(ctx context.Context, modules *os.Root) error {
	g.agent.Stage("init", "", uptime())
	var parts sync.WaitGroup
	var rootErr, displayErr, netErr error
	var windows *display // nil without a GPU
	var net *network     // nil without a network card
	parts.Go(func() { rootErr = g.bringRoot(ctx, modules) })
	parts.Go(func() { windows, displayErr = g.bringDisplay(ctx, modules) })
	parts.Go(func() { net, netErr = g.bringNetwork(ctx, modules) })
	parts.Go(func() {
		// Without this module the guest has only its own sources, and may wait for them.
		if err := loadModules(modules, groupEntropy); err != nil {
			g.log.Warn("random numbers do not come from the host", "err", err)
		}
	})
	parts.Wait()
	if err := errors.Join(rootErr, displayErr, netErr); err != nil {
		return err
	}
	// This module saves the host's memory: without it the guest keeps everything that it has touched.
	if err := loadModules(modules, groupMemory); err != nil {
		g.log.Warn("memory cannot be given back", "err", err)
	}
	boot, err := g.boot.wait(ctx)
	if err != nil {
		return err
	}
	if net != nil {
		g.writeResolver(boot.Search) // needs the root to be mounted
		go g.serveNames(ctx, net.names)
		go g.keep(ctx, net)
		go g.tellTraffic(ctx, net)
	}
	bus, err := listenBus(boot.User)
	if err != nil {
		return fmt.Errorf("session bus: %w", err)
	}
	g.user, g.env = boot.User, environment(boot, windows != nil, bus != nil)
	close(g.ready)
	if bus != nil {
		go g.serveBus(bus)
	}
	g.agent.Ready(uptime())
	if windows != nil {
		g.keepDisplay(ctx, windows)
	}
	return nil
}

// bringRoot makes the shared root this process's root, and prepares it for the user.
func (g *guest) bringRoot(ctx context.Context, modules *os.Root) error {
	if err := switchRoot(modules); err != nil {
		return err
	}
	g.agent.Stage("root", "", uptime())
	boot, err := g.boot.wait(ctx)
	if err != nil {
		return err
	}
	return settle(boot)
}

// bringDisplay loads the GPU's modules and starts the proxy.
func (g *guest) bringDisplay(ctx context.Context, modules *os.Root) (*display, error) {
	node, err := findGPU(modules)
	if err != nil {
		return nil, err
	}
	if node == "" {
		g.agent.Stage("proxy", "absent", uptime())
		return nil, nil
	}
	boot, err := g.boot.wait(ctx)
	if err != nil {
		return nil, err
	}
	d, err := g.startDisplay(node, boot.User)
	if err != nil {
		return nil, err
	}
	g.agent.Stage("proxy", "", uptime())
	return d, nil
}

// A bootMessage holds the host's boot message once it has arrived.
type bootMessage struct {
	came chan struct{}
	msg  agent.Boot
}

// set is called once.
func (b *bootMessage) set(m agent.Boot) {
	setClock(m.Time)
	b.msg = m
	close(b.came)
}

func (b *bootMessage) wait(ctx context.Context) (agent.Boot, error) {
	select {
	case <-b.came:
		return b.msg, nil
	case <-ctx.Done():
		return agent.Boot{}, ctx.Err()
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// rootTag returns the root's virtiofs tag, from the kernel's command line.
func rootTag() (string, error) { return bootWord("vix.root", "root") }

// bootWord returns the value of a name on the kernel's command line.
func bootWord(name, fallback string) (string, error) {
	line, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return "", err
	}
	for _, word := range strings.Fields(string(line)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok && value != "" {
			return value, nil
		}
	}
	return fallback, nil
}
