// Package plain makes untrusted text safe to show: in a title, a
// log, a menu, a notification, a line of a terminal.
//
// It is for Vix's own messages that contain a guest's text. The output of a guest's
// program on a person's terminal goes through package termsafe.
package plain

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// How many lines a text may have.
const (
	OneLine = false // a line's end becomes a space
	Lines   = true  // a line's end stays, as '\n'
)

// maxMarks bounds the combining marks of one character: more than any
// script needs, fewer than reach over the neighbouring lines.
const maxMarks = 4

// Text returns s as plain text, in at most most bytes of valid UTF-8.
//
// It drops bytes that are not UTF-8 (and U+FFFD, which replaces such bytes), control
// characters, format characters (those that change the direction of writing among
// them), private and unassigned characters (their display is unpredictable), invisible
// letters, marks without a character to combine with, and all but four marks of one
// character. Every space becomes a plain one, and so do a line's end, a tab and the
// like; but with lines, '\n' stays.
//
// It never cuts between a character and its marks. Plain text comes back unchanged, so
// that Text(s, len(s), OneLine) == s reports whether s is plain.
func Text(s string, most int, lines bool) string {
	if isPlain(s, most) {
		return s
	}
	out := make([]byte, 0, min(len(s), max(most, 0)))
	last := 0 // start of the last character that marks combine with
	marks := maxMarks
	for _, r := range s {
		r, mark := shown(r, lines)
		switch {
		case r < 0:
			continue
		case mark:
			if marks++; marks > maxMarks {
				continue
			}
		case r == '\n':
			marks = maxMarks
		default:
			marks = 0
		}
		if !mark {
			last = len(out)
		}
		if len(out)+utf8.RuneLen(r) > most {
			return string(out[:last]) // omits a character whose marks do not fit
		}
		out = utf8.AppendRune(out, r)
	}
	return string(out)
}

// maxError bounds an error's line, in bytes.
const maxError = 4 << 10

// Error returns an error as one plain line. The error may contain a guest's text, and
// errors.Join writes several lines.
func Error(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return Text(strings.Join(parts, "; "), maxError, OneLine)
}

// Clip shortens a quotation to 40 characters. It does not make it plain.
func Clip(s string) string {
	if r := []rune(s); len(r) > 40 {
		return string(r[:40]) + "…"
	}
	return s
}

// isPlain recognises the usual text that needs no change, printable ASCII, without an
// allocation.
func isPlain(s string, most int) bool {
	if len(s) > most {
		return false
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}

// shown returns the character to show for r, or -1 for none, and whether it is a
// combining mark.
func shown(r rune, lines bool) (_ rune, mark bool) {
	switch {
	case r >= ' ' && r <= '~':
		return r, false
	case r == '\n' && lines:
		return r, false
	case unicode.IsSpace(r), unicode.In(r, unicode.Z), r == brailleBlank:
		return ' ', false
	case r == utf8.RuneError, !unicode.IsGraphic(r), unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r):
		return -1, false
	}
	return r, unicode.Is(unicode.M, r)
}

// brailleBlank looks like a space.
const brailleBlank = '\u2800'
