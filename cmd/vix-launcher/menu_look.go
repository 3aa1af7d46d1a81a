package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/durable"
	"vix/internal/menu"
)

// setup gathers all that vix-menu needs.
func (s *menuSession) setup(ctx context.Context) (menu.Setup, error) {
	socket, err := s.env.wayland()
	if err != nil {
		return menu.Setup{}, err
	}
	dir, err := s.env.runtimeDir()
	if err != nil {
		return menu.Setup{}, err
	}
	// The library takes a name below XDG_RUNTIME_DIR alone.
	if socket, err = filepath.Rel(dir, socket); err != nil {
		return menu.Setup{}, err
	}
	m := s.conf.Menu
	regular, bold, again := s.env.fonts(ctx, m.Font)
	s.fontsAgain = again
	s.recallHistory()
	dirs, themes := s.env.iconDirs(), s.env.iconThemes(m.Icons)
	was := s.recallIcons(dirs, themes)
	return menu.Setup{
		Socket: socket,
		Locale: cmp.Or(s.env.getenv("LC_ALL"), s.env.getenv("LC_CTYPE"), s.env.getenv("LANG"), "C"),
		Look: menu.Look{Scheme: s.scheme(), Accent: string(m.Accent), Width: m.Width, Lines: m.Lines,
			FontSize: float64(m.Size), Icons: m.Icons != "none"},
		IconDirs: dirs, IconThemes: themes, Icons: was.Icons, Scale: was.Scale,
		Fonts: regular, BoldFonts: bold,
	}, nil
}

const schemeFile = "menu-scheme"

// scheme is what the configuration says, else what the portal said last: its answer
// may take longer than the menu to open.
func (s *menuSession) scheme() string {
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

// portalLimit is how long the portal may take to start.
const portalLimit = 5 * time.Second

// askScheme asks the portal, tells the menu if it says something else than before, and
// remembers it.
func (s *menuSession) askScheme(ctx context.Context) {
	if s.conf.Menu.Theme != "auto" {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, portalLimit)
	defer cancel()
	scheme, err := s.env.portalScheme(ctx)
	if err != nil || scheme == s.scheme() {
		return // there is no portal, as on many desktops of sway's
	}
	s.tell(menu.Update{Scheme: scheme})
	if s.state != nil {
		_ = durable.Replace(s.state, schemeFile, 0o600, []byte(scheme))
	}
}

// portalScheme is the color-scheme of org.freedesktop.appearance: 1 prefers dark, 2
// light, 0 has no preference.
func (e *env) portalScheme(ctx context.Context) (string, error) {
	conn, err := e.launcher().DialBus(ctx)
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

// Where fonts are kept in mind: fc-match takes longer than the menu to open.
const fontsFile = "menu-fonts"

// fonts returns the files of a family, regular and bold, as fontconfig finds them.
// What it found last is used; again looks again, for the next time.
func (e *env) fonts(ctx context.Context, family string) (regular, bold []string, again func()) {
	family = cmp.Or(family, "sans-serif")
	cache, err := e.xdg("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return nil, nil, func() {}
	}
	file := filepath.Join(cache, "vix", fontsFile)
	if b, err := os.ReadFile(file); err == nil {
		if f := strings.Split(string(b), "\n"); len(f) == 3 && f[0] == family && isFile(f[1]) && isFile(f[2]) {
			return f[1:2], f[2:3], func() { e.findFonts(ctx, family, file, f) }
		}
	}
	f := e.findFonts(ctx, family, file, nil)
	return f[1:2], f[2:3], func() {}
}

func isFile(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().IsRegular()
}

// findFonts asks fontconfig and writes down what is not known.
func (e *env) findFonts(ctx context.Context, family, file string, known []string) []string {
	found := []string{family, e.fontFile(ctx, family), e.fontFile(ctx, family+":bold")}
	if !slices.Equal(found, known) {
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err == nil {
			_ = durable.ReplaceFile(file, 0o600, []byte(strings.Join(found, "\n"))) // it is found again the next time
		}
	}
	return found
}

// fontFile is the file of the font that matches best, "" if that cannot be found out.
func (e *env) fontFile(ctx context.Context, pattern string) string {
	tool, err := e.look("fc-match")
	if err != nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, tool, "-f", "%{file}", pattern).Output()
	if err != nil || bytes.ContainsRune(out, '\n') {
		return ""
	}
	return string(out)
}

// dataDirs are those of the XDG base directory specification, the user's first.
func (e *env) dataDirs() []string {
	var dirs []string
	if home, err := e.xdg("XDG_DATA_HOME", ".local/share"); err == nil {
		dirs = append(dirs, home)
	}
	for _, d := range filepath.SplitList(cmp.Or(e.getenv("XDG_DATA_DIRS"), "/usr/local/share:/usr/share")) {
		if filepath.IsAbs(d) && !slices.Contains(dirs, d) {
			dirs = append(dirs, d)
		}
	}
	return dirs
}

// iconDirs are where the icon theme specification has themes, and single icons.
func (e *env) iconDirs() []string {
	var dirs []string
	if home := e.getenv("HOME"); filepath.IsAbs(home) {
		dirs = append(dirs, filepath.Join(home, ".icons"))
	}
	for _, d := range e.dataDirs() {
		dirs = append(dirs, filepath.Join(d, "icons"))
	}
	for _, d := range e.dataDirs() {
		dirs = append(dirs, filepath.Join(d, "pixmaps"))
	}
	return slices.DeleteFunc(dirs, func(d string) bool { st, err := os.Stat(d); return err != nil || !st.IsDir() })
}

// iconThemes are the theme of the configuration, or that of GTK's settings.
func (e *env) iconThemes(name string) []string {
	themes := []string{name}
	if name == "auto" {
		themes = nil
		for _, gtk := range []string{"gtk-4.0", "gtk-3.0"} {
			if dir, err := e.xdg("XDG_CONFIG_HOME", ".config"); err == nil {
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

// maxIcons bounds the cache of rasterised icons, and maxSVG what is read of one.
const (
	maxIcons = 4000
	maxSVG   = 1 << 20
)

// rasterised returns the file of an SVG's picture, from the cache if it is there.
func (e *env) rasterised(ctx context.Context, svg string, side int) (string, error) {
	cache, err := e.xdg("XDG_CACHE_HOME", ".cache")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "vix", "icons")
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
	png, err := e.rasterise(ctx, b, side)
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
