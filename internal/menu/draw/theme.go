package draw

import (
	"strconv"

	"vix/internal/label"
)

// A theme holds the colours of a scheme.
type theme struct {
	ground, ink, dim, line, edge, selected, accent, bad Color
}

// Text has a contrast of 4.5:1 or more on ground and selected in both (a test checks it).
var (
	dark = theme{
		ground: Color{0x1c, 0x1d, 0x22}, ink: Color{0xee, 0xef, 0xf3}, dim: Color{0xa3, 0xa7, 0xb3},
		line: Color{0x2e, 0x30, 0x38}, edge: Color{0x42, 0x45, 0x50}, selected: Color{0x30, 0x33, 0x3d},
		accent: Color{0x8c, 0xb8, 0xff}, bad: Color{0xff, 0x9a, 0x8f},
	}
	light = theme{
		ground: Color{0xfc, 0xfc, 0xfd}, ink: Color{0x1a, 0x1c, 0x21}, dim: Color{0x5a, 0x5f, 0x6b},
		line: Color{0xe5, 0xe7, 0xec}, edge: Color{0xc4, 0xc8, 0xd1}, selected: Color{0xe6, 0xea, 0xf2},
		accent: Color{0x1a, 0x56, 0xc4}, bad: Color{0xb3, 0x26, 0x1e},
	}
)

func themeOf(scheme, accent string) theme {
	t := dark
	if scheme == "light" {
		t = light
	}
	if c, ok := parse(accent); ok {
		// The user's accent is mixed with the ink if it is not legible.
		for label.Contrast(c, t.ground) < 4.5 && c != t.ink {
			c = blend(c, t.ink, 0.2)
			if label.Contrast(t.ink, c) < 1.1 {
				c = t.ink
			}
		}
		t.accent = c
	}
	return t
}

// parse reads "#rrggbb".
func parse(s string) (c Color, ok bool) {
	if len(s) != 7 || s[0] != '#' {
		return c, false
	}
	v, err := strconv.ParseUint(s[1:], 16, 32)
	return Color{uint8(v >> 16), uint8(v >> 8), uint8(v)}, err == nil
}
