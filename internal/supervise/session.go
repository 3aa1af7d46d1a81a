package supervise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vix/internal/vm"
)

// A VM may outlive the compositor that shows its windows: the user logs out and in again,
// and the next compositor may have another name. A client that runs a program names its
// session. If the VM's own compositor is gone, the VM shows new windows in that session.
// Beside the windows, two things belong to a session, and begin anew with it:
//
//	run, exec ── Session ─► join ─► broker ─► the display's connections
//	                          └─ renewed ─► keepFlow (the clipboard), keepPlace (workspaces)

// meet connects to the compositor, if it runs, and keeps the connection as the witness.
func (b *broker) meet() error {
	if b.lives() {
		return nil
	}
	b.forget()
	f, err := connectFile(b.session.Wayland)
	if err != nil {
		return err
	}
	b.witness = f
	b.renew()
	return nil
}

func (b *broker) renew() {
	close(b.renewed)
	b.renewed = make(chan struct{})
}

// now returns the VM's session, and a channel that closes when the session changes.
func (b *broker) now() (vm.Session, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.meet() // so that a compositor that is met later counts as another
	return b.session, b.renewed
}

// join makes a client's session the VM's, if the VM's own is over. It returns a text for
// the client if the VM's windows will not appear in the client's session.
func (b *broker) join(his vm.Session) (note string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	gone := b.meet()
	switch {
	case !filepath.IsAbs(his.Wayland):
	case sameFile(his.Wayland, b.session.Wayland):
		if his.Sway != "" && his.Sway != b.session.Sway {
			b.session.Sway = his.Sway
			b.renew()
		}
	default:
		f, err := connectFile(his.Wayland)
		switch {
		case err != nil:
		case gone == nil:
			f.Close()
			return fmt.Sprintf("its windows are shown at %s, whose compositor still runs, not at %s; stop the VM first to move them there", b.session.Wayland, his.Wayland)
		default:
			b.session, b.witness, gone = his, f, nil
			b.renew()
		}
	}
	if gone != nil {
		return fmt.Sprintf("no compositor at %s: %v; its programs cannot open windows until somebody runs one in a Wayland session", b.session.Wayland, vm.DialCause(gone))
	}
	return ""
}

func sameFile(a, b string) bool {
	if a == b {
		return true
	}
	x, err := os.Stat(a)
	if err != nil {
		return false
	}
	y, err := os.Stat(b)
	return err == nil && os.SameFile(x, y)
}

// joinSession offers a run's session to the VM, and passes join's text to the client.
func (s *supervisor) joinSession(c *vm.Control, his vm.Session) {
	if s.launch.VM.NoGUI {
		return
	}
	if note := s.broker.join(his); note != "" {
		s.tell(c, vm.Reply{Windows: fmt.Sprintf("VM %s: %s", s.launch.VM.Name, note)})
	}
}

// A placer has the desktop put the VM's windows where they belong.
type placer struct {
	*host
	broker   *broker
	place    Place
	requests chan time.Time // times of runs with an activation token; capacity 1
}

// keep runs the desktop's Place until ctx ends, anew with each session.
func (s *placer) keep(ctx context.Context) {
	for {
		now, renewed := s.broker.now()
		l := s.launch
		l.Sway = now.Sway
		if err := s.place(ctx, l, s.requests); err != nil && ctx.Err() == nil {
			s.log.Printf("vix", "windows are not placed: %v", err)
		}
		select {
		case <-renewed:
		case <-ctx.Done():
			return
		}
	}
}

// ask notes that a user wants to see a program's window.
func (s *placer) ask() {
	select {
	case s.requests <- time.Now():
	default:
	}
}
