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
// It is the guest's word, as often as it likes. What is told of it is bounded by a pace, and
// what stays of it by a number.
const (
	shortageBurst = 4                // that are told at once,
	shortagePace  = 10 * time.Second // then one in
	maxShortages  = 32               // that are notes of the VM; what comes later is in the log
)

// shortages is what has been told. It is touched by the agent's reader alone.
type shortages struct {
	count uint64    // the guest's, when it was told last
	told  int       // as notes
	free  time.Time // when all of the burst may be told again
}

// next returns what is to be told of m; "" is nothing.
func (t *shortages) next(name string, m agent.Shortage, now time.Time) string {
	if t.free.Before(now) {
		t.free = now
	}
	if t.free.Sub(now) > (shortageBurst-1)*shortagePace {
		return ""
	}
	t.free = t.free.Add(shortagePace)
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
func (s *supervisor) onShortage(m agent.Shortage) {
	text := s.shortages.next(s.launch.VM.Name, m, time.Now())
	if text == "" {
		return
	}
	if s.shortages.told++; s.shortages.told > maxShortages {
		s.log.Add("vix", text)
		return
	}
	s.note("%s", text)
	s.notify(text)
}

// notify shows a notification, where there is a desktop. Nobody waits for it.
func (s *supervisor) notify(text string) {
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
