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

// A network is what a VM's network card leads to. Everything else knows no more of it
// than this, so that another one (a firewall of our own) is another of these.
type network interface {
	// start starts what serves the network, and returns QEMU's end of it: a connected
	// socket, or nil where QEMU serves it itself.
	start(s *supervisor) (*os.File, error)
	// netdev is the value of QEMU's option -netdev, without the id. fd is the number
	// of QEMU's end in QEMU's process.
	netdev(fd int) string
	// inQEMU reports that QEMU itself uses the host's network.
	inQEMU() bool
}

// network chooses the VM's network; nil is none.
func (s *supervisor) network() network {
	v := s.launch.VM
	switch {
	case v.Net != config.NetNAT:
		return nil
	case s.launch.Parts.Passt != "":
		return &passt{path: s.launch.Parts.Passt, publish: v.Publish}
	}
	return &userNet{publish: v.Publish}
}

// The guest's side of a NAT network. It is the same everywhere: a guest is not told
// the host's own addresses.
const (
	natAddress = "10.0.2.15"
	natNetmask = "24"
	natRouter  = "10.0.2.2"
	natDNS     = "10.0.2.3"
)

// passt is passt(1): it answers ARP and DHCP, and makes each connection of the guest's
// one of its own, as an ordinary program of the host. It is a process of its own,
// which shuts itself in (a user, a mount, an IPC and a UTS namespace, an empty root,
// seccomp) before it reads a guest's first byte, and speaks with QEMU over a socketpair.
type passt struct {
	path    string
	publish []config.Publish

	// end is passt's end of the connection to QEMU, kept for the one that takes the place
	// of a passt that has ended: QEMU cannot connect again.
	end *os.File

	mu    sync.Mutex
	child *proc.Child // the present one
	ended bool        // there are no more
}

// args has no IPv6: a guest that has one address family has one way past us to think of.
//
// passt would take the router's address for the host's loopback: --no-map-gw is what
// keeps 127.0.0.1 out of the guest's reach. That of its resolver never comes here: names.go.
func (p *passt) args(fd int) []string {
	args := []string{
		"--foreground", "--quiet", "--fd", fmt.Sprint(fd), "--ipv4-only",
		// The template of addresses that are all given; so it starts without a network too.
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

func (p *passt) start(s *supervisor) (*os.File, error) {
	if err := checkPorts(p.publish); err != nil {
		return nil, vm.Failf("VM %s: %v", s.launch.VM.Name, err)
	}
	ours, theirs, err := proc.Socketpair("network")
	if err != nil {
		return nil, err
	}
	// passt sends the rest of a frame that did not fit by a write that has to block: else it
	// says "partial frame send: Resource temporarily unavailable", and the stream is out of
	// step for good.
	if err := unix.SetNonblock(int(theirs.Fd()), false); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	p.end = theirs
	if _, err := p.serve(s); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	s.serveNetwork(p)
	return ours, nil
}

// serve starts a passt.
func (p *passt) serve(s *supervisor) (*proc.Child, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ended {
		return nil, net.ErrClosed
	}
	end, err := proc.DupFile(p.end)
	if err != nil {
		return nil, err
	}
	// It makes namespaces and an empty root, as virtiofsd does.
	child, err := s.startConfined(proc.Command{Name: passtChild, Files: []*os.File{end}},
		sandbox.Spec{KeepCapabilities: true, KeepMounts: true, Argv: append([]string{p.path}, p.args(3)...)})
	if err != nil {
		return nil, err
	}
	p.child = child
	s.update(func(st *vm.State) { st.PIDs.Network, st.Net.Down = child.Cmd.Process.Pid, false })
	return child, nil
}

// stop ends the present passt, and there is no other.
func (p *passt) stop(s *supervisor) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ended = true
	if s.graceful {
		p.child.End(endLimit) // it ends when QEMU's end closes
	} else {
		p.child.Kill()
	}
	return p.end.Close()
}

// abandoned reports whether QEMU's end is closed.
func (p *passt) abandoned() bool {
	poll := []unix.PollFd{{Fd: int32(p.end.Fd()), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(poll, 0)
	return n == 1 && err == nil
}

// drain takes what QEMU has said to a passt that has ended, while the guest says nothing
// more: its frames have a length before them, and the next passt begins with one.
func (p *passt) drain() {
	b := make([]byte, 64<<10)
	for {
		if n, _, err := unix.Recvfrom(int(p.end.Fd()), b, unix.MSG_DONTWAIT); n <= 0 || err != nil {
			return
		}
	}
}

func (p *passt) netdev(fd int) string {
	return fmt.Sprintf("stream,server=off,addr.type=fd,addr.str=%d", fd)
}

func (p *passt) inQEMU() bool { return false }

// userNet is the network that QEMU has built in, for where passt is missing. QEMU then
// uses the host's network itself, and the guest reaches the host's loopback: QEMU has
// no option against that, and whoever starts the VM is told.
type userNet struct{ publish []config.Publish }

func (u *userNet) start(s *supervisor) (*os.File, error) {
	s.note("VM %s: passt is not installed, so its network is QEMU's own, and its programs reach what listens on this machine's 127.0.0.1; install passt", s.launch.VM.Name)
	return nil, checkPorts(u.publish)
}

func (u *userNet) netdev(int) string {
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

// checkPorts finds ports that cannot be bound before passt or QEMU does, whose words
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

// startNetwork starts the VM's network, and returns QEMU's end and what QEMU is told
// of it; "" is no network.
func (s *supervisor) startNetwork() (n network, end *os.File, err error) {
	if n = s.network(); n == nil {
		return nil, nil, nil
	}
	if end, err = n.start(s); err != nil {
		return nil, nil, err
	}
	s.update(func(st *vm.State) {
		st.Net = vm.NetState{Kind: s.launch.VM.Net, Publish: []string{}, By: passtChild}
		if n.inQEMU() {
			st.Net.By = qemuChild
		}
		for _, p := range s.launch.VM.Publish {
			st.Net.Publish = append(st.Net.Publish, p.String())
		}
	})
	return n, end, nil
}

// maxPassts is how many of a VM's may end: a guest may know what one ends of.
const maxPassts = 4

// serveNetwork makes passt a part of the VM, though not one that it cannot live without:
// who has unsaved work in a VM would rather keep it than the network. When one ends,
// another takes its place. But one that ends by itself while the VM starts has said why,
// and a VM does not start with less than it was asked for.
func (s *supervisor) serveNetwork(p *passt) {
	name := s.launch.VM.Name
	s.pumps.Go(func() {
		for c, ended := p.child, 1; ; ended++ {
			<-c.Done
			s.update(func(st *vm.State) { st.PIDs.Network, st.Net.Down = 0, true })
			starting := s.snapshot().State == vm.StateStarting
			if s.ctx.Err() != nil || p.abandoned() {
				return
			}
			if ended < maxPassts && (c.Killed() || !starting) {
				next, err := s.anotherPasst(p, starting)
				if err == nil {
					s.note("VM %s: passt ended: %s; another one serves the network, and connections that were open are lost", name, c.Status())
					c = next
					continue
				}
				s.log.Printf("vix", "network: %v", err)
			}
			if starting {
				s.report(s.death(c, "passt ended"))
				return
			}
			s.note("VM %s: its network is gone: passt ended: %s; stop the VM and run it again to have one", name, c.Status())
			s.setLink(false)
			return
		}
	})
	s.undo(func() error { return p.stop(s) })
}

// anotherPasst starts a passt in the place of one that has ended. In a VM that starts,
// there is no frame on its way yet, and perhaps no QEMU.
func (s *supervisor) anotherPasst(p *passt, starting bool) (*proc.Child, error) {
	if starting {
		return p.serve(s)
	}
	s.setLink(false)
	p.drain()
	next, err := p.serve(s)
	s.setLink(err == nil)
	return next, err
}

// setLink gives the guest's card its carrier, or takes it away, so that its programs fail
// at once and do not wait.
func (s *supervisor) setLink(up bool) {
	if err := s.monitor.Execute("set_link", map[string]any{"name": qemu.CardID, "up": up}, nil); err != nil {
		s.log.Printf("vix", "network: %v", err)
	}
}
