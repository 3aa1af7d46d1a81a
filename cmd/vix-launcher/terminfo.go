package main

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vix/internal/agent"
)

// terminfoPlaces are where distributions have terminfo, in the order of ncurses.
var terminfoPlaces = []string{"/etc/terminfo", "/lib/terminfo", "/usr/lib/terminfo", "/usr/share/terminfo", "/run/current-system/sw/share/terminfo"}

// terminfo returns the compiled terminfo entry of the terminal that a program's environment
// names, as this machine has it, for a guest that has none; nil if there is none here, or only
// one that is not to be sent. Terminals bring their entries along: in a directory that TERMINFO
// names (kitty, ghostty), or in the user's home.
func (e *env) terminfo(environ []string) []byte {
	term := ""
	for _, kv := range environ {
		if v, ok := strings.CutPrefix(kv, "TERM="); ok {
			term = v // the last one counts
		}
	}
	if term == "" || strings.Contains(term, "/") || term[0] == '.' {
		return nil
	}
	dirs := []string{e.getenv("TERMINFO"), filepath.Join(e.getenv("HOME"), ".terminfo")}
	dirs = append(dirs, filepath.SplitList(e.getenv("TERMINFO_DIRS"))...)
	for _, dir := range append(dirs, terminfoPlaces...) {
		if !filepath.IsAbs(dir) {
			continue
		}
		if b := readUpTo(filepath.Join(dir, term[:1], term), agent.MaxTerminfo); isTerminfo(b, term) {
			return b
		}
	}
	return nil
}

// readUpTo returns a file's content, nil if it has more than limit bytes or cannot be read.
func readUpTo(path string, limit int) []byte {
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil || len(b) > limit {
		return nil
	}
	return b
}

// isTerminfo reports whether b is a compiled entry (term(5)) of the terminal: a head of six
// numbers, then names, booleans, numbers, offsets of strings, strings, and what is newer.
func isTerminfo(b []byte, term string) bool {
	const headSize = 12
	if len(b) < headSize {
		return false
	}
	var head [headSize / 2]int
	for i := range head {
		head[i] = int(binary.LittleEndian.Uint16(b[2*i:]))
	}
	var number int
	switch head[0] {
	case 0o432:
		number = 2
	case 0o1036:
		number = 4
	default:
		return false
	}
	names, flags := head[1], head[2]
	if headSize+names+flags+(names+flags)%2+head[3]*number+head[4]*2+head[5] > len(b) {
		return false
	}
	list, ok := strings.CutSuffix(string(b[headSize:headSize+names]), "\x00")
	return ok && slices.Contains(strings.Split(list, "|"), term)
}
