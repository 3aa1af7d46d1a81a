package trace

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"vix/internal/wayland"
)

// A timeline writes trace events as JSON, an array with an object for each:
//
//	track "requests" and track "events" of each connection   an instant a message
//	track "work" of each connection                          a slice a Span
//	"frame" of each connection                               from wl_surface.frame to its callback
//	"POLL", "SEND", "WRITE" of each connection               the wait for a fence
//
// Source: "Trace Event Format" of the Chromium project, which the Perfetto UI
// opens. A connection is a process there, and its tracks are threads; spans that may
// overlap are pairs of asynchronous events. A file without its last bracket, left by a
// killed process, opens too.
type timeline struct {
	w     *bufio.Writer
	comma bool
	known map[uint64]bool
	// frames holds the pending callbacks of wl_surface.frame with the ids of their
	// events. A client has a few; the timeline omits those beyond maxFrames.
	frames map[frameKey]string
	pairs  uint64 // number of pairs of asynchronous events so far
}

type frameKey struct {
	conn     uint64
	callback uint32
}

const maxFrames = 1 << 16

const (
	trackRequests = 1 + iota
	trackEvents
	trackWork
)

type traceEvent struct {
	Name string         `json:"name"`
	Ph   string         `json:"ph"`            // kind: i instant, X slice, b and e begin and end, M name
	Ts   float64        `json:"ts"`            // µs
	Dur  *float64       `json:"dur,omitempty"` // µs, of X
	Pid  uint64         `json:"pid"`
	Tid  int            `json:"tid"`
	ID   string         `json:"id,omitempty"`
	Cat  string         `json:"cat,omitempty"`
	S    string         `json:"s,omitempty"`
	Args map[string]any `json:"args,omitempty"`
}

func newTimeline(w io.Writer) *timeline {
	return &timeline{w: bufio.NewWriter(w), known: map[uint64]bool{}, frames: map[frameKey]string{}}
}

// micro returns µs since the trace began; an earlier time becomes 0.
func micro(d time.Duration) float64 { return float64(max(d, 0).Nanoseconds()) / 1000 }

func (t *timeline) put(e traceEvent) error {
	b, err := json.Marshal(e)
	if err != nil {
		return err
	}
	sep := ",\n"
	if !t.comma {
		sep, t.comma = "[\n", true
	}
	if _, err := t.w.WriteString(sep); err != nil {
		return err
	}
	_, err = t.w.Write(b)
	return err
}

// name writes the names of a connection's tracks, once.
func (t *timeline) name(conn uint64) error {
	if t.known[conn] {
		return nil
	}
	t.known[conn] = true
	err := t.put(traceEvent{Name: "process_name", Ph: "M", Pid: conn, Args: map[string]any{"name": fmt.Sprintf("connection %d", conn)}})
	for k, n := range []string{"requests", "events", "work"} {
		if err == nil {
			err = t.put(traceEvent{Name: "thread_name", Ph: "M", Pid: conn, Tid: trackRequests + k, Args: map[string]any{"name": n}})
		}
	}
	return err
}

func (t *timeline) message(at time.Duration, conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body, text []byte) error {
	if err := t.name(conn); err != nil {
		return err
	}
	track := trackEvents
	if fromClient {
		track = trackRequests
	}
	err := t.put(traceEvent{
		Name: i.Name + "." + m.Name, Ph: "i", S: "t", Ts: micro(at), Pid: conn, Tid: track,
		Args: map[string]any{"message": string(text)},
	})
	if err != nil {
		return err
	}
	return t.frame(at, conn, fromClient, i, id, m, body)
}

// frame writes the begin and end of frame callbacks.
func (t *timeline) frame(at time.Duration, conn uint64, fromClient bool, i *wayland.Interface, id uint32, m *wayland.Message, body []byte) error {
	e := traceEvent{Name: "frame", Cat: "frame", Ts: micro(at), Pid: conn, Tid: trackRequests}
	switch {
	case fromClient && i == wayland.WlSurface && m.Name == "frame" && len(t.frames) < maxFrames:
		e.Ph, e.ID = "b", t.pair()
		t.frames[frameKey{conn, wayland.Word(body, 0)}] = e.ID
		return t.put(e)
	case !fromClient && i == wayland.WlCallback:
		k := frameKey{conn, id}
		begun, ok := t.frames[k]
		if !ok {
			return nil
		}
		delete(t.frames, k)
		e.Ph, e.ID = "e", begun
		return t.put(e)
	}
	return nil
}

// pair returns the id of the next pair of asynchronous events.
func (t *timeline) pair() string {
	t.pairs++
	return fmt.Sprint(t.pairs)
}

func (t *timeline) span(conn uint64, name string, begin, d time.Duration) error {
	if err := t.name(conn); err != nil {
		return err
	}
	took := micro(d)
	return t.put(traceEvent{Name: name, Ph: "X", Ts: micro(begin), Dur: &took, Pid: conn, Tid: trackWork})
}

func (t *timeline) fence(conn uint64, what string, begin, end time.Duration) error {
	if err := t.name(conn); err != nil {
		return err
	}
	e := traceEvent{Name: what, Cat: "fence", ID: t.pair(), Pid: conn, Tid: trackWork}
	e.Ph, e.Ts = "b", micro(begin)
	if err := t.put(e); err != nil {
		return err
	}
	e.Ph, e.Ts = "e", micro(end)
	return t.put(e)
}

func (t *timeline) close() error {
	end := "\n]\n"
	if !t.comma {
		end = "[]\n"
	}
	if _, err := t.w.WriteString(end); err != nil {
		return err
	}
	return t.w.Flush()
}
