package menu

import (
	"math"
	"strings"
	"unicode"

	"golang.org/x/text/unicode/norm"
)

// How a word of the query stands in a text, the better the larger. A tier is worth
// more than any place or length within it, and as much as maxUse, so that what is used
// much rises by one tier and no further.
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
	name   []rune
	others [][]rune // generic name, keywords, VM and tag
}

func keyOf(it Item) key {
	k := key{name: fold(it.Name)}
	for _, s := range append([]string{it.Generic, it.VM, it.Tag}, it.Keywords...) {
		if s != "" {
			k.others = append(k.others, fold(s))
		}
	}
	return k
}

// fold gives lower case without accents, rune by rune of what it is folded from as
// long as the text has no decomposed accents: places in it are places in the name.
func fold(s string) []rune {
	out := make([]rune, 0, len(s))
	for _, r := range s {
		out = append(out, foldRune(r))
	}
	return out
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
func words(query string) [][]rune {
	var out [][]rune
	for w := range strings.FieldsSeq(query) {
		out = append(out, fold(w))
	}
	return out
}

// score is how well the item matches every word, 0 if one of them does not.
func (k key) score(ws [][]rune, use float64) float64 {
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
	if len(ws) == 1 && string(ws[0]) == string(k.name) {
		total += exactName
	}
	return total + min(use, 1)*maxUse
}

// rate rates one word in one text.
func rate(w, text []rune) float64 {
	if len(w) == 0 || len(w) > len(text) {
		return noMatch
	}
	at := find(w, text)
	if len(at) == 0 {
		return noMatch
	}
	// Of equal tiers, the text of which more is typed.
	part := 40 * float64(len(w)) / float64(len(text))
	first, last := at[0], at[len(at)-1]
	switch {
	case last-first != len(w)-1:
		return scattered + part - min(float64(last-first-len(w))/4, 30)
	case len(w) == len(text):
		return whole + part
	case first == 0:
		return atStart + part
	case startsWord(text, first):
		return wordStart + part
	}
	return within + part
}

func startsWord(text []rune, i int) bool {
	return i == 0 || !unicode.IsLetter(text[i-1]) && !unicode.IsDigit(text[i-1])
}

// find returns where the letters of w stand in text: together at the start of a word
// if they do anywhere, else together, else scattered, as early as can be.
func find(w, text []rune) []int {
	together := -1
	for i := 0; i+len(w) <= len(text); i++ {
		if string(text[i:i+len(w)]) != string(w) { // the compiler allocates nothing for it
			continue
		}
		if startsWord(text, i) {
			together = i
			break
		}
		if together < 0 {
			together = i
		}
	}
	at := make([]int, 0, len(w))
	if together >= 0 {
		for i := range w {
			at = append(at, together+i)
		}
		return at
	}
	j := 0
	for i, r := range text {
		if j < len(w) && r == w[j] {
			at = append(at, i)
			j++
		}
	}
	if j < len(w) {
		return nil
	}
	return at
}

// Marks returns which runes of a name the query's words stand for.
func Marks(query, name string) map[int]bool {
	marks := map[int]bool{}
	text := fold(name)
	for _, w := range words(query) {
		for _, i := range find(w, text) {
			marks[i] = true
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
