package display

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"vix/config"
)

// A Policy holds the look of a VM's windows, and what its programs may use and have. The
// display process gets it as one JSON object (control.go).
type Policy struct {
	Tag    string            `json:"tag"`              // the text in front of titles
	Color  string            `json:"color"`            // the frame's colour, "#rrggbb"
	Frame  string            `json:"frame"`            // the kind of frame: "full", "border" or "none"
	Allow  []string          `json:"allow,omitempty"`  // interfaces allowed besides those of the rules
	Deny   []string          `json:"deny,omitempty"`   // interfaces that are denied in any case
	Limits map[string]int64  `json:"limits,omitempty"` // values by name; the others have their defaults
	Drags  []config.DragRule `json:"drags,omitempty"`  // the rules for drags to and from others; the first that fits decides
}

// PolicyOf returns the policy of a configured VM.
func PolicyOf(v config.VM, drags []config.DragRule) Policy {
	return Policy{
		Tag: v.Tag, Color: string(v.Color), Frame: v.Frame,
		Allow: v.Allow, Deny: v.Deny, Limits: v.Limits, Drags: drags,
	}
}

// A PolicyError names the wrong member of a policy, by its name in JSON and in
// config.toml.
type PolicyError struct {
	Key string
	Err error
}

func (e *PolicyError) Error() string { return e.Key + ": " + e.Err.Error() }
func (e *PolicyError) Unwrap() error { return e.Err }

var colorPattern = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// Check checks a policy; the error is a *PolicyError.
func (p Policy) Check() error {
	if list := p.Mistakes(); len(list) > 0 {
		return list[0]
	}
	return nil
}

// Mistakes returns everything that is wrong with a policy.
func (p Policy) Mistakes() (list []*PolicyError) {
	wrong := func(key string, err error) {
		if err != nil {
			list = append(list, &PolicyError{key, err})
		}
	}
	if !colorPattern.MatchString(p.Color) {
		wrong("color", fmt.Errorf("%q: want #rrggbb", p.Color))
	}
	if !slices.Contains([]string{"full", "border", "none"}, p.Frame) {
		wrong("frame", fmt.Errorf("%q: want full, border or none", p.Frame))
	}
	for _, name := range p.Allow {
		wrong("allow", CheckAllow(name))
	}
	for _, name := range p.Deny {
		wrong("deny", CheckInterface(name))
	}
	for _, name := range slices.Sorted(maps.Keys(p.Limits)) {
		wrong("limits."+name, CheckLimit(name, p.Limits[name]))
	}
	return list
}

// CheckLimit checks a VM's own value of a limit.
func CheckLimit(name string, n int64) error {
	if most, ok := deviceLimits[name]; ok {
		if n < 1 || n > most {
			return fmt.Errorf("want a number from 1 to %d, not %d", most, n)
		}
		return nil
	}
	if !slices.Contains(LimitNames(), name) {
		return fmt.Errorf("unknown limit; there are %s", strings.Join(slices.Concat(LimitNames(), DeviceLimitNames()), ", "))
	}
	if n < 1 {
		return errors.New("want a number above 0")
	}
	return nil
}
