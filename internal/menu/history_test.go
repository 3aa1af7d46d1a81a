package menu

import (
	"os"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestHistory(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	now := time.Unix(1_800_000_000, 0)
	for range 3 {
		if err := Choose(dir, "web/firefox", now); err != nil {
			t.Fatal(err)
		}
	}
	if err := Choose(dir, "two\nlines", now); err != nil {
		t.Fatal(err)
	}
	h := ReadHistory(dir)
	if got := h.Use("web/firefox", now); got != 3 {
		t.Errorf("used three times: %v", got)
	}
	if got := h.Use("web/firefox", now.Add(halfLife)); got != 1.5 {
		t.Errorf("two weeks later: %v", got)
	}
	if got := h.Use("web/firefox", now.Add(-time.Hour)); got != 3 {
		t.Errorf("with a clock that was set back: %v", got)
	}
	if len(h.uses) != 1 {
		t.Errorf("%d entries: %v", len(h.uses), h.uses)
	}
	// A link in the place of the temporary file is not followed.
	if err := dir.Symlink("elsewhere", historyName+".tmp"); err != nil {
		t.Fatal(err)
	}
	if err := Choose(dir, "x", now); err != nil {
		t.Fatal(err)
	}
	if _, err := dir.Stat("elsewhere"); err == nil {
		t.Error("the history was written through a link")
	}
}

// The file stays within its bounds, and the most used survive.
func TestHistoryIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := NewHistory()
		now := time.Unix(1_800_000_000, 0)
		n := rapid.IntRange(0, 2*maxUses).Draw(t, "n")
		id := strings.Repeat("x", rapid.IntRange(0, maxID-10).Draw(t, "length"))
		for i := range n {
			h.Add(id+string(rune('A'+i%26))+time.Duration(i).String(), now)
		}
		h.Add("most", now)
		h.Add("most", now)
		b := h.bytes(now)
		again := parseHistory(b)
		if len(b) > maxHistory || len(again.uses) > maxUses || again.Use("most", now) != 2 {
			t.Fatalf("%d bytes, %d entries, most used %v", len(b), len(again.uses), again.Use("most", now))
		}
	})
}

// FuzzHistory: no file makes trouble; what is read is in bounds, and stays when it is
// written and read again.
func FuzzHistory(f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		now := time.Unix(1_800_000_000, 0)
		h := parseHistory(b)
		again := parseHistory(h.bytes(now))
		for id, u := range h.uses {
			if !validID(id) || !(u.weight > 0 && u.weight <= maxWeight) || u.last < 0 {
				t.Fatalf("%q: %+v", id, u)
			}
			if v, ok := again.uses[id]; len(b) < maxHistory/2 && u.weight > 1e-300 && (!ok || v.last != u.last) {
				t.Fatalf("%q is lost: %+v, then %+v", id, u, v)
			}
		}
	})
}
