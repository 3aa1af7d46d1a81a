package vm

import (
	"vix/internal/agent"
)

// How says how to start a program, beside its arguments and environment.
type How struct {
	Kind agent.Kind `json:"kind,omitempty"` // a program, the login shell, or the agent's copier
	User string     `json:"user,omitempty"` // a user of the guest; its ordinary user if empty
	Cwd  string     `json:"cwd,omitempty"`  // a directory in the guest; the user's home if empty
	TTY  bool       `json:"tty,omitempty"`
	Size Size       `json:"size,omitzero"` // of the TTY
}

// A Size is that of a terminal, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Shown returns the program's command line as a list shows it.
func (h How) Shown(argv []string) []string {
	switch h.Kind {
	case agent.KindShell:
		return append([]string{"(shell)"}, argv...)
	case agent.KindCopy:
		return append([]string{"(cp)"}, argv...)
	}
	return argv
}
