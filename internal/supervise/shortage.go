package supervise

import (
	"context"
	"fmt"
	"time"

	"vix/internal/agent"
	"vix/internal/vm"
)

// A guest's kernel that has no memory left ends a program, and whoever used that sees it
// vanish. So the person is told which: whose run lasts, on the terminal; in the VM's log and
// status; and by a notification, as windows have no other place.
//
// It is the guest's word, as often as it likes: see pace.

// A pace bounds how often a person hears one kind of a guest's words, and how many stay.
type pace struct {
	notes int
	free  time.Time // when all of the burst may be told again
}

const (
	paceBurst = 4                // that are told at once,
	paceStep  = 10 * time.Second // then one in
	maxNotes  = 32               // of a kind; what comes later is in the log
)

// admits reports whether something may be told now.
func (p *pace) admits(now time.Time) bool {
	if p.free.Before(now) {
		p.free = now
	}
	if p.free.Sub(now) > (paceBurst-1)*paceStep {
		return false
	}
	p.free = p.free.Add(paceStep)
	return true
}

// tellAt tells a person what the pace has admitted, and reports whether it has become a note.
func (s *guest) tellAt(p *pace, text string) bool {
	if p.notes++; p.notes > maxNotes {
		s.log.Add("vix", text)
		return false
	}
	s.note("%s", text)
	return true
}

// shortages is what has been told. It is touched by the agent's reader alone.
type shortages struct {
	pace
	count uint64 // the guest's, when it was told last
}

// next returns what is to be told of m; "" is nothing.
func (t *shortages) next(name string, m agent.Shortage, now time.Time) string {
	if !t.admits(now) {
		return ""
	}
	who := m.Program
	switch others := m.Count - t.count - 1; {
	case m.Count <= t.count || others == 0: // or the guest cannot count
	case others == 1:
		who += " and another program"
	default:
		who += fmt.Sprintf(" and %d other programs", others)
	}
	t.count = m.Count
	return fmt.Sprintf("VM %s: out of memory: its kernel has ended %s; give the VM more (memory in config.toml, or --memory)", name, who)
}

// onShortage is called by the agent's reader.
func (s *guest) onShortage(m agent.Shortage) {
	text := s.shortages.next(s.launch.VM.Name, m, time.Now())
	if text != "" && s.tellAt(&s.shortages.pace, text) {
		s.notify(text)
	}
}

// notify shows a notification, where there is a desktop. Nobody waits for it.
func (s *guest) notify(text string) {
	if s.desktop.Tell == nil {
		return
	}
	s.pumps.Go(func() {
		if err := s.desktop.Tell(s.ctx, s.launch, text); err != nil && s.ctx.Err() == nil {
			s.log.Printf("vix", "notification: %v", err)
		}
	})
}

// A Desktop is what a supervisor has of the person's desktop, of which this package knows
// nothing. Each may be nil.
type Desktop struct {
	Place Place
	// Tell shows a notification about the VM.
	Tell func(ctx context.Context, l vm.Launch, text string) error
}
