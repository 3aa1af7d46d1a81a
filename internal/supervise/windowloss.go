package supervise

import (
	"fmt"
	"time"

	"vix/internal/agent"
)

// When the guest's Wayland proxy ends, all windows of the VM vanish, and no program says
// why. So the person is told, as of a shortage, and in the guest's words too.

// windowLosses is what has been told. It is touched by the agent's reader alone.
type windowLosses struct {
	pace
	count uint64 // the guest's, when it was told last
}

// next returns what is to be told of m; "" is nothing.
func (t *windowLosses) next(name string, m agent.WindowLoss, now time.Time) string {
	if !t.admits(now) {
		return ""
	}
	times := ""
	if m.Count > t.count && m.Count-t.count > 1 { // else the guest cannot count, or it is the next
		times = fmt.Sprintf(" %d times", m.Count-t.count)
	}
	t.count = m.Count
	next := "another one shows new windows"
	if m.Pause > 0 {
		next = fmt.Sprintf("another one is started in %v", time.Duration(m.Pause)*time.Millisecond)
	}
	return fmt.Sprintf("VM %s: its windows are gone: the guest's Wayland proxy ended%s: %s; %s", name, times, m.How, next)
}

// onWindowLoss is called by the agent's reader.
func (s *guest) onWindowLoss(m agent.WindowLoss) {
	text := s.windowLosses.next(s.launch.VM.Name, m, time.Now())
	if text != "" && s.tellAt(&s.windowLosses.pace, text) {
		s.notify(text)
	}
}
