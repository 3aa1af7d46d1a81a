package soak

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// prompt is the time within which the issue wants the truth. It is told, not demanded: a busy
// machine without KVM has its own pace.
const prompt = 2 * time.Second

// stats are the times until all was consistent, by what was done.
type stats struct {
	mu    sync.Mutex
	times map[string][]time.Duration
	done  map[string]int // operations, by kind
}

func newStats() *stats { return &stats{times: map[string][]time.Duration{}, done: map[string]int{}} }

func (s *stats) add(what string, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.times[what] = append(s.times[what], d)
}

func (s *stats) count(kind string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.done[kind]++
}

func (s *stats) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var b strings.Builder
	fmt.Fprintf(&b, "%-34s %5s %9s %9s %9s\n", "time until consistent after", "n", "median s", "max s", fmt.Sprintf("over %v", prompt))
	for _, what := range slices.Sorted(maps.Keys(s.times)) {
		list := slices.Sorted(slices.Values(s.times[what]))
		late := 0
		for _, d := range list {
			if d > prompt {
				late++
			}
		}
		fmt.Fprintf(&b, "%-34s %5d %9.2f %9.2f %9d\n", what, len(list), list[len(list)/2].Seconds(), list[len(list)-1].Seconds(), late)
	}
	b.WriteString("operations:")
	for _, kind := range slices.Sorted(maps.Keys(s.done)) {
		fmt.Fprintf(&b, " %s %d,", kind, s.done[kind])
	}
	return strings.TrimSuffix(b.String(), ",")
}
