package config

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// The networks that a VM can have.
const (
	NetNone = "none" // no network card at all
	NetNAT  = "nat"  // everything that this machine's user can reach, except its loopback
)

// MaxPublish bounds the ports that one VM publishes.
const MaxPublish = 64

// A Publish is a host port that leads to a guest port.
type Publish struct {
	Addr  netip.Addr `json:"addr"` // the host's address to bind: IPv4
	Host  uint16     `json:"host"`
	Guest uint16     `json:"guest"`
	UDP   bool       `json:"udp"`
}

// loopback is a port's default address: only users of this machine can reach it.
var loopback = netip.AddrFrom4([4]byte{127, 0, 0, 1})

// String returns the form that ParsePublish reads.
func (p Publish) String() string {
	s := fmt.Sprintf("%s:%d:%d", p.Addr, p.Host, p.Guest)
	if p.UDP {
		s += "/udp"
	}
	return s
}

// ParsePublish reads [ADDR:]HOSTPORT:GUESTPORT[/tcp|/udp].
func ParsePublish(text string) (Publish, error) {
	p := Publish{Addr: loopback}
	rest, protocol, _ := strings.Cut(text, "/")
	switch protocol {
	case "", "tcp":
	case "udp":
		p.UDP = true
	default:
		return p, fmt.Errorf(`want "tcp" or "udp" after the slash, not %q`, clip(protocol))
	}
	parts := strings.Split(rest, ":")
	if len(parts) != 2 && len(parts) != 3 {
		return p, fmt.Errorf("want [ADDR:]HOSTPORT:GUESTPORT[/udp], not %q", clip(text))
	}
	if len(parts) == 3 {
		addr, err := netip.ParseAddr(parts[0])
		if err != nil || !addr.Is4() {
			return p, fmt.Errorf("want an IPv4 address of this machine, such as 127.0.0.1 or 0.0.0.0, not %q", clip(parts[0]))
		}
		p.Addr, parts = addr, parts[1:]
	}
	var err error
	if p.Host, err = parsePort(parts[0]); err == nil {
		p.Guest, err = parsePort(parts[1])
	}
	return p, err
}

func parsePort(text string) (uint16, error) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 {
		return 0, fmt.Errorf("want a port from 1 to 65535, not %q", clip(text))
	}
	return uint16(n), nil
}

func publishes(x any) ([]Publish, error) {
	var out []Publish
	_, err := list(x, func(s string) error {
		p, err := ParsePublish(s)
		out = append(out, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, CheckPublish(out)
}

// CheckPublish checks ports for conflicts with one another.
func CheckPublish(list []Publish) error {
	if len(list) > MaxPublish {
		return fmt.Errorf("%d ports; at most %d", len(list), MaxPublish)
	}
	for i, p := range list {
		for _, q := range list[:i] {
			if p.Host == q.Host && p.UDP == q.UDP && (p.Addr == q.Addr || p.Addr.IsUnspecified() || q.Addr.IsUnspecified()) {
				return fmt.Errorf("port %d is published twice", p.Host)
			}
		}
	}
	return nil
}

// CheckNet checks the name of a network.
func CheckNet(name string) error {
	_, err := oneOf(name, NetNone, NetNAT)
	return err
}

// checkNetwork finds ports that a VM publishes without a network.
func (v *VM) checkNetwork() error {
	if v.Net == NetNone && len(v.Publish) > 0 {
		return errors.New(`needs net = "nat": a VM without a network has no ports`)
	}
	return nil
}
