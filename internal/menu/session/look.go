package session

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/durable"
	"vix/internal/menu"
)

// setup collects everything that vix-menu needs.
func (s *Session) setup(ctx context.Context) (menu.Setup, error) {
	// The library accepts only a name below XDG_RUNTIME_DIR.
	socket, err := filepath.Rel(s.Launcher.Dirs.Runtime, s.Launcher.Session.Wayland)
	if err != nil {
		return menu.Setup{}, err
	}
	m := s.conf.Menu
	regular, bold, again := s.fonts(ctx, m.Font)
	s.fontsAgain = again
	s.recallHistory()
	dirs, themes := s.iconDirs(), s.iconThemes(m.Icons)
	was := s.recallIcons(dirs, themes)
	return menu.Setup{
		Socket: socket,
		Locale: s.Locale,
		Look: menu.Look{Scheme: s.scheme(), Accent: string(m.Accent), Width: m.Width, Lines: m.Lines,
			FontSize: float64(m.Size), Icons: m.Icons != "none"},
		IconDirs: dirs, IconThemes: themes, Icons: was.Icons, Scale: was.Scale,
		Fonts: regular, BoldFonts: bold,
	}, nil
}

const schemeFile = "menu-scheme"

// scheme returns the configured scheme, or else the portal's last answer: a new answer may take
// longer than the menu to open.
func (s *Session) scheme() string {
	if s.conf.Menu.Theme != "auto" {
		return s.conf.Menu.Theme
	}
	if s.state != nil {
		if b, err := s.state.ReadFile(schemeFile); err == nil && string(b) == "light" {
			return "light"
		}
	}
	return "dark"
}

// portalLimit is the time that the portal may take to start.
const portalLimit = 5 * time.Second

// askScheme asks the portal, tells the menu if the answer has changed, and stores it.
func (s *Session) askScheme(ctx context.Context) {
	if s.conf.Menu.Theme != "auto" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, portalLimit)
	defer cancel()
	scheme, err := s.portalScheme(ctx)
	if err != nil || scheme == s.scheme() {
		return // there is no portal, as on many sway desktops
	}
	s.tell(menu.Update{Scheme: scheme})
	if s.state != nil {
		_ = durable.Replace(s.state, schemeFile, 0o600, []byte(scheme))
	}
}

// portalScheme returns the color-scheme of org.freedesktop.appearance: 1 prefers dark, 2 light,
// 0 has no preference.
func (s *Session) portalScheme(ctx context.Context) (string, error) {
	conn, err := s.Launcher.DialBus(ctx)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	var v dbus.Variant
	portal := conn.Object("org.freedesktop.portal.Desktop", "/org/freedesktop/portal/desktop")
	call := portal.CallWithContext(ctx, "org.freedesktop.portal.Settings.Read", 0, "org.freedesktop.appearance", "color-scheme")
	if err := call.Store(&v); err != nil {
		return "", err
	}
	if inner, ok := v.Value().(dbus.Variant); ok {
		v = inner // Read wraps twice
	}
	if n, ok := v.Value().(uint32); ok && n == 2 {
		return "light", nil
	}
	return "dark", nil
}

// fontsFile stores font paths: fc-match takes longer than the menu to open.
const fontsFile = "menu-fonts"

// fonts returns the files of a family, regular and bold, as fontconfig finds them. It uses the
// last result; again repeats the search, for the next time.
func (s *Session) fonts(ctx context.Context, family string) (regular, bold []string, again func()) {
	family = cmp.Or(family, "sans-serif")
	if s.cache() == "" {
		return nil, nil, func() {}
	}
	file := filepath.Join(s.cache(), fontsFile)
	if b, err := os.ReadFile(file); err == nil {
		if f := strings.Split(string(b), "\n"); len(f) == 3 && f[0] == family && isFile(f[1]) && isFile(f[2]) {
			return f[1:2], f[2:3], func() { s.findFonts(ctx, family, file, f) }
		}
	}
	f := s.findFonts(ctx, family, file, nil)
	return f[1:2], f[2:3], func() {}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// findFonts asks fontconfig, and writes down a result that differs from known.
func (s *Session) findFonts(ctx context.Context, family, file string, known []string) []string {
	found := []string{family, s.Programs.Font(ctx, family), s.Programs.Font(ctx, family+":bold")}
	if !slices.Equal(found, known) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err == nil {
			_ = durable.ReplaceFile(file, 0o600, []byte(strings.Join(found, "\n"))) // on failure the next menu finds it again
		}
	}
	return found
}

// iconDirs returns the icon theme specification's directories of themes and of single icons.
func (s *Session) iconDirs() []string {
	var dirs []string
	if home := s.Launcher.Dirs.Home; home != "" {
		dirs = append(dirs, filepath.Join(home, ".icons"))
	}
	for _, d := range s.DataDirs {
		dirs = append(dirs, filepath.Join(d, "icons"))
	}
	for _, d := range s.DataDirs {
		dirs = append(dirs, filepath.Join(d, "pixmaps"))
	}
	return slices.DeleteFunc(dirs, func(d string) bool { st, err := os.Stat(d); return err != nil || !st.IsDir() })
}

// iconThemes returns the configured theme, or those of GTK's settings.
func (s *Session) iconThemes(name string) []string {
	themes := []string{name}
	if name == "auto" {
		themes = nil
		for _, gtk := range []string{"gtk-4.0", "gtk-3.0"} {
			if dir := s.Launcher.Dirs.Config; dir != "" {
				themes = append(themes, gtkIconTheme(filepath.Join(dir, gtk, "settings.ini")))
			}
		}
	}
	themes = append(themes, "Adwaita", "breeze")
	return slices.DeleteFunc(themes, func(t string) bool { return t == "" || t == "none" })
}

func gtkIconTheme(file string) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(line, "="); ok && strings.TrimSpace(key) == "gtk-icon-theme-name" {
			return strings.Trim(strings.TrimSpace(value), `"`)
		}
	}
	return ""
}

// maxIcons bounds the cache of rasterised icons; maxSVG bounds the bytes read of one SVG.
const (
	maxIcons = 4000
	maxSVG   = 1 << 20
)

// rasterise returns the file of an SVG's picture, from the cache if possible.
func (s *Session) rasterise(ctx context.Context, svg string, side int) (string, error) {
	if s.cache() == "" {
		return "", errors.New("there is no place for its picture")
	}
	dir := filepath.Join(s.cache(), "icons")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", err
	}
	f, err := os.Open(svg)
	if err != nil {
		return "", err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() || st.Size() > maxSVG || side < 1 || side > 1024 {
		return "", fmt.Errorf("%s: not an icon", svg)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s\x00%d\x00%d\x00%d", svg, st.ModTime().UnixNano(), st.Size(), side))
	file := filepath.Join(dir, hex.EncodeToString(sum[:16])+".png")
	if isFile(file) {
		return file, nil
	}
	b, err := io.ReadAll(io.LimitReader(f, maxSVG))
	if err != nil {
		return "", err
	}
	png, err := s.Programs.Rasterise(ctx, b, side)
	if err != nil {
		return "", err
	}
	if names, err := os.ReadDir(dir); err == nil && len(names) >= maxIcons {
		for _, n := range names {
			_ = os.Remove(filepath.Join(dir, n.Name()))
		}
	}
	return file, durable.ReplaceFile(file, 0o600, png)
}
