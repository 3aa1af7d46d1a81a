package threats

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// TestFlood measures what a flood of one VM costs another: frame times of an
// animation in the good VM while nothing happens, while the evil VM only keeps its
// processors busy, and under each flood, in one run; and what every host process
// holds before, during and after. It asserts nothing and writes build/e2e/flood.txt.
func TestFlood(t *testing.T) {
	if os.Getenv("VIX_BENCH_OUT") == "" {
		t.Skip("a measurement of minutes: make bench")
	}
	s := newStage(t)
	s.put(t, "good")
	anim := s.Start("exec", "good", "--user", "root", "--", "/tmp/hostile", "animate", "100000")
	t.Cleanup(func() { s.end(t, anim) })
	waitOutput(t, anim, "frame 1")
	var out strings.Builder
	fmt.Fprintf(&out, "Frames of an animation in one VM while another VM floods (frames/s, milliseconds, ratio of p50 to the quiet time just before)\n")
	fmt.Fprintf(&out, "%-12s %9s %8s %8s %8s | %9s %8s %8s %8s | %6s\n", "flood", "quiet f/s", "p50", "p99", "max", "flood f/s", "p50", "p99", "max", "ratio")
	var held strings.Builder
	for _, thing := range []string{"busy", "commits", "objects", "callbacks", "surfaces", "toplevels", "pools", "connections", "blobs", "memory", "bytes"} {
		before := s.usages(t, "evil")
		quiet := s.frames(anim, 4*time.Second)
		argv := []string{"sh", "-c", "while :; do :; done & while :; do :; done"}
		if thing != "busy" {
			// Again and again, so that it goes on for as long as is measured.
			argv = []string{"sh", "-c", "while :; do timeout --foreground 20 /tmp/hostile once flood " + thing + " 10000000; done"}
		}
		p := s.Start(asRoot(append([]string{"timeout", "120"}, argv...)...)...)
		time.Sleep(500 * time.Millisecond) // so that it floods
		flood := s.frames(anim, 6*time.Second)
		during := s.usages(t, "evil")
		s.end(t, p)
		s.WaitWindows(t, 1, nil)
		var after map[string]usage
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(200 * time.Millisecond) { // no event tells
			if after = s.usages(t, "evil"); after["display"].fds <= before["display"].fds+2 || time.Now().After(deadline) {
				break
			}
		}
		fmt.Fprintf(&out, "%-12s %9.1f %8.2f %8.2f %8.2f | %9.1f %8.2f %8.2f %8.2f | %6.2f\n", thing,
			quiet.rate, quiet.p50, quiet.p99, quiet.max, flood.rate, flood.p50, flood.p99, flood.max, flood.p50/quiet.p50)
		for _, name := range slices.Sorted(maps.Keys(during)) {
			fmt.Fprintf(&held, "%-12s %-10s %6d %6d %6d   %8.1f %8.1f %8.1f\n", thing, name,
				before[name].fds, during[name].fds, after[name].fds, mib(before[name].mem), mib(during[name].mem), mib(after[name].mem))
		}
	}
	fmt.Fprintf(&out, "\nHost processes of the flooding VM, and the compositor: descriptors and memory (PSS with children, MiB) before, during, after\n%-12s %-10s %6s %6s %6s   %8s %8s %8s\n%s",
		"flood", "process", "before", "during", "after", "before", "during", "after", held.String())
	t.Log("\n" + out.String())
	if err := os.MkdirAll("../../build/e2e", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("../../build/e2e", "flood.txt"), []byte(out.String()), 0o644); err != nil {
		t.Fatal(err)
	}
}

func mib(n int64) float64 { return float64(n) / (1 << 20) }

// pace is what the frames of some time took, in milliseconds.
type pace struct{ rate, p50, p99, max float64 }

// frames measures the animation for a while.
func (s *stage) frames(p *desktoptest.Proc, d time.Duration) pace {
	from := len(p.Output())
	time.Sleep(d) // this long is measured
	var ms []float64
	for l := range strings.Lines(p.Output()[from:]) {
		var at, us int
		if _, err := fmt.Sscanf(l, "frame %d %d", &at, &us); err == nil {
			ms = append(ms, float64(us)/1000)
		}
	}
	if len(ms) == 0 {
		return pace{}
	}
	slices.Sort(ms)
	return pace{float64(len(ms)) / d.Seconds(), ms[len(ms)/2], ms[len(ms)*99/100], ms[len(ms)-1]}
}
