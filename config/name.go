package config

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxName is the longest name of a VM: the name becomes a host name, part of an app id, and
// part of a socket's path (108 bytes in all).
const MaxName = 32

// reservedNames holds the words that have another meaning in the place of a VM's name, with
// their meanings. ("*", any side of a rule, is not a valid name anyway.)
var reservedNames = map[string]string{
	ClipHost: "means this machine itself",
	"lock":   "is a file among the VMs' directories",
}

// CheckName checks a VM's name: 1 to MaxName of a–z, 0–9, '-' and '_', the first a letter or
// digit. So a name is never a path, an option, or another name in different case. Reserved
// names are refused: a VM called "host" would be this machine in every rule.
func CheckName(name string) error {
	switch {
	case name == "":
		return errors.New("a VM's name must not be empty")
	case reservedNames[name] != "":
		return fmt.Errorf("VM name %q: %s; choose another, such as %q", name, reservedNames[name], NameFor(name))
	case len(name) > MaxName:
		return fmt.Errorf("VM name %q: longer than %d characters", clip(name), MaxName)
	case name[0] == '-' || name[0] == '_':
		return fmt.Errorf("VM name %q: must begin with a letter or digit", clip(name))
	}
	for _, r := range name {
		if !nameRune(r) {
			return fmt.Errorf("VM name %q: want only a-z, 0-9, '-' and '_'", clip(name))
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_'
}

// NameFor derives a valid VM name from a program's base name: in lower case, with '-' for
// characters that a name cannot have. org.gnome.Maps becomes org-gnome-maps, and the reserved
// word host becomes host-vm.
func NameFor(base string) string {
	name := strings.Map(func(r rune) rune {
		if nameRune(r) {
			return r
		}
		return '-'
	}, strings.ToLower(base))
	name = strings.TrimLeft(name, "-_")
	name = strings.TrimRight(name[:min(len(name), MaxName)], "-_")
	switch {
	case name == "":
		return "vm"
	case reservedNames[name] != "":
		return name + "-vm"
	}
	return name
}

// maxApp bounds the kept part of a guest's app id, in bytes: rules match app ids.
const maxApp = 64

// AppID returns the application id that the compositor sees, for the app id of a guest's
// program. It breaks a "vix." in the guest's id, so that a rule for another VM's windows
// does not match in the middle of it.
func AppID(vm, app string) string {
	for len(app) > maxApp {
		_, size := utf8.DecodeLastRuneInString(app)
		app = app[:len(app)-size]
	}
	app = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_', r == '.':
			return r
		}
		return '_'
	}, app)
	if app == "" {
		app = "unknown"
	}
	app = strings.ReplaceAll(app, "vix.", "vix_")
	return "vix." + vm + "." + app
}
