package vm

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"

	"vix/config"
	"vix/internal/durable"
)

// colorsName of the state directory lists the colours of the last maxColors VMs that started
// without one in config.toml: {"version": 1, "colors": [{vm, color}]}, the newest last.
const (
	colorsName     = "colors.json"
	colorsVersion  = 1
	maxColors      = 1024
	maxColorsBytes = 1 << 20
)

type givenColor struct {
	VM    string       `json:"vm"`
	Color config.Color `json:"color"`
}

type colorsFile struct {
	Version int          `json:"version"`
	Colors  []givenColor `json:"colors"`
}

// Colors returns the colours that VMs were given, by their names, as config's GiveColors takes
// them. dir is $XDG_STATE_HOME. A damaged file gives none: a colour is chosen again.
func Colors(dir string) map[string]config.Color {
	root, err := os.OpenRoot(filepath.Join(dir, "vix"))
	if err != nil {
		return nil
	}
	defer root.Close()
	return byName(readColors(root))
}

func byName(list []givenColor) map[string]config.Color {
	given := map[string]config.Color{}
	for _, g := range list {
		given[g.VM] = g.Color
	}
	return given
}

func readColors(root *os.Root) []givenColor {
	b, err := readBelow(root, colorsName, maxColorsBytes)
	var file colorsFile
	if err != nil || json.Unmarshal(b, &file) != nil || file.Version != colorsVersion {
		return nil
	}
	return slices.DeleteFunc(file.Colors, func(g givenColor) bool {
		return config.CheckName(g.VM) != nil || config.CheckColor(g.Color) != nil
	})
}

// GiveColor returns the colour that the VM name was given before, or else gives it the one
// that choose returns; choose gets what Colors returns.
func (s *Store) GiveColor(ctx context.Context, name string, choose func(given map[string]config.Color) config.Color) (config.Color, error) {
	var color config.Color
	err := s.changeColors(ctx, func(list []givenColor) []givenColor {
		if i := slices.IndexFunc(list, func(g givenColor) bool { return g.VM == name }); i >= 0 {
			color = list[i].Color
			return list
		}
		color = choose(byName(list))
		return append(list, givenColor{name, color})
	})
	return color, err
}

// moveColor gives the colour of the VM from to the VM to, or to nobody: "".
func (s *Store) moveColor(ctx context.Context, from, to string) error {
	return s.changeColors(ctx, func(list []givenColor) []givenColor {
		moved := slices.DeleteFunc(slices.Clone(list), func(g givenColor) bool { return g.VM == from || g.VM == to })
		if i := slices.IndexFunc(list, func(g givenColor) bool { return g.VM == from }); i >= 0 && to != "" {
			moved = append(moved, givenColor{to, list[i].Color})
		}
		return moved
	})
}

// changeColors replaces the list by what change makes of it, one process at a time.
func (s *Store) changeColors(ctx context.Context, change func([]givenColor) []givenColor) error {
	lock, err := openBelow(s.root, colorsName+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return stateFailure(filepath.Join(s.path, colorsName), err)
	}
	defer lock.Close()
	if err := waitLock(ctx, lock); err != nil {
		return stateFailure(filepath.Join(s.path, colorsName), err)
	}
	old := readColors(s.root)
	list := change(slices.Clone(old))
	if slices.Equal(list, old) {
		return nil
	}
	b, err := json.Marshal(colorsFile{colorsVersion, list[max(0, len(list)-maxColors):]})
	if err != nil {
		return err
	}
	if err := durable.Replace(s.root, colorsName, 0o600, append(b, '\n')); err != nil {
		return stateFailure(filepath.Join(s.path, colorsName), err)
	}
	return nil
}
