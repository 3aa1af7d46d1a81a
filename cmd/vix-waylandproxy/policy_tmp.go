package main

import (
	"fmt"
	"strings"

	"vix/internal/filter"
)

// limitNames are those of filter.Limits.
func limitNames() []string {
	return []string{"commits", "connections", "objects", "pool_bytes", "popups", "surfaces", "toplevels"}
}

func setLimit(l *filter.Limits, name string, n int64) error {
	fields := []*int64{&l.Commits, &l.Connections, &l.Objects, &l.PoolBytes, &l.Popups, &l.Surfaces, &l.Toplevels}
	for i, known := range limitNames() {
		if known == name {
			*fields[i] = n
			return nil
		}
	}
	return fmt.Errorf("unknown; the limits are %s", strings.Join(limitNames(), ", "))
}

func checkInterface(string) error { return nil }
