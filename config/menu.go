package config

import (
	"fmt"
	"io"
	"slices"
	"strings"
)

// A Menu is the table [menu]: the appearance of "vix menu".
type Menu struct {
	Theme  string // "auto", "light" or "dark"
	Accent Color  // "" for the theme's own
	Font   string // a family's name; "" for the desktop's sans-serif
	Size   int    // font size, in logical pixels
	Width  int    // width of the menu, in logical pixels
	Lines  int    // number of visible rows
	Icons  string // "auto", "none", or the name of an icon theme
}

// A menuKey is one setting of [menu].
type menuKey struct {
	name, def, doc string
	set            func(*Menu, any) error
	get            func(*Menu) any
}

var menuKeys = []menuKey{
	{"accent", "the theme's", `Colour of the cursor and of the letters that match: "#rrggbb", or a name as for color. One that cannot be read on the ground is made lighter or darker.`,
		func(m *Menu, x any) (err error) { m.Accent, err = parseColor(x); return },
		func(m *Menu) any { return string(m.Accent) }},
	{"font", "the desktop's sans-serif", `Name of the font's family, as fontconfig knows it.`,
		func(m *Menu, x any) (err error) { m.Font, err = label(x); return },
		func(m *Menu) any { return m.Font }},
	{"icons", `"auto"`, `Name of the icon theme; "auto" takes that of GTK's settings, "none" shows no icons.`,
		func(m *Menu, x any) (err error) { m.Icons, err = label(x); return },
		func(m *Menu) any { return m.Icons }},
	{"lines", "9", "Number of entries that are shown at once, 3 to 30.",
		func(m *Menu, x any) (err error) { m.Lines, err = intIn(x, 3, 30); return },
		func(m *Menu) any { return int64(m.Lines) }},
	{"size", "15", "Size of the font, 8 to 40 (pixels at scale 1).",
		func(m *Menu, x any) (err error) { m.Size, err = intIn(x, 8, 40); return },
		func(m *Menu) any { return int64(m.Size) }},
	{"theme", `"auto"`, `"light", "dark", or "auto", which follows the desktop's setting (org.freedesktop.appearance of the portal).`,
		func(m *Menu, x any) (err error) { m.Theme, err = oneOf(x, "auto", "light", "dark"); return },
		func(m *Menu) any { return m.Theme }},
	{"width", "620", "Width of the menu, 320 to 2000 (pixels at scale 1).",
		func(m *Menu, x any) (err error) { m.Width, err = intIn(x, 320, 2000); return },
		func(m *Menu) any { return int64(m.Width) }},
}

func builtinMenu() Menu {
	return Menu{Theme: "auto", Icons: "auto", Size: 15, Width: 620, Lines: 9}
}

// label reads a name for people.
func label(x any) (string, error) {
	s, ok := x.(string)
	switch {
	case !ok:
		return "", wantText(x)
	case s == "" || len(s) > MaxWord || !printable(s) || strings.ContainsAny(s, "/:,"):
		return "", fmt.Errorf("%q is not a name: want one without '/', ':' and ','", clip(s))
	}
	return s, nil
}

// menu reads [menu].
func (r *reader) menu(v any, m *Menu) {
	t, ok := v.(map[string]any)
	if !ok {
		r.fail([]string{"menu"}, "%v", wantTable("menu", v))
		return
	}
	before := len(r.errs)
	var names []string
	for _, k := range menuKeys {
		names = append(names, k.name)
	}
	for name, val := range t {
		at := []string{"menu", name}
		i := slices.Index(names, name)
		if i < 0 {
			r.fail(at, "unknown key%s", suggest(name, names))
			continue
		}
		if err := menuKeys[i].set(m, val); err != nil {
			r.fail(at, "%v", err)
		}
	}
	if len(r.errs) > before {
		*m = builtinMenu()
	}
}

// MenuKeys returns the documentation of every key of [menu], by name.
func MenuKeys() []KeyDoc {
	docs := make([]KeyDoc, len(menuKeys))
	for i, k := range menuKeys {
		docs[i] = KeyDoc{Name: k.name, Default: k.def, Doc: k.doc}
	}
	return docs
}

func explainMenu(w io.Writer) error {
	for _, k := range MenuKeys() {
		if _, err := fmt.Fprintf(w, "%s  ([menu]; default: %s)\n    %s\n", k.Name, k.Default, k.Doc); err != nil {
			return err
		}
	}
	return nil
}
