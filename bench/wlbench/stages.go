package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Both proxies of the whole path can tell where the time of a round trip goes
// (relay.Meter). Each uses its own clock, and tells of what it sees of the other
// side only how long that took:
//
//	guest   near │ inside copy │ send │ far ───────────────────────────────── │ inside │ answer │
//	host                               ring │ arrive │ inside │ far │ inside │ answer │ ring
//
// so that the ring, the kernels and QEMU between them are the guest's send and far
// less what the host's proxy sees of a round.

// guestStats is where the guest's proxy writes its lines while the file is there.
const guestStats = "/run/user/1000/vix-waylandproxy.stats"

// A meterLine is what a proxy tells of one connection (relay.MeterLine).
type meterLine struct {
	Rounds int                `json:"rounds"`
	Stages map[string]float64 `json:"stages_us"`
	Copied float64            `json:"copied"`
}

// stages is what the two sides tell of one measurement.
type stages struct{ Guest, Host meterLine }

// A meterReader reads the host's lines while a series runs.
type meterReader struct {
	cmd   *exec.Cmd
	lines *json.Decoder
	out   io.Closer
}

// meterStart lets both sides measure.
func (v *vmBench) meterStart(ctx context.Context) (*meterReader, error) {
	if _, err := v.launcher(ctx, nil, "run", "--vm", vmName, "sh", "-c", ": >"+guestStats); err != nil {
		return nil, err
	}
	c := exec.Command(filepath.Join(v.bin, "vix-launcher"), "trace", "--classes=times", vmName)
	c.Env = v.env
	out, err := c.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.Start(); err != nil {
		return nil, err
	}
	r := &meterReader{c, json.NewDecoder(bufio.NewReader(out)), out}
	var first meterLine // tells that it has begun
	if err := r.lines.Decode(&first); err != nil {
		return nil, errors.Join(fmt.Errorf("trace of times: %w", err), c.Wait())
	}
	return r, nil
}

// end returns the lines of both sides since meterStart.
func (r *meterReader) end(ctx context.Context, v *vmBench) (guest, host []meterLine, err error) {
	// A connection's line comes at its end, which the host learns of a moment
	// later than the client.
	timer := time.AfterFunc(time.Minute, func() { _ = r.cmd.Process.Kill() })
	for range seriesNames {
		var l meterLine
		if err = r.lines.Decode(&l); err != nil {
			break
		}
		host = append(host, l)
	}
	timer.Stop()
	_ = r.cmd.Process.Signal(unix.SIGINT)
	_ = r.out.Close()
	_ = r.cmd.Wait() // it was interrupted
	if err != nil {
		return nil, nil, fmt.Errorf("trace of times: %w", err)
	}
	out, err := v.launcher(ctx, nil, "run", "--vm", vmName, "sh", "-c", "cat "+guestStats+"; rm "+guestStats)
	if err != nil {
		return nil, nil, err
	}
	for line := range bytes.Lines(out) {
		var l meterLine
		if err := json.Unmarshal(line, &l); err != nil {
			return nil, nil, fmt.Errorf("%s: %w", guestStats, err)
		}
		guest = append(guest, l)
	}
	if len(guest) != len(seriesNames) {
		return nil, nil, fmt.Errorf("%s: %d lines for %d measurements", guestStats, len(guest), len(seriesNames))
	}
	return guest, host, nil
}

// measuredSeries is series with the stages of both sides.
func (v *vmBench) measuredSeries(ctx context.Context, w *way, round int) error {
	r, err := v.meterStart(ctx)
	if err != nil {
		return err
	}
	seriesErr := v.series(ctx, w, round)
	guest, host, err := r.end(ctx, v)
	if seriesErr != nil {
		return errors.Join(seriesErr, err)
	}
	if err != nil { // a measurement that failed may have no line
		fmt.Fprintf(os.Stderr, "wlbench: round %d, %s: no stages: %v\n", round+1, w.What, err)
		return nil
	}
	for k := range w.Lines {
		if l := &w.Lines[k]; l.Round == round {
			n := slices.Index(seriesNames, l.Bench)
			l.Stages = &stages{guest[n], host[n]}
		}
	}
	return nil
}

// reportStages shows a round trip and a frame of the whole path by the parts that
// the proxies saw, of which the parts named are ours.
func (v *vmBench) reportStages() {
	e := v.ways[4]
	cols := []string{seriesSync, seriesSmall, seriesFull}
	t := table{append([]string{"µs"}, cols...)}
	line := func(what string, f func(l wayLine) float64) {
		cells := []string{what}
		for _, name := range cols {
			cells = append(cells, num(e.of(name, func(l wayLine) float64 {
				if l.Stages == nil {
					return math.NaN()
				}
				return f(l)
			})))
		}
		t = append(t, cells)
	}
	row := func(what string, f func(l wayLine, g, h map[string]float64) float64) {
		line(what, func(l wayLine) float64 { return f(l, l.Stages.Guest.Stages, l.Stages.Host.Stages) })
	}
	sum := func(m map[string]float64, stages ...string) (x float64) {
		for _, s := range stages {
			x += m[s]
		}
		return x
	}
	line("client: painting", func(l wayLine) float64 { return l.Metrics["paint_us"] })
	row("client: the rest, its socket", func(l wayLine, g, _ map[string]float64) float64 {
		return g["near"] + g["answer"] - l.Metrics["paint_us"]
	})
	row("guest relay: messages", func(_ wayLine, g, _ map[string]float64) float64 { return g["inside"] })
	row("guest relay: pixels copied", func(_ wayLine, g, _ map[string]float64) float64 { return g["copy"] })
	row("ioctls, ring, QEMU, wake-ups", func(_ wayLine, g, h map[string]float64) float64 {
		return sum(g, "send", "far") - sum(h, "arrive", "inside", "send", "far", "answer")
	})
	row("device", func(_ wayLine, _, h map[string]float64) float64 { return h["arrive"] + h["answer"] })
	row("filter", func(_ wayLine, _, h map[string]float64) float64 { return h["inside"] })
	row("compositor, its socket", func(_ wayLine, _, h map[string]float64) float64 { return h["send"] + h["far"] })
	row("whole", func(_ wayLine, g, _ map[string]float64) float64 {
		return sum(g, "near", "inside", "copy", "send", "far", "answer")
	})
	row("share of ours (relay, copy, device, filter), %", func(_ wayLine, g, h map[string]float64) float64 {
		ours := g["inside"] + g["copy"] + h["arrive"] + h["inside"] + h["answer"]
		return 100 * ours / sum(g, "near", "inside", "copy", "send", "far", "answer")
	})
	line("bytes copied in a frame", func(l wayLine) float64 { return l.Stages.Guest.Copied })
	t.print("The whole path by stage, as the two proxies measure it; a round ends when the next request comes. Means of the middle half of the rounds.")
}
