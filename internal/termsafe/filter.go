// Package termsafe decides which of a guest's bytes reach a person's terminal.
//
// A terminal obeys its input: it sets the clipboard, sends answers that appear as typed
// text at the next prompt, changes its title, draws over the output of
// others. So the package parses a guest's output, and writes it anew: whole
// sequences of an allow-list, each in its one usual form.
//
//	guest's bytes ─► UTF-8 ─► state machine (x/ansi's table) ─► allow-list ─► canonical sequences
//	                 │                                           (allow.go)     │
//	                 └ text: unchanged                                          └ modes left on
//	                                                                              (modes.go)
//
// There are three kinds of stream:
//
//	Line    a program's output among others': text, newlines, colours, and moves
//	        within the line (CR, BS, HT, CHA, CUF, CUB, EL). No character that changes
//	        the direction of writing.
//	Screen  a program that has the terminal for itself: what vim, less, htop, tmux and
//	        shells need. No string (OSC, DCS, APC, PM, SOS: clipboard, titles, colours of the
//	        terminal, links, notifications, files, pictures), no query that the terminal
//	        would answer, no mode with an unknown usual state.
//	Raw     everything.
//
// Memory is bounded for any input: the filter does not keep the text of a string.
// The division of a stream into pieces changes nothing. The package assumes a UTF-8
// terminal, where a control character of ECMA-48's upper half (C1) has two bytes; a
// single byte from 0x80 to 0x9f is not a character, and becomes U+FFFD like other such bytes.
//
// The package does not know the width of a terminal or a character, nor the screen's content.
package termsafe

import (
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi/parser"
)

// A Kind is a kind of stream; see the package comment.
type Kind uint8

const (
	Line Kind = iota
	Screen
	Raw
)

const (
	esc = 0x1b
	del = 0x7f
	// maxParams bounds the parameters of a sequence; a longer one is dropped.
	// The longest in use set a few colours at once.
	maxParams = 32
	// maxParam bounds a parameter's value: no terminal and no mode number is larger.
	maxParam = 9999
)

// A Filter is the state machine for one stream. Its zero value filters a Line.
type Filter struct {
	Kind Kind

	out     []byte       // the output of Append, while it runs
	pending [4]byte      // the beginning of a character
	npend   int          // length of pending
	state   parser.State // state of the current sequence
	seq     sequence     // the current sequence so far
	length  int          // bytes of the current OSC so far
	modes   modes        // modes left on
	cursor  cursor
}

// A cursor describes the place where the next line of Vix's own would begin.
type cursor struct {
	used   bool // the cursor's line may contain something
	column bool // the last thing was not a return to the first column
	moved  bool // it went up or down other than by new lines: anything may be below it
}

// A sequence holds the parts of an escape or control sequence.
type sequence struct {
	prefix, inter byte
	params        [maxParams]int // -1: omitted
	sub           uint32         // bit i: param i goes on with a ':'
	n             int            // index of the current parameter
	some          bool           // there are any parameters
	bad           bool           // not of a form that any terminal accepts
}

func (s *sequence) clear() {
	s.prefix, s.inter, s.sub, s.n, s.some, s.bad = 0, 0, 0, 0, false, false
	s.params[0] = -1
}

// list returns the parameters.
func (s *sequence) list() []int {
	if !s.some {
		return nil
	}
	return s.params[:s.n+1]
}

// param returns parameter i, or def if it is omitted.
func (s *sequence) param(i, def int) int {
	if l := s.list(); i < len(l) && l[i] >= 0 {
		return l[i]
	}
	return def
}

// Append appends the filtered src to dst. It keeps an incomplete character or
// sequence at the end of src until the next call.
func (f *Filter) Append(dst, src []byte) []byte {
	if f.Kind == Raw {
		if len(src) > 0 {
			f.cursor.used = src[len(src)-1] != '\n'
		}
		return append(dst, src...)
	}
	f.out = dst
	for f.npend > 0 && len(src) > 0 {
		src = f.complete(src)
	}
	for len(src) > 0 {
		if f.state == parser.GroundState {
			if n := f.run(src); n > 0 {
				f.print(src[:n])
				src = src[n:]
				continue
			}
		}
		if c := src[0]; c >= utf8.RuneSelf {
			src = f.char(src)
		} else {
			f.advance(c)
			src = src[1:]
		}
	}
	out := f.out
	f.out = nil
	return out
}

// run returns the length of the text at the start of src that passes unchanged.
func (f *Filter) run(src []byte) (n int) {
	for n < len(src) {
		c := src[n]
		if c >= ' ' && c < del {
			n++
			continue
		}
		if c < utf8.RuneSelf {
			break
		}
		r, size := utf8.DecodeRune(src[n:])
		if r == utf8.RuneError && size == 1 || r <= 0x9f || f.Kind == Line && isBidi(r) {
			break
		}
		n += size
	}
	return n
}

// isBidi reports that r is one of Unicode's Bidi_Control, which change the direction
// of writing.
func isBidi(r rune) bool {
	return r == 0x61c || r == 0x200e || r == 0x200f || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069
}

func (f *Filter) print(text []byte) {
	f.out = append(f.out, text...)
	f.cursor.used, f.cursor.column = true, true
}

// complete takes the rest of the pending character from src.
func (f *Filter) complete(src []byte) []byte {
	n := copy(f.pending[f.npend:], src)
	head := f.pending[:f.npend+n]
	if !utf8.FullRune(head) {
		f.npend += n
		return src[n:]
	}
	r, size := utf8.DecodeRune(head)
	f.rune(r, head[:size])
	if size < f.npend { // not UTF-8: parse again after the first byte
		f.npend = copy(f.pending[:], f.pending[size:f.npend])
		return src
	}
	taken := size - f.npend
	f.npend = 0
	return src[taken:]
}

// char takes the character at the start of src, or keeps its beginning.
func (f *Filter) char(src []byte) []byte {
	if !utf8.FullRune(src) {
		f.npend = copy(f.pending[:], src)
		return nil
	}
	r, size := utf8.DecodeRune(src)
	f.rune(r, src[:size])
	return src[size:]
}

var replacement = []byte("\ufffd")

// rune takes a non-ASCII character; text holds its bytes.
func (f *Filter) rune(r rune, text []byte) {
	if r >= 0x80 && r <= 0x9f {
		f.advance(byte(r))
		return
	}
	switch f.state {
	case parser.GroundState:
	case parser.EscapeState, parser.EscapeIntermediateState, parser.CsiEntryState, parser.CsiParamState, parser.CsiIntermediateState:
		f.state = parser.GroundState // no sequence contains such a character: text goes on
	default: // in a string
		if f.length == 0 {
			f.length = 1
		}
		return
	}
	switch {
	case r == utf8.RuneError && len(text) == 1:
		f.print(replacement)
	case f.Kind == Line && isBidi(r):
	default:
		f.print(text)
	}
}

// advance takes an ASCII byte, or a C1 control character.
func (f *Filter) advance(c byte) {
	was := f.state
	if was == parser.OscStringState && f.palette(c) {
		return
	}
	if c == esc && was == parser.DcsEntryState { // where the table makes an exception
		was = parser.DcsStringState
	}
	next, action := parser.Table.Transition(was, c)
	switch {
	case next == parser.OscStringState && was != next:
		f.length = 0
	case next != was && (next == parser.EscapeState || next == parser.CsiEntryState):
		f.seq.clear()
	}
	f.state = next
	switch action {
	case parser.ClearAction:
		f.seq.clear()
	case parser.ExecuteAction:
		f.control(c)
	case parser.PrefixAction:
		f.seq.prefix = c
	case parser.CollectAction:
		f.seq.bad = f.seq.bad || f.seq.inter != 0 // no sequence in use has two
		f.seq.inter = c
	case parser.ParamAction:
		f.seq.digit(c)
	case parser.IgnoreAction:
		// A misplaced prefix or parameter: terminals ignore the whole sequence.
		if c >= '0' && c <= '?' && (was == parser.CsiParamState || was == parser.CsiIntermediateState) {
			f.seq.bad, f.state = true, was
		}
	case parser.DispatchAction:
		f.dispatch(was, c)
	}
}

// dispatch acts on a sequence that ends with c.
func (f *Filter) dispatch(was parser.State, c byte) {
	switch was {
	case parser.CsiEntryState, parser.CsiParamState, parser.CsiIntermediateState:
		if !f.seq.bad {
			f.csi(c)
		}
	case parser.EscapeState, parser.EscapeIntermediateState:
		switch {
		case f.seq.bad:
		case c == 'k' && f.seq.inter == 0: // a title for screen and tmux, up to a string's end
			f.state = parser.SosStringState
		default:
			f.escape(c)
		}
	}
}

// palette follows an OSC, which never passes, and recognises the two of Linux's console
// that have no terminator: ESC ] R, and ESC ] P with seven digits.
func (f *Filter) palette(c byte) (ended bool) {
	if c < ' ' || c >= del {
		return false
	}
	const digits = 7
	switch {
	case f.length == 0 && c == 'P':
		f.length = -digits
		return true
	case f.length == 0 && c == 'R', f.length == -1:
		f.state = parser.GroundState
	case f.length >= 0:
		f.length = 1
	default:
		f.length++
	}
	return true
}

func (s *sequence) digit(c byte) {
	s.some = true
	p := &s.params[s.n]
	switch {
	case s.bad:
	case c >= '0' && c <= '9':
		*p = min(max(*p, 0)*10+int(c-'0'), maxParam)
	case s.n+1 == maxParams:
		s.bad = true
	default:
		if c == ':' {
			s.sub |= 1 << s.n
		}
		s.n++
		s.params[s.n] = -1
	}
}

// control passes or drops a control character.
func (f *Filter) control(c byte) {
	switch c {
	case '\n':
		f.cursor.used = f.cursor.column && f.Kind == Screen // where nothing adds the return
	case '\r':
		f.cursor.column = false
	case '\b', '\t':
		f.cursor.used, f.cursor.column = true, true
	case '\a':
		if f.Kind != Screen {
			return
		}
	case '\v', '\f':
		if f.Kind != Screen {
			return
		}
		f.cursor.used = true
	case shiftOut, shiftIn:
		if f.Kind != Screen {
			return
		}
		f.modes.touched |= touchedCharset
	default:
		return
	}
	f.out = append(f.out, c)
}

const (
	shiftOut = 0x0e
	shiftIn  = 0x0f
)
