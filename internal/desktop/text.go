package desktop

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// line returns s as one line of at most n bytes: without control and format
// characters (which could hide or reverse what stands beside it), every space a
// plain one.
func line(s string, n int) string {
	return cut(strings.Map(func(r rune) rune {
		switch {
		case r == '\n' || r == '\t':
			return ' '
		case !shown(r):
			return -1
		case unicode.In(r, unicode.Z):
			return ' '
		}
		return r
	}, cut(s, 4*n)), n)
}

// lines is line for a text of several.
func lines(s string, n int) string {
	return cut(strings.Map(func(r rune) rune {
		if r == '\n' || shown(r) {
			return r
		}
		return -1
	}, cut(s, 4*n)), n)
}

func shown(r rune) bool {
	return r != utf8.RuneError && !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Co, unicode.Cs, unicode.Zl, unicode.Zp)
}

// cut shortens s to at most n bytes, on a rune's boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

var markup = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;", `"`, "&quot;", "'", "&#39;")

// EscapeMarkup returns s so that Pango and the notification servers' markup show
// it as it is.
func EscapeMarkup(s string) string { return markup.Replace(s) }
