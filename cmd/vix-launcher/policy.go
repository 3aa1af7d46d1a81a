package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/filter"
	"vix/internal/gpu"
)

// checkPolicy finds the mistakes in a VM's configuration that package config
// cannot know of, before anything is started.
func checkPolicy(v config.VM) error {
	fail := func(key string, err error) error { return fmt.Errorf("config.toml: vm.%s.%s: %w", v.Name, key, err) }
	for _, name := range v.Allow {
		if err := filter.CheckAllow(name); err != nil {
			return fail("allow", err)
		}
	}
	for _, name := range v.Deny {
		if err := filter.CheckInterface(name); err != nil {
			return fail("deny", err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(v.Limits)) {
		var err error
		switch {
		case slices.Contains(gpu.LimitNames(), name):
			err = new(gpu.Limits).Set(name, v.Limits[name])
		case slices.Contains(filter.LimitNames(), name):
			err = new(filter.Limits).Set(name, v.Limits[name])
		default:
			err = fmt.Errorf("unknown limit; there are %s", strings.Join(slices.Concat(filter.LimitNames(), gpu.LimitNames()), ", "))
		}
		if err != nil {
			return fail("limits."+name, err)
		}
	}
	return nil
}

// warnings says, a line each, which protection a VM's configuration takes away.
func warnings(v config.VM) []string {
	var list []string
	if v.Frame == "none" {
		list = append(list, fmt.Sprintf(`VM %s: frame = "none": its windows can look like another VM's, or like the host's`, v.Name))
	}
	for _, name := range v.Allow {
		if why := filter.Risk(name); why != "" && !slices.Contains(v.Deny, name) {
			list = append(list, fmt.Sprintf("VM %s: allow %s: a risk: %s", v.Name, name, why))
		}
	}
	if v.NoGUI {
		return list
	}
	if v.Clipboard == config.ClipShared || v.Clipboard == config.ClipSharedOut {
		list = append(list, fmt.Sprintf(`VM %s: clipboard = %q: a risk: while it has the focus, its programs put into your clipboard what they like: look at what you paste`, v.Name, v.Clipboard))
	}
	if v.Clipboard == config.ClipShared || v.Clipboard == config.ClipSharedIn {
		list = append(list, fmt.Sprintf(`VM %s: clipboard = %q: a risk: while it has the focus, its programs read what you copied on the host, and passwords that are not marked as such`, v.Name, v.Clipboard))
	}
	return list
}
