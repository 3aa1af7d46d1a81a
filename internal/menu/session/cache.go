package session

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"vix/internal/durable"
	"vix/internal/menu"
)

// A menu opens with the data of the last one before it looks again. $XDG_CACHE_HOME/vix holds
// it: the programs, the icons, and the fonts (look.go). Each file begins with a line that
// identifies its inputs; if that line differs, the file is ignored.
const (
	itemsFile = "menu-items" // menu.PackItems
	iconsFile = "menu-icons" // JSON of iconMemory
)

// cache returns Vix's own directory for data that can be made again; "" if there is none.
func (s *Session) cache() string {
	if s.Launcher.Dirs.Cache == "" {
		return ""
	}
	return filepath.Join(s.Launcher.Dirs.Cache, "vix")
}

// recallFile returns the file's content after its first line, if that line is as.
func (s *Session) recallFile(file, as string) (string, bool) {
	if s.cache() == "" || as == "" {
		return "", false
	}
	b, err := os.ReadFile(filepath.Join(s.cache(), file))
	if err != nil {
		return "", false
	}
	return strings.CutPrefix(string(b), as+"\n")
}

// keepFile writes the file. If writing fails, the next menu makes the data again.
func (s *Session) keepFile(file, as string, b []byte) {
	if s.cache() == "" || as == "" || os.MkdirAll(s.cache(), 0o700) != nil {
		return
	}
	_ = durable.ReplaceFile(filepath.Join(s.cache(), file), 0o600, append([]byte(as+"\n"), b...))
}

// digest returns a short text that identifies values.
func digest(values ...any) string {
	text, err := json.Marshal(values)
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

// itemsAs identifies the inputs of the programs, except the roots themselves.
func (s *Session) itemsAs() string {
	return digest(s.Launcher.Version, s.Language, s.conf.Defaults, s.conf.VMs, s.conf.Errors.Lines())
}

// recall loads the programs of the last menu.
func (s *Session) recall() bool {
	packed, ok := s.recallFile(itemsFile, s.itemsAs())
	if !ok {
		return false
	}
	items, err := menu.UnpackItems(packed)
	if err != nil {
		return false
	}
	s.programs = items
	return true
}

// refresh reads the roots while the menu is open, sends it the differences, and stores the
// result.
func (s *Session) refresh(old bool) {
	was := s.programs
	if old {
		s.mu.Lock()
		s.find()
		s.apps = nil // for --json only
		same := reflect.DeepEqual(was, s.programs)
		if same {
			s.programs = was // keeps less of the roots' files in memory
		} else {
			s.complete()
		}
		items := s.items
		s.mu.Unlock()
		if same {
			return
		}
		s.tell(menu.Update{Items: items})
	}
	s.keepFile(itemsFile, s.itemsAs(), menu.PackItems(s.programs))
}

// maxKeptIcons is more than a menu shows when it opens.
const maxKeptIcons = 64

// An iconMemory is the result of the last menu, at the scale of its output.
type iconMemory struct {
	Scale float64     `json:"scale"`
	Icons []menu.Icon `json:"icons"`
}

// recallIcons loads the icons that the last menus found in these directories and themes.
func (s *Session) recallIcons(dirs, themes []string) iconMemory {
	s.iconsAs = digest(dirs, themes)
	text, ok := s.recallFile(iconsFile, s.iconsAs)
	if !ok || json.Unmarshal([]byte(text), &s.icons) != nil {
		s.icons = iconMemory{}
	}
	return iconMemory{s.icons.Scale, slices.Clone(s.icons.Icons)}
}

// icon makes a picture of an icon that the menu has found, if it is an SVG, and stores its
// path.
func (s *Session) icon(ctx context.Context, ev menu.Event) {
	i := menu.Icon{Name: ev.Name, Side: ev.Side, Path: ev.Path, File: ev.Path}
	if strings.HasSuffix(ev.Path, ".svg") {
		var err error
		if i.File, err = s.rasterise(ctx, ev.Path, ev.Side); err != nil {
			i.File = "" // the menu shows none
		}
		s.tell(menu.Update{Icon: &i})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := &s.icons.Icons
	if slices.Contains(*list, i) {
		return
	}
	// The newest icons come first, and the oldest are dropped.
	*list = slices.DeleteFunc(*list, func(k menu.Icon) bool { return k.Name == i.Name && k.Side == i.Side })
	*list = slices.Insert(*list, 0, i)
	*list = (*list)[:min(len(*list), maxKeptIcons)]
	s.iconsNew = true
}

// keepIcons stores the icons; it is called when the menu has closed.
func (s *Session) keepIcons() {
	if !s.iconsNew {
		return
	}
	if b, err := json.Marshal(s.icons); err == nil {
		s.keepFile(iconsFile, s.iconsAs, b)
	}
}
