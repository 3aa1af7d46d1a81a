package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/vishvananda/netlink"

	"vix/internal/agent"
	"vix/internal/names"
)

// A guest with a network card gets an address by DHCP (RFC 2131):
//
//	load the driver ─ link up ─ DISCOVER … ACK ─ address, route
//	                                └─ at half of the lease: renew; at its end: start again
//
// The host resolves names, with whatever servers it uses at the time: our own server at
// resolverAddr carries questions to it (package names), over the agent's channel.
//
// The network starts while the root is mounted, and is up long before that ends; programs
// start with the network in place. A DHCP server that does not answer delays a start by
// leaseLimit, and the guest then goes on asking it.
const (
	resolverAddr = "10.0.2.3"
	leaseLimit   = 3 * time.Second  // how long ready waits for the first lease
	askAgain     = 10 * time.Second // between failed attempts
	leastLease   = 10 * time.Second // a shorter lease is renewed as if it lasted this long
)

// A network is the guest's card and its settings from DHCP.
type network struct {
	link  netlink.Link
	names *names.Stub
	lease *nclient4.Lease // nil: no lease yet
	addr  *netlink.Addr   // the address that is set
}

// bringNetwork brings loopback and card up and asks for a lease. It returns nil if there is no
// card.
func (g *guest) bringNetwork(ctx context.Context, modules *os.Root) (*network, error) {
	lo, err := netlink.LinkByName("lo")
	if err == nil {
		err = netlink.LinkSetUp(lo)
	}
	if err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	if err := loadModules(modules, groupNet); err != nil {
		return nil, err
	}
	n := &network{}
	if n.link, err = findCard(); err != nil || n.link == nil {
		return nil, err
	}
	if n.names, err = listenNames(lo); err != nil {
		return nil, fmt.Errorf("name server: %w", err)
	}
	if err := netlink.LinkSetUp(n.link); err != nil {
		return nil, fmt.Errorf("%s: %w", n.link.Attrs().Name, err)
	}
	limit, cancel := context.WithTimeout(ctx, leaseLimit)
	defer cancel()
	if err := n.ask(limit); err != nil {
		g.log.Warn("no address by DHCP yet", "err", err)
		g.agent.Stage("network", "late", uptime())
		return n, nil
	}
	g.agent.Stage("network", "", uptime())
	return n, nil
}

// listenNames listens for questions. The address is not on the card, so packets to it stay in
// the guest.
func listenNames(lo netlink.Link) (*names.Stub, error) {
	addr := netip.MustParseAddr(resolverAddr)
	if err := netlink.AddrReplace(lo, &netlink.Addr{IPNet: &net.IPNet{IP: addr.AsSlice(), Mask: net.CIDRMask(32, 32)}}); err != nil {
		return nil, err
	}
	return names.Listen(netip.AddrPortFrom(addr, 53))
}

const (
	// A names call must last this long to count as a success; otherwise the pause before the
	// next one doubles.
	namesLife       = time.Minute
	leastNamesPause = time.Second
	mostNamesPause  = time.Minute
)

// serveNames lets the host answer the stub's questions, for as long as the machine is on. It
// runs in this process, which the kernel does not kill for want of memory. When a call ends,
// the next one follows after a pause; questions wait meanwhile.
func (g *guest) serveNames(ctx context.Context, stub *names.Stub) {
	failure := ""
	for pause := time.Duration(0); ; {
		began := time.Now()
		next, err := g.callForNames(ctx, stub, failure)
		if ctx.Err() != nil || errors.Is(err, agent.ErrClosed) {
			return
		}
		if next == nil {
			g.log.Error("names are not resolved any more", "err", err)
			return
		}
		stub, failure = next, err.Error()
		if time.Since(began) > namesLife {
			pause = 0
		}
		pause = min(max(2*pause, leastNamesPause), mostNamesPause)
		g.log.Warn("names are not resolved", "err", err, "again in", pause)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// callForNames makes one call. It returns the next Stub, nil if none can listen, and the
// reason for the call's end.
func (g *guest) callForNames(ctx context.Context, stub *names.Stub, failure string) (*names.Stub, error) {
	conn, err := g.agent.Call(ctx, agent.Call{Names: &agent.NamesCall{Failure: failure}})
	if err != nil {
		return stub, err
	}
	defer conn.Close()
	stub.OnSearch = g.writeResolver
	err = cmp.Or(stub.Serve(conn, conn), errors.New("the host has ended the call"))
	next, listenErr := stub.Next()
	if listenErr != nil {
		return nil, errors.Join(err, listenErr)
	}
	return next, err
}

// findCard returns the first network card that looks like Ethernet; nil if there is none.
func findCard() (netlink.Link, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("network cards: %w", err)
	}
	for _, l := range links {
		if l.Attrs().EncapType == "ether" && len(l.Attrs().HardwareAddr) == 6 {
			return l, nil
		}
	}
	return nil, nil
}

// ask renews the present lease, or asks for a first one.
func (n *network) ask(ctx context.Context) error {
	client, err := nclient4.New(n.link.Attrs().Name, nclient4.WithTimeout(time.Second), nclient4.WithRetry(2))
	if err != nil {
		return err
	}
	defer client.Close()
	var lease *nclient4.Lease
	if n.lease != nil {
		lease, err = client.Renew(ctx, n.lease)
	} else {
		lease, err = client.Request(ctx)
	}
	if err != nil {
		return fmt.Errorf("dhcp: %w", err)
	}
	if err := n.apply(lease.ACK); err != nil {
		return err
	}
	n.lease = lease
	return nil
}

// apply sets the address and the route.
func (n *network) apply(ack *dhcpv4.DHCPv4) error {
	if ack.YourIPAddr == nil || ack.YourIPAddr.IsUnspecified() {
		return errors.New("dhcp: a lease without an address")
	}
	mask := ack.SubnetMask()
	if mask == nil {
		mask = ack.YourIPAddr.DefaultMask()
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: mask}}
	if n.addr != nil && !n.addr.Equal(*addr) {
		n.drop()
	}
	if err := netlink.AddrReplace(n.link, addr); err != nil {
		return fmt.Errorf("address %s: %w", addr, err)
	}
	n.addr = addr
	if routers := ack.Router(); len(routers) > 0 {
		route := &netlink.Route{LinkIndex: n.link.Attrs().Index, Gw: routers[0]}
		if err := netlink.RouteReplace(route); err != nil {
			return fmt.Errorf("route by %s: %w", routers[0], err)
		}
	}
	if mtu := ack.Options.Get(dhcpv4.OptionInterfaceMTU); len(mtu) == 2 {
		// A card that cannot change its MTU keeps the old one.
		_ = netlink.LinkSetMTU(n.link, int(mtu[0])<<8|int(mtu[1]))
	}
	return nil
}

// drop removes the address, and with it the routes.
func (n *network) drop() {
	if n.addr != nil {
		_ = netlink.AddrDel(n.link, n.addr)
	}
	n.addr, n.lease = nil, nil
}

// keep maintains the lease for as long as the machine is on.
func (g *guest) keep(ctx context.Context, n *network) {
	for wait := n.nextAsk(); ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		late := n.lease == nil
		if err := n.ask(ctx); err != nil {
			g.log.Warn("no address by DHCP", "err", err)
			if n.lease != nil && time.Since(n.lease.CreationTime) > n.lease.ACK.IPAddressLeaseTime(time.Hour) {
				g.log.Warn("the lease has ended, and with it the network")
				n.drop()
			}
			wait = askAgain
			continue
		}
		if late {
			g.agent.Stage("network", "", uptime())
		}
		wait = n.nextAsk()
	}
}

// trafficPace is the time between two reports of the card's byte counts.
const trafficPace = 2 * time.Second

// tellTraffic reports the card's byte counts to the host whenever they have changed. The
// kernel has no event for it.
func (g *guest) tellTraffic(ctx context.Context, n *network) {
	pace := time.NewTicker(trafficPace)
	defer pace.Stop()
	var told netlink.LinkStatistics
	for {
		select {
		case <-ctx.Done():
			return
		case <-pace.C:
		}
		link, err := netlink.LinkByIndex(n.link.Attrs().Index)
		if err != nil || link.Attrs().Statistics == nil {
			continue // the card is away
		}
		if now := *link.Attrs().Statistics; now.RxBytes != told.RxBytes || now.TxBytes != told.TxBytes {
			g.agent.Traffic(now.RxBytes, now.TxBytes)
			told = now
		}
	}
}

// resolvConf is the path of resolv.conf(5).
const resolvConf = "/etc/resolv.conf"

// writeResolver writes resolv.conf, with the host's search list, unless a program in the guest
// has written another.
func (g *guest) writeResolver(search []string) {
	if now, err := os.ReadFile(resolvConf); g.resolver != "" && (err != nil || string(now) != g.resolver) {
		g.log.Info("resolv.conf is another's now, and stays", "search", search)
		return
	}
	text := "nameserver " + resolverAddr + "\n"
	if len(search) > 0 {
		text += "search " + strings.Join(search, " ") + "\n"
	}
	if text == g.resolver {
		return
	}
	if err := replaceFile(resolvConf, text); err != nil {
		g.log.Warn("names are not resolved", "err", err)
		return
	}
	g.resolver = text
}

func (n *network) nextAsk() time.Duration {
	if n.lease == nil {
		return askAgain
	}
	return renewal(n.lease.ACK)
}

// renewal returns the time until a lease is renewed: the server's value, or half of the lease.
func renewal(ack *dhcpv4.DHCPv4) time.Duration {
	lease := max(ack.IPAddressLeaseTime(time.Hour), leastLease)
	return min(max(ack.IPAddressRenewalTime(lease/2), leastLease/2), lease/2)
}
