package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"vix/internal/display"
	"vix/internal/filter"
	"vix/internal/gpu"
)

// policyFlags are the flags of local that describe a policy.
type policyFlags struct {
	policy display.Policy
	limits []string
	drags  string
}

func (o *policyFlags) register(f *pflag.FlagSet) {
	p := &o.policy
	f.StringVar(&p.Tag, "tag", "", "text in front of titles (default: the VM's name)")
	f.StringVar(&p.Color, "color", "#7f858c", "the frame's colour, `#rrggbb`")
	f.StringVar(&p.Frame, "frame", "none", "around each window: full (with the tag as a label), border or none")
	f.StringSliceVar(&p.Allow, "allow", nil, "interfaces that exist besides those of the built-in list: `IFACE,…`")
	f.StringSliceVar(&p.Deny, "deny", nil, "interfaces that do not exist, whatever else is said: `IFACE,…`")
	f.StringVar(&o.drags, "drags", "", "rules of drags to and from other VMs and the host, the first that fits: `JSON`, a list of {from, to, limits by kind, strip}")
	f.StringArrayVar(&o.limits, "limit", nil, "bound what the programs may have at a time: `NAME=N`; repeatable; names: "+strings.Join(display.LimitNames(), ", "))
}

// parse returns the policy of the flags, checked. vm is the default tag.
func (o *policyFlags) parse(vm string) (display.Policy, error) {
	p := o.policy
	if p.Tag == "" {
		p.Tag = vm
	}
	if o.drags != "" {
		if err := json.Unmarshal([]byte(o.drags), &p.Drags); err != nil {
			return p, fmt.Errorf("--drags: %w", err)
		}
	}
	p.Limits = map[string]int64{}
	for _, l := range o.limits {
		name, number, ok := strings.Cut(l, "=")
		n, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil {
			return p, fmt.Errorf("--limit %s: want NAME=N, a number from 1", l)
		}
		if slices.Contains(display.DeviceLimitNames(), name) {
			return p, fmt.Errorf("--limit %s: is of a VM's device, which there is none of here", l)
		}
		p.Limits[name] = n
	}
	err := p.Check()
	var bad *display.PolicyError
	if errors.As(err, &bad) {
		key, name, limit := strings.Cut(bad.Key, ".")
		if limit {
			return p, fmt.Errorf("--limit %s: %w", name, bad.Err)
		}
		return p, fmt.Errorf("--%s: %w", key, bad.Err)
	}
	return p, err
}

// apply puts a checked policy into c and, if there is a device, into dev.
func apply(p display.Policy, c *filter.Config, dev *gpu.Limits) error {
	c.Tag, c.Color, c.Frame, c.Allow, c.Deny, c.Drags = p.Tag, p.Color, p.Frame, p.Allow, p.Deny, p.Drags
	for name, n := range p.Limits {
		var err error
		if dev != nil && slices.Contains(display.DeviceLimitNames(), name) {
			err = dev.Set(name, n)
		} else {
			err = c.Limits.Set(name, n)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
