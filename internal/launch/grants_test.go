package launch

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Many programs' opened files lie in one folder of their VM; each takes its own back, the
// last one the share, and what a killed one left goes with the next.
func TestGrants(t *testing.T) {
	data := t.TempDir()
	file := filepath.Join(data, "letter.txt")
	if err := os.WriteFile(file, []byte("words"), 0o600); err != nil {
		t.Fatal(err)
	}
	place := filepath.Join(data, grantsDir, "t")
	there := func() (names []string) {
		entries, _ := os.ReadDir(place)
		for _, e := range entries {
			names = append(names, e.Name())
		}
		return names
	}
	var open []*grants
	for range 12 { // more than there are places for shares
		g, err := openGrants(data, "t")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := g.add(file); err != nil {
			t.Fatal(err)
		}
		if g.path != place {
			t.Errorf("%s, not %s", g.path, place)
		}
		open = append(open, g)
	}
	if names := there(); len(names) != 12 || !slices.Contains(names, "letter.txt") || !slices.Contains(names, "12-letter.txt") {
		t.Errorf("%q", names)
	}
	open[0].close() // killed: its file stays
	unshared := 0
	for _, g := range open[1:] {
		g.revoke(func() bool { unshared++; return unshared > 1 })
	}
	if names := there(); unshared != 1 || !slices.Equal(names, []string{"letter.txt"}) {
		t.Errorf("unshared %d times, %q is left", unshared, names)
	}
	last, err := openGrants(data, "t")
	if err != nil {
		t.Fatal(err)
	}
	if names := there(); len(names) != 0 {
		t.Errorf("%q is left of a process that was killed", names)
	}
	if name, err := last.add(filepath.Join(data, "none")); err == nil {
		t.Errorf("%q", name)
	}
	last.revoke(func() bool { unshared++; return true })
	if _, err := os.Stat(place); unshared != 2 || !os.IsNotExist(err) {
		t.Errorf("unshared %d times, %v", unshared, err)
	}
}
