package config

import (
	"fmt"
	"strings"
)

// suggest ends the message about an unknown key: with the nearest valid key,
// or with all of them where none is near.
func suggest(unknown string, valid []string) string {
	best, dist := "", len(unknown)/2+2
	for _, v := range valid {
		if d := editDistance(strings.ToLower(clip(unknown)), v); d < dist {
			best, dist = v, d
		}
	}
	if best == "" {
		return "; valid here: " + strings.Join(valid, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// editDistance counts the insertions, deletions and substitutions between a
// and b (Levenshtein), row by row.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return row[len(b)]
}
