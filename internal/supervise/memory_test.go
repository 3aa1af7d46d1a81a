package supervise

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"vix/internal/balloon"
	"vix/internal/proc"
)

// A guest may say anything of its memory; what is kept of it is possible, and fresh.
func TestGuestStatsAreBounded(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	const most = 512 << 20
	for _, tt := range []struct {
		name string
		age  int64
		text string
		want *balloon.Stats
	}{
		{"plain", 1, `"stat-total-memory":400,"stat-available-memory":300,"stat-free-memory":200,"stat-disk-caches":100`, &balloon.Stats{Total: 400, Available: 300, Free: 200, Caches: 100}},
		{"too much", 1, `"stat-total-memory":18446744073709551614,"stat-available-memory":18446744073709551614,"stat-free-memory":18446744073709551615`, &balloon.Stats{Total: most, Available: most, Free: most}},
		{"more available than there is", 1, `"stat-total-memory":400,"stat-available-memory":900`, &balloon.Stats{Total: 400, Available: 400}},
		{"unsaid", 1, `"stat-total-memory":18446744073709551615,"stat-available-memory":5`, nil},
		{"unsaid too", 1, `"stat-total-memory":5,"stat-available-memory":18446744073709551615`, nil},
		{"old", 60, `"stat-total-memory":400,"stat-available-memory":300`, nil},
		{"of tomorrow", -60, `"stat-total-memory":400,"stat-available-memory":300`, nil},
	} {
		var g guestStats
		if err := json.Unmarshal(fmt.Appendf(nil, `{"stats":{%s},"last-update":%d}`, tt.text, now.Unix()-tt.age), &g); err != nil {
			t.Fatal(err)
		}
		got := g.stats(most, now)
		if (got == nil) != (tt.want == nil) || got != nil && *got != *tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
	if (guestStats{}).stats(most, now) != nil {
		t.Error("never said, and taken for something")
	}
}

func TestProcessorTime(t *testing.T) {
	dir := t.TempDir()
	for text, want := range map[string]time.Duration{
		"7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0": 2 * time.Second,
		"7 (x) S 1":                              -1,
		"7 (x) S 1 2 3 4 5 6 7 8 9 10 -1 50 0 0": -1,
		"":                                       -1,
	} {
		if err := os.MkdirAll(filepath.Join(dir, "7"), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "7", "stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := proc.ProcessorTime(dir, 7); (err != nil) != (want < 0) || err == nil && got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
}
