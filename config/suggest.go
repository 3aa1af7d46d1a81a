package config

import (
	"fmt"
	"slices"
	"strings"
)

// suggest ends the message about an unknown key: with the nearest valid key, or with all of
// them where none is near.
func suggest(unknown string, valid []string) string {
	if near := nearest(unknown, valid); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; valid here: " + strings.Join(valid, ", ")
}

// elsewhere has the names that other programs have for our keys.
var elsewhere = map[string]string{
	"app": "programs", "apps": "programs", "command": "programs", "commands": "programs", "program": "programs",
	"cores": "cpus", "cpu": "cpus", "processors": "cpus", "vcpu": "cpus", "vcpus": "cpus",
	"directories": "shares", "folders": "shares", "mount": "shares", "mounts": "shares",
	"display": "gui", "distro": "root", "image": "root", "os": "root", "rootfs": "root",
	"fontsize": "size", "font-size": "size", "label": "tag", "title": "tag",
	"mem": "memory", "ram": "memory", "network": "net", "networking": "net",
	"port": "publish", "ports": "publish",
}

// nearest returns the valid word that is most like another; "" if none is near.
func nearest(unknown string, valid []string) string {
	unknown = strings.ToLower(clip(unknown))
	if other := elsewhere[unknown]; slices.Contains(valid, other) {
		return other
	}
	best, dist := "", max(2, len(unknown)/3+1)
	for _, v := range valid {
		if d := Distance(unknown, v); d < dist {
			best, dist = v, d
		}
	}
	return best
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
