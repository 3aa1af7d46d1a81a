package menu

import (
	"math"
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/unicode/norm"
)

// The tiers of a word's place in a text; a larger one is better. A tier is worth more than
// any place or length within it, and as much as maxUse, so that an item in frequent use
// rises by one tier and no further.
const (
	noMatch   = 0
	scattered = 100 * iota // its letters, in order
	within                 // somewhere
	wordStart              // at the start of a word
	atStart                // of the text
	whole                  // is the text
)

const (
	maxUse     = 100
	otherField = 60  // less for what is not the name
	exactName  = 600 // more when the query is the whole name: nothing stands before it
)

// A key is an item as matching reads it: folded to lower case without accents.
type key struct {
	name   string
	order  int32    // its place among the items by name
	others []string // generic name, keywords, VM and tag; nil until something is typed
}

// others are the item's other texts.
func others(it Item) []string {
	list := make([]string, 0, 3+len(it.Keywords))
	for _, s := range append([]string{it.Generic, it.VM, it.Tag}, it.Keywords...) {
		if s != "" {
			list = append(list, fold(s))
		}
	}
	return list
}

// fold gives lower case without accents, rune by rune of what it is folded from: the
// place of a rune in it is that in the name, as long as the text has no decomposed
// accents.
func fold(s string) string {
	plain := true
	for i := range len(s) {
		plain = plain && s[i] < utf8.RuneSelf && (s[i] < 'A' || s[i] > 'Z')
	}
	if plain {
		return s
	}
	out := make([]byte, 0, len(s))
	for _, r := range s {
		out = utf8.AppendRune(out, foldRune(r))
	}
	return string(out)
}

func foldRune(r rune) rune {
	if r < unicode.MaxASCII {
		if 'A' <= r && r <= 'Z' {
			r += 'a' - 'A'
		}
		return r
	}
	if d := norm.NFD.PropertiesString(string(r)).Decomposition(); len(d) > 0 {
		for _, base := range string(d) {
			r = base // the letter comes first, its accents after it
			break
		}
	}
	return unicode.ToLower(r)
}

// words splits a query.
func words(query string) []string {
	var out []string
	for w := range strings.FieldsSeq(query) {
		out = append(out, fold(w))
	}
	return out
}

// score returns how well the item matches every word, 0 if one word does not match.
func (k key) score(ws []string, use float64) float64 {
	if len(ws) == 0 {
		return 1 + use
	}
	total := 0.0
	for _, w := range ws {
		best := rate(w, k.name)
		for _, o := range k.others {
			// Scattered letters are in every longer text.
			if s := rate(w, o); s >= within && s-otherField > best {
				best = s - otherField
			}
		}
		if best <= noMatch {
			return 0
		}
		total += best
	}
	total /= float64(len(ws))
	if len(ws) == 1 && ws[0] == k.name {
		total += exactName
	}
	return total + min(use, 1)*maxUse
}

// rate rates one word in one text.
func rate(w, text string) float64 {
	if len(w) == 0 || len(w) > len(text) {
		return noMatch
	}
	// Of equal tiers, the text of which more is typed.
	part := 40 * float64(len(w)) / float64(len(text))
	at, start := together(w, text)
	switch {
	case at < 0:
		first, last := scatter(w, text, nil)
		if first < 0 {
			return noMatch
		}
		return scattered + part - min(float64(last-first-len(w))/4, 30)
	case len(w) == len(text):
		return whole + part
	case at == 0:
		return atStart + part
	case start:
		return wordStart + part
	}
	return within + part
}

// startsWord says whether a word begins at a place in bytes.
func startsWord(text string, i int) bool {
	r, _ := utf8.DecodeLastRuneInString(text[:i])
	return i == 0 || !unicode.IsLetter(r) && !unicode.IsDigit(r)
}

// together returns where w stands in text, in bytes, -1 if it does not: at the start of
// a word if it does anywhere, of which it tells.
func together(w, text string) (at int, start bool) {
	at = -1
	for from := 0; ; {
		i := strings.Index(text[from:], w)
		if i < 0 {
			return at, false
		}
		if i += from; startsWord(text, i) {
			return i, true
		}
		if at < 0 {
			at = i
		}
		_, n := utf8.DecodeRuneInString(text[i:])
		from = i + n
	}
}

// scatter returns where the first and the last rune of w stand in text, in bytes, if
// all do in order, as early as can be; -1 if they do not. It tells each to see.
func scatter(w, text string, see func(at int)) (first, last int) {
	first, at := -1, 0
	for _, r := range w {
		i := strings.IndexRune(text[at:], r)
		if i < 0 {
			return -1, -1
		}
		last = at + i
		if first < 0 {
			first = last
		}
		if see != nil {
			see(last)
		}
		at = last + utf8.RuneLen(r)
	}
	return first, last
}

// Marks returns which runes of a name the query's words stand for.
func Marks(query, name string) map[int]bool {
	ws := words(query)
	if len(ws) == 0 {
		return nil
	}
	marks := map[int]bool{}
	text := fold(name)
	mark := func(at int) { marks[utf8.RuneCountInString(text[:at])] = true }
	for _, w := range ws {
		at, _ := together(w, text)
		if at < 0 {
			if first, _ := scatter(w, text, nil); first >= 0 {
				scatter(w, text, mark)
			}
			continue
		}
		for i := range w {
			mark(at + i)
		}
	}
	return marks
}

// useScale is how much use makes a full bonus.
const useScale = 20

// bonus maps use, 0 to infinity, to 0 to 1.
func bonus(use float64) float64 {
	if use <= 0 || math.IsNaN(use) {
		return 0
	}
	return min(math.Log1p(use)/math.Log1p(useScale), 1)
}
