// Package trace shows what a relay carries: as text in WAYLAND_DEBUG's style, as
// a ring of the last messages that is printed on an error, and
// as a timeline for the Perfetto UI.
//
//	[12:00:00.123456] #3 -> wl_surface#12.commit()
//	                  │  │  └ the object's id as the client knows it
//	                  │  └ from the client; an event has no arrow
//	                  └ the connection
//
// A Tracer is a relay.Tap. Without a trace, none of its code runs.
package trace

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"vix/internal/wayland"
)

// Options select the output of a trace.
type Options struct {
	Classes  Classes   // 0 is All
	Text     io.Writer // a line for each message; nil for none
	Ring     int       // how many messages to keep, 0 for none
	Perfetto io.Writer // a timeline in the Chrome trace event format; nil for none
}

// A Tracer writes a trace. It is safe for use by many connections at once; the
// order of its lines is the order in which messages were handled.
type Tracer struct {
	o     Options
	begin time.Time

	mu       sync.Mutex
	line     []byte
	ring     []entry
	next     int // the ring's next slot
	perfetto *timeline
	err      error // the first write error; the Tracer writes nothing after it
}

// entry is the text of a message in the ring; its buffer is reused.
type entry []byte

// New returns a Tracer, which the caller must Close.
func New(o Options) *Tracer {
	if o.Classes == 0 {
		o.Classes = All
	}
	t := &Tracer{o: o, begin: time.Now(), ring: make([]entry, o.Ring)}
	if o.Perfetto != nil {
		t.perfetto = newTimeline(o.Perfetto)
	}
	return t
}

// Message implements relay.Tap.
func (t *Tracer) Message(conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body []byte) {
	if t.o.Classes&classOf(i, m) == 0 {
		return
	}
	now := time.Now()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err != nil {
		return
	}
	t.line = now.AppendFormat(t.line[:0], "[15:04:05.000000] ")
	t.line = fmt.Appendf(t.line, "#%d ", conn)
	if fromClient {
		t.line = append(t.line, "-> "...)
	}
	start := len(t.line)
	t.line = m.Append(t.line, i.Name, id, body)
	if t.perfetto != nil {
		t.fail(t.perfetto.message(now.Sub(t.begin), conn, fromClient, i, id, m, body, t.line[start:]))
	}
	t.line = append(t.line, '\n')
	if t.o.Text != nil {
		_, err := t.o.Text.Write(t.line)
		t.fail(err)
	}
	if len(t.ring) > 0 {
		t.ring[t.next] = append(t.ring[t.next][:0], t.line...)
		t.next = (t.next + 1) % len(t.ring)
	}
}

// Fence implements relay.FenceTap: a wait that overlaps other work.
func (t *Tracer) Fence(conn uint64, what string, begin, end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.perfetto != nil && t.err == nil {
		t.fail(t.perfetto.fence(conn, what, begin.Sub(t.begin), end.Sub(t.begin)))
	}
}

// Span implements relay.Spanner: work for a connection that takes time, such as a copy
// of pixels.
func (t *Tracer) Span(conn uint64, name string, begin, end time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.perfetto != nil && t.err == nil {
		t.fail(t.perfetto.span(conn, name, begin.Sub(t.begin), end.Sub(begin)))
	}
}

func (t *Tracer) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// Dump writes the ring, oldest first.
func (t *Tracer) Dump(w io.Writer) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for k := range t.ring {
		if _, err := w.Write(t.ring[(t.next+k)%len(t.ring)]); err != nil {
			return err
		}
	}
	return nil
}

// Close ends the timeline. It returns the first write error.
func (t *Tracer) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	err := t.err
	if t.perfetto != nil {
		err = errors.Join(err, t.perfetto.close())
		t.perfetto = nil
	}
	t.err = errors.New("trace closed")
	return err
}
