package menu

import (
	"bufio"
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"vix/internal/durable"
)

// A History counts the user's choices. A choice counts half after halfLife.
//
//	menu-history: a line for each item: weight SPACE unix-seconds SPACE id
type History struct {
	uses map[string]use
}

type use struct {
	weight float64 // at the time of last
	last   int64   // unix seconds
}

// Limits of the file, and of a line's parts.
const (
	historyName = "menu-history"
	maxHistory  = 256 << 10 // bytes
	maxUses     = 1000      // items; the least used are forgotten
	maxID       = 200       // bytes
	maxWeight   = 1e6
	halfLife    = 14 * 24 * time.Hour
)

// NewHistory returns an empty one.
func NewHistory() *History { return parseHistory(nil) }

// ReadHistory reads the file in dir. A missing or broken file is an empty history: nothing
// of value is lost.
func ReadHistory(dir *os.Root) *History {
	f, err := dir.Open(historyName)
	if err != nil {
		return NewHistory()
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxHistory))
	if err != nil {
		b = nil
	}
	return parseHistory(b)
}

// parseHistory leaves out lines that are wrong.
func parseHistory(b []byte) *History {
	h := &History{uses: map[string]use{}}
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() && len(h.uses) < maxUses {
		weight, rest, _ := strings.Cut(s.Text(), " ")
		last, id, ok := strings.Cut(rest, " ")
		w, err1 := strconv.ParseFloat(weight, 64)
		at, err2 := strconv.ParseInt(last, 10, 64)
		if !ok || errors.Join(err1, err2) != nil || !validID(id) || !(w > 0 && w <= maxWeight) || at < 0 {
			continue
		}
		h.uses[id] = use{w, at}
	}
	return h
}

// validID: an id is one line of text.
func validID(id string) bool {
	return id != "" && len(id) <= maxID && !strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f })
}

// Use returns how much an item has been used by now: the number of its choices, where older
// choices count less.
func (h *History) Use(id string, now time.Time) float64 {
	u, ok := h.uses[id]
	if !ok {
		return 0
	}
	age := max(now.Unix()-u.last, 0)
	return u.weight * math.Exp2(-float64(age)/halfLife.Seconds())
}

// Add counts a choice.
func (h *History) Add(id string, now time.Time) {
	if !validID(id) {
		return
	}
	h.uses[id] = use{min(h.Use(id, now)+1, maxWeight), max(now.Unix(), 0)}
}

// bytes encodes the most used items.
func (h *History) bytes(now time.Time) []byte {
	ids := slices.SortedFunc(maps.Keys(h.uses), func(a, b string) int {
		return cmp.Or(cmp.Compare(h.Use(b, now), h.Use(a, now)), cmp.Compare(a, b))
	})
	var b bytes.Buffer
	for _, id := range ids[:min(len(ids), maxUses)] {
		u := h.uses[id]
		line := fmt.Sprintf("%.6g %d %s\n", u.weight, u.last, id)
		if b.Len()+len(line) > maxHistory {
			break
		}
		b.WriteString(line)
	}
	return b.Bytes()
}

// Choose counts a choice in the file of dir, which it replaces in one step. Of two menus at
// the same moment, one choice may be lost.
func Choose(dir *os.Root, id string, now time.Time) error {
	h := ReadHistory(dir)
	h.Add(id, now)
	return durable.Replace(dir, historyName, 0o600, h.bytes(now))
}
