package supervise

import (
	"strings"
	"testing"
	"time"

	"vix/internal/agent"
)

// However often a guest says that it is short, it is told at a pace, and with how many
// programs were ended in between.
func TestShortagesAreBounded(t *testing.T) {
	var s shortages
	now := time.Now()
	count := 0
	for i := range uint64(100_000) {
		if text := s.next("t", agent.Shortage{Program: "perl", Count: i + 1}, now.Add(time.Duration(i)*time.Millisecond)); text != "" {
			count++
			want := "killed perl;"
			if count > paceBurst {
				want = "killed perl and 9999 other programs;"
			}
			if !strings.Contains(text, want) && count != paceBurst+1 {
				t.Errorf("%d: %s", i, text)
			}
		}
	}
	if most := paceBurst + int(100*time.Second/paceStep); count < most-1 || count > most {
		t.Errorf("told %d times in 100 seconds, want %d", count, most)
	}
	for _, count := range []uint64{1, 0, 1<<64 - 1} { // a guest that cannot count
		now = now.Add(time.Hour)
		if text := s.next("t", agent.Shortage{Program: "x", Count: count}, now); !strings.HasPrefix(text, "VM t: out of memory: its kernel killed x") {
			t.Error(text)
		}
	}
}
