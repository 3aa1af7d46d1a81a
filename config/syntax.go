package config

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/BurntSushi/toml"

	"vix/internal/plain"
)

// syntaxError describes why a text is not TOML. The library knows which byte it did not expect;
// what is to be done can often be told from the line.
func syntaxError(label, src string, err error) *Error {
	e := &Error{File: label, Msg: err.Error()}
	var pe toml.ParseError
	if errors.As(err, &pe) {
		// For a string cut off on the first line, the library reports the line before.
		e.Line, e.Msg = max(pe.Position.Line, 1), pe.Message
		if e.Msg == "" {
			e.Msg = strings.TrimPrefix(pe.Error(), "toml: ")
		}
	}
	e.Msg = strings.Join(strings.Fields(e.Msg), " ")
	if m := definedTwice.FindStringSubmatch(e.Msg); m != nil {
		e.Key, e.Msg = m[1], "is there twice; take one away"
		if first := indexLines(firstLines(src, e.Line-1))[strings.ReplaceAll(m[1], ".", "\x00")]; first > 0 {
			e.Msg = fmt.Sprintf("is there twice; the first is on line %d", first)
		}
		return e
	}
	if at := pe.Position.Start; at > 0 && at <= len(src) {
		e.Line = 1 + strings.Count(src[:at], "\n") // the library counts a line's end that it has read
	}
	before := firstLines(src, e.Line-1)
	line := strings.TrimPrefix(firstLines(src, e.Line), before)
	equals := strings.IndexByte(line, '=')
	if msg := advise(strings.TrimSpace(line), e.Msg, pe.Position.Start-len(before) <= equals); msg != "" {
		e.Msg = plain.Text(msg, len(msg), plain.OneLine)
	}
	return e
}

// The library's message about a table or key that is defined twice.
var definedTwice = regexp.MustCompile(`^Key '(.+)' (?:has already been defined|was already created and cannot be used as an array)\.$`)

var (
	header    = regexp.MustCompile(`^\[+[^\[\]"'#=,]*\]+$`)
	openTable = regexp.MustCompile(`^\[+([A-Za-z0-9_.-]+)(\s*#.*)?$`)
	colonKey  = regexp.MustCompile(`^([A-Za-z0-9_.-]+)\s*:\s*(.*)$`)
	statement = regexp.MustCompile(`^([A-Za-z0-9_."'-]+)\s*=\s*(.*)$`)
	onlyKey   = regexp.MustCompile(`^([A-Za-z0-9_.-]+)(\s.*)?$`)
	number    = regexp.MustCompile(`^[+-]?[0-9][0-9_.]*$`)
	comment   = regexp.MustCompile(`\s+(//|;).*$`)
)

// advise says what is wrong with a line, given the library's message, and whether that is about
// what stands before the line's '='; "" for what it does not know.
func advise(line, msg string, early bool) string {
	value := strings.Contains(msg, "value")
	switch {
	case strings.Contains(msg, "control characters") || strings.Contains(msg, "UTF-8"):
		return ""
	case strings.Contains(msg, "inline table terminator"):
		return "a table in { } wants a comma between its keys, and its closing }"
	case header.MatchString(line) && (value || strings.Contains(msg, "comma")):
		return "a list above this line lacks its closing ]"
	case strings.Contains(msg, "array terminator") && strings.Contains(msg, "end of file"):
		return "a list lacks its closing ]"
	case openTable.MatchString(line):
		name := openTable.FindStringSubmatch(line)[1]
		return fmt.Sprintf("the name of a table lacks its closing bracket: want [%s]", name)
	case header.MatchString(line) && strings.Count(line, "[") != strings.Count(line, "]"):
		return "the name of a table stands in one pair of brackets, that of a rule in two: want as many [ as ]"
	case header.MatchString(line) && strings.Contains(line, " "):
		return "a table's name has no spaces; want one such as [vm.web]"
	case strings.HasPrefix(line, "//") || strings.HasPrefix(line, ";"):
		return "a comment begins with #"
	}
	if early && !strings.Contains(msg, "'='") {
		return "a list or a text above this line lacks its end"
	}
	if m := colonKey.FindStringSubmatch(line); m != nil {
		return fmt.Sprintf("want '=' and not ':' after %s", m[1])
	}
	if m := statement.FindStringSubmatch(line); m != nil {
		return adviseValue(m[2], msg)
	}
	if m := onlyKey.FindStringSubmatch(line); m != nil && strings.Contains(msg, "'='") {
		return fmt.Sprintf("want '=' and a value after %s", clip(m[1]))
	}
	if strings.Contains(msg, "array terminator") {
		return adviseList("", msg)
	}
	if value { // a line of a list
		return adviseList(strings.TrimRight(line, "], \t"), "")
	}
	return ""
}

// adviseValue says what is wrong with the rest of a line after KEY =.
func adviseValue(rest, msg string) string {
	text, _, _ := strings.Cut(rest, " #")
	text = strings.TrimSpace(text)
	switch {
	case rest == "":
		return "the value is missing"
	case strings.HasPrefix(rest, "#"):
		if word, _, _ := strings.Cut(rest, " "); len(word) > 1 {
			return fmt.Sprintf(`the value is missing, for # begins a comment; text needs quotes: "%s"`, clip(word))
		}
		return "the value is missing"
	case rest[0] == '=':
		return "one '=' is enough"
	case strings.ContainsAny(text, "“”„‘’«»"):
		return fmt.Sprintf(`want straight quotes: "%s"`, clip(strings.Trim(text, `“”„‘’«»"'`)))
	case strings.Contains(msg, "strings cannot contain newlines") || strings.HasPrefix(msg, "unexpected EOF; expected '"):
		quote := text[:1]
		if quote != `'` && quote != `"` || strings.HasPrefix(text[1:], quote) { // a list; or three of them
			quote = "quote"
		}
		return "a text lacks its closing " + quote
	case strings.Contains(msg, `hexadecimal digits after '\`) || strings.Contains(msg, "invalid escape"):
		return `a \ in text has a meaning of its own; put the text into '…', or write \\`
	case comment.MatchString(text) && strings.Contains(msg, "to end with"):
		return "a comment begins with #"
	case text[0] == '[':
		return adviseList(strings.Trim(text, "[] \t"), msg)
	case text[0] == '{' && strings.Contains(msg, "got ':'"):
		return "want '=' and not ':' in a table in { }"
	case strings.Contains(`"'{`, text[:1]):
		if strings.Contains(msg, "to end with") {
			return "there is more on the line after the value; want one KEY = VALUE on a line"
		}
		return ""
	case slices.Contains([]string{"true", "false"}, strings.ToLower(text)):
		return fmt.Sprintf("want %s in small letters", strings.ToLower(text))
	case slices.Contains([]string{"yes", "no"}, strings.ToLower(text)):
		return fmt.Sprintf(`want true or false; or, if %s is meant as text, "%s"`, text, text)
	case number.MatchString(text):
		return ""
	default:
		return fmt.Sprintf(`text needs quotes: "%s"`, clip(text))
	}
}

// adviseList finds the first entry of a list that is no text in quotes.
func adviseList(inside, msg string) string {
	if strings.Contains(msg, "comma") {
		return "a comma is missing between two entries of a list"
	}
	for entry := range strings.SplitSeq(inside, ",") {
		if entry = strings.TrimSpace(entry); entry != "" && !strings.ContainsAny(entry, "\"'[]{}#=") && !number.MatchString(entry) {
			return fmt.Sprintf("text needs quotes: %s", strconv.Quote(clip(entry)))
		}
	}
	return ""
}

// firstLines returns the first n lines of a text.
func firstLines(text string, n int) string {
	end := 0
	for range n {
		i := strings.IndexByte(text[end:], '\n')
		if i < 0 {
			return text
		}
		end += i + 1
	}
	return text[:end]
}
