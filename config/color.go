package config

import (
	"fmt"
	"hash/fnv"
	"maps"
	"slices"
	"strings"
)

// A Color is "#rrggbb" in lower case.
type Color string

// palette holds the named colours. A VM without a colour gets one of them (GiveColors). They
// differ in hue and are all legible as a thin frame on a dark or a light desktop.
var palette = []struct {
	name string
	rgb  Color
}{
	{"red", "#d0312d"}, {"orange", "#e07b00"}, {"yellow", "#d4b106"}, {"lime", "#7cb518"},
	{"green", "#2a9d4a"}, {"teal", "#0f9d9d"}, {"blue", "#2f6fde"}, {"indigo", "#5b4bd6"},
	{"purple", "#9b3fd1"}, {"pink", "#d63f9c"}, {"brown", "#8a5a33"}, {"gray", "#7f858c"},
}

func paletteNames() []string {
	names := make([]string, len(palette))
	for i, p := range palette {
		names[i] = p.name
	}
	return names
}

// GiveColors gives each VM to which the file gives no colour the one in given, by the VM's
// name, or else one that the fewest VMs have. Package vm keeps what a VM was given when it
// first started, so that its colour stays when others come and go.
func (c *Config) GiveColors(given map[string]Color) {
	c.given, c.uses = given, map[Color]int{}
	for _, v := range c.VMs {
		if !v.NoColor {
			c.uses[v.Color]++
		}
	}
	for name, color := range given {
		if v, ok := c.VMs[name]; !ok || v.NoColor {
			c.uses[color]++
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		v := c.VMs[name]
		if !v.NoColor {
			continue
		}
		v.Color = c.colorFor(name)
		c.VMs[name] = v
		if _, ok := given[name]; !ok {
			c.uses[v.Color]++
		}
	}
}

// SameColor returns the names of VMs that have one colour, a list for each such colour, of
// the file's VMs and of those that were given one.
func (c *Config) SameColor() (same [][]string) {
	names := map[Color][]string{}
	for name, v := range c.VMs {
		names[v.Color] = append(names[v.Color], name)
	}
	for name, color := range c.given {
		if _, ok := c.VMs[name]; !ok {
			names[color] = append(names[color], name)
		}
	}
	for _, list := range names {
		if len(list) > 1 {
			slices.Sort(list)
			same = append(same, list)
		}
	}
	slices.SortFunc(same, slices.Compare)
	return same
}

// colorFor returns the colour of a VM to which the file gives none.
func (c *Config) colorFor(name string) Color {
	if color, ok := c.given[name]; ok {
		return color
	}
	// Where several colours are used as little, the name decides.
	h := fnv.New32a()
	h.Write([]byte(name))
	first := int(h.Sum32() % uint32(len(palette)))
	best := palette[first].rgb
	for i := range palette {
		if color := palette[(first+i)%len(palette)].rgb; c.uses[color] < c.uses[best] {
			best = color
		}
	}
	return best
}

// CheckColor checks that c is "#rrggbb" in lower case.
func CheckColor(c Color) error {
	if len(c) != 7 || c[0] != '#' || strings.Trim(string(c[1:]), "0123456789abcdef") != "" {
		return fmt.Errorf("want #rrggbb, not %q", clip(string(c)))
	}
	return nil
}

func parseColor(x any) (Color, error) {
	s, ok := x.(string)
	if !ok {
		return "", fmt.Errorf("want a string, not %s", typeName(x))
	}
	for _, p := range palette {
		if p.name == s {
			return p.rgb, nil
		}
	}
	hex := Color(strings.ToLower(s))
	if CheckColor(hex) != nil {
		return "", fmt.Errorf(`want "#rrggbb" or one of %s, not %q`, strings.Join(paletteNames(), ", "), clip(s))
	}
	return hex, nil
}
