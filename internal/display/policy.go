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

// A Policy is what the windows of a VM's programs look like, and what the programs may use
// and have. The display process is told it as one JSON object (control.go).
type Policy struct {
	Tag    string            `json:"tag"`              // in front of titles
	Color  string            `json:"color"`            // of the frame, "#rrggbb"
	Frame  string            `json:"frame"`            // around each window: "full", "border" or "none"
	Allow  []string          `json:"allow,omitempty"`  // interfaces that exist besides those of the rules,
	Deny   []string          `json:"deny,omitempty"`   // and that do not, whatever else is said
	Limits map[string]int64  `json:"limits,omitempty"` // by name; the others have their defaults
	Drags  []config.DragRule `json:"drags,omitempty"`  // of drags to and from others, the first that fits
}

// PolicyOf is that of a configured VM.
func PolicyOf(v config.VM, drags []config.DragRule) Policy {
	return Policy{
		Tag: v.Tag, Color: string(v.Color), Frame: v.Frame,
		Allow: v.Allow, Deny: v.Deny, Limits: v.Limits, Drags: drags,
	}
}

// A PolicyError says which member of a policy is wrong, by its name in JSON and in
// config.toml.
type PolicyError struct {
	Key string
	Err error
}

func (e *PolicyError) Error() string { return e.Key + ": " + e.Err.Error() }
func (e *PolicyError) Unwrap() error { return e.Err }

var colorPattern = regexp.MustCompile(`^#[0-9a-f]{6}$`)

// Check finds what is wrong with a policy; the error is a *PolicyError.
func (p Policy) Check() error {
	if !colorPattern.MatchString(p.Color) {
		return &PolicyError{"color", fmt.Errorf("%q: want #rrggbb", p.Color)}
	}
	if !slices.Contains([]string{"full", "border", "none"}, p.Frame) {
		return &PolicyError{"frame", fmt.Errorf("%q: want full, border or none", p.Frame)}
	}
	for _, name := range p.Allow {
		if err := CheckAllow(name); err != nil {
			return &PolicyError{"allow", err}
		}
	}
	for _, name := range p.Deny {
		if err := CheckInterface(name); err != nil {
			return &PolicyError{"deny", err}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(p.Limits)) {
		if err := CheckLimit(name, p.Limits[name]); err != nil {
			return &PolicyError{"limits." + name, err}
		}
	}
	return nil
}

// CheckLimit says what is wrong with a limit of a VM's own.
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
