package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"

	"vix/internal/agent"
	"vix/internal/transfer"
)

// maxMenuFile bounds a .desktop file or an icon: no real one is larger.
const maxMenuFile = 2 << 20

// A menuTree is a small tree of this root's files for a desktop's menu, in a temporary
// directory. The host says what it wants, and checks what it gets.
type menuTree struct {
	dir      string
	bins     []string // directories of programs
	icons    []string // paths with NAME in them
	services []string // directories of D-Bus services
	seen     map[string]bool
}

// sendMenu sends the files that a Menu asks for.
func sendMenu(m agent.Menu, out io.Writer) error {
	t := &menuTree{bins: m.Bins, icons: m.Icons, services: m.Services, seen: map[string]bool{}}
	var err error
	if t.dir, err = os.MkdirTemp("", "vix-menu-"); err != nil {
		return err
	}
	defer os.RemoveAll(t.dir)
	for _, p := range m.Programs {
		if err := t.program(p); err != nil {
			return err
		}
	}
	for _, dir := range m.Apps {
		for _, pattern := range []string{"*.desktop", "*/*.desktop"} {
			files, _ := filepath.Glob(filepath.Join("/", dir, pattern))
			for _, f := range files {
				if err := t.app(f); err != nil {
					return err
				}
			}
		}
	}
	sources, err := transfer.Sources([]string{t.dir}, true)
	defer transfer.CloseSources(sources)
	if err != nil {
		return err
	}
	sources[0].As = "root"
	return transfer.Send(out, sources, transfer.Sending{Recursive: true, Skipped: func(string, string) {}})
}

// app adds a .desktop file, and the files that it names.
func (t *menuTree) app(file string) error {
	b, err := t.take(file)
	for s := bufio.NewScanner(bytes.NewReader(b)); err == nil && s.Scan(); {
		key, value, _ := strings.Cut(s.Text(), "=")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "TryExec":
			err = t.program(value)
		case "Exec":
			err = t.program(firstWord(value))
		case "Icon":
			err = t.icon(value)
		case "DBusActivatable":
			err = t.service(strings.TrimSuffix(path.Base(file), ".desktop"))
		}
	}
	return err
}

// service adds the D-Bus service of a name, and records its program.
func (t *menuTree) service(name string) error {
	for _, dir := range t.services {
		b, err := t.take(path.Join("/", dir, name+".service"))
		for s := bufio.NewScanner(bytes.NewReader(b)); err == nil && s.Scan(); {
			if key, value, _ := strings.Cut(s.Text(), "="); strings.TrimSpace(key) == "Exec" {
				err = t.program(firstWord(strings.TrimSpace(value)))
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// firstWord is the program of a command, by the usual ways to quote one.
func firstWord(command string) string {
	if quoted, ok := strings.CutPrefix(command, `"`); ok {
		word, _, _ := strings.Cut(quoted, `"`)
		return word
	}
	word, _, _ := strings.Cut(command, " ")
	return word
}

func (t *menuTree) icon(name string) error {
	if path.IsAbs(name) {
		_, err := t.take(name)
		return err
	}
	if name == "" || strings.Contains(name, "/") {
		return nil
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, ".png"), ".svg")
	for _, place := range t.icons {
		if _, err := t.take("/" + strings.ReplaceAll(place, "NAME", name)); err != nil {
			return err
		}
	}
	return nil
}

// program records a program if it exists.
func (t *menuTree) program(name string) error {
	places := []string{name}
	if !path.IsAbs(name) {
		places = nil
		for _, dir := range t.bins {
			places = append(places, path.Join("/", dir, name))
		}
	}
	for _, p := range places {
		if name != "" && isProgram(p) {
			return t.put(p, nil, 0o755)
		}
	}
	return nil
}

// take copies a file if it is readable. An error means that writing failed.
func (t *menuTree) take(file string) ([]byte, error) {
	if t.seen[file] {
		return nil, nil
	}
	t.seen[file] = true
	if st, err := os.Stat(file); err != nil || !st.Mode().IsRegular() || st.Size() > maxMenuFile {
		return nil, nil
	}
	if b, err := os.ReadFile(file); err == nil {
		return b, t.put(file, b, 0o644)
	}
	return nil, nil
}

func (t *menuTree) put(file string, b []byte, mode os.FileMode) error {
	to := filepath.Join(t.dir, path.Clean("/"+file))
	return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), os.WriteFile(to, b, mode))
}
