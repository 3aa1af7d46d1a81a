package supervise

import (
	"fmt"
	"time"

	"vix/internal/agent"
)

// When the guest's Wayland proxy ends, all windows of the VM vanish, and no program says
// why. So Vix tells the user, as of a shortage; this too is the guest's word.

// windowLosses counts the losses that the user knows of. It is the agent's reader's alone.
type windowLosses struct {
	pace
	count uint64 // the guest's count in its last message
}

// next returns the message for m; "" for none.
func (t *windowLosses) next(name string, m agent.WindowLoss, now time.Time) string {
	if !t.admits(now) {
		return ""
	}
	times := ""
	if m.Count > t.count && m.Count-t.count > 1 { // otherwise m is the next loss, or the guest cannot count
		times = fmt.Sprintf(" %d times", m.Count-t.count)
	}
	t.count = m.Count
	next := "another one shows new windows"
	if m.Pause > 0 {
		next = fmt.Sprintf("it is restarted in %v", time.Duration(m.Pause)*time.Millisecond)
	}
	return fmt.Sprintf("VM %s: its windows are gone: the guest's Wayland proxy ended%s: %s; %s", name, times, m.How, next)
}

// onWindowLoss is called by the agent's reader.
func (s *guest) onWindowLoss(m agent.WindowLoss) {
	text := s.windowLosses.next(s.launch.VM.Name, m, time.Now())
	if text != "" && s.tellAt(&s.windowLosses.pace, text) {
		s.notify("Trouble in VM "+s.launch.VM.Name, text)
	}
}
