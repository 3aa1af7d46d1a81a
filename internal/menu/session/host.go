// Package session is a menu of the programs of all VMs, from its opening until the chosen
// action is done. It knows programs and VMs. Drawing, and the choice of a line by a key, are
// the work of vix-menu, a process of its own:
//
//	load ─► setup ─► vix-menu ─► events ─► listen ─► launch, stop, another verb, …
//	Registry.Watch, the portal, icons ─► updates ─► vix-menu
//
// With another menu (Dmenu) it writes lines and reads the chosen one.
//
// It reads no environment and starts no process: a Host holds what cmd/ found, and Programs
// has a function for each program that takes part.
package session

import (
	"context"
	"errors"
	"io"

	"vix/internal/launch"
)

// A Host describes the machine and the user of a session.
type Host struct {
	Launcher *launch.Launcher
	Locale   string   // of characters (LC_CTYPE)
	Language string   // of messages (LC_MESSAGES)
	DataDirs []string // of the XDG base directory specification, the user's first
	Log      io.Writer
	Programs Programs
}

// Programs are the other programs of a session. The error for a program's end has a method
// ExitCode, as in os/exec.
type Programs struct {
	// Menu starts vix-menu, and asks it to close when ctx ends.
	Menu func(ctx context.Context) (*Child, error)
	// Chooser runs another menu, a shell command with args appended, and returns its output.
	Chooser func(ctx context.Context, command string, args []string, lines []byte) ([]byte, error)
	// Verb runs another verb of vix-launcher and returns its output; an error contains the verb's
	// own message.
	Verb func(ctx context.Context, args ...string) ([]byte, error)
	// Shell opens a terminal with a shell of a VM, which outlives the menu.
	Shell func(vm, token string) error
	// Font returns the file of the best matching font; "" if it is unknown.
	Font func(ctx context.Context, pattern string) string
	// Rasterise draws an SVG as a PNG of side pixels.
	Rasterise func(ctx context.Context, svg []byte, side int) ([]byte, error)
}

// A Child is a running vix-menu. Wait is called once, after its output was read.
type Child struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Wait   func() error
}

// exitCode returns a program's exit status, -1 for a signal; ok is false if err has another
// cause.
func exitCode(err error) (code int, ok bool) {
	var exit interface {
		error
		ExitCode() int
	}
	if errors.As(err, &exit) {
		return exit.ExitCode(), true
	}
	return 0, false
}
