package main

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"vix/internal/filter"
)

// policyFlags are the flags of a verb that filters: how windows are marked, and
// what their programs may use.
type policyFlags struct {
	color, frame string
	allow, deny  []string
	limits       []string
}

func (o *policyFlags) register(f *pflag.FlagSet, frame string) {
	f.StringVar(&o.color, "color", "#7f858c", "the frame's colour, `#rrggbb`")
	f.StringVar(&o.frame, "frame", frame, "around each window: full (with the tag as a label), border or none")
	f.StringSliceVar(&o.allow, "allow", nil, "interfaces that exist besides those of the built-in list: `IFACE,…`")
	f.StringSliceVar(&o.deny, "deny", nil, "interfaces that do not exist, whatever else is said: `IFACE,…`")
	f.StringArrayVar(&o.limits, "limit", nil, "bound what the programs may have at a time: `NAME=N`; repeatable; names: "+strings.Join(limitNames(), ", "))
}

var colorPattern = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// apply checks the flags and puts them into c.
func (o *policyFlags) apply(c *filter.Config) error {
	if !colorPattern.MatchString(o.color) {
		return fmt.Errorf("--color %q: want #rrggbb", o.color)
	}
	if !slices.Contains([]string{"full", "border", "none"}, o.frame) {
		return fmt.Errorf("--frame %q: want full, border or none", o.frame)
	}
	for _, name := range slices.Concat(o.allow, o.deny) {
		if err := checkInterface(name); err != nil {
			return err
		}
	}
	c.Color, c.Frame, c.Allow, c.Deny = o.color, o.frame, o.allow, o.deny
	for _, l := range o.limits {
		name, number, ok := strings.Cut(l, "=")
		n, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || n < 1 {
			return fmt.Errorf("--limit %q: want NAME=N, a number from 1", l)
		}
		if err := setLimit(&c.Limits, name, n); err != nil {
			return fmt.Errorf("--limit %s: %w", l, err)
		}
	}
	return nil
}
