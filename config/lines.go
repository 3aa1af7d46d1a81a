package config

import (
	"strconv"
	"strings"
)

// The TOML library gives the line of a syntax error, but only the name of a decoded key.
// lineIndex supplies its line, by a scan of text that is already known to be valid TOML: the
// scan only needs to find where statements begin.

// lineIndex maps a key's path, joined by NUL, to the line of its statement. The path of the
// second table [[a]] is "a", "1".
type lineIndex map[string]int

// of returns the line of path or, for a key within an inline table or array, the line of the
// statement that holds it.
func (l lineIndex) of(path []string) int {
	for n := len(path); n > 0; n-- {
		if line, ok := l[strings.Join(path[:n], "\x00")]; ok {
			return line
		}
	}
	return 0
}

func (l lineIndex) add(path []string, line int) {
	// A key below a table may open the table implicitly: the first statement that mentions the
	// table then gives its line.
	for n := 1; n <= len(path); n++ {
		k := strings.Join(path[:n], "\x00")
		if _, ok := l[k]; !ok {
			l[k] = line
		}
	}
}

// indexLines scans src, statement by statement.
func indexLines(src string) lineIndex {
	s := &scanner{src: src, line: 1}
	index := lineIndex{}
	var table []string
	tables := map[string]int{} // how many [[a]] there are
	for s.space(); s.pos < len(s.src); s.space() {
		line := s.line
		if s.src[s.pos] == '[' {
			start := s.pos
			s.skip("[")
			double := s.pos-start > 1
			table = s.keyPath()
			if double {
				name := strings.Join(table, "\x00")
				table = append(table, strconv.Itoa(tables[name]))
				tables[name]++
			}
			index.add(table, line)
			s.skip("]")
		} else {
			path := s.keyPath()
			index.add(append(table[:len(table):len(table)], path...), line)
			s.value()
		}
	}
	return index
}

type scanner struct {
	src  string
	pos  int
	line int
}

// next consumes one byte.
func (s *scanner) next() byte {
	c := s.src[s.pos]
	s.pos++
	if c == '\n' {
		s.line++
	}
	return c
}

func (s *scanner) skip(set string) {
	for s.pos < len(s.src) && strings.IndexByte(set, s.src[s.pos]) >= 0 {
		s.next()
	}
}

func (s *scanner) skipOne(c byte) {
	if s.pos < len(s.src) && s.src[s.pos] == c {
		s.next()
	}
}

func (s *scanner) comment() {
	for s.pos < len(s.src) && s.src[s.pos] != '\n' {
		s.next()
	}
}

// space consumes white space, line ends and comments.
func (s *scanner) space() {
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case ' ', '\t', '\r', '\n':
			s.next()
		case '#':
			s.comment()
		default:
			return
		}
	}
}

// keyPath reads a dotted key, up to and including its '=', or up to its ']'.
func (s *scanner) keyPath() []string {
	var path []string
	for s.pos < len(s.src) {
		s.skip(" \t.")
		if s.pos == len(s.src) || s.src[s.pos] == ']' {
			return path
		}
		switch c := s.src[s.pos]; c {
		case '=', '\n':
			s.next()
			return path
		case '"', '\'':
			path = append(path, unquote(s.quoted()))
		default:
			start := s.pos
			for s.pos < len(s.src) && strings.IndexByte(" \t.=]\n", s.src[s.pos]) < 0 {
				s.next()
			}
			path = append(path, s.src[start:s.pos])
		}
	}
	return path
}

// quoted consumes a string of any of the four kinds and returns it with its quotes.
func (s *scanner) quoted() string {
	start := s.pos
	quote := s.src[s.pos : s.pos+1]
	if triple := strings.Repeat(quote, 3); strings.HasPrefix(s.src[s.pos:], triple) {
		quote = triple
	}
	for range len(quote) {
		s.next()
	}
	for s.pos < len(s.src) && !strings.HasPrefix(s.src[s.pos:], quote) {
		if s.next() == '\\' && quote[0] == '"' && s.pos < len(s.src) {
			s.next()
		}
	}
	// The text of a multi-line string may itself end in up to two quotes.
	for range len(quote) + 2*(len(quote)/3) {
		s.skipOne(quote[0])
	}
	return s.src[start:s.pos]
}

func unquote(q string) string {
	if q[0] == '"' {
		if text, err := strconv.Unquote(q); err == nil {
			return text
		}
	}
	return strings.Trim(q, q[:1])
}

// value consumes the rest of a statement: to the end of the first line where no bracket is
// open.
func (s *scanner) value() {
	depth := 0
	for s.pos < len(s.src) {
		switch s.src[s.pos] {
		case '"', '\'':
			s.quoted()
			continue
		case '#':
			s.comment()
			continue
		case '[', '{':
			depth++
		case ']', '}':
			depth--
		case '\n':
			if depth <= 0 {
				return
			}
		}
		s.next()
	}
}
