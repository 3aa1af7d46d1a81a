package supervise

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"vix/internal/vm"
)

// A VM may outlive the compositor on which it shows its windows: the user logs out and in
// again, and the next one may have another name. Whoever runs a program in the VM says
// which session is his, and where the VM's own compositor is gone, the VM's new windows
// are shown on his. Beside the windows, two things belong to a session, and begin anew with it:
//
//	run, exec ── Session ─► join ─► broker ─► the display's connections
//	                          └─ renewed ─► keepFlow (the clipboard), keepPlace (workspaces)

// meet makes sure that the compositor is there, and is our witness.
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

// now is the VM's session, and tells when it is another.
func (b *broker) now() (vm.Session, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_ = b.meet() // so that whom is met later is another
	return b.session, b.renewed
}

// join takes the session of somebody who runs a program for the VM's, if the VM's is
// over. It returns what he has to know, if his windows are not to be shown on it.
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
			return fmt.Sprintf("its windows are shown at %s, whose compositor still runs, and not at %s; stop it first to have them there", b.session.Wayland, his.Wayland)
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

// joinSession gives a run's session to the VM, and tells its client what it has to know.
func (s *supervisor) joinSession(c *vm.Control, his vm.Session) {
	if s.launch.VM.NoGUI {
		return
	}
	if note := s.broker.join(his); note != "" {
		s.tell(c, vm.Reply{Windows: fmt.Sprintf("VM %s: %s", s.launch.VM.Name, note)})
	}
}

// A placer has the VM's windows put where they belong, by the desktop.
type placer struct {
	*host
	broker   *broker
	place    Place
	requests chan time.Time // of runs with an activation token; holds one
}

// keep has windows placed, anew with each session, until ctx ends.
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

// ask notes that somebody wants to see a window of his.
func (s *placer) ask() {
	select {
	case s.requests <- time.Now():
	default:
	}
}
