package termsafe

import (
	"slices"
	"strconv"
)

// modes holds what a program may leave on, and what must be reset at its
// end. A mode is reset if it was ever touched: restoring the cursor (DECRC)
// brings modes back too, and setting a mode to its current state is harmless. The
// alternate screen and kitty's stack of keyboard modes are counted exactly, because
// one exit too many moves the cursor, or removes another program's entry.
type modes struct {
	private uint32 // bits of the touched privateModes, by index
	now     uint32 // bits of those that now differ from a terminal's default
	touched touched
	alt     int    // the mode that set the alternate screen; 0: none
	keys    [2]int // entries on kitty's stack: main screen, alternate screen
}

type touched uint16

const (
	touchedColor touched = 1 << iota
	touchedCharset
	touchedKeypad
	touchedShape
	touchedRegion
	touchedInsert
	touchedOtherKeys
	touchedSaved // the state that DECSC saves: the cursor's place, and some of the modes

	touchedAll = touchedColor | touchedCharset | touchedKeypad | touchedRegion | touchedInsert
)

type private struct {
	n  int
	on bool
}

// privateModes are the DECSET modes that pass, with a terminal's default. The
// first is reset first: until then nothing else is shown.
var privateModes = [...]private{
	{2026, false}, // synchronised output
	{1, false},    // DECCKM: application cursor keys
	{5, false},    // DECSCNM: reverse video
	{origin, false},
	{autowrap, true},
	{9, false},                                                                                              // mouse, as X10 had it
	{12, false},                                                                                             // blinking cursor
	{25, true},                                                                                              // DECTCEM: the cursor
	{66, false},                                                                                             // DECNKM: application keypad
	{1000, false}, {1002, false}, {1003, false}, {1005, false}, {1006, false}, {1015, false}, {1016, false}, // mouse
	{1004, false}, // focus
	{2004, false}, // bracketed paste
}

const (
	origin   = 6 // DECOM
	autowrap = 7 // DECAWM
	// The alternate screen: 1049 restores the cursor, the others do not.
	altOld, altClear, altSaved = 47, 1047, 1049
	saveCursor                 = 1048
)

// privateMode returns a mode's index in privateModes; -1 if it does not pass.
func privateMode(mode int) int {
	return slices.IndexFunc(privateModes[:], func(p private) bool { return p.n == mode })
}

// private acts on DECSET (on) or DECRST, mode by mode: programs mix modes that
// pass with others in one sequence.
func (f *Filter) private(on bool) {
	m := &f.modes
	final := byte('l')
	if on {
		final = 'h'
	}
	for _, mode := range f.seq.list() {
		switch i := privateMode(mode); {
		case i >= 0:
			m.now &^= 1 << i
			if on != privateModes[i].on {
				m.private |= 1 << i
				m.now |= 1 << i
			}
			if mode == origin {
				f.move()
			}
		case mode == saveCursor:
			m.touched |= touchedSaved
			f.move()
		case mode == altOld, mode == altClear, mode == altSaved:
			if !f.screen(mode, on) {
				continue
			}
		default:
			continue
		}
		f.out = appendMode(f.out, mode, final)
	}
}

// screen notes a change of screens, and reports whether it passes.
func (f *Filter) screen(mode int, on bool) bool {
	m := &f.modes
	if !on && m.alt == 0 {
		return false // the previous program's screen
	}
	f.cursor.moved = f.cursor.moved || mode != altSaved
	switch {
	case !on:
		f.out = popKeys(f.out, m.keys[1])
		m.alt, m.keys[1] = 0, 0
	case m.alt == 0:
		m.alt = mode
	}
	if mode == altSaved {
		m.touched |= touchedSaved
	}
	return true
}

// maxKeys bounds kitty's stack: a full terminal drops its lowest entries, which are another
// program's.
const maxKeys = 4

// kitty acts on the sequences of kitty's keyboard protocol.
func (f *Filter) kitty() {
	s := &f.seq
	depth := &f.modes.keys[0]
	if f.modes.alt != 0 {
		depth = &f.modes.keys[1]
	}
	switch n := len(s.list()); {
	case s.prefix == '>' && n <= 1 && *depth < maxKeys:
		*depth++
	case s.prefix == '=' && n <= 2 && *depth > 0: // the entries below are another program's
	case s.prefix == '<' && n <= 1 && *depth > 0:
		pop := min(max(s.param(0, 1), 1), *depth)
		*depth -= pop
		f.out = popKeys(f.out, pop)
		return
	default:
		return
	}
	f.emit('u')
}

func popKeys(dst []byte, n int) []byte {
	if n == 0 {
		return dst
	}
	dst = append(dst, "\x1b[<"...)
	return append(strconv.AppendInt(dst, int64(n), 10), 'u')
}

func appendMode(dst []byte, mode int, final byte) []byte {
	dst = append(dst, "\x1b[?"...)
	return append(strconv.AppendInt(dst, int64(mode), 10), final)
}

// restore appends the sequences that reset the terminal, and clears the state. It leaves
// the alternate screen before it resets the modes that come back with the cursor.
func (m *modes) restore(dst []byte) []byte {
	dst = m.usual(dst, 0, 1)
	if m.alt != 0 {
		dst = popKeys(dst, m.keys[1])
		dst = appendMode(dst, m.alt, 'l')
	}
	dst = m.usual(dst, 1, len(privateModes))
	dst = popKeys(dst, m.keys[0])
	for _, t := range [...]struct {
		touched
		text string
	}{
		{touchedInsert, "\x1b[4l"},
		{touchedKeypad, "\x1b>"},
		{touchedOtherKeys, "\x1b[>4m"},
		{touchedShape, "\x1b[0 q"},
		{touchedCharset, "\x1b(B\x1b)B\x0f"},
		{touchedColor, "\x1b[m"},
	} {
		if m.touched&t.touched != 0 {
			dst = append(dst, t.text...)
		}
	}
	switch {
	case m.private&(1<<privateMode(origin)) != 0: // moves the cursor to the top
		dst = append(dst, "\x1b[?6l\x1b[r\x1b[9999;1H\r\n"...)
	case m.touched&touchedRegion != 0:
		dst = append(dst, "\x1b7\x1b[r\x1b8"...)
	}
	if m.touched&touchedSaved != 0 {
		dst = append(dst, "\x1b7"...) // overwrites a saved state that would bring modes back
	}
	*m = modes{}
	return dst
}

// Restore appends to dst the sequences that reset a terminal after the output so far.
// The filter is then in its initial state, except for the cursor's place: it drops an
// unfinished sequence or character.
func (f *Filter) Restore(dst []byte) []byte {
	f.npend, f.state = 0, 0
	return f.modes.restore(dst)
}

// usual appends the sequences that set private modes, from index i to before end, to a
// terminal's default.
func (m *modes) usual(dst []byte, i, end int) []byte {
	for ; i < end; i++ {
		p := privateModes[i]
		if m.private&(1<<i) == 0 || p.n == origin {
			continue
		}
		final := byte('l')
		if p.on {
			final = 'h'
		}
		dst = appendMode(dst, p.n, final)
	}
	return dst
}

// resume appends the sequences that set the modes again that restore reset.
func (m *modes) resume(dst []byte) []byte {
	if m.alt != 0 {
		dst = appendMode(dst, m.alt, 'h')
	}
	for i, p := range privateModes {
		if m.now&(1<<i) != 0 {
			final := byte('h')
			if p.on {
				final = 'l'
			}
			dst = appendMode(dst, p.n, final)
		}
	}
	return dst
}

// reports reports whether the terminal sends more than typed keys.
func (m *modes) reports() bool {
	for i, p := range privateModes {
		if (p.n == 9 || p.n >= 1000 && p.n <= 1016) && m.now&(1<<i) != 0 {
			return true
		}
	}
	return false
}

// restoreCopy is restore without clearing the state.
func (m *modes) restoreCopy(dst []byte) []byte {
	c := *m
	return c.restore(dst)
}
