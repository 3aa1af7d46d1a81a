package main

import (
	"fmt"

	"vix/config"
)

// warnings says, a line each, which protection a VM's configuration takes away.
func warnings(v config.VM) []string {
	var list []string
	if v.Frame == "none" {
		list = append(list, fmt.Sprintf(`VM %s: frame = "none": its windows can look like another VM's, or like the host's`, v.Name))
	}
	for _, name := range v.Allow {
		list = append(list, fmt.Sprintf("VM %s: allow %s: %s", v.Name, name, risk(name)))
	}
	return list
}

// risk says what a guest could do with an interface that is not in the built-in
// list.
func risk(string) string { return "left out of the built-in list for a reason; see docs/protocols.md" }
