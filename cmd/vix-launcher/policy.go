package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/display"
)

// checkPolicy finds mistakes in a VM's configuration that package config cannot detect, before
// anything is started.
func checkPolicy(v config.VM) error {
	var bad *display.PolicyError
	if errors.As(display.PolicyOf(v, nil).Check(), &bad) {
		return fmt.Errorf("config.toml: vm.%s.%s: %w", v.Name, bad.Key, bad.Err)
	}
	return nil
}

// policyMistakes is checkPolicy for config.toml itself: all mistakes, each with its key.
func policyMistakes(v config.VM) error {
	var errs []error
	for _, bad := range display.PolicyOf(v, nil).Mistakes() {
		errs = append(errs, &config.KeyError{Path: strings.SplitN(bad.Key, ".", 2), Err: bad.Err})
	}
	return errors.Join(errs...)
}

// warnings lists, one in a line, the protections that a VM's configuration removes.
func warnings(v config.VM) []string {
	var list []string
	if v.Frame == "none" {
		list = append(list, fmt.Sprintf(`VM %s: frame = "none": its windows can look like another VM's, or like the host's`, v.Name))
	}
	for _, name := range v.Allow {
		if why := display.Risk(name); why != "" && !slices.Contains(v.Deny, name) {
			list = append(list, fmt.Sprintf("VM %s: allow %s: a risk: %s", v.Name, name, why))
		}
	}
	if v.NoGUI {
		return list
	}
	if v.Clipboard == config.ClipShared || v.Clipboard == config.ClipSharedOut {
		list = append(list, fmt.Sprintf(`VM %s: clipboard = %q: a risk: while it has the focus, its programs can put anything into your clipboard: look at what you paste`, v.Name, v.Clipboard))
	}
	if v.Clipboard == config.ClipShared || v.Clipboard == config.ClipSharedIn {
		list = append(list, fmt.Sprintf(`VM %s: clipboard = %q: a risk: while it has the focus, its programs can read what you copied on the host, including passwords that are not marked as such`, v.Name, v.Clipboard))
	}
	return list
}
