package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"time"
)

// A seriesLine is one line of the verb series, which runs in the guest: before a
// measurement, without metrics, and after it. Both tell the CPU time so far of
// every process of the machine that the verb runs on, by name.
type seriesLine struct {
	Bench   string             `json:"bench"`
	CPU     map[string]cpuTime `json:"cpu"`
	Metrics metrics            `json:"metrics,omitempty"`
	Err     string             `json:"err,omitempty"`
}

// Names of the measurements of a series.
const (
	seriesSync   = "sync"
	seriesAdd    = "requests"
	seriesEvents = "events"
	seriesSmall  = "frame 64x64"
	seriesFull   = "frame full"
	seriesCopied = "copied"
	seriesSlab   = "buffer in a slab"
	seriesOwn    = "buffer of its own"
)

var seriesNames = []string{seriesSync, seriesAdd, seriesEvents, seriesSmall, seriesFull, seriesCopied, seriesSlab, seriesOwn}

func seriesVerb(_ context.Context, fs *flag.FlagSet, args []string) error {
	socket := fs.String("socket", "", "socket to measure")
	n := fs.Int("n", 1000, "number of round trips")
	d := fs.Duration("d", 500*time.Millisecond, "how long each other measurement runs")
	if err := parse(fs, args, "socket"); err != nil {
		return err
	}
	return series(*socket, *n, *d, json.NewEncoder(os.Stdout).Encode)
}

// series runs every measurement and gives its lines to emit. One that fails is a
// line, and the next one follows.
func series(socket string, n int, d time.Duration, emit func(any) error) error {
	for _, name := range seriesNames {
		begin := func() error { return emit(seriesLine{Bench: name, CPU: cpuByName()}) }
		l := seriesLine{Bench: name}
		var err error
		if l.Metrics, err = seriesBench(name, socket, n, d, begin); err != nil {
			l.Err = err.Error()
		}
		l.CPU = cpuByName()
		if err := emit(l); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	return nil
}

// seriesBench calls begin when it starts to count.
func seriesBench(name, socket string, n int, d time.Duration, begin func() error) (metrics, error) {
	frames := func(side int) (metrics, error) {
		return benchFrames(socket, frameOpts{w: 1920, h: 1080, dw: side, dh: side, content: "text", stamp: true, d: d, begin: begin})
	}
	switch name {
	case seriesSmall:
		return frames(64)
	case seriesFull:
		return frames(0)
	}
	if err := begin(); err != nil {
		return nil, err
	}
	switch name {
	case seriesSync:
		return benchSync(socket, n, 0)
	case seriesAdd:
		return benchMsgs(socket, "add", d)
	case seriesEvents:
		return benchEvents(socket, d)
	case seriesSlab:
		return benchBuffers(socket, slabSide, d)
	case seriesOwn:
		return benchBuffers(socket, ownSide, d)
	case seriesCopied:
		return benchCopied(socket, frameOpts{w: 640, h: 480, dw: 64, dh: 64}, 8)
	}
	return nil, fmt.Errorf("no measurement %q", name)
}
