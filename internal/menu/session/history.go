package session

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vix/internal/menu"
	"vix/internal/plain"
)

// recallHistory loads the earlier choices, once.
func (s *Session) recallHistory() {
	if s.history == nil {
		s.state, s.history = history(s.Launcher.Dirs.State)
	}
}

// history returns the earlier choices; it is empty if there is no directory for it.
func history(state string) (*os.Root, *menu.History) {
	if state == "" {
		return nil, menu.NewHistory()
	}
	dir := filepath.Join(state, "vix")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, menu.NewHistory()
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, menu.NewHistory()
	}
	return root, menu.ReadHistory(root)
}

// chose counts a choice. Failure to write the history is not an error.
func (s *Session) chose(id string) {
	if s.state != nil {
		if err := menu.Choose(s.state, id, time.Now()); err != nil {
			fmt.Fprintln(s.Log, "vix: menu: what was chosen is not remembered: "+plain.Error(err))
		}
	}
}
