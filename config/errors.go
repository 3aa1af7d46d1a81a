package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// An Error is a mistake in the file.
type Error struct {
	File string
	Line int    // from 1; 0 if the mistake has no line
	Key  string // a dotted TOML key; empty for bad TOML
	Msg  string

	scope scope
}

func (e *Error) Error() string {
	at := e.File
	if e.Line > 0 {
		at = fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	return at + ": " + e.what()
}

// Short is the error without the file's name.
func (e *Error) Short() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s", e.Line, e.what())
	}
	return e.what()
}

func (e *Error) what() string {
	if e.Key != "" {
		return e.Key + ": " + e.Msg
	}
	return e.Msg
}

// A scope says what a mistake prevents. A wrong default, a wrong rule or an unknown table
// may be what keeps a VM from doing something, so it prevents every start.
type scope int

const (
	blocking  scope = iota // every start
	ofVM                   // the start of one VM
	ofProgram              // the start of one program whose VM is not named
	ofMenu                 // the menu's look
)

func scopeOf(path []string) scope {
	switch {
	case path[0] == "vm" && len(path) > 1:
		return ofVM
	case path[0] == "menu":
		return ofMenu
	}
	return blocking
}

// Errors are mistakes in the file, at least one, in its order.
type Errors []*Error

// sort puts the mistakes into the order of the file.
func (e Errors) sort() {
	slices.SortFunc(e, func(a, b *Error) int {
		return cmp.Or(a.Line-b.Line, cmp.Compare(a.Key, b.Key), cmp.Compare(a.Msg, b.Msg))
	})
}

// Error is one line: the first mistake, and how many more there are.
func (e Errors) Error() string {
	switch len(e) {
	case 1:
		return e[0].Error()
	case 2:
		return e[0].Error() + " (and one more error; see vix config check)"
	}
	return fmt.Sprintf("%v (and %d more errors; see vix config check)", e[0], len(e)-1)
}

// A Disabled is a VM whose table has mistakes, so that it does not start.
type Disabled struct {
	// VM is what could be read of it. Programs, Desktop and Shares also have what was meant, as
	// far as that can be known: it is this VM's, even if this VM does not start.
	VM     VM
	Errors Errors
}

// A DisabledError says why a VM does not start.
type DisabledError struct {
	Name   string
	Errors Errors
}

func (e *DisabledError) Error() string { return e.prefix() + e.Errors.Error() }

func (e *DisabledError) prefix() string { return "VM " + e.Name + " is disabled: " }

// Lines returns a line for each mistake.
func (e *DisabledError) Lines() []string {
	lines := e.Errors.Lines()
	for i := range lines {
		lines[i] = e.prefix() + lines[i]
	}
	return lines
}

// Lines returns a line for each mistake.
func (e Errors) Lines() []string {
	lines := make([]string, len(e))
	for i := range e {
		lines[i] = e[i].Error()
	}
	return lines
}

// Blocking reports whether one of the mistakes prevents every start.
func (e Errors) Blocking() bool {
	return slices.ContainsFunc(e, func(e *Error) bool { return e.scope == blocking })
}

// A KeyError is a mistake in the value of a key. Path has more than one word for a key in a
// table that is a value ("limits", "surfaces").
type KeyError struct {
	Path []string
	Err  error
}

func (e *KeyError) Error() string { return strings.Join(e.Path, ".") + ": " + e.Err.Error() }
func (e *KeyError) Unwrap() error { return e.Err }
