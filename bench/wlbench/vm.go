package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"time"
)

// The whole path, against parts of it. The same series (series.go) runs on five
// ways:
//
//	A  client ⇄ compositor                          on the host
//	B  client ⇄ filter ⇄ compositor                 on the host (vix-waylandproxy local)
//	C  client ⇄ compositor                          in the guest
//	D  client ⇄ relay ⇄ compositor                  in the guest (vix-waylandproxy local)
//	E  client ⇄ guest proxy ⇄ ioctl, ring, QEMU, device ⇄ filter ⇄ compositor
//
// B beside A is a filter with its socket to a compositor, D beside C a relay with its
// socket to a client: what E has at its two ends. What each part of E takes, E's own
// proxies measure (stages.go).

// vmName is the bench's VM; its directory is the bench's own, so that it meets no
// other VM.
const vmName = "wlbench"

// Where the guest's programs and sockets are.
const (
	guestSelf   = "/tmp/wlbench"
	guestEngine = "/tmp/engine"
	guestUp     = "/tmp/up.sock"
	guestIn     = "/tmp/in.sock"
	guestWhole  = "/run/user/1000/wayland-0"
)

// A way is one of A to E with its series' lines of every round.
type way struct {
	Name, What string
	socket     string
	guest      bool
	Lines      []wayLine
}

// A wayLine is one measurement with what the host's processes used meanwhile, by
// part ("display", "QEMU", …), in seconds.
type wayLine struct {
	Round   int
	Bench   string
	Metrics metrics
	Err     string             `json:",omitempty"`
	Guest   map[string]cpuTime `json:",omitempty"` // by name of the process
	Host    map[string]float64
	Stages  *stages `json:",omitempty"` // on the whole path
}

// vmBench is one run of the verb.
type vmBench struct {
	bin, self, dir string
	env            []string // of the launcher
	runs           int
	hostN, guestN  int
	d              time.Duration
	programs       starter
	serverPID      int
	vmPIDs         map[string]int
	ways           []*way
}

func vmVerb(ctx context.Context, fs *flag.FlagSet, args []string) error {
	var v vmBench
	fs.StringVar(&v.bin, "bin", "", "directory of the programs of Vix")
	fs.IntVar(&v.runs, "runs", 2, "number of rounds")
	fs.IntVar(&v.hostN, "host-syncs", 2000, "round trips of a measurement on the host")
	fs.IntVar(&v.guestN, "guest-syncs", 120, "round trips of a measurement in the guest")
	fs.DurationVar(&v.d, "d", 300*time.Millisecond, "how long a measurement runs")
	jsonOut := fs.String("json", "", "write every single result here")
	if err := parse(fs, args, "bin"); err != nil {
		return err
	}
	if err := v.prepare(); err != nil {
		return err
	}
	defer os.RemoveAll(v.dir)
	runtime.LockOSThread() // Pdeathsig is the death of the starting thread
	defer v.programs.stop()
	if err := v.measure(ctx); err != nil {
		return err
	}
	v.report()
	if *jsonOut == "" {
		return nil
	}
	return writeJSON(*jsonOut, map[string]any{"ways": v.ways})
}

// prepare makes the directory that is the launcher's run-time directory.
func (v *vmBench) prepare() error {
	var err error
	if v.self, err = os.Executable(); err != nil {
		return err
	}
	if v.bin, err = filepath.Abs(v.bin); err != nil {
		return err
	}
	if v.dir, err = os.MkdirTemp("", "wlb"); err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(v.dir, "output"))
	if err != nil {
		return err
	}
	v.programs.log = log
	if err := v.configure(); err != nil {
		return err
	}
	up, in := filepath.Join(v.dir, "up.sock"), filepath.Join(v.dir, "in.sock")
	v.env = append(os.Environ(), "XDG_RUNTIME_DIR="+v.dir, "XDG_CONFIG_HOME="+v.dir, "XDG_STATE_HOME="+v.dir+"/state", "WAYLAND_DISPLAY="+up)
	v.ways = []*way{
		{Name: "A", What: "host: compositor alone", socket: up},
		{Name: "B", What: "host: filter", socket: in},
		{Name: "C", What: "guest: compositor alone", socket: guestUp, guest: true},
		{Name: "D", What: "guest: relay", socket: guestIn, guest: true},
		{Name: "E", What: "whole path", socket: guestWhole, guest: true},
	}
	return nil
}

// configure lifts the limits that the loads would reach: what those do is not what
// is measured.
func (v *vmBench) configure() error {
	dir := filepath.Join(v.dir, "vix")
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	text := fmt.Sprintf("[vm.%s.limits]\nrequests = %d\ncommits = %[2]d\nrectangles = %[2]d\n", vmName, int64(1)<<40)
	return os.WriteFile(filepath.Join(dir, "config.toml"), []byte(text), 0o600)
}

func (v *vmBench) measure(ctx context.Context) error {
	up, in := v.ways[0].socket, v.ways[1].socket
	for _, p := range []struct {
		argv   []string
		socket string
	}{{[]string{v.self, "server", "-socket", up}, up}, {localProxy(v.bin, in, up), in}} {
		if err := v.programs.start(p.argv, nil); err != nil {
			return err
		}
		if err := v.programs.waitSocket(ctx, p.socket); err != nil {
			return err
		}
	}
	v.serverPID = v.programs.pids()[0]
	fmt.Fprintln(os.Stderr, "wlbench: starting a VM")
	if err := v.launch(ctx); err != nil {
		return err
	}
	// Also when ctx is done: the VM is ours.
	defer func() { _, _ = v.launcher(context.WithoutCancel(ctx), nil, "stop", vmName) }()
	if err := v.fill(ctx); err != nil {
		return err
	}
	for round := range v.runs {
		for k := range v.ways {
			w := v.ways[(k+round)%len(v.ways)] // another one goes first each time
			series := v.series
			if w.socket == guestWhole {
				series = v.measuredSeries
			}
			if err := series(ctx, w, round); err != nil {
				return fmt.Errorf("%s: %w", w.What, err)
			}
		}
		fmt.Fprintf(os.Stderr, "wlbench: round %d of %d done\n", round+1, v.runs)
	}
	return nil
}

// launcher runs a verb of vix-launcher and returns its output.
func (v *vmBench) launcher(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	c := exec.CommandContext(ctx, filepath.Join(v.bin, "vix-launcher"), args...)
	c.Env, c.Stdin, c.Stderr = v.env, stdin, &stderr
	out, err := c.Output()
	if err != nil {
		return nil, fmt.Errorf("vix-launcher %s: %w: %s", args[0], err, bytes.TrimSpace(stderr.Bytes()))
	}
	return out, nil
}

// launch starts the VM, which lives as long as its sleep, and finds its processes.
func (v *vmBench) launch(ctx context.Context) error {
	if _, err := v.launcher(ctx, nil, "run", "--vm", vmName, "--background", "sleep", "3600"); err != nil {
		return err
	}
	out, err := v.launcher(ctx, nil, "list", "--json")
	if err != nil {
		return err
	}
	var vms []struct {
		Name string         `json:"name"`
		PIDs map[string]int `json:"pids"`
	}
	if err := json.Unmarshal(out, &vms); err != nil {
		return fmt.Errorf("vix list --json: %w", err)
	}
	for _, m := range vms {
		if m.Name == vmName {
			v.vmPIDs = m.PIDs
			return nil
		}
	}
	return errors.New("the VM has ended")
}

// fill copies the programs into the guest and starts a compositor and a relay there.
func (v *vmBench) fill(ctx context.Context) error {
	for path, to := range map[string]string{v.self: guestSelf, filepath.Join(v.bin, "vix-waylandproxy"): guestEngine} {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		_, err = v.launcher(ctx, f, "run", "--vm", vmName, "sh", "-c", "cat >"+to+" && chmod +x "+to)
		f.Close()
		if err != nil {
			return err
		}
	}
	engine := localProxy("", guestIn, guestUp)
	engine[0] = guestEngine
	for _, p := range [][]string{{guestSelf, "server", "-socket", guestUp}, engine} {
		if _, err := v.launcher(ctx, nil, append([]string{"run", "--vm", vmName, "--background"}, p...)...); err != nil {
			return err
		}
	}
	// The guest's sockets are awaited by the guest's own shell, which has no event for it.
	const wait = "until test -S " + guestUp + " && test -S " + guestIn + "; do sleep 0.05; done"
	_, err := v.launcher(ctx, nil, "run", "--vm", vmName, "sh", "-c", wait)
	return err
}

// series runs the verb series on w, in the guest or here.
func (v *vmBench) series(ctx context.Context, w *way, round int) error {
	n := v.hostN
	argv := []string{v.self}
	if w.guest {
		n = v.guestN
		argv = []string{filepath.Join(v.bin, "vix-launcher"), "run", "--vm", vmName, guestSelf}
	}
	argv = append(argv, "series", "-socket", w.socket, "-n", fmt.Sprint(n), "-d", v.d.String())
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var stderr bytes.Buffer
	c := exec.CommandContext(ctx, argv[0], argv[1:]...)
	c.Env, c.Stderr = v.env, &stderr
	out, err := c.StdoutPipe()
	if err != nil {
		return err
	}
	if err := c.Start(); err != nil {
		return err
	}
	readErr := v.readSeries(out, w, round)
	if err := c.Wait(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return readErr
}

// readSeries takes the lines as they come, and reads the host's CPU times then.
func (v *vmBench) readSeries(r io.Reader, w *way, round int) error {
	dec := json.NewDecoder(r)
	for {
		var before, after seriesLine
		if err := dec.Decode(&before); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if before.Err != "" { // it failed before it began
			fmt.Fprintf(os.Stderr, "wlbench: round %d, %s, %s: failed: %s\n", round+1, w.What, before.Bench, before.Err)
			continue
		}
		h0 := v.hostCPU()
		if err := dec.Decode(&after); err != nil {
			return err
		}
		h1 := v.hostCPU()
		l := wayLine{Round: round, Bench: after.Bench, Metrics: after.Metrics, Err: after.Err, Host: map[string]float64{}}
		for k := range h1 {
			l.Host[k] = h1[k] - h0[k]
		}
		if w.guest {
			l.Guest = map[string]cpuTime{}
			for k, t := range after.CPU {
				l.Guest[k] = cpuTime{t.User - before.CPU[k].User, t.Sys - before.CPU[k].Sys}
			}
		}
		w.Lines = append(w.Lines, l)
		if l.Err != "" {
			fmt.Fprintf(os.Stderr, "wlbench: round %d, %s, %s: failed: %s\n", round+1, w.What, l.Bench, l.Err)
		}
	}
}

// hostCPU is the CPU time so far of the host's processes on the way.
func (v *vmBench) hostCPU() map[string]float64 {
	m := map[string]float64{}
	pids := map[string]int{"compositor": v.serverPID, "display": v.vmPIDs["display"], "QEMU": v.vmPIDs["qemu"]}
	for part, pid := range pids {
		if p, ok := readStat(fmt.Sprint(pid)); ok {
			m[part] = p.user + p.sys
		}
	}
	return m
}

// of collects f of a bench's measurements on a way.
func (w *way) of(bench string, f func(l wayLine) float64) float64 {
	var x []float64
	for _, l := range w.Lines {
		if l.Bench != bench || l.Err != "" {
			continue
		}
		if v := f(l); !math.IsNaN(v) { // not measured
			x = append(x, v)
		}
	}
	return median(x)
}

func (w *way) metric(bench, name string) float64 {
	return w.of(bench, func(l wayLine) float64 { return l.Metrics[name] })
}

func (v *vmBench) report() {
	v.reportWays()
	v.reportStages()
	v.reportCPU()
	e := v.ways[4]
	damaged, copied := e.metric(seriesCopied, "damaged_bytes"), e.metric(seriesCopied, "copied_bytes")
	verdict := "equal"
	if damaged != copied {
		verdict = "not equal"
	}
	fmt.Printf("Bytes of pixels that arrive for each frame with 64×64 damage of a buffer that changed everywhere: %.0f, damaged: %.0f (%s).\n", copied, damaged, verdict)
}

func (v *vmBench) reportWays() {
	head := []string{""}
	for _, w := range v.ways {
		head = append(head, w.Name+" "+w.What)
	}
	t := table{head}
	for _, r := range []struct{ what, bench, metric string }{
		{"round trip, p50, µs", seriesSync, "p50_us"},
		{"round trip, p99, µs", seriesSync, "p99_us"},
		{"requests (add), /s", seriesAdd, "per_s"},
		{"events (motion), /s", seriesEvents, "per_s"},
		{"frame, 64×64 damage, p50, µs", seriesSmall, "p50_us"},
		{"frame, 1080p, full, p50, µs", seriesFull, "p50_us"},
		{"buffer made and destroyed, 1 MiB (a slab), p50, µs", seriesSlab, "p50_us"},
		{"the same, 20 MiB (a blob of its own), p50, µs", seriesOwn, "p50_us"},
	} {
		row := []string{r.what}
		for _, w := range v.ways {
			row = append(row, num(w.metric(r.bench, r.metric)))
		}
		t = append(t, row)
	}
	t.print(fmt.Sprintf("Median of %d rounds. The guest's rates are those of an emulated processor where there is no KVM.", v.runs))
}

// reportCPU shows what each process used on the whole path.
func (v *vmBench) reportCPU() {
	e := v.ways[4]
	t := table{{"CPU, µs each", "round trip", "request", "event", "frame, 64×64", "frame, full"}}
	row := func(what string, f func(l wayLine) float64) {
		cells := []string{what}
		for _, b := range []string{seriesSync, seriesAdd, seriesEvents, seriesSmall, seriesFull} {
			cells = append(cells, num(1e6*e.of(b, func(l wayLine) float64 { return f(l) / l.Metrics["count"] })))
		}
		t = append(t, cells)
	}
	const client, proxy = "wlbench", "vix-waylandproxy"
	row("guest: client", func(l wayLine) float64 { return l.Guest[client].User + l.Guest[client].Sys })
	row("guest: proxy, its own", func(l wayLine) float64 { return l.Guest[proxy].User })
	row("guest: proxy, in the kernel (ioctls, sockets)", func(l wayLine) float64 { return l.Guest[proxy].Sys })
	row("guest: kernel's threads (the device's queues)", func(l wayLine) float64 { return l.Guest[kernelWorkers].Sys })
	row("host: QEMU, the guest's work included", func(l wayLine) float64 { return l.Host["QEMU"] })
	row("host: display (device and filter)", func(l wayLine) float64 { return l.Host["display"] })
	row("host: compositor", func(l wayLine) float64 { return l.Host["compositor"] })
	t.print("CPU time on the whole path, by process; the kernels count in steps of up to 10 ms.")
}
