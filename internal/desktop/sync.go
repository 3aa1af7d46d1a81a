package desktop

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"

	"vix/internal/durable"
)

// The directories that Sync writes to, below $XDG_DATA_HOME.
const (
	entriesDir  = "applications"
	servicesDir = "dbus-1/services"
	iconsDir    = "icons/hicolor"
)

func iconDir(size int) string { return fmt.Sprintf("%s/%dx%d/apps", iconsDir, size, size) }

// A File is a file that is to exist, by its path below $XDG_DATA_HOME.
type File struct {
	Path  string
	Bytes []byte
}

// Files returns the files of an entry: itself, its icons, and the service file of its D-Bus
// name. unit is the systemd unit of our service, or "".
func (f EntryFile) Files(icons map[int][]byte, unit string) []File {
	name := f.App.EntryName()
	files := []File{{path.Join(entriesDir, name+".desktop"), f.Bytes()}}
	if f.DBus {
		files = append(files, File{path.Join(servicesDir, name+".service"), serviceFile(name, f.Launcher, unit, f.VM.Name)})
	}
	for size, b := range icons {
		files = append(files, File{path.Join(iconDir(size), name+".png"), b})
	}
	return files
}

// A Change is Sync's change of a file, made or planned.
type Change struct {
	Action string `json:"action"` // "add", "update" or "remove"
	Path   string `json:"path"`   // below $XDG_DATA_HOME
}

// ours are the names of files that Sync writes, and wrote when names had '-' in them. An entry or a service file is ours only
// with the mark in it; an icon has no place for one.
var ours = regexp.MustCompile(`^dev\.vix\.[A-Za-z0-9_-]+\.[A-Za-z0-9_.-]+\.(desktop|service|png)$`)

// Sync makes our files below data, which is $XDG_DATA_HOME, exactly want, and removes our
// other files. It replaces each file in one step. It leaves alone files that are not ours:
// one with the name of a wanted file is an error, after everything else is done. With dry it
// changes nothing.
func Sync(data *os.Root, want []File, dry bool) ([]Change, error) {
	var changes []Change
	var errs []error
	wanted := map[string]bool{}
	for _, dir := range ourDirs() {
		if !dry {
			durable.SweepFiles(data, dir)
		}
	}
	for _, f := range want {
		wanted[f.Path] = true
		old, err := data.ReadFile(f.Path)
		switch {
		case err == nil && bytes.Equal(old, f.Bytes):
			continue
		case err == nil && !isMarked(f.Path, old) && !torn(old):
			errs = append(errs, fmt.Errorf("%s: not made by desktop sync, and left as it is; rename or remove it", f.Path))
			continue
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, fmt.Errorf("%s: %w", f.Path, cause(err)))
			continue
		}
		c := Change{"add", f.Path}
		if err == nil {
			c.Action = "update"
		}
		if !dry {
			if err := replace(data, f); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", f.Path, cause(err)))
				continue
			}
		}
		changes = append(changes, c)
	}
	for _, at := range written(data) {
		if wanted[at] {
			continue
		}
		if !dry {
			if err := data.Remove(at); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", at, cause(err)))
				continue
			}
		}
		changes = append(changes, Change{"remove", at})
	}
	slices.SortFunc(changes, func(a, b Change) int { return cmp.Compare(a.Path, b.Path) })
	return changes, errors.Join(errs...)
}

// ourDirs are the directories that Sync writes to.
func ourDirs() []string {
	dirs := []string{entriesDir, servicesDir}
	for _, size := range IconSizes {
		dirs = append(dirs, iconDir(size))
	}
	return dirs
}

// written returns the files that earlier calls of Sync have made.
func written(data *os.Root) []string {
	var found []string
	for _, dir := range ourDirs() {
		names, err := fs.ReadDir(data.FS(), dir)
		if err != nil {
			continue // nothing of ours is in it
		}
		for _, n := range names {
			at := path.Join(dir, n.Name())
			if !n.Type().IsRegular() || !ours.MatchString(n.Name()) {
				continue
			}
			if b, err := data.ReadFile(at); err == nil && (isMarked(at, b) || torn(b)) {
				found = append(found, at)
			}
		}
	}
	return found
}

// isMarked reports whether a file is ours.
func isMarked(at string, b []byte) bool {
	return strings.HasSuffix(at, ".png") || bytes.HasPrefix(b, []byte(madeBy)) && bytes.Contains(b, []byte(keyVM+"="))
}

// torn reports that a file named like ours, before it was written durably, has lost
// its mark in a power cut: it is empty, ends in zeros, or within our first lines.
func torn(b []byte) bool {
	return len(b) == 0 || b[len(b)-1] == 0 || strings.HasPrefix(madeBy, string(b)) || bytes.HasPrefix(b, []byte(madeBy)) && !bytes.Contains(b, []byte(keyVM+"="))
}

// replace writes a file in one step.
func replace(data *os.Root, f File) error {
	if err := data.MkdirAll(path.Dir(f.Path), 0o755); err != nil {
		return err
	}
	return durable.Replace(data, f.Path, 0o644, f.Bytes)
}

// An InstalledEntry is a desktop entry that Sync has written.
type InstalledEntry struct {
	Entry string `json:"entry"` // its D-Bus name too: dev.vix.VM.APP
	VM    string `json:"vm"`
	App   string `json:"app"` // the id in the VM
	Name  string `json:"name"`
}

// List returns the existing entries, by name.
func List(data *os.Root) []InstalledEntry {
	list := []InstalledEntry{}
	for _, at := range written(data) {
		name, ok := strings.CutSuffix(path.Base(at), ".desktop")
		if !ok {
			continue
		}
		b, err := data.ReadFile(at)
		if err != nil {
			continue
		}
		e, err := parseEntry(b)
		vm, app, nameErr := ParseEntryName(name)
		if err != nil || nameErr != nil || e[keyVM] != vm || e["X-Vix-App"] != app {
			continue
		}
		list = append(list, InstalledEntry{Entry: name, VM: vm, App: app, Name: e.text("Name", maxName+64)})
	}
	return list
}

// Keep returns the files of those entries that keep wants, as Sync takes them.
func Keep(data *os.Root, keep func(InstalledEntry) bool) ([]File, error) {
	names := map[string]bool{}
	for _, i := range List(data) {
		names[i.Entry] = keep(i)
	}
	var files []File
	for _, at := range written(data) {
		base := path.Base(at)
		if !names[strings.TrimSuffix(base, path.Ext(base))] {
			continue
		}
		b, err := data.ReadFile(at)
		if err != nil {
			return nil, err
		}
		files = append(files, File{at, b})
	}
	return files, nil
}
