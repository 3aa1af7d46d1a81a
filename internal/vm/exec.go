package vm

import (
	"vix/internal/agent"
)

// How says how to start a program, beside its arguments and environment.
type How struct {
	Kind    agent.Kind     `json:"kind,omitempty"` // a program, the login shell, or a request
	Request *agent.Request `json:"request,omitempty"`

	User string `json:"user,omitempty"` // of the guest; its ordinary user if empty
	Cwd  string `json:"cwd,omitempty"`  // in the guest; the user's home if empty
	TTY  bool   `json:"tty,omitempty"`
	Size Size   `json:"size,omitzero"` // of the TTY
}

// A Size is that of a terminal, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// Shown is what a list calls the program.
func (h How) Shown(argv []string) []string {
	switch h.Kind {
	case agent.KindShell:
		return append([]string{"(shell)"}, argv...)
	case agent.KindRequest:
		if h.Request != nil { // else the agent refuses it
			return append([]string{"(cp)"}, h.Request.Words()...)
		}
		return []string{"(cp)"}
	}
	return argv
}
