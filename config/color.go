package config

import (
	"fmt"
	"hash/fnv"
	"strings"
)

// A Color is "#rrggbb" in lower case.
type Color string

// palette holds the named colours. A VM without a colour gets one of them. They differ in hue
// and are all legible as a thin frame on a dark or a light desktop.
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

// ColorFor returns the palette's colour for a VM's name. It is always the same.
func ColorFor(name string) Color {
	h := fnv.New32a()
	h.Write([]byte(name))
	return palette[h.Sum32()%uint32(len(palette))].rgb
}

func parseColor(x any) (Color, error) {
	s, ok := x.(string)
	if !ok {
		return "", fmt.Errorf(`want text in quotes, "#rrggbb" or one of %s, not %s`, strings.Join(paletteNames(), ", "), describe(x))
	}
	for _, p := range palette {
		if p.name == s {
			return p.rgb, nil
		}
	}
	hex := strings.ToLower(s)
	digits := strings.TrimPrefix(hex, "#")
	isHex := strings.Trim(digits, "0123456789abcdef") == ""
	switch {
	case isHex && len(digits) == 6 && hex != digits:
		return Color(hex), nil
	case isHex && len(digits) == 6:
		return "", fmt.Errorf(`want "#%s", not %q`, digits, s)
	case isHex && len(digits) == 3:
		d := strings.Split(digits, "")
		return "", fmt.Errorf(`want "#%s", not %q`, d[0]+d[0]+d[1]+d[1]+d[2]+d[2], s)
	}
	for _, name := range paletteNames() {
		if Distance(hex, name) <= 1 {
			return "", fmt.Errorf("%q is no color here; did you mean %q?", clip(s), name)
		}
	}
	return "", fmt.Errorf(`want "#rrggbb" or one of %s, not %q`, strings.Join(paletteNames(), ", "), clip(s))
}
