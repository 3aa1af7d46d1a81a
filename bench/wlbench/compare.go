package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A result is one measurement.
type result struct {
	Target, Bench string
	Run           int
	Metrics       metrics
	Err           string  `json:",omitempty"`
	ProxyCPU      float64 // seconds
	ServerCPU     float64
	ClientCPU     float64
	ForeignCPU    float64 // seconds that the rest of the machine worked meanwhile
}

// foreignShare is the part of the machine that others used, 0 to 1.
func (r result) foreignShare() float64 {
	return r.ForeignCPU / r.Metrics["seconds"] / float64(runtime.NumCPU())
}

// disturbed is the foreignShare from which a measurement is worth repeating.
const disturbed = 0.2

const holdConns = 20

// memory is a target's in one round, in MiB.
type memory struct {
	Target                     string
	Run                        int
	Idle, One, Held, After     float64 // PSS
	IdleR, OneR, HeldR, AfterR float64 // RSS
	ProcsIdle, ProcsHeld       int
}

// A comparison is the run of all targets.
type comparison struct {
	targets     []target
	runs, tries int
	d           time.Duration // of one measurement
	dir, self   string

	Results []result `json:"results"`
	Memory  []memory `json:"memory"`
	Goals   []reached
}

func compareVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	var c comparison
	bin := fs.String("bin", "", "directory of vix-waylandproxy: compares direct, relay, vix and waypipe")
	file := fs.String("targets", "", "file with (more) targets")
	only := fs.String("only", "", "comma-separated names of targets")
	fs.IntVar(&c.runs, "runs", 5, "number of rounds")
	fs.IntVar(&c.tries, "tries", 1, "measure up to so many times while the machine is otherwise busy, and keep the least disturbed")
	fs.DurationVar(&c.d, "d", 400*time.Millisecond, "how long a measurement runs")
	jsonOut := fs.String("json", "", "write every single result here")
	if err := parse(fs, args); err != nil {
		return err
	}
	if c.runs < 1 || c.d <= 0 {
		return fmt.Errorf("%w: -runs and -d must be positive", errUsage)
	}
	if err := c.choose(*bin, *file, *only); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wlbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	c.dir = dir
	if c.self, err = os.Executable(); err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig is the death of the starting thread
	if err := c.rounds(ctx); err != nil {
		return err
	}
	c.Goals = c.goals()
	c.report()
	if *jsonOut == "" {
		return nil
	}
	return writeJSON(*jsonOut, &c)
}

func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o644)
}

// choose sets the targets.
func (c *comparison) choose(bin, file, only string) error {
	if bin != "" {
		// A path without a slash, as filepath.Join makes of ".", would be looked for on PATH.
		bin, err := filepath.Abs(bin)
		if err != nil {
			return err
		}
		var note string
		if c.targets, note = ownTargets(bin); note != "" {
			fmt.Fprintf(os.Stderr, "wlbench: %s\n", note)
		}
	}
	if file != "" {
		more, err := readTargets(file)
		if err != nil {
			return err
		}
		c.targets = append(c.targets, more...)
	}
	if only != "" {
		keep := strings.Split(only, ",")
		c.targets = slices.DeleteFunc(c.targets, func(t target) bool { return !slices.Contains(keep, t.Name) })
	}
	if len(c.targets) == 0 {
		return fmt.Errorf("%w: no targets; give -bin or -targets", errUsage)
	}
	return nil
}

func (c *comparison) rounds(ctx context.Context) error {
	for run := range c.runs {
		c.round(ctx, run)
		if ctx.Err() != nil {
			return errors.New("interrupted")
		}
		fmt.Fprintf(os.Stderr, "wlbench: round %d of %d done\n", run+1, c.runs)
	}
	return nil
}

// settle is how long programs get to come to rest before they are looked at:
// nothing tells that a process has nothing left to do.
const settle = 100 * time.Millisecond

// round measures every target. All of them stand ready while each bench goes
// round, so that figures to be compared are taken within a second or two.
func (c *comparison) round(ctx context.Context, run int) {
	var ready []*setup
	defer func() {
		for _, s := range ready {
			s.close()
		}
	}()
	var mems []memory
	for _, t := range c.targets {
		s, err := newSetup(t, c.self, filepath.Join(c.dir, fmt.Sprintf("%s.%d", t.Name, run)))
		if err != nil {
			c.failed(t.Name, "start", run, err)
			continue
		}
		m := memory{Target: t.Name, Run: run}
		if err = s.start(ctx); err == nil {
			err = m.measure(s)
		}
		if err != nil {
			c.failed(t.Name, "start", run, err)
			s.close()
			continue
		}
		ready, mems = append(ready, s), append(mems, m)
	}
	for k, b := range benches() {
		for i := range ready {
			s := ready[(i+k+run)%len(ready)] // another one goes first each time
			c.one(ctx, s, b, run)
		}
	}
	for i, s := range ready {
		u := measure(s.proxy.pids(), s.t.SkipComm)
		mems[i].After, mems[i].AfterR = u.pss, u.rss
	}
	c.Memory = append(c.Memory, mems...)
}

// one measures one target with one bench.
func (c *comparison) one(ctx context.Context, s *setup, b bench, run int) {
	if ctx.Err() != nil {
		return
	}
	r, err := c.best(ctx, s, b)
	if err == nil {
		r.Target, r.Bench, r.Run = s.t.Name, b.name, run
		c.Results = append(c.Results, r)
		return
	}
	c.failed(s.t.Name, b.name, run, fmt.Errorf("%w%s", err, s.logTail()))
	s.stop() // a fresh start for the next one; a stalled client's socket closes with it
	if err := s.start(ctx); err != nil {
		c.failed(s.t.Name, "start", run, err)
	}
}

func (c *comparison) failed(target, bench string, run int, err error) {
	c.Results = append(c.Results, result{Target: target, Bench: bench, Run: run, Err: err.Error()})
	fmt.Fprintf(os.Stderr, "wlbench: round %d, %s, %s: failed: %v\n", run+1, target, bench, err)
}

// measure reads the proxy's memory without and with connections.
func (m *memory) measure(s *setup) error {
	held := func(n int) (usage, error) {
		c, err := hold(s.listen, n)
		if err != nil {
			return usage{}, err
		}
		defer c()
		time.Sleep(settle)
		return measure(s.proxy.pids(), s.t.SkipComm), nil
	}
	time.Sleep(settle)
	u := measure(s.proxy.pids(), s.t.SkipComm)
	m.Idle, m.IdleR, m.ProcsIdle = u.pss, u.rss, u.procs
	u, err := held(1)
	if err != nil {
		return err
	}
	m.One, m.OneR = u.pss, u.rss
	if u, err = held(holdConns); err != nil {
		return err
	}
	m.Held, m.HeldR, m.ProcsHeld = u.pss, u.rss, u.procs
	return nil
}

// best is the measurement, or the least disturbed of several.
func (c *comparison) best(ctx context.Context, s *setup, b bench) (best result, err error) {
	for try := range max(c.tries, 1) {
		r, err := c.attempt(ctx, s, b)
		if err != nil {
			return result{}, err
		}
		if try == 0 || r.foreignShare() < best.foreignShare() {
			best = r
		}
		if best.foreignShare() < disturbed {
			break
		}
	}
	return best, nil
}

// attempt runs one bench between two readings of the CPU times.
func (c *comparison) attempt(ctx context.Context, s *setup, b bench) (r result, err error) {
	runtime.GC() // the last bench's garbage is not this one's
	p0, s0 := measure(s.proxy.pids(), s.t.SkipComm).cpu, measure(s.server.pids(), nil).cpu
	c0, m0 := selfCPU(), machineBusy()
	if r.Metrics, err = c.limited(ctx, func() (metrics, error) { return b.run(s.listen, c.d) }); err != nil {
		return r, err
	}
	r.ClientCPU = selfCPU() - c0
	busy := machineBusy() - m0
	time.Sleep(settle / 2) // let the proxy reap its children
	r.ProxyCPU = measure(s.proxy.pids(), s.t.SkipComm).cpu - p0
	r.ServerCPU = measure(s.server.pids(), nil).cpu - s0
	r.ForeignCPU = max(0, busy-r.ClientCPU-r.ProxyCPU-r.ServerCPU)
	return r, nil
}

// limited gives up on f when it stalls.
func (c *comparison) limited(ctx context.Context, f func() (metrics, error)) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second+3*c.d)
	defer cancel()
	type outcome struct {
		m   metrics
		err error
	}
	done := make(chan outcome, 1)
	go func() {
		m, err := f()
		done <- outcome{m, err}
	}()
	select {
	case o := <-done:
		return o.m, o.err
	case <-ctx.Done():
		return nil, errors.New("stalled")
	}
}

// selfCPU is the client's: this process's own.
func selfCPU() float64 {
	var r unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return float64(r.Utime.Nano()+r.Stime.Nano()) / 1e9
}
