package main

import (
	"errors"
	"io"
	"time"

	"vix/internal/relay"
	"vix/internal/trace"
	"vix/internal/wayland"
)

// meteredDial returns a dialer that measures the connections to the compositor.
func (t *tracing) meteredDial(dial func() (wayland.Transport, error)) func() (wayland.Transport, error) {
	return func() (wayland.Transport, error) {
		up, err := dial()
		if err != nil {
			return nil, err
		}
		return t.meter.Far(up), nil
	}
}

// begin starts a trace that writes to w, and returns the function that ends it. The class
// "times" belongs to the meter: a line at its start, and one for each connection.
func (t *tracing) begin(classes trace.Classes, w io.Writer) (end func(), err error) {
	if classes != trace.Times {
		tr := trace.New(trace.Options{Classes: classes, Text: w})
		t.add(tr)
		return func() { t.remove(tr) }, nil
	}
	stop, ok := t.meter.Start(w)
	if !ok {
		return nil, errors.New("times are traced already; end that trace first")
	}
	_, err = io.WriteString(w, "{}\n")
	return stop, err
}

// Fence implements relay.FenceTap.
func (f fanOut) Fence(conn uint64, what string, begin, end time.Time) {
	for _, t := range f {
		if s, ok := t.(relay.FenceTap); ok {
			s.Fence(conn, what, begin, end)
		}
	}
}
