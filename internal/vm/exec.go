package vm

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// How says how a program is started, beside its arguments and environment.
type How struct {
	Kind agent.Kind `json:"kind,omitempty"` // a program, the login shell, or the agent's copier
	User string     `json:"user,omitempty"` // of the guest; its ordinary user if empty
	Cwd  string     `json:"cwd,omitempty"`  // in the guest; the user's home if empty
	TTY  bool       `json:"tty,omitempty"`
	Size Size       `json:"size,omitzero"` // of the TTY
}

// A Size is that of a terminal, in characters.
type Size struct {
	Rows uint16 `json:"rows"`
	Cols uint16 `json:"cols"`
}

// shown is what a list calls the program.
func (h How) shown(argv []string) []string {
	switch h.Kind {
	case agent.KindShell:
		return append([]string{"(shell)"}, argv...)
	case agent.KindCopy:
		return append([]string{"(cp)"}, argv...)
	}
	return argv
}

// spawn is what the agent is asked for.
func (r request) spawn() agent.Spawn {
	h := r.How
	return agent.Spawn{
		Kind: h.Kind, Argv: r.Argv, Env: r.Env, User: h.User, Cwd: h.Cwd,
		TTY: h.TTY, Rows: h.Size.Rows, Cols: h.Size.Cols,
	}
}

// tell passes a client's word on to its program.
func (r request) tell(p *agent.Process) {
	if r.Size != nil {
		_ = p.Resize(r.Size.Rows, r.Size.Cols)
		return
	}
	_ = p.Kill(syscall.Signal(r.Signal))
}

// hangUp is for a client that is gone. What is stopped has to go on to hear of it.
// A program's outputs stay open, as its last words would kill it; a terminal ends,
// which its other process groups notice.
func (r request) hangUp(p *agent.Process) {
	_ = p.Kill(syscall.SIGHUP)
	_ = p.Kill(syscall.SIGCONT)
	if r.How.TTY {
		_ = p.Stdout.Close()
	}
}

// join returns a connection to the supervisor of a VM that has to run.
func (r *Registry) join(name string) (*net.UnixConn, error) {
	conn, _, err := r.dial(name)
	if errors.Is(err, ErrNotRunning) || errors.Is(err, unix.ECONNREFUSED) {
		return nil, failf("VM %s: not running; start it with vix-launcher run --vm %s PROGRAM", name, name)
	}
	return conn, err
}
