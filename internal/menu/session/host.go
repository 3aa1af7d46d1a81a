// Package session is a menu of the programs of all VMs, from its opening until what was
// chosen has been done. It knows programs and VMs; what is drawn, and which line a key
// chooses, vix-menu does, a process of its own:
//
//	load ─► setup ─► vix-menu ─► events ─► listen ─► launch, stop, another verb, …
//	Registry.Watch, the portal, icons ─► updates ─► vix-menu
//
// With another menu (Dmenu) it writes lines and reads which one was chosen.
//
// It reads no environment and starts no process: a Host has what cmd/ found, and
// Programs has a function for each program that takes part.
package session

import (
	"context"
	"errors"
	"io"

	"vix/internal/launch"
)

// A Host is the machine and the user that a session is for.
type Host struct {
	Launcher *launch.Launcher
	Locale   string   // of characters (LC_CTYPE)
	Language string   // of messages (LC_MESSAGES)
	DataDirs []string // of the XDG base directory specification, the user's first
	Log      io.Writer
	Programs Programs
}

// Programs are the programs that take part in a session. An error that is the end of
// one has a method ExitCode, as that of os/exec.
type Programs struct {
	// Menu starts vix-menu, which is asked to close when ctx ends.
	Menu func(ctx context.Context) (*Child, error)
	// Chooser runs another menu, a command of a shell's, with args behind its own, and
	// returns what it printed.
	Chooser func(ctx context.Context, command string, args []string, lines []byte) ([]byte, error)
	// Verb runs another verb of vix-launcher and returns its output; its error is the
	// verb's own line.
	Verb func(ctx context.Context, args ...string) ([]byte, error)
	// Shell opens a terminal with a shell of a VM, which outlives the menu.
	Shell func(vm, token string) error
	// Font returns the file of the font that matches best, "" if that cannot be found
	// out.
	Font func(ctx context.Context, pattern string) string
	// Rasterise has an SVG drawn, as a PNG of side pixels.
	Rasterise func(ctx context.Context, svg []byte, side int) ([]byte, error)
}

// A Child is vix-menu as it runs. Wait is called once, when its output was read.
type Child struct {
	Stdin  io.WriteCloser
	Stdout io.Reader
	Wait   func() error
}

// exitCode returns the status with which a program ended, -1 for a signal; ok is false
// if err is no such end.
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
