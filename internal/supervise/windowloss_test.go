package supervise

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// Whoever runs a program in a VM whose windows vanish hears why, and status has it.
func TestWindowLoss(t *testing.T) {
	b := newBench(t)
	b.do("qemu", "nowindows")
	s := b.runNow("t", "true")
	const want = "VM t: its windows are gone: the guest's Wayland proxy ended 3 times: signal [31mkilled; it is restarted in 2s"
	if s.fail != nil || !slices.Contains(s.notes, want) {
		t.Errorf("%v: the notes are %q", s.fail, s.notes)
	}
	s = b.goRun(b.start("t", "sleep", "60"))
	if notes := b.state(s).Notes; !slices.Contains(notes, want) {
		t.Errorf("the state's notes are %q", notes)
	}
	s.signals <- unix.SIGTERM
	<-s.done
}

// However often a guest loses its windows, it is told at a pace.
func TestWindowLossesAreBounded(t *testing.T) {
	var l windowLosses
	now := time.Now()
	count := 0
	for i := range uint64(100_000) {
		if text := l.next("t", agent.WindowLoss{How: "exit status 2", Count: i + 1}, now.Add(time.Duration(i)*time.Millisecond)); text != "" {
			count++
			if count == 1 && !strings.Contains(text, "ended: exit status 2; another one shows new windows") {
				t.Error(text)
			}
		}
	}
	if most := paceBurst + int(100*time.Second/paceStep); count < most-1 || count > most {
		t.Errorf("told %d times in 100 seconds, want %d", count, most)
	}
	now = now.Add(time.Hour)
	for _, count := range []uint64{1, 0, 1<<64 - 1} { // a guest that cannot count
		now = now.Add(time.Hour)
		if text := l.next("t", agent.WindowLoss{How: "x", Count: count}, now); !strings.HasPrefix(text, "VM t: its windows are gone") {
			t.Error(text)
		}
	}
}
