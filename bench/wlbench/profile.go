package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Where our proxy's time and allocations go: for each load a fresh
// `vix-waylandproxy local --cpuprofile FILE --memprofile FILE` between this
// client and a null compositor, and what `go tool pprof` says of the files.

// A profiler is one run of the verb.
type profiler struct {
	bin, out, gocmd string
	d               time.Duration
	top             int
	self, dir       string
}

func profileVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	var p profiler
	fs.StringVar(&p.bin, "bin", "", "directory of vix-waylandproxy")
	fs.StringVar(&p.out, "out", "", "directory for the profiles")
	fs.StringVar(&p.gocmd, "go", "go", "the go command, whose pprof reads the profiles")
	fs.DurationVar(&p.d, "d", 2*time.Second, "how long each load runs")
	fs.IntVar(&p.top, "top", 15, "lines of each table")
	if err := parse(fs, args, "bin", "out"); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wlbench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	p.dir = dir
	if p.bin, err = filepath.Abs(p.bin); err != nil {
		return err
	}
	if p.out, err = filepath.Abs(p.out); err != nil {
		return err
	}
	if err := os.MkdirAll(p.out, 0o755); err != nil {
		return err
	}
	if p.self, err = os.Executable(); err != nil {
		return err
	}
	runtime.LockOSThread() // Pdeathsig is the death of the starting thread
	for _, l := range []struct {
		name string
		run  func(path string, d time.Duration) (metrics, error)
	}{
		{"add", msgsBench("add")},
		{"churn", msgsBench("churn")},
		{"events", benchEvents},
		{"frames-64", framesBench(64, "text")},
		{"frames-full", framesBench(0, "text")},
		{"connections", benchConns},
	} {
		if err := p.load(ctx, l.name, l.run); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
	}
	fmt.Printf("The profiles are %s/*.pprof; read one by: %s tool pprof -http=: FILE\n", p.out, p.gocmd)
	return nil
}

// load profiles the proxy under one load and prints the tables.
func (p *profiler) load(ctx context.Context, name string, run func(string, time.Duration) (metrics, error)) error {
	cpu := filepath.Join(p.out, name+".cpu.pprof")
	mem := filepath.Join(p.out, name+".mem.pprof")
	argv := append(localProxy(p.bin, "{listen}", "{upstream}"), "--cpuprofile", cpu, "--memprofile", mem)
	s, err := newSetup(target{Name: oursName, Cmds: []command{{Argv: argv}}}, p.self, filepath.Join(p.dir, name))
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.start(ctx); err != nil {
		return err
	}
	m, err := run(s.listen, p.d)
	if err != nil {
		return fmt.Errorf("%w%s", err, s.logTail())
	}
	used := measure(s.proxy.pids(), nil).cpu
	s.stop() // it writes the profiles at its end
	fmt.Printf("## %s: %s/s, %s µs of CPU each\n\n", name, num(m["count"]/m["seconds"]), num(used/m["count"]*1e6))
	err = p.print(ctx, "CPU", cpu)
	return errors.Join(err, p.print(ctx, fmt.Sprintf("Allocations, of %.0f counted", m["count"]), mem, "-sample_index=alloc_objects"))
}

// print shows the first lines of a profile's table.
func (p *profiler) print(ctx context.Context, title, file string, opts ...string) error {
	argv := append([]string{"tool", "pprof", "-top", fmt.Sprintf("-nodecount=%d", p.top)}, append(opts, file)...)
	var stderr strings.Builder
	c := exec.CommandContext(ctx, p.gocmd, argv...)
	c.Stderr = &stderr
	out, err := c.Output()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", p.gocmd, strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	fmt.Printf("%s:\n", title)
	for l := range strings.Lines(string(out)) {
		name, _, _ := strings.Cut(l, ":")
		if !slices.Contains([]string{"File", "Build ID", "Type", "Time"}, name) {
			fmt.Print(l)
		}
	}
	fmt.Println()
	return nil
}
