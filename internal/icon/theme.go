package icon

import (
	"bufio"
	"bytes"
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Themes finds icons in directories of themes.
type Themes struct {
	// FS is the host's root, to which the paths are relative.
	FS fs.FS
	// Dirs hold themes ("usr/share/icons") and single icons ("usr/share/pixmaps"), as
	// paths in FS, the user's first.
	Dirs []string
	// Names are the themes to search, followed by the inherited ones and, as the
	// specification requires, hicolor at the end.
	Names []string

	order  []theme // the themes of Names, read once
	loaded bool
}

// A theme is one index.theme and the directories that hold the theme.
type theme struct {
	name string
	dirs []themeDir
}

// A themeDir is a section of index.theme.
type themeDir struct {
	path                            string
	size, scale, least, most, spare int
	kind                            string // "Fixed", "Scalable" or "Threshold"
}

// Limits of an index.theme.
const (
	maxSections = 2048
	maxInherit  = 16 // themes
)

const hicolor = "hicolor"

// Find returns the path of the icon name, a PNG or an SVG, that fits side pixels
// best, or "". An absolute path is returned unchanged.
func (t *Themes) Find(name string, side int) string {
	if strings.HasPrefix(name, "/") {
		p := strings.TrimPrefix(path.Clean(name), "/")
		if isIcon(p) && t.exists(p) {
			return p
		}
		return ""
	}
	if name == "" || strings.ContainsAny(name, "/\x00") || len(name) > 255 {
		return ""
	}
	t.load()
	for _, th := range t.order {
		if p := t.inTheme(th, name, side); p != "" {
			return p
		}
	}
	for _, dir := range t.Dirs {
		for _, ext := range []string{".png", ".svg"} {
			if p := path.Join(dir, name+ext); t.exists(p) {
				return p
			}
		}
	}
	// Names with an extension are wrong, and common.
	if base, ok := strings.CutSuffix(name, path.Ext(name)); ok && isIcon(name) {
		return t.Find(base, side)
	}
	return ""
}

func isIcon(name string) bool {
	return strings.HasSuffix(name, ".png") || strings.HasSuffix(name, ".svg")
}

func (t *Themes) exists(p string) bool {
	st, err := fs.Stat(t.FS, p)
	return err == nil && st.Mode().IsRegular()
}

// inTheme chooses a directory that matches the size, else the closest one.
func (t *Themes) inTheme(th theme, name string, side int) string {
	best, distance := "", math.MaxInt
	for _, d := range th.dirs {
		far := d.distance(side)
		if far >= distance {
			continue
		}
		for _, base := range t.Dirs {
			at := path.Join(base, th.name, d.path, name)
			for _, ext := range []string{".png", ".svg"} {
				if t.exists(at + ext) {
					best, distance = at+ext, far
					break
				}
			}
		}
		if distance == 0 {
			break
		}
	}
	return best
}

// distance returns how far a directory's size is from side, 0 for a match. A
// larger picture is better than a smaller one: scaling down loses less.
func (d themeDir) distance(side int) int {
	least, most := d.size*d.scale, d.size*d.scale
	switch d.kind {
	case "Scalable":
		least, most = d.least*d.scale, d.most*d.scale
	case "Threshold":
		least, most = (d.size-d.spare)*d.scale, (d.size+d.spare)*d.scale
	}
	switch {
	case side < least:
		return least - side
	case side > most:
		return 2 * (side - most)
	}
	return 0
}

// load reads the themes and those that they inherit.
func (t *Themes) load() {
	if t.loaded {
		return
	}
	t.loaded = true
	seen := map[string]bool{hicolor: true} // always the last one
	queue := slices.Clone(t.Names)
	for len(queue) > 0 && len(t.order) < maxInherit {
		name := queue[0]
		queue = queue[1:]
		if seen[name] || name == "" || strings.ContainsAny(name, "/\x00") {
			continue
		}
		seen[name] = true
		if th, inherits, ok := t.read(name); ok {
			t.order = append(t.order, th)
			queue = append(inherits, queue...)
		}
	}
	if th, _, ok := t.read(hicolor); ok {
		t.order = append(t.order, th)
	}
}

func (t *Themes) read(name string) (th theme, inherits []string, ok bool) {
	for _, base := range t.Dirs {
		if b, err := Read(t.FS, path.Join(base, name, "index.theme")); err == nil {
			th, inherits = parseIndex(name, b)
			return th, inherits, true
		}
	}
	return th, nil, false
}

// parseIndex reads an index.theme. It omits sections that Directories and
// ScaledDirectories do not name, and those whose path leads out of the theme.
func parseIndex(name string, b []byte) (theme, []string) {
	th := theme{name: name}
	sections := map[string]*themeDir{}
	var listed, inherits []string
	var section string
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		line := strings.TrimSpace(s.Text())
		if strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]") {
			section = line[1 : len(line)-1]
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok || strings.HasPrefix(line, "#") {
			continue
		}
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		if section != "Icon Theme" {
			if sections[section] == nil && len(sections) < maxSections {
				sections[section] = &themeDir{path: section, scale: 1, spare: 2, kind: "Threshold", least: -1, most: -1}
			}
			if d := sections[section]; d != nil {
				d.set(key, value)
			}
			continue
		}
		switch key {
		case "Directories", "ScaledDirectories":
			listed = append(listed, strings.Split(value, ",")...)
		case "Inherits":
			inherits = strings.Split(value, ",")
		}
	}
	for _, p := range listed {
		d := sections[strings.TrimSpace(p)]
		if d == nil || d.size == 0 || !fs.ValidPath(d.path) {
			continue
		}
		if d.least < 0 {
			d.least = d.size
		}
		if d.most < 0 {
			d.most = d.size
		}
		th.dirs = append(th.dirs, *d)
	}
	for i := range inherits {
		inherits[i] = strings.TrimSpace(inherits[i])
	}
	return th, inherits
}

// set stores a key of a section. It ignores absurd numbers.
func (d *themeDir) set(key, value string) {
	n, err := strconv.Atoi(value)
	number := err == nil && n > 0 && n <= 4096
	switch {
	case key == "Type":
		d.kind = value
	case !number:
	case key == "Size":
		d.size = n
	case key == "Scale" && n <= 8:
		d.scale = n
	case key == "MinSize":
		d.least = n
	case key == "MaxSize":
		d.most = n
	case key == "Threshold":
		d.spare = n
	}
}
