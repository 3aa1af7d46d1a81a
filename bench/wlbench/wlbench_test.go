package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestMain lets the test binary stand in for wlbench, which compare starts.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && verbs[os.Args[1]] != nil {
		if err := run(context.Background(), os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// paths starts the null compositor, and the relay in front of it.
func paths(t *testing.T) map[string]string {
	t.Helper()
	dir := t.TempDir()
	ctx, cancel := context.WithCancel(t.Context())
	up, in := filepath.Join(dir, "up"), filepath.Join(dir, "in")
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(cancel)
	for _, f := range []func() error{
		func() error { return serve(ctx, up, true) },
		func() error { return relay(ctx, in, up) },
	} {
		wg.Go(func() {
			if err := f(); err != nil {
				t.Error(err)
			}
		})
	}
	for _, p := range []string{up, in} {
		if err := waitSocket(ctx, p, nil); err != nil {
			t.Fatal(err)
		}
	}
	return map[string]string{"direct": up, "relay": in}
}

func TestBenches(t *testing.T) {
	for name, path := range paths(t) {
		for _, b := range []struct {
			name string
			f    func() (metrics, error)
		}{
			{"sync", func() (metrics, error) { return benchSync(path, 100, 0) }},
			{"gap", func() (metrics, error) { return benchSync(path, 10, time.Millisecond) }},
			{"add", func() (metrics, error) { return benchMsgs(path, "add", 20*time.Millisecond) }},
			{"churn", func() (metrics, error) { return benchMsgs(path, "churn", 20*time.Millisecond) }},
			{"events", func() (metrics, error) { return benchEvents(path, 20*time.Millisecond) }},
			{"full", func() (metrics, error) {
				return benchFrames(path, frameOpts{w: 320, h: 200, content: "noise", stamp: true, d: 20 * time.Millisecond})
			}},
			{"small", func() (metrics, error) {
				return benchFrames(path, frameOpts{w: 320, h: 200, dw: 9, dh: 7, content: "text", stamp: true, d: 20 * time.Millisecond})
			}},
			{"conns", func() (metrics, error) { return benchConns(path, 20*time.Millisecond) }},
		} {
			t.Run(name+"/"+b.name, func(t *testing.T) {
				m, err := b.f()
				if err != nil {
					t.Fatal(err)
				}
				if m["count"] < 1 || m["seconds"] <= 0 {
					t.Errorf("measured nothing: %v", m)
				}
			})
		}
		closeAll, err := hold(path, 5)
		if err != nil {
			t.Fatal(err)
		}
		closeAll()
	}
}

// The null compositor must notice what a broken proxy would do.
func TestNullCompositorChecks(t *testing.T) {
	path := paths(t)["direct"]
	for name, f := range map[string]func(c *client){
		"unknown object":  func(c *client) { c.msg(99, 0) },
		"unknown opcode":  func(c *client) { c.msg(1, 7) },
		"short message":   func(c *client) { c.msg(1, 0) },
		"id in use":       func(c *client) { c.msg(1, 0, c.reg) },
		"id out of order": func(c *client) { c.msg(1, 0, 500) },
		"missing descriptor": func(c *client) {
			shm, _, err := c.bind("wl_shm", 1)
			if err != nil {
				t.Fatal(err)
			}
			c.msg(shm, 0, c.newID(), 4096)
		},
		"version too high": func(c *client) {
			g := c.globals["wl_shm"]
			g.version += 5
			c.globals["wl_shm"] = g
			_, _, _ = c.bind("wl_shm", 99)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := connect(path)
			if err != nil {
				t.Fatal(err)
			}
			defer c.close()
			f(c)
			if err := c.roundtrip(nil); err == nil {
				t.Error("the null compositor let it pass")
			}
		})
	}
}

// A proxy that drops the pixels of a frame must not look fast.
func TestStampCatchesStalePixels(t *testing.T) {
	b := &buffer{p: &pool{data: make([]byte, 64*64*4)}, width: 64, height: 64, stride: 256}
	paint := func(n uint32, points [][2]int64) {
		for _, p := range points {
			ne.PutUint32(b.p.data[p[1]*256+p[0]*4:], n)
		}
	}
	d := [4]int32{10, 10, 20, 20}
	p := stampPoints(10, 10, 20, 20)
	paint(7, p[:])
	if got := b.stamp(d); got != 7 {
		t.Errorf("stamp %d, want 7", got)
	}
	paint(8, p[:1])
	if got := b.stamp(d); got != badStamp {
		t.Errorf("half a new frame gave stamp %d", got)
	}
	if got := b.stamp([4]int32{100, 100, 5, 5}); got != badStamp {
		t.Errorf("damage outside of the buffer gave stamp %d", got)
	}
}

// Descriptors must neither leak nor get lost on the way.
func TestRelayPassesDescriptors(t *testing.T) {
	path := paths(t)["relay"]
	c, err := connect(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	shm, _, err := c.bind("wl_shm", 1)
	if err != nil {
		t.Fatal(err)
	}
	fd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, 4096); err != nil {
		t.Fatal(err)
	}
	round := func() {
		for range 100 {
			p := c.newID()
			at := c.begin(shm, 0)
			c.u(p)
			c.i(4096)
			c.end(at)
			c.outFds = append(c.outFds, fd)
			c.msg(p, 1)
		}
		if err := c.roundtrip(nil); err != nil {
			t.Fatal(err)
		}
	}
	round()
	before, _ := os.ReadDir("/proc/self/fd")
	round()
	after, _ := os.ReadDir("/proc/self/fd")
	if len(after) > len(before)+5 {
		t.Errorf("descriptors: %d before, %d after", len(before), len(after))
	}
}

// Where the memory is shared, everything that the client changed is seen.
func TestCopied(t *testing.T) {
	for name, path := range paths(t) {
		m, err := benchCopied(path, frameOpts{w: 64, h: 48, dw: 16, dh: 8}, 3)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m["copied_bytes"] != 64*48*4 || m["damaged_bytes"] != 16*8*4 {
			t.Errorf("%s: %v", name, m)
		}
	}
}

func TestSeries(t *testing.T) {
	var lines []seriesLine
	emit := func(v any) error { lines = append(lines, v.(seriesLine)); return nil }
	if err := series(paths(t)["direct"], 20, time.Millisecond, emit); err != nil {
		t.Fatal(err)
	}
	if len(lines) != 2*len(seriesNames) {
		t.Fatalf("%d lines", len(lines))
	}
	for i, l := range lines {
		if l.Err != "" || l.Bench != seriesNames[i/2] || (l.Metrics != nil) != (i%2 == 1) || len(l.CPU) == 0 {
			t.Errorf("line %d: %+v", i, l)
		}
	}
	lines = nil
	if err := series(filepath.Join(t.TempDir(), "nobody"), 1, time.Millisecond, emit); err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Metrics != nil {
			t.Errorf("measured nobody: %+v", l)
		}
	}
}

// One round of a comparison, with the relay in our proxy's place.
func TestCompare(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	dir := t.TempDir()
	targets, out := filepath.Join(dir, "targets"), filepath.Join(dir, "out")
	const list = `[{"name": "direct"},
		{"name": "relay", "cmds": [{"argv": ["{self}", "relay", "-listen", "{listen}", "-upstream", "{upstream}"]}]},
		{"name": "vix", "cmds": [{"argv": ["{self}", "relay", "-listen", "{listen}", "-upstream", "{upstream}"]}]},
		{"name": "broken", "cmds": [{"argv": ["{self}", "relay", "-nonsense"]}]}]`
	if err := os.WriteFile(targets, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(t.Context(), []string{"compare", "-targets", targets, "-runs", "1", "-d", "10ms", "-json", out}); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var c comparison
	if err := json.Unmarshal(b, &c); err != nil {
		t.Fatal(err)
	}
	if want := 3*len(benches()) + 1; len(c.Results) != want || len(c.Memory) != 3 {
		t.Errorf("%d results instead of %d, %d of memory", len(c.Results), want, len(c.Memory))
	}
	for _, r := range c.Results {
		if (r.Err != "") != (r.Target == "broken") {
			t.Errorf("%s, %s: %q", r.Target, r.Bench, r.Err)
		}
	}
	for _, g := range c.Goals {
		// CPU time is counted in steps of 10 ms, more than such short runs take.
		if g.Got == nil && !strings.Contains(g.Goal, "CPU") {
			t.Errorf("goal %s was not measured", g.Goal)
		}
	}
}

// Programs in the current directory are found as well.
func TestChooseHere(t *testing.T) {
	var c comparison
	if err := c.choose(".", "", oursName); err != nil {
		t.Fatal(err)
	}
	if got := c.targets[0].Cmds[0].Argv[0]; !filepath.IsAbs(got) {
		t.Errorf("%s would be looked for on PATH", got)
	}
}

func TestGoals(t *testing.T) {
	c := comparison{targets: []target{{Name: relayName}, {Name: oursName}}}
	for run, x := range []float64{1e6, 2e6, 4e6} { // the machine slows down and recovers
		c.Results = append(c.Results,
			result{Target: relayName, Bench: nameAdd, Run: run, Metrics: metrics{"per_s": x}},
			result{Target: oursName, Bench: nameAdd, Run: run, Metrics: metrics{"per_s": x * 0.9}},
			result{Target: relayName, Bench: nameChurn, Run: run, Metrics: metrics{"per_s": x}},
			result{Target: oursName, Bench: nameChurn, Run: run, Metrics: metrics{"per_s": x / 2}})
	}
	gs := c.goals()
	if g := gs[0]; g.Got == nil || *g.Got != 0.9 || !g.Reached {
		t.Errorf("add: %+v", g)
	}
	if g := gs[1]; g.Got == nil || *g.Got != 0.5 || g.Reached {
		t.Errorf("churn: %+v", g)
	}
	if g := gs[2]; g.Got != nil || g.Reached {
		t.Errorf("events were not measured: %+v", g)
	}
}
