package session

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"time"

	"vix/internal/launch"
	"vix/internal/menu"
)

// A cache that is torn in any way counts as intact or as missing, and is then written again.
func TestTornMemories(t *testing.T) {
	dir := t.TempDir()
	host := Host{
		Launcher: &launch.Launcher{Dirs: launch.Dirs{Cache: dir, State: dir}},
		Programs: Programs{Font: func(_ context.Context, pattern string) string { return "" }},
	}
	e := &Session{Host: host}
	vix := filepath.Join(dir, "vix")
	if err := os.Mkdir(vix, 0o700); err != nil {
		t.Fatal(err)
	}
	state, err := os.OpenRoot(vix)
	if err != nil {
		t.Fatal(err)
	}
	defer state.Close()
	items := []menu.Item{{ID: "a", Name: "Alpha", VM: "web", Keywords: []string{"x"}}, {ID: "b", Name: "Beta"}}
	icon := menu.Icon{Name: "a", Side: 48, Path: "/x/a.png", File: "/x/a.png"}
	now := time.Now()
	same := func(t *testing.T, got, want any) {
		t.Helper()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%+v, not %+v", got, want)
		}
	}
	for file, c := range map[string]struct {
		write func()
		read  func() any // nil: as if it were missing
	}{
		itemsFile: {func() { e.keepFile(itemsFile, "as", menu.PackItems(items)) }, func() any {
			packed, ok := e.recallFile(itemsFile, "as")
			if list, err := menu.UnpackItems(packed); ok && err == nil && len(list) > 0 {
				return list
			}
			return nil
		}},
		iconsFile: {func() {
			s := &Session{Host: host, iconsNew: true, iconsAs: digest([]string{"d"}, []string{"t"}), icons: iconMemory{1, []menu.Icon{icon}}}
			s.keepIcons()
		}, func() any {
			s := &Session{Host: host}
			if m := s.recallIcons([]string{"d"}, []string{"t"}); len(m.Icons) > 0 {
				return m.Icons[0]
			}
			return nil
		}},
		fontsFile: {func() { e.findFonts(t.Context(), "sans", filepath.Join(vix, fontsFile), nil) }, func() any {
			regular, bold, _ := e.fonts(t.Context(), "sans")
			return []any{regular, bold}
		}},
		"menu-history": {func() {
			_ = state.Remove("menu-history")
			if err := menu.Choose(state, "a", now); err != nil {
				t.Error(err)
			}
		}, func() any {
			if use := menu.ReadHistory(state).Use("a", now); use > 0 {
				return use
			}
			return nil
		}},
	} {
		t.Run(file, func(t *testing.T) {
			c.write()
			at := filepath.Join(vix, file)
			whole, err := os.ReadFile(at)
			if err != nil || len(whole) < 4 {
				t.Fatalf("%q, %v", whole, err)
			}
			want := c.read()
			half := whole[:len(whole)/2]
			for _, torn := range [][]byte{nil, make([]byte, len(whole)), half, append(bytes.Clone(half), make([]byte, len(whole)-len(half))...)} {
				if err := os.WriteFile(at, torn, 0o600); err != nil {
					t.Fatal(err)
				}
				if got := c.read(); got != nil {
					same(t, got, want)
				}
				c.write()
				same(t, c.read(), want)
			}
		})
	}
}
