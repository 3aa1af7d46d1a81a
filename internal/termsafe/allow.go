package termsafe

import "strconv"

// The allow-list. Names are those of ECMA-48, DEC's manuals and xterm's ctlseqs.

// escape acts on ESC inter c.
func (f *Filter) escape(c byte) {
	if f.Kind != Screen {
		return
	}
	switch f.seq.inter {
	case 0:
		switch c {
		case '7': // DECSC
			f.modes.touched |= touchedSaved
			f.cursor.moved = f.cursor.moved || f.modes.alt != 0
		case '8', 'D', 'E', 'M': // DECRC, IND, NEL, RI
			f.move()
		case '=', '>': // DECKPAM, DECKPNM
			f.modes.touched |= touchedKeypad
		case 'c': // RIS, which would erase the terminal's scrollback
			f.out = f.modes.restoreCopy(f.out)
			f.modes.now, f.modes.alt, f.modes.keys = 0, 0, [2]int{} // a saved state may bring the others back
			f.out = append(f.out, "\x1b[H\x1b[2J\x1b7"...)
			f.move()
			return
		default:
			return
		}
		f.out = append(f.out, esc, c)
	case '(', ')': // SCS to G0 and G1: ASCII, and the lines of DEC's special graphics
		if c == 'B' || c == '0' {
			f.modes.touched |= touchedCharset
			f.out = append(f.out, esc, f.seq.inter, c)
		}
	}
}

// move notes that the cursor may be in any line.
func (f *Filter) move() {
	f.cursor.used = true
	if f.modes.alt != altSaved { // which restores the cursor
		f.cursor.moved = true
	}
}

// csi acts on a control sequence that ends with c.
func (f *Filter) csi(c byte) {
	s := &f.seq
	if c == 'm' && s.prefix == 0 && s.inter == 0 {
		f.sgr()
		return
	}
	if s.sub != 0 { // nothing else has subparameters
		return
	}
	if f.Kind == Line {
		if s.prefix == 0 && s.inter == 0 && len(s.list()) <= 1 && (c == 'C' || c == 'D' || c == 'G' || c == 'K' && s.param(0, 0) <= 2) {
			if c != 'K' {
				f.cursor.used, f.cursor.column = true, true
			}
			f.emit(c)
		}
		return
	}
	switch {
	case s.prefix == 0 && s.inter == 0:
		f.screenCSI(c)
	case s.prefix == '?' && s.inter == 0 && (c == 'h' || c == 'l'): // DECSET, DECRST
		f.private(c == 'h')
	case s.prefix == 0 && s.inter == ' ' && c == 'q' && len(s.list()) <= 1: // DECSCUSR
		f.modes.touched |= touchedShape
		f.emit(c)
	case s.prefix == 0 && s.inter == '!' && c == 'p': // DECSTR
		f.modes.touched |= touchedAll
		f.modes.private |= 1 << privateMode(autowrap) // off, by the manual
		f.move()
		f.emit(c)
	case s.prefix == '>' && s.inter == 0 && c == 'm' && s.param(0, 0) == modifyOtherKeys && len(s.list()) <= 2 && s.param(1, 0) <= 2: // XTMODKEYS
		f.modes.touched |= touchedOtherKeys
		f.emit(c)
	case s.inter == 0 && c == 'u': // kitty's keyboard protocol; '?' asks
		f.kitty()
	}
}

// modifyOtherKeys is the resource of XTMODKEYS that programs set.
const modifyOtherKeys = 4

// screenCSI acts on a sequence without prefix and intermediate.
func (f *Filter) screenCSI(c byte) {
	s := &f.seq
	n := len(s.list())
	switch c {
	case 'C', 'D', 'G', 'I', 'Z', '`', 'a', 'b', 'P', 'X', '@': // within the line: CUF CUB CHA CHT CBT HPA HPR REP DCH ECH ICH
		if n > 1 {
			return
		}
		f.cursor.used, f.cursor.column = true, true
	case 'K': // EL
		if n > 1 || s.param(0, 0) > 2 {
			return
		}
	case 'A', 'B', 'E', 'F', 'd', 'e', 'L', 'M', 'S', 'T': // CUU CUD CNL CPL VPA VPR IL DL SU SD
		if n > 1 { // T with more parameters is mouse tracking that waits for an answer
			return
		}
		f.move()
	case 'H', 'f': // CUP, HVP
		if n > 2 {
			return
		}
		f.move()
	case 'J': // ED; 3 would erase the terminal's scrollback
		if n > 1 || s.param(0, 0) > 2 {
			return
		}
	case 'r': // DECSTBM
		if n > 2 {
			return
		}
		f.modes.touched |= touchedRegion
		f.move()
	case 's', 'u': // SCOSC, SCORC; with parameters, s means something else
		if n > 0 {
			return
		}
		f.modes.touched |= touchedSaved
		f.move()
	case 'h', 'l': // SM, RM: insertion only
		if n != 1 || s.param(0, 0) != insertMode {
			return
		}
		f.modes.touched |= touchedInsert
	default:
		return
	}
	f.emit(c)
}

const insertMode = 4 // IRM

// emit writes the current sequence.
func (f *Filter) emit(c byte) {
	s := &f.seq
	f.out = append(f.out, esc, '[')
	if s.prefix != 0 {
		f.out = append(f.out, s.prefix)
	}
	for i, p := range s.list() {
		if i > 0 {
			f.out = append(f.out, ';')
		}
		if p >= 0 {
			f.out = strconv.AppendInt(f.out, int64(p), 10)
		}
	}
	if s.inter != 0 {
		f.out = append(f.out, s.inter)
	}
	f.out = append(f.out, c)
}

// sgr passes the parameters of an SGR that are known to be about looks. Hidden text (8)
// is for Screen only. Linux's console treats 11 and 12 as other character sets.
func (f *Filter) sgr() {
	s := &f.seq
	list := s.list()
	if list == nil {
		f.out = append(f.out, "\x1b[m"...)
		f.colored(false)
		return
	}
	start := len(f.out)
	f.out = append(f.out, esc, '[')
	kept := 0
	for i := 0; i < len(list); {
		n := f.group(i)
		if n < 0 {
			break // the rest is ambiguous
		}
		if look(list[i:i+n], s.sub>>i&1 != 0, f.Kind) {
			if kept++; kept > 1 {
				f.out = append(f.out, ';')
			}
			f.params(i, n)
			f.colored(list[i] > 0)
		}
		i += n
	}
	if kept == 0 {
		f.out = f.out[:start]
		return
	}
	f.out = append(f.out, 'm')
}

// colored notes that text has a look of its own now. On a Screen the look may come back
// with the cursor (DECRC) after a reset.
func (f *Filter) colored(on bool) {
	switch {
	case on:
		f.modes.touched |= touchedColor
	case f.Kind == Line:
		f.modes.touched &^= touchedColor
	}
}

// group returns how many parameters of an SGR, from i, belong together; -1 if
// that is ambiguous.
func (f *Filter) group(i int) int {
	list := f.seq.list()
	n := 1
	for f.seq.sub>>(i+n-1)&1 != 0 && i+n < len(list) {
		n++
	}
	if p := list[i]; n > 1 || p != 38 && p != 48 && p != 58 {
		return n
	}
	if i+1 < len(list) {
		switch list[i+1] {
		case 5:
			n = 3
		case 2:
			n = 5
		}
	}
	if n == 1 || i+n > len(list) || f.seq.sub>>i&(1<<n-1) != 0 {
		return -1
	}
	return n
}

// look reports that a group of SGR parameters is about looks.
func look(p []int, sub bool, kind Kind) bool {
	switch c := max(p[0], 0); {
	case c == 38 || c == 48 || c == 58: // colours from a palette, or by components
		return len(p) > 1
	case sub: // the kinds of an underline
		return c == 4 && len(p) == 2 && p[1] <= 5
	case c == 8:
		return kind == Screen
	default:
		return c <= 7 || c >= 9 && c <= 10 || c >= 21 && c <= 25 || c >= 27 && c <= 37 || c >= 39 && c <= 47 || c == 49 ||
			c == 53 || c == 55 || c == 59 || c >= 90 && c <= 97 || c >= 100 && c <= 107
	}
}

// params writes n parameters from i on.
func (f *Filter) params(i, n int) {
	for k := i; k < i+n; k++ {
		if k > i {
			sep := byte(';')
			if f.seq.sub>>(k-1)&1 != 0 {
				sep = ':'
			}
			f.out = append(f.out, sep)
		}
		if p := f.seq.params[k]; p >= 0 {
			f.out = strconv.AppendInt(f.out, int64(p), 10)
		}
	}
}
