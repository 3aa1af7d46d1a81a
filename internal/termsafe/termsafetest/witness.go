// Package termsafetest is a terminal for tests that records its input.
package termsafetest

import (
	"bytes"
	"fmt"
	"unicode"
	"unicode/utf8"

	"github.com/charmbracelet/x/ansi"
	"github.com/charmbracelet/x/ansi/parser"

	"vix/internal/termsafe"
)

// A Witness is a terminal's end that is independent of termsafe: x/ansi's parser, a second
// copy of the allow-list, and the modes that a program can leave on.
type Witness struct {
	p       *ansi.Parser
	kind    termsafe.Kind
	problem string

	modes         map[int]bool // DECSET modes that differ from a terminal's default
	alt           int
	keys          [2]int
	saved, at     state // saved by DECSC, and current
	shape, keypad bool
	insert, other bool
	region        bool
}

// state is the state that DECSC saves.
type state struct{ color, charset, origin, nowrap bool }

// said holds the allowed sequences: prefix, intermediate and final character, by kind.
var said = map[termsafe.Kind]map[string]bool{
	termsafe.Line: set("m", "C", "D", "G", "K"),
	termsafe.Screen: set("m", "A", "B", "C", "D", "E", "F", "G", "H", "I", "J", "K", "L", "M", "P", "S", "T", "X", "Z", "`", "a", "b", "d", "e", "f", "@",
		"h", "l", "r", "s", "u", "?h", "?l", " q", "!p", ">m", ">u", "<u", "=u"),
}

// setModes are the allowed private modes, and whether they are on by default.
var setModes = map[int]bool{1: false, 5: false, 6: false, 7: true, 9: false, 12: false, 25: true, 47: false, 66: false, 1000: false, 1002: false, 1003: false,
	1004: false, 1005: false, 1006: false, 1015: false, 1016: false, 1047: false, 1048: false, 1049: false, 2004: false, 2026: false}

func set(words ...string) map[string]bool {
	m := map[string]bool{}
	for _, w := range words {
		m[w] = true
	}
	return m
}

// New returns a witness of a stream of a kind other than Raw.
func New(kind termsafe.Kind) *Witness {
	w := &Witness{p: ansi.NewParser(), kind: kind, modes: map[int]bool{}}
	str := func(what string) func([]byte) { return func(b []byte) { w.fail("%s: %q", what, b) } }
	w.p.SetHandler(ansi.Handler{
		Print: func(r rune) {
			if unicode.IsControl(r) || w.kind == termsafe.Line && unicode.Is(unicode.Bidi_Control, r) {
				w.fail("text %U", r)
			}
		},
		Execute:   w.control,
		HandleEsc: w.escape,
		HandleCsi: w.csi,
		HandleDcs: func(_ ansi.Cmd, _ ansi.Params, b []byte) { w.fail("DCS: %q", b) },
		HandleOsc: func(_ int, b []byte) { w.fail("OSC: %q", b) },
		HandlePm:  str("PM"), HandleApc: str("APC"), HandleSos: str("SOS"),
	})
	return w
}

func (w *Witness) fail(format string, a ...any) {
	if w.problem == "" {
		w.problem = fmt.Sprintf(format, a...)
	}
}

// See takes one write to the terminal: whole sequences, in UTF-8.
func (w *Witness) See(b []byte) {
	if !utf8.Valid(b) {
		w.fail("not UTF-8: %q", b)
	}
	for _, c := range b {
		w.p.Advance(c)
	}
	if w.p.State() != parser.GroundState {
		w.fail("ends within a sequence: %q", b)
	}
}

// Problem returns the first forbidden input; "" if there was none.
func (w *Witness) Problem() string { return w.problem }

func (w *Witness) control(c byte) {
	if allowed := map[termsafe.Kind]string{termsafe.Line: "\n\r\b\t", termsafe.Screen: "\n\r\b\t\a\v\f\x0e\x0f"}[w.kind]; !bytes.ContainsRune([]byte(allowed), rune(c)) {
		w.fail("control character %#x", c)
	}
	switch c {
	case 0x0e:
		w.at.charset = true
	case 0x0f: // G0 may still have lines in it: see escape
	}
}

func (w *Witness) escape(c ansi.Cmd) {
	what := string(c.Intermediate()) + string(c.Final())
	if c.Intermediate() == 0 {
		what = string(c.Final())
	}
	switch {
	case w.kind == termsafe.Line:
		w.fail("ESC %s", what)
	case what == "7":
		w.saved = w.at
	case what == "8":
		w.at = w.saved
	case what == "=":
		w.keypad = true
	case what == ">":
		w.keypad = false
	case what == "(0", what == ")0":
		w.at.charset = true
	case what == "(B": // only Restore's whole sequence resets everything; it ends with SI
		w.at.charset = false
	case what == ")B", what == "D", what == "E", what == "M":
	default:
		w.fail("ESC %s", what)
	}
}

func (w *Witness) csi(c ansi.Cmd, params ansi.Params) {
	what := ""
	for _, b := range []byte{c.Prefix(), c.Intermediate(), c.Final()} {
		if b != 0 {
			what += string(b)
		}
	}
	if !said[w.kind][what] {
		w.fail("CSI %s", what)
	}
	first, _, _ := params.Param(0, 0)
	second, _, _ := params.Param(1, 0)
	switch what {
	case "m":
		w.sgr(params)
	case "J":
		if first > 2 {
			w.fail("ED %d", first)
		}
	case "T", "s", "u":
		if len(params) > 1 || what != "T" && len(params) > 0 {
			w.fail("CSI %v %s", params, what)
		}
		switch what {
		case "s":
			w.saved = w.at
		case "u":
			w.at = w.saved
		}
	case "h", "l":
		if first != 4 || len(params) != 1 {
			w.fail("mode %d", first)
		}
		w.insert = what == "h"
	case "r":
		w.region = len(params) > 0
	case " q":
		w.shape = first != 0
	case ">m":
		if first != 4 {
			w.fail("XTMODKEYS %d", first)
		}
		w.other = second != 0
	case "!p":
		w.at, w.insert, w.keypad, w.region = state{nowrap: true}, false, false, false
		delete(w.modes, 1)
		delete(w.modes, 25)
	case "?h", "?l":
		for _, p := range params {
			w.mode(p.Param(0), what == "?h")
		}
	case ">u", "=u", "<u":
		w.keyboard(c.Prefix(), params)
	}
}

func (w *Witness) mode(n int, on bool) {
	usual, ok := setModes[n]
	switch {
	case !ok:
		w.fail("mode ?%d", n)
	case n == 47 || n == 1047 || n == 1049:
		if !on && w.alt == 0 {
			w.fail("leaves a screen of another's")
		}
		if on && w.alt == 0 {
			w.alt = n
		} else if !on {
			if w.keys[1] > 0 {
				w.fail("leaves keys on")
			}
			w.alt = 0
		}
		switch {
		case n != 1049:
		case on:
			w.saved = w.at
		default:
			w.at = w.saved
		}
	case n == 1048 && on:
		w.saved = w.at
	case n == 1048:
		w.at = w.saved
	case n == 6:
		w.at.origin = on
	case n == 7:
		w.at.nowrap = !on
	case on == usual:
		delete(w.modes, n)
	default:
		w.modes[n] = on
	}
}

func (w *Witness) keyboard(prefix byte, params ansi.Params) {
	depth := &w.keys[0]
	if w.alt != 0 {
		depth = &w.keys[1]
	}
	n, _, _ := params.Param(0, 1)
	switch prefix {
	case '>':
		*depth++
	case '<':
		*depth -= n
	case '=':
		if *depth == 0 {
			w.fail("sets keys of another's")
		}
	}
	if *depth < 0 || *depth > 8 {
		w.fail("%d entries of keys", *depth)
	}
}

func (w *Witness) sgr(params ansi.Params) {
	w.at.color = true
	for i := 0; i < len(params); i++ {
		n := params[i].Param(0)
		group := params[i].HasMore()
		for params[i].HasMore() && i+1 < len(params) {
			i++
		}
		switch {
		case group && n != 4 && n != 38 && n != 48 && n != 58:
			w.fail("SGR %d with parts", n)
		case group:
		case n == 38 || n == 48 || n == 58:
			kind, _, _ := params.Param(i+1, 0)
			i += map[int]int{5: 2, 2: 4}[kind]
			if kind != 5 && kind != 2 || i >= len(params) {
				w.fail("SGR %v", params)
			}
		case n == 8 && w.kind == termsafe.Line, n > 10 && n < 20, n > 107, n == 26, n == 50:
			w.fail("SGR %d", n)
		}
		w.at.color = n != 0
	}
	if len(params) == 0 {
		w.at.color = false
	}
}

// Left returns what is on and was not before.
func (w *Witness) Left() string {
	if w.kind == termsafe.Line {
		if w.at.color {
			return "a color"
		}
		return ""
	}
	if len(w.modes) > 0 || w.alt != 0 || w.keys != [2]int{} || w.at != (state{}) || w.saved != (state{}) || w.shape || w.keypad || w.insert || w.other || w.region {
		return fmt.Sprintf("%+v", *w)
	}
	return ""
}
