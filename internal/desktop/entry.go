package desktop

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"unicode"
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
	maxCodes   = 64 // of one Exec
	maxArgv    = 64
	maxLocales = 256
	maxWords   = 64 // in a list
)

// An entry is a group of a key file: its keys, with their locales, and the values as they
// stand in the file. Files are read as GLib reads them (GKeyFile, GDesktopAppInfo), which the
// Desktop Entry Specification leaves open in places; glib_cases_test.go has the exceptions.
//
// It is parsed here and not by a library (github.com/MatthiasKunnen/xdg 0.4.0),
// which panics when a guest's Exec ends in "%", and refuses a whole file for an
// action without a group, which every launcher lets pass.
type entry map[string]string

var errNoEntry = errors.New("does not begin with [Desktop Entry]")

// parseEntry reads a .desktop file.
func parseEntry(b []byte) (entry, error) { return parseKeyFile(b, "Desktop Entry") }

// parseKeyFile returns the group of that name, which has to be the first. A line that is no
// key, group or comment makes the file unusable; of two equal keys the last holds; groups of
// one name are one.
func parseKeyFile(b []byte, name string) (entry, error) {
	if len(b) > maxEntry {
		return nil, fmt.Errorf("larger than %d KiB", maxEntry>>10)
	}
	e, group, n := entry{}, "", 0
	for l := range strings.Lines(string(b)) {
		n++
		l = strings.TrimLeft(strings.TrimSuffix(strings.TrimSuffix(l, "\n"), "\r"), keySpace)
		if l == "" || l[0] == '#' {
			continue
		}
		if g, ok := groupName(l); ok {
			if group == "" && g != name {
				return nil, errNoEntry
			}
			group = g
			continue
		}
		key, value, ok := strings.Cut(l, "=")
		if key = strings.TrimRight(key, keySpace); !ok || !keyName(key) {
			return nil, fmt.Errorf("line %d: not a key, a group or a comment", n)
		}
		value = strings.TrimLeft(value, keySpace)
		switch {
		case group == "":
			return nil, errNoEntry
		case group != name:
			continue
		case key == "Encoding" && !strings.EqualFold(value, "UTF-8"):
			return nil, errors.New("its key Encoding is not UTF-8")
		case len(e) == maxKeys && e[key] == "":
			return nil, fmt.Errorf("more than %d keys", maxKeys)
		}
		e[key] = value
	}
	if group == "" {
		return nil, errNoEntry
	}
	return e, nil
}

// keySpace is what may stand around a key, and before a value.
const keySpace = " \t\f\r"

// groupName returns the name in a line such as "[Name]".
func groupName(l string) (string, bool) {
	name, rest, ok := strings.Cut(l, "]")
	name, isGroup := strings.CutPrefix(name, "[")
	bad := func(r rune) bool { return r == '[' || r < ' ' || r == 0x7f }
	return name, ok && isGroup && name != "" && strings.Trim(rest, " \t") == "" && !strings.ContainsFunc(name, bad)
}

// keyName reports whether a key, with its locale, is one.
func keyName(key string) bool {
	name, locale, has := strings.Cut(key, "[")
	locale, closed := strings.CutSuffix(locale, "]")
	odd := func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsNumber(r) && !strings.ContainsRune("-_.@", r)
	}
	return name != "" && !strings.ContainsAny(name, "]\x00") && !strings.HasSuffix(name, " ") &&
		(!has || closed && !strings.ContainsFunc(locale, odd))
}

// is reports a boolean.
func (e entry) is(key string) bool {
	v := strings.TrimRight(e[key], keySpace)
	return v == "true" || v == "1"
}

// value returns a value of type string; "" if it is not text, or has an escape that does not
// exist.
func (e entry) value(key string) string {
	list, ok := unescape(e[key], false)
	if !ok {
		return ""
	}
	return list[0]
}

// text returns a value of type string, in one line.
func (e entry) text(key string, n int) string {
	return strings.TrimSpace(plain.Text(e.value(key), n, plain.OneLine))
}

// words returns a list's values.
func (e entry) words(key string) []string {
	var list []string
	all, _ := unescape(e[key], true)
	for _, w := range all {
		if w = strings.TrimSpace(plain.Text(w, maxName, plain.OneLine)); w != "" && len(list) < maxWords {
			list = append(list, w)
		}
	}
	return list
}

// A Text is a string in several languages: the key "" is the one for those that are
// not there; the others are locales, such as "de" and "sr@latin".
type Text map[string]string

// In returns the text for a locale such as "de_AT.UTF-8@euro", by the
// specification's rules: without the encoding, the region, the modifier, in this order.
func (t Text) In(locale string) string {
	base, modifier, _ := strings.Cut(locale, "@")
	base, encoding, _ := strings.Cut(base, ".")
	language, region, _ := strings.Cut(base, "_")
	with := func(mark, part string) string {
		if part == "" {
			return ""
		}
		return mark + part
	}
	for _, m := range []string{with("@", modifier), ""} {
		for _, r := range []string{with("_", region), ""} {
			for _, e := range []string{with(".", encoding), ""} {
				if s := t[language+r+e+m]; s != "" {
					return s
				}
			}
		}
	}
	return t[""]
}

var localePattern = regexp.MustCompile(`^[a-z]{2,8}(_([A-Z]{2}|[0-9]{3}|[A-Z][a-z]{3}))?(\.[A-Za-z0-9-]{1,16})?(@[A-Za-z]{1,16})?$`)

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

// unescape undoes the escapes of a value of type string, or of a list, whose words end with
// semicolons. ok is false if an escape does not exist or the value is no text.
func unescape(s string, list bool) (words []string, ok bool) {
	if !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		return nil, false
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case list && s[i] == ';':
			words = append(words, b.String())
			b.Reset()
			continue
		case s[i] != '\\':
			b.WriteByte(s[i])
			continue
		}
		if i++; i == len(s) {
			return nil, false
		}
		const escapes, meanings = `sntr\;`, " \n\t\r\\;"
		at := strings.IndexByte(escapes, s[i])
		if at < 0 || s[i] == ';' && !list {
			return nil, false
		}
		b.WriteByte(meanings[at])
	}
	if !list || b.Len() > 0 {
		words = append(words, b.String())
	}
	return words, true
}

// escape makes a value of type string.
func escape(s string) string {
	return strings.NewReplacer(`\`, `\\`, "\n", `\n`, "\t", `\t`, "\r", `\r`).Replace(s)
}

// A command is the key Exec, taken apart.
type command struct {
	words []execWord
	// What the codes %i, %c and %k stand for, all of the guest.
	icon, name, file string
}

// An execWord is a word of a command: text and codes, in turns.
type execWord struct {
	parts  []execPart
	quoted bool // so that it is a word even if it is empty
}

// An execPart is text or, if code is not 0, the field code "%code".
type execPart struct {
	text string
	code byte
}

// literal returns the words as they are.
func literal(words ...string) (list []execWord) {
	for _, w := range words {
		list = append(list, execWord{[]execPart{{text: w}}, true})
	}
	return list
}

// parseExec takes a value of the key Exec apart, by the rules of a shell's quotes, as GLib
// does: a backslash takes away the meaning of the next character, within double quotes only
// of some; within single quotes nothing has one; "#" begins a comment.
func parseExec(s string) (words []execWord, err error) {
	if len(s) > maxExec {
		return nil, fmt.Errorf("the key Exec: more than %d bytes", maxExec)
	}
	var w execWord
	var text strings.Builder
	code := func(c byte) {
		if text.Len() > 0 {
			w.parts = append(w.parts, execPart{text: text.String()})
			text.Reset()
		}
		if c != 0 {
			w.parts = append(w.parts, execPart{code: c})
		}
	}
	end := func() {
		if code(0); w.quoted || len(w.parts) > 0 {
			words = append(words, w)
		}
		w = execWord{}
	}
	quote, codes := byte(0), 0
	for i := 0; i < len(s); i++ {
		b := s[i]
		switch {
		case b == '%' && i+1 < len(s):
			codes++
			i++
			code(s[i])
		case quote == 0 && (b == ' ' || b == '\t' || b == '\n'):
			end()
		case quote == 0 && (b == '"' || b == '\''):
			quote, w.quoted = b, true
		case quote == 0 && b == '#' && (i == 0 || s[i-1] == ' ' || s[i-1] == '\n'):
			for i+1 < len(s) && s[i+1] != '\n' {
				i++
			}
		case b == '\\' && quote != '\'':
			if i++; i == len(s) {
				return nil, errors.New(`the key Exec: it ends with a \`)
			}
			if quote == '"' && !strings.ContainsRune("\"\\`$\n", rune(s[i])) {
				text.WriteByte(b)
			}
			if s[i] != '\n' {
				text.WriteByte(s[i])
			}
		case quote != 0 && b == quote:
			quote = 0
		default:
			text.WriteByte(b)
		}
	}
	if quote != 0 {
		return nil, errors.New("the key Exec: a quote is not closed")
	}
	if end(); len(words) > maxArgv {
		return nil, fmt.Errorf("the key Exec: more than %d words", maxArgv)
	}
	if codes > maxCodes {
		return nil, fmt.Errorf("the key Exec: more than %d field codes", maxCodes)
	}
	return words, nil
}

// program returns the first word, "" if there is none, or a code in it.
func (c command) program() string {
	if len(c.words) == 0 || len(c.words[0].parts) != 1 {
		return ""
	}
	return c.words[0].parts[0].text
}

// takesFiles reports that the command opens files or URLs.
func (c command) takesFiles() bool {
	return slices.ContainsFunc(c.words, func(w execWord) bool {
		return slices.ContainsFunc(w.parts, func(p execPart) bool { return strings.IndexByte("fFuU", p.code) >= 0 })
	})
}

// runs returns the commands that open files (paths of the guest): one for all of them, or, if
// it takes one file, one for each. Without files it is one command.
func (c command) runs(files []string) [][]string {
	argv, rest := c.next(files)
	runs := [][]string{argv}
	for len(rest) > 0 {
		argv, rest = c.next(rest)
		runs = append(runs, argv)
	}
	return runs
}

// next returns a command, and the files that it does not open.
func (c command) next(files []string) (argv, rest []string) {
	rest = files
	for _, w := range c.words {
		at, has := "", w.quoted
		add := func(s string) { at, has = at+s, true }
		for _, p := range w.parts {
			switch p.code {
			case 0:
				add(p.text)
			case '%':
				add("%")
			case 'f', 'u': // a path is a URL enough: GLib passes one too
				if len(rest) > 0 {
					add(rest[0])
					rest = rest[1:]
				}
			case 'F', 'U':
				for i, f := range rest {
					if i > 0 {
						argv, at = append(argv, at), ""
					}
					add(f)
				}
				rest = nil
			case 'i':
				if c.icon != "" {
					argv, at, has = append(argv, at+"--icon"), c.icon, true
				}
			case 'c':
				add(c.name)
			case 'k':
				add(c.file)
			}
		}
		if has {
			argv = append(argv, at)
		}
	}
	if len(rest) == len(files) && len(files) > 0 {
		argv, rest = append(argv, files[0]), files[1:] // it has no place for files
	}
	return argv, rest
}
