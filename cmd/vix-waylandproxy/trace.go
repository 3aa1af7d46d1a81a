package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/spf13/pflag"

	"vix/internal/relay"
	"vix/internal/trace"
	"vix/internal/wayland"
)

// traceFlags are the flags of every verb that relays.
type traceFlags struct {
	classes  string
	ring     int
	perfetto string
}

const noTrace = "none"

func (o *traceFlags) register(f *pflag.FlagSet) {
	f.StringVar(&o.classes, "trace", noTrace, "print every message to standard error; =LIST picks classes, or drops them by -: all,"+trace.Names()+"; or =times")
	f.Lookup("trace").NoOptDefVal = "all"
	f.IntVar(&o.ring, "trace-ring", 0, "keep the last `N` messages, and print them when a connection breaks the protocol")
	f.StringVar(&o.perfetto, "perfetto", "", "write a timeline to `FILE`, for the Perfetto UI")
}

// tracing holds every running trace: the flags' one, and later ones from
// the control channel.
type tracing struct {
	Switch *relay.TapSwitch
	tracer *trace.Tracer // the flags', or nil
	meter  relay.Meter
	file   *os.File

	mu   sync.Mutex
	taps []relay.Tap
}

func (o *traceFlags) start() (*tracing, error) {
	t := &tracing{Switch: &relay.TapSwitch{}}
	opt := trace.Options{Ring: o.ring}
	if o.ring < 0 || o.ring > 1<<20 {
		return nil, usagef("--trace-ring %d: from 0 to %d", o.ring, 1<<20)
	}
	if o.classes != noTrace {
		var err error
		if opt.Classes, err = trace.ParseClasses(o.classes); err != nil {
			return nil, usagef("--trace: %v", err)
		}
		if opt.Classes == trace.Times {
			opt.Classes = 0
			t.meter.Start(os.Stderr)
		} else {
			opt.Text = os.Stderr
		}
	}
	if o.perfetto != "" {
		f, err := os.OpenFile(o.perfetto, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("--perfetto: %w", err)
		}
		t.file, opt.Perfetto = f, f
	}
	if opt.Text != nil || opt.Ring > 0 || opt.Perfetto != nil {
		t.tracer = trace.New(opt)
		t.add(t.tracer)
	}
	return t, nil
}

// fanOut joins several taps into one.
type fanOut []relay.Tap

func (f fanOut) Message(conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body []byte) {
	for _, t := range f {
		t.Message(conn, fromClient, i, id, m, body)
	}
}

// Span implements relay.Spanner.
func (f fanOut) Span(conn uint64, name string, begin, end time.Time) {
	for _, t := range f {
		if s, ok := t.(relay.Spanner); ok {
			s.Span(conn, name, begin, end)
		}
	}
}

func (t *tracing) add(tap relay.Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taps = append(slices.Clone(t.taps), tap)
	t.Switch.Set(fanOut(t.taps))
}

func (t *tracing) remove(tap relay.Tap) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.taps = slices.DeleteFunc(slices.Clone(t.taps), func(x relay.Tap) bool { return x == tap })
	if len(t.taps) == 0 {
		t.Switch.Set(nil)
	} else {
		t.Switch.Set(fanOut(t.taps))
	}
}

// broken prints the ring after a connection's protocol error.
func (t *tracing) broken(err error) {
	var pe *relay.ProtocolError
	if t.tracer != nil && errors.As(err, &pe) {
		fmt.Fprintf(os.Stderr, "the last messages before: %v\n", err)
		_ = t.tracer.Dump(os.Stderr) // a failure could only be reported on standard error itself
	}
}

func (t *tracing) close() error {
	if t.tracer == nil {
		return nil
	}
	t.remove(t.tracer)
	err := t.tracer.Close()
	if t.file != nil {
		err = errors.Join(err, t.file.Close())
	}
	if err != nil {
		return fmt.Errorf("trace: %w", err)
	}
	return nil
}
