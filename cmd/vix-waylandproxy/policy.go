package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"vix/internal/filter"
	"vix/internal/gpu"
)

// policyFlags are the flags of a verb that filters: how windows are marked, and
// what their programs may use.
type policyFlags struct {
	color, frame string
	allow, deny  []string
	limits       []string
	drags        string
}

// register adds the flags; device tells that there is a virtio-gpu device, which
// has limits of its own.
func (o *policyFlags) register(f *pflag.FlagSet, device bool) {
	names := filter.LimitNames()
	if device {
		names = append(names, gpu.LimitNames()...)
	}
	f.StringVar(&o.color, "color", "#7f858c", "the frame's colour, `#rrggbb`")
	f.StringVar(&o.frame, "frame", "none", "around each window: full (with the tag as a label), border or none")
	f.StringSliceVar(&o.allow, "allow", nil, "interfaces that exist besides those of the built-in list: `IFACE,…`")
	f.StringSliceVar(&o.deny, "deny", nil, "interfaces that do not exist, whatever else is said: `IFACE,…`")
	f.StringVar(&o.drags, "drags", "", "rules of drags to and from other VMs and the host, the first that fits: `JSON`, a list of {from, to, limits by kind, strip}")
	f.StringArrayVar(&o.limits, "limit", nil, "bound what the programs may have at a time: `NAME=N`; repeatable; names: "+strings.Join(names, ", "))
}

var colorPattern = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// apply checks the flags and puts them into c and, where there is a device, dev.
func (o *policyFlags) apply(c *filter.Config, dev *gpu.Limits) error {
	if !colorPattern.MatchString(o.color) {
		return fmt.Errorf("--color %q: want #rrggbb", o.color)
	}
	if !slices.Contains([]string{"full", "border", "none"}, o.frame) {
		return fmt.Errorf("--frame %q: want full, border or none", o.frame)
	}
	for _, name := range o.allow {
		if err := filter.CheckAllow(name); err != nil {
			return fmt.Errorf("--allow: %w", err)
		}
	}
	for _, name := range o.deny {
		if err := filter.CheckInterface(name); err != nil {
			return fmt.Errorf("--deny: %w", err)
		}
	}
	c.Color, c.Frame, c.Allow, c.Deny = o.color, o.frame, o.allow, o.deny
	if o.drags != "" {
		if err := json.Unmarshal([]byte(o.drags), &c.Drags); err != nil {
			return fmt.Errorf("--drags: %w", err)
		}
	}
	for _, l := range o.limits {
		if err := setLimit(l, c, dev); err != nil {
			return fmt.Errorf("--limit %s: %w", l, err)
		}
	}
	return nil
}

func setLimit(text string, c *filter.Config, dev *gpu.Limits) error {
	name, number, ok := strings.Cut(text, "=")
	n, err := strconv.ParseInt(number, 10, 64)
	switch {
	case !ok || err != nil || n < 1:
		return errors.New("want NAME=N, a number from 1")
	case dev != nil && slices.Contains(gpu.LimitNames(), name):
		return dev.Set(name, n)
	}
	return c.Limits.Set(name, n)
}
