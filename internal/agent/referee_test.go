package agent

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sync"
)

// A wire joins two ends of a channel in a test. Each direction can be stalled, or let through a
// number of bytes, and a referee sees all that is written.
type wire struct{ ab, ba *lane }

// An end is one end of a wire.
type end struct {
	in, out *lane
}

func newWire(toGuest, toHost func([]byte)) (w *wire, host, guest *end) {
	w = &wire{ab: newLane(toGuest), ba: newLane(toHost)}
	return w, &end{in: w.ba, out: w.ab}, &end{in: w.ab, out: w.ba}
}

func (e *end) Read(p []byte) (int, error)  { return e.in.read(p) }
func (e *end) Write(p []byte) (int, error) { return e.out.write(p) }
func (e *end) Close() error {
	e.in.close()
	e.out.close()
	return nil
}

// laneRoom bounds the bytes in transit, like a socket's buffer: less than a stream's window, so
// that writers wait.
const laneRoom = 48 << 10

// A lane is one direction.
type lane struct {
	seen func([]byte)

	mu     sync.Mutex
	wake   sync.Cond
	buf    []byte
	open   int // bytes that may be read yet; -1: all
	closed bool
}

func newLane(seen func([]byte)) *lane {
	l := &lane{seen: seen, open: -1}
	l.wake.L = &l.mu
	return l
}

func (l *lane) write(p []byte) (n int, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for len(p) > 0 {
		for len(l.buf) == laneRoom && !l.closed {
			l.wake.Wait()
		}
		if l.closed {
			return n, io.ErrClosedPipe
		}
		k := min(len(p), laneRoom-len(l.buf))
		l.buf = append(l.buf, p[:k]...)
		l.seen(p[:k])
		n, p = n+k, p[k:]
		l.wake.Broadcast()
	}
	return n, nil
}

func (l *lane) read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for (len(l.buf) == 0 || l.open == 0) && !l.closed {
		l.wake.Wait()
	}
	if l.closed {
		return 0, io.EOF
	}
	n := min(len(p), len(l.buf))
	if l.open >= 0 {
		n = min(n, l.open)
		l.open -= n
	}
	copy(p, l.buf[:n])
	l.buf = l.buf[n:]
	l.wake.Broadcast()
	return n, nil
}

// let lets n more bytes through, or all from now on (-1).
func (l *lane) let(n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.open = n
	l.wake.Broadcast()
}

func (l *lane) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wake.Broadcast()
}

// A referee checks the frames of both ends against the tables of states.go, with a model of
// its own of each run's state.
type referee struct {
	mu     sync.Mutex
	halves [2][]byte // incomplete frames: the host's, the guest's
	runs   map[uint32]*judged
	lastID uint32
	calls  map[uint32]*judgedCall // calls that are not over
	last   uint32                 // last call
	heard  []Message              // frames of the end that the test does not play; for the player
	faults []error
}

type judged struct {
	phase  phase
	credit [3]int
	ended  [3]bool
	hung   [3]bool
}

func newReferee() *referee {
	return &referee{runs: map[uint32]*judged{}, calls: map[uint32]*judgedCall{}}
}

// saw takes bytes from the host (0) or from the guest (1).
func (r *referee) saw(who int, b []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.halves[who] = append(r.halves[who], b...)
	for {
		in := bytes.NewReader(r.halves[who])
		typ, payload, err := ReadFrame(in, make([]byte, MaxPayload))
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return
		}
		r.halves[who] = r.halves[who][len(r.halves[who])-in.Len():]
		m, perr := Parse(typ, payload)
		if err = errors.Join(err, perr); err == nil {
			r.heard = append(r.heard, m)
			err = r.judge(who, m)
		}
		if err != nil {
			r.faults = append(r.faults, fmt.Errorf("%s: %w", [2]string{"host", "guest"}[who], err))
			return
		}
	}
}

// judge advances the model by m, or explains why m is forbidden.
func (r *referee) judge(who int, m Message) error {
	k, _ := keyOf(m)
	if k.call {
		return r.judgeCall(who, m)
	}
	table := [2]map[Type][phases]verdict{fromHost, fromGuest}[who]
	row, ok := table[m.Type()]
	if !ok || k.id == 0 {
		return nil // not about a run
	}
	run := r.runs[k.id]
	if _, spawn := m.(Spawn); spawn {
		if k.id <= r.lastID {
			return fmt.Errorf("spawn %d after %d", k.id, r.lastID)
		}
		r.lastID = k.id
		r.runs[k.id] = &judged{phase: asked, credit: [3]int{Window, Window, Window}}
		return nil
	}
	if run == nil {
		return fmt.Errorf("%s of program %d, which was never spawned", m.Type(), k.id)
	}
	if row[run.phase] == breaks {
		return fmt.Errorf("%s of program %d while it is %s", m.Type(), k.id, run.phase)
	}
	return run.move(who, m)
}

// move advances the model of the streams.
func (j *judged) move(who int, m Message) error {
	mine := func(s Stream) bool { return (s == Stdin) == (who == 0) }
	switch m := m.(type) {
	case Spawned:
		j.phase = running
	case Error:
		j.phase = unknown
	case Exit:
		j.phase = ended
	case Data:
		switch {
		case !mine(m.Stream) || j.ended[m.Stream]:
			return fmt.Errorf("data of stream %d after its end", m.Stream)
		case len(m.Bytes) > j.credit[m.Stream]:
			return fmt.Errorf("%d bytes on stream %d with credit for %d", len(m.Bytes), m.Stream, j.credit[m.Stream])
		}
		j.credit[m.Stream] -= len(m.Bytes)
		j.ended[m.Stream] = len(m.Bytes) == 0
	case Credit:
		if mine(m.Stream) || j.credit[m.Stream]+int(m.N) > Window {
			return fmt.Errorf("credit of %d for stream %d over %d", m.N, m.Stream, j.credit[m.Stream])
		}
		j.credit[m.Stream] += int(m.N)
	case Hangup:
		if mine(m.Stream) {
			return fmt.Errorf("hangup of stream %d", m.Stream)
		}
		j.hung[m.Stream] = true
	}
	if j.phase == ended && j.ended[Stdout] && j.ended[Stderr] {
		j.phase = unknown
	}
	return nil
}

// A judgedCall is the model of one call; streams are counted from Up.
type judgedCall struct {
	phase   phase
	refused bool
	credit  [2]int
	ended   [2]bool
}

func (r *referee) judgeCall(who int, m Message) error {
	k, _ := keyOf(m)
	c, at := r.calls[k.id], unknown
	if c != nil {
		at = c.phase
	}
	v := [2]map[Type][phases]verdict{callFromHost, callFromGuest}[who][m.Type()][at]
	if who == 0 && v == crosses && (m.Type() == TypeCredit || m.Type() == TypeHangup) {
		return nil
	}
	if v != acts {
		return fmt.Errorf("%s of call %d while it is %s", m.Type(), k.id, at)
	}
	switch m.(type) {
	case Call:
		if k.id <= r.last || len(r.calls) >= MaxCalls {
			return fmt.Errorf("call %d after %d, with %d that are not over", k.id, r.last, len(r.calls))
		}
		r.last = k.id
		r.calls[k.id] = &judgedCall{phase: asked, credit: [2]int{Window, Window}}
		return nil
	case Over:
		delete(r.calls, k.id)
		return nil
	}
	return c.move(who, m)
}

// move advances the model of the streams. It changes nothing if it returns an error.
func (j *judgedCall) move(who int, m Message) error {
	mine := func(s Stream) bool { return (s == Down) == (who == 0) }
	switch m := m.(type) {
	case Accept:
		j.phase = running
	case Refuse:
		j.phase, j.refused = ended, true
	case Data:
		s := m.Stream - Up
		switch {
		case j.ended[s]:
			return fmt.Errorf("data of stream %d after its end", m.Stream)
		case len(m.Bytes) > j.credit[s]:
			return fmt.Errorf("%d bytes on stream %d with credit for %d", len(m.Bytes), m.Stream, j.credit[s])
		}
		j.credit[s] -= len(m.Bytes)
		j.ended[s] = len(m.Bytes) == 0
		if j.ended == [2]bool{true, true} {
			j.phase = ended
		}
	case Credit:
		if mine(m.Stream) || j.refused || j.credit[m.Stream-Up]+int(m.N) > Window {
			return fmt.Errorf("credit of %d for stream %d", m.N, m.Stream)
		}
		j.credit[m.Stream-Up] += int(m.N)
	case Hangup:
		if mine(m.Stream) {
			return fmt.Errorf("hangup of stream %d", m.Stream)
		}
	}
	return nil
}

// fault returns the first fault of either end.
func (r *referee) fault() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.faults) > 0 {
		return r.faults[0]
	}
	return nil
}
