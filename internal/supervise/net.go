package supervise

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

// A network is what a VM's network card leads to. Nothing else knows more of it than
// these methods, so that another network (a firewall of our own) needs only these.
type network interface {
	// start starts what serves the network. When it fails, stop ends what it has begun.
	start() error
	// card returns QEMU's device. It is called once; the caller owns the file.
	card() qemu.Device
	// inQEMU reports that QEMU itself uses the host's network.
	inQEMU() bool
	stop(graceful bool) error
}

// A networkPart is the network that the VM has.
type networkPart struct {
	passive
	*host
	network // nil for none
}

// newNetwork chooses the VM's network.
func newNetwork(h *host, m *machine) *networkPart {
	p := &networkPart{host: h}
	v := h.launch.VM
	switch {
	case v.Net != config.NetNAT:
	case h.launch.Parts.Passt != "":
		p.network = &passt{host: h, machine: m, path: h.launch.Parts.Passt, publish: v.Publish}
	default:
		p.network = &userNet{host: h, publish: v.Publish}
	}
	return p
}

func (s *networkPart) start() error {
	if s.network == nil {
		return nil
	}
	if err := s.network.start(); err != nil {
		return err
	}
	s.update(func(st *vm.State) {
		if st.Net.By = passtChild; s.inQEMU() {
			st.Net.By = qemuChild
		}
	})
	return nil
}

func (s *networkPart) inQEMU() bool { return s.network != nil && s.network.inQEMU() }

func (s *networkPart) devices() []qemu.Device {
	if s.network == nil {
		return nil
	}
	return []qemu.Device{s.card()}
}

func (s *networkPart) stop(graceful bool) error {
	if s.network == nil {
		return nil
	}
	return s.network.stop(graceful)
}

// The guest's side of a NAT network. It is the same everywhere: a guest does not learn
// the host's own addresses.
const (
	natAddress = "10.0.2.15"
	natNetmask = "24"
	natRouter  = "10.0.2.2"
	natDNS     = "10.0.2.3"
)

// passt is passt(1): it answers ARP and DHCP, and carries each of the guest's connections
// over one of its own, as an ordinary program of the host. The process shuts itself in (a
// user, a mount, an IPC and a UTS namespace, an empty root, seccomp) before it reads a
// guest's first byte, and speaks with QEMU over a socketpair.
type passt struct {
	*host
	machine *machine
	path    string
	publish []config.Publish

	qemu *os.File // QEMU's end of the connection, until QEMU has it

	// end is passt's end of the connection to QEMU. The passt that replaces a dead one needs
	// it: QEMU cannot connect again.
	end *os.File

	turn   sync.Mutex
	child  *proc.Child // the present one
	closed bool        // no other passt may start
}

// args leaves out IPv6: with one address family there is one way past us to think of.
//
// passt would take the router's address for the host's loopback: --no-map-gw keeps
// 127.0.0.1 out of the guest's reach. The resolver's address never comes here: see names.go.
func (p *passt) args(fd int) []string {
	args := []string{
		"--foreground", "--quiet", "--fd", fmt.Sprint(fd), "--ipv4-only",
		// A template for addresses that are all given; with it, passt starts without a network too.
		"--interface", "lo",
		"--address", natAddress, "--netmask", natNetmask, "--gateway", natRouter,
		"--dns", natDNS, "--no-dhcp-search",
		"--no-map-gw",
	}
	for _, port := range p.publish {
		option := "--tcp-ports"
		if port.UDP {
			option = "--udp-ports"
		}
		args = append(args, option, fmt.Sprintf("%s/%d:%d", port.Addr, port.Host, port.Guest))
	}
	return args
}

func (p *passt) start() error {
	if err := checkPorts(p.publish); err != nil {
		return vm.Failf("VM %s: %v", p.launch.VM.Name, err)
	}
	ours, theirs, err := proc.Socketpair("network")
	if err != nil {
		return err
	}
	p.qemu, p.end = ours, theirs
	// passt sends the rest of a frame that did not fit by a write that has to block. Otherwise
	// it prints "partial frame send: Resource temporarily unavailable", and the stream is out of
	// step for good.
	if err := unix.SetNonblock(int(theirs.Fd()), false); err != nil {
		return err
	}
	first, err := p.serve()
	if err != nil {
		return err
	}
	p.pumps.Go(func() { p.keep(first) })
	return nil
}

// serve starts a passt.
func (p *passt) serve() (*proc.Child, error) {
	p.turn.Lock()
	defer p.turn.Unlock()
	if p.closed {
		return nil, net.ErrClosed
	}
	end, err := proc.DupFile(p.end)
	if err != nil {
		return nil, err
	}
	// It makes namespaces and an empty root, as virtiofsd does.
	child, err := p.startConfined(proc.Command{Name: passtChild, Files: []*os.File{end}},
		sandbox.Spec{KeepCapabilities: true, KeepMounts: true, Argv: append([]string{p.path}, p.args(3)...)})
	if err != nil {
		return nil, err
	}
	p.child = child
	p.update(func(st *vm.State) { st.PIDs.Network, st.Net.Down = child.Cmd.Process.Pid, false })
	return child, nil
}

// stop ends the present passt, and lets no other start.
func (p *passt) stop(graceful bool) error {
	p.turn.Lock()
	defer p.turn.Unlock()
	p.closed = true
	endChild(p.child, graceful) // it ends when QEMU's end closes
	proc.CloseFiles([]*os.File{p.qemu, p.end})
	return nil
}

// abandoned reports whether QEMU's end is closed.
func (p *passt) abandoned() bool {
	poll := []unix.PollFd{{Fd: int32(p.end.Fd()), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return n == 1 && err == nil
}

// drain reads what QEMU has sent to a dead passt, while the guest sends nothing more: each
// frame has its length before it, and the next passt expects a length first.
func (p *passt) drain() {
	b := make([]byte, 64<<10)
	for {
		if n, _, err := unix.Recvfrom(int(p.end.Fd()), b, unix.MSG_DONTWAIT); n <= 0 || err != nil {
			return
		}
	}
}

func (p *passt) card() qemu.Device { return qemu.Card(take(&p.qemu)) }

func (p *passt) inQEMU() bool { return false }

// userNet is QEMU's built-in network, for machines without passt. QEMU then uses the host's
// network itself, and the guest reaches the host's loopback: QEMU has no option against
// that, and a note tells the user.
type userNet struct {
	*host
	publish []config.Publish
}

func (u *userNet) start() error {
	u.note("VM %s: passt is not installed, so its network is QEMU's own, and its programs reach what listens on this machine's 127.0.0.1; install passt", u.launch.VM.Name)
	return checkPorts(u.publish)
}

func (u *userNet) stop(bool) error { return nil }

func (u *userNet) card() qemu.Device { return qemu.CardOf(u.netdev()) }

func (u *userNet) netdev() string {
	dev := "user,ipv6=off,net=10.0.2.0/" + natNetmask + ",host=" + natRouter + ",dns=" + natDNS + ",dhcpstart=" + natAddress
	for _, port := range u.publish {
		protocol := "tcp"
		if port.UDP {
			protocol = "udp"
		}
		dev += fmt.Sprintf(",hostfwd=%s:%s:%d-:%d", protocol, port.Addr, port.Host, port.Guest)
	}
	return dev
}

func (u *userNet) inQEMU() bool { return true }

const passtChild = "passt"

// checkPorts finds ports that cannot be bound before passt or QEMU does: their messages
// name neither the port nor the reason.
func checkPorts(list []config.Publish) error {
	for _, p := range list {
		at := fmt.Sprintf("%s:%d", p.Addr, p.Host)
		var c interface{ Close() error }
		var err error
		if p.UDP {
			c, err = net.ListenPacket("udp4", at)
		} else {
			c, err = net.Listen("tcp4", at)
		}
		switch {
		case errors.Is(err, unix.EADDRINUSE):
			return vm.Failf("publish %s: port %d of %s is taken; publish another", p, p.Host, p.Addr)
		case errors.Is(err, unix.EACCES):
			return vm.Failf("publish %s: only root may use port %d; publish one above 1023", p, p.Host)
		case errors.Is(err, unix.EADDRNOTAVAIL):
			return vm.Failf("publish %s: this machine has no address %s", p, p.Addr)
		case err != nil:
			return vm.Failf("publish %s: %v", p, err)
		}
		c.Close()
	}
	return nil
}

// maxPassts bounds the dead passts of a VM: a guest may know how to end one.
const maxPassts = 4

// keep watches passt. The VM outlives it: a user with unsaved work in a VM would rather
// keep that than the network. When a passt ends, another takes its place. But a passt that
// ends by itself while the VM starts has said why, and ends the start: a VM does not start
// with less than the user wants.
func (p *passt) keep(c *proc.Child) {
	name := p.launch.VM.Name
	for ends := 1; ; ends++ {
		<-c.Done
		p.update(func(st *vm.State) { st.PIDs.Network, st.Net.Down = 0, true })
		starting := p.snapshot().State == vm.StateStarting
		if p.ctx.Err() != nil || p.abandoned() {
			return
		}
		if ends < maxPassts && (c.Killed() || !starting) {
			next, err := p.another(starting)
			if err == nil {
				p.note("VM %s: passt ended: %s; another one serves the network; open connections are lost", name, c.Status())
				c = next
				continue
			}
			p.log.Printf("vix", "network: %v", err)
		}
		if starting {
			p.report(p.death(c, "passt ended"))
			return
		}
		p.note("VM %s: its network is gone: passt ended: %s; stop the VM and run it again to restore it", name, c.Status())
		p.setLink(false)
		return
	}
}

// another starts a passt in the place of a dead one. While the VM starts, there is no frame
// on its way yet, and perhaps no QEMU.
func (p *passt) another(starting bool) (*proc.Child, error) {
	if starting {
		return p.serve()
	}
	p.setLink(false)
	p.drain()
	next, err := p.serve()
	p.setLink(err == nil)
	return next, err
}

// setLink switches the carrier of the guest's card: without it, the guest's programs fail
// at once instead of waiting.
func (p *passt) setLink(up bool) {
	if err := p.machine.monitor.Execute("set_link", map[string]any{"name": qemu.CardID, "up": up}, nil); err != nil {
		p.log.Printf("vix", "network: %v", err)
	}
}
