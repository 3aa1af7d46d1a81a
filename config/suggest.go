package config

import (
	"fmt"
	"strings"
)

// suggest ends the message about an unknown key: with the nearest valid key, or with all of
// them where none is near.
func suggest(unknown string, valid []string) string {
	best, dist := "", len(unknown)/2+2
	for _, v := range valid {
		if d := Distance(strings.ToLower(clip(unknown)), v); d < dist {
			best, dist = v, d
		}
	}
	if best == "" {
		return "; valid here: " + strings.Join(valid, ", ")
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// Distance counts the letters to add, drop, change or swap with a neighbour in order to turn
// a into b.
func Distance(a, b string) int {
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	last := rows[0]
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		before, row := rows[(i+2)%3], rows[(i+1)%3]
		row[0] = i + 1
		for j := range len(b) {
			cost := last[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
		last = row
	}
	return last[len(b)]
}
