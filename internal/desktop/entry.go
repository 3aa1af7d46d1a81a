package desktop

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"vix/internal/plain"
)

// Limits of a .desktop file of a guest's root.
const (
	maxEntry   = 256 << 10 // bytes of the file: LibreOffice's have 30 KiB, for 120 languages
	maxKeys    = 4096
	maxName    = 128 // bytes of a name or a keyword
	maxComment = 256
	maxExec    = 4096
	maxArgv    = 64
	maxLocales = 256
	maxWords   = 64 // in a list
)

// An entry is the group [Desktop Entry] of a file: its keys, with their locales,
// and the values as they stand (Desktop Entry Specification 1.5).
//
// It is parsed here and not by a library (github.com/MatthiasKunnen/xdg 0.4.0),
// which panics when a guest's Exec ends in "%", and refuses a whole file for an
// action without a group, which every launcher lets pass.
type entry map[string]string

var errNoEntry = errors.New("no [Desktop Entry]")

// parseEntry reads b. Lines that are no key are passed over; of two equal keys
// the first holds.
func parseEntry(b []byte) (entry, error) {
	if len(b) > maxEntry {
		return nil, fmt.Errorf("larger than %d KiB", maxEntry>>10)
	}
	if !utf8.Valid(b) {
		return nil, errors.New("not UTF-8")
	}
	e, in := entry{}, false
	for l := range strings.Lines(string(b)) {
		l = strings.TrimSpace(l)
		if strings.HasPrefix(l, "[") && strings.HasSuffix(l, "]") {
			if in {
				break // actions, of which we have our own
			}
			in = l == "[Desktop Entry]"
			continue
		}
		key, value, ok := strings.Cut(l, "=")
		if !in || !ok || strings.HasPrefix(l, "#") {
			continue
		}
		if key = strings.TrimSpace(key); e[key] != "" {
			continue
		}
		if len(e) == maxKeys {
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
		e[key] = strings.TrimSpace(value)
	}
	if len(e) == 0 {
		return nil, errNoEntry
	}
	return e, nil
}

// is reports a boolean.
func (e entry) is(key string) bool { return e[key] == "true" }

// text returns a value of type string, in one line.
func (e entry) text(key string, n int) string { return plain.Text(unescape(e[key]), n, plain.OneLine) }

// words returns a list's values.
func (e entry) words(key string) []string {
	var list []string
	for _, w := range strings.Split(strings.ReplaceAll(e[key], `\;`, "\x00"), ";") {
		if w = plain.Text(unescape(strings.ReplaceAll(w, "\x00", ";")), maxName, plain.OneLine); w != "" && len(list) < maxWords {
			list = append(list, w)
		}
	}
	return list
}

// A Text is a string in several languages: the key "" is the one for those that are
// not there; the others are locales, such as "de" and "sr@latin".
type Text map[string]string

// In returns the text for a locale such as "de_AT.UTF-8@euro", by the
// specification's rules.
func (t Text) In(locale string) string {
	base, modifier, _ := strings.Cut(locale, "@")
	base, _, _ = strings.Cut(base, ".")
	language, _, _ := strings.Cut(base, "_")
	for _, l := range []string{base + "@" + modifier, base, language + "@" + modifier, language} {
		if s := t[l]; s != "" {
			return s
		}
	}
	return t[""]
}

var localePattern = regexp.MustCompile(`^[a-z]{2,8}(_[A-Z]{2})?(@[A-Za-z]{1,16})?$`)

// texts returns a value of type localestring.
func (e entry) texts(key string, n int) Text {
	t := Text{}
	for k := range e {
		name, locale, ok := strings.Cut(k, "[")
		locale, closed := strings.CutSuffix(locale, "]")
		if name != key || ok && (!closed || !localePattern.MatchString(locale)) || len(t) > maxLocales {
			continue
		}
		if s := e.text(k, n); s != "" {
			t[locale] = s
		}
	}
	return t
}

// unescape undoes the escapes of a value of type string. An unknown one stands for
// itself.
func unescape(s string) string {
	return strings.NewReplacer(`\s`, " ", `\n`, "\n", `\t`, "\t", `\r`, "\r", `\\`, `\`).Replace(s)
}

// escape makes a value of type string.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s)
}

// A command is the key Exec, taken apart: words, of which those that are a field
// code alone ("%f", "%F", "%u", "%U") stand for files.
type command []string

// parseExec takes an Exec apart. It leaves out field codes that mean nothing to a program in
// a VM (%i, %c, %k and the deprecated ones).
func parseExec(value string) (command, error) {
	s := unescape(value)
	if len(s) > maxExec || strings.ContainsRune(s, 0) {
		return nil, errors.New("the key Exec: too long, or not text")
	}
	var c command
	var word strings.Builder
	begun, quoted := false, false
	for i := 0; i < len(s); i++ {
		switch b := s[i]; {
		case b == '"':
			quoted, begun = !quoted, true
		case quoted && b == '\\' && i+1 < len(s):
			i++
			word.WriteByte(s[i])
		case !quoted && (b == ' ' || b == '\t' || b == '\n'):
			if begun {
				c = append(c, word.String())
			}
			word.Reset()
			begun = false
		default:
			word.WriteByte(b)
			begun = true
		}
	}
	if quoted {
		return nil, errors.New("the key Exec: a quote is not closed")
	}
	if begun {
		c = append(c, word.String())
	}
	if len(c) == 0 || c[0] == "" || len(c) > maxArgv {
		return nil, errors.New("the key Exec: no command, or one of too many words")
	}
	return c, nil
}

// takesFiles reports that the command opens files or URLs.
func (c command) takesFiles() bool {
	for _, w := range c {
		switch w {
		case "%f", "%F", "%u", "%U":
			return true
		}
	}
	return false
}

// argv returns the command for files (paths or URLs of the guest). A code for one
// file gets the first.
func (c command) argv(files []string) []string {
	argv := make([]string, 0, len(c)+len(files))
	for _, w := range c {
		switch w {
		case "%F", "%U":
			argv = append(argv, files...)
		case "%f", "%u":
			argv = append(argv, files[:min(len(files), 1)]...)
		default:
			if w = withoutCodes(w); w != "" {
				argv = append(argv, w)
			}
		}
	}
	return argv
}

// withoutCodes drops field codes within a word; "%%" is "%".
func withoutCodes(w string) string {
	if !strings.Contains(w, "%") {
		return w
	}
	var b strings.Builder
	for i := 0; i < len(w); i++ {
		if w[i] != '%' {
			b.WriteByte(w[i])
			continue
		}
		if i++; i < len(w) && w[i] == '%' {
			b.WriteByte('%')
		}
	}
	return b.String()
}
