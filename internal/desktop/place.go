package desktop

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"vix/internal/vm"
)

// askedLife is how long after a run its window still gets the focus.
const askedLife = 2 * time.Minute

// Place is a supervise.Place: it runs in the supervisor of a VM that has a workspace, on a
// sway. The VM's windows open on the workspace without taking the focus, except the one that
// the user has asked for: sway gives no focus to a window that opens on another workspace
// than the user's, whatever its token says.
func Place(ctx context.Context, l vm.Launch, requests <-chan time.Time) error {
	if l.VM.Workspace == "" || l.Sway == "" {
		return nil
	}
	s := Sway{Socket: l.Sway}
	ev, err := s.Subscribe(ctx, "window", "workspace")
	if err != nil {
		return err
	}
	defer ev.Close()
	workspace := workspaceCommand(l.VM.Workspace)
	assign := fmt.Sprintf(`assign [app_id="^vix\.%s\." pid=%d] %s`, l.VM.Name, os.Getpid(), workspace)
	if err := s.Run(ctx, assign); err != nil {
		return err
	}
	for {
		e, err := ev.Next()
		if err != nil {
			return err
		}
		switch name, _, ours := e.Window.VM(); {
		case e.Kind == "workspace" && e.Change == "reload":
			err = s.Run(ctx, assign) // sway has forgotten it
		case e.Kind == "window" && e.Change == "new" && ours && name == l.VM.Name:
			err = s.placeWindow(ctx, e.Window, workspace, takeRequest(requests))
		}
		if err != nil && ctx.Err() != nil {
			return err
		}
		// A window may be gone again: no reason to leave the next one alone.
	}
}

// takeRequest takes a pending request, and reports whether the user still waits for its window.
func takeRequest(requests <-chan time.Time) bool {
	select {
	case at := <-requests:
		return time.Since(at) < askedLife
	default:
		return false
	}
}

// placeWindow moves a window that the rule did not (sway may know it by another
// process), and gives it the focus that the user wants it to have.
func (s Sway) placeWindow(ctx context.Context, w Window, workspace string, focus bool) error {
	at := fmt.Sprintf("[con_id=%d] ", w.ID)
	var commands []string
	if w.PID != os.Getpid() {
		commands = append(commands, at+"move container to "+workspace)
	}
	if focus {
		commands = append(commands, at+"focus")
	}
	if len(commands) == 0 {
		return nil
	}
	return s.Run(ctx, strings.Join(commands, "; "))
}

// workspaceCommand names a workspace to sway: by its number, if it is one, so that it
// is the one that the user has, whatever he calls it.
func workspaceCommand(name string) string {
	if strings.Trim(name, "0123456789") == "" {
		return "workspace number " + name
	}
	return fmt.Sprintf(`workspace "%s"`, name) // package config lets no quote through
}
