package vm

import (
	"errors"
	"math"

	"vix/internal/agent"
)

// How says how to start a program, beside its arguments and environment.
type How struct {
	Kind    agent.Kind     `json:"kind,omitempty"` // a program, the login shell, or a request
	Request *agent.Request `json:"request,omitempty"`

	User string      `json:"user,omitempty"` // of the guest; its ordinary user if empty
	Cwd  agent.Bytes `json:"cwd,omitempty"`  // in the guest; the user's home if empty
	TTY  bool        `json:"tty,omitempty"`
	Size Size        `json:"size,omitzero"` // of the TTY
	// Terminfo is the compiled entry of the TERM in the environment, if the host has one that fits.
	Terminfo []byte `json:"terminfo,omitempty"`
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

// Spawn is the request to the agent of an OpRun.
func (r Request) Spawn() agent.Spawn {
	h := r.How
	return agent.Spawn{
		Kind: h.Kind, Request: h.Request, Argv: r.Argv, Env: r.Env, User: h.User, Cwd: h.Cwd,
		TTY: h.TTY, Terminfo: h.Terminfo, Rows: h.Size.Rows, Cols: h.Size.Cols,
	}
}

// checkLength says whether the program's arguments and environment can be sent at all. It is
// asked before a VM starts for them.
func (r Request) checkLength(name string) error {
	s := r.Spawn()
	s.ID = math.MaxUint32 // the longest
	if _, err := agent.Append(nil, s); errors.Is(err, agent.ErrTooLong) {
		return Failf("VM %s: the program's arguments and environment are too long: as they are sent, they have to be at most %d bytes", name, agent.MaxPayload)
	}
	return nil
}
