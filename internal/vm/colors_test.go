package vm

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"

	"vix/config"
)

// VMs that start at the same time, each in a process of its own, are given different colours;
// what was given stays, goes with the VM's name, and is free when the VM is removed.
func TestColors(t *testing.T) {
	dir := t.TempDir()
	give := func(name string) (config.Color, error) {
		s, err := OpenStore(dir)
		if err != nil {
			return "", err
		}
		defer s.Close()
		return s.GiveColor(t.Context(), name, func(given map[string]config.Color) config.Color {
			return config.Color(fmt.Sprintf("#00000%d", len(given)))
		})
	}
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			if _, err := give(fmt.Sprintf("v%d", i)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	given := Colors(dir)
	if got := slices.Sorted(maps.Values(given)); len(got) != 8 || len(slices.Compact(got)) != 8 {
		t.Errorf("%v", given)
	}
	if again, err := give("v3"); again != given["v3"] || err != nil {
		t.Errorf("%s, was %s, %v", again, given["v3"], err)
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := errors.Join(s.moveColor(t.Context(), "v3", "new"), s.moveColor(t.Context(), "v4", "")); err != nil {
		t.Fatal(err)
	}
	want := maps.Clone(given)
	want["new"] = want["v3"]
	delete(want, "v3")
	delete(want, "v4")
	if got := Colors(dir); !maps.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, bad := range []string{"", "{", `{"version": 2}`, `{"version": 1, "colors": [{"vm": "../x", "color": "#000000"}, {"vm": "x", "color": "red"}]}`} {
		if err := s.root.WriteFile(colorsName, []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := Colors(dir); len(got) > 0 {
			t.Errorf("%q: %v", bad, got)
		}
		if _, err := give("again"); err != nil || Colors(dir)["again"] == "" {
			t.Errorf("%q: %v, %v", bad, Colors(dir), err)
		}
	}
}
