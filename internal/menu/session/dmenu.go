package session

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"vix/internal/icon"
	"vix/internal/menu"
	"vix/internal/plain"
)

// A dmenuKind is the interface of another menu. All read a line for each entry; they differ in
// how they show icons and in their output for the chosen entry.
type dmenuKind struct {
	args  []string // to make it read lines and print an index
	icons string   // "name": after the line, as in rofi; "file": before it, as in wofi
	index bool     // it prints the index, not the line
}

var dmenuKinds = map[string]dmenuKind{
	"fuzzel": {[]string{"--dmenu", "--index"}, "name", true},
	"rofi":   {[]string{"-dmenu", "-i", "-format", "i", "-show-icons"}, "name", true},
	"wofi":   {[]string{"--dmenu", "--insensitive", "--allow-images", "--define", "dmenu-print_line_num=true"}, "file", true},
	"tofi":   {nil, "", false}, // up to 0.9.1 it cannot print an index
	"bemenu": {[]string{"--ignorecase"}, "", false},
}

// Dmenu opens another menu, and runs the chosen program. command is a shell command, and its
// first word is the menu's name. A VM's own entry has no program, so it is not offered.
func (s *Session) Dmenu(ctx context.Context, command, token string) error {
	name := command
	if words := strings.Fields(command); len(words) > 0 {
		name = words[0]
	}
	kind := dmenuKinds[filepath.Base(name)]
	model := menu.NewModel(nil, nil, 1)
	model.SetVMs(s.vms)
	model.SetItems(slices.DeleteFunc(slices.Clone(s.items), func(it menu.Item) bool { return it.Machine }))
	var items []menu.Item
	for i := range model.Count() {
		it, _ := model.Line(i)
		items = append(items, *it)
	}
	lines := s.dmenuLines(items)
	var in bytes.Buffer
	for i, line := range lines {
		in.WriteString(s.withIcon(kind, line, items[i]) + "\n")
	}
	out, err := s.Programs.Chooser(ctx, command, kind.args, in.Bytes())
	if err != nil {
		if code, ended := exitCode(err); ended && code <= 2 && len(out) == 0 {
			return nil // the user chose nothing
		}
		return fmt.Errorf("menu: --dmenu %s: %w", plain.Clip(name), err)
	}
	i, err := dmenuChoice(kind, strings.TrimRight(string(out), "\n"), lines)
	if err != nil || i < 0 {
		return err
	}
	return s.Start(ctx, items[i].ID, "", token)
}

// dmenuLines returns distinct lines for the entries, so that a line identifies one.
func (s *Session) dmenuLines(items []menu.Item) []string {
	seen := map[string]int{}
	lines := make([]string, len(items))
	for i, it := range items {
		line := plain.Text(it.Name, maxShown, plain.OneLine) + "  [" + it.VM + "]"
		if state := s.vms[it.VM].State; state != "" {
			line += " " + state
		}
		if seen[line]++; seen[line] > 1 {
			line += fmt.Sprintf("  (%s)", plain.Text(it.ID, maxShown, plain.OneLine))
		}
		lines[i] = line
	}
	return lines
}

func (s *Session) withIcon(kind dmenuKind, line string, it menu.Item) string {
	if it.Icon == "" || s.conf.Menu.Icons == "none" || strings.ContainsFunc(it.Icon, func(r rune) bool { return r < ' ' || r == ':' }) {
		return line
	}
	switch kind.icons {
	case "name":
		return line + "\x00icon\x1f" + it.Icon
	case "file":
		if s.themes == nil {
			s.themes = &icon.Themes{FS: os.DirFS(s.Launcher.System), Names: s.iconThemes(s.conf.Menu.Icons)}
			for _, d := range s.iconDirs() {
				s.themes.Dirs = append(s.themes.Dirs, strings.Trim(d, "/"))
			}
		}
		const side = 32
		if file := s.themes.Find(it.Icon, side); file != "" && !strings.Contains(file, ":") {
			return "img:/" + file + ":text:" + line
		}
	}
	return line
}

// dmenuChoice returns the index of the chosen line; -1 for nothing.
func dmenuChoice(kind dmenuKind, out string, lines []string) (int, error) {
	if out == "" {
		return -1, nil
	}
	if !kind.index {
		if i := slices.Index(lines, out); i >= 0 {
			return i, nil
		}
		return -1, fmt.Errorf("menu: %q is none of the entries", plain.Clip(out))
	}
	i, err := strconv.Atoi(strings.TrimSpace(out))
	switch {
	case err == nil && i == -1:
		return -1, nil // the user typed something else
	case err != nil || i < 0 || i >= len(lines):
		return -1, fmt.Errorf("menu: want the index of an entry, not %q", plain.Clip(out))
	}
	return i, nil
}
