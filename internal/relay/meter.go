package relay

import (
	"cmp"
	"encoding/json"
	"io"
	"slices"
	"sync"
	"time"

	"vix/internal/wayland"
)

// A Meter measures where the time goes of a client that asks, waits for the answer
// and asks again: the time of each stage of such a round, in µs.
//
//	who asks (near) ⇄ transport ⇄ [ relay ] ⇄ transport ⇄ who answers (far)
//
//	arrive   from the request's arrival at the transport until the relay has it:
//	         measured with a cross-domain context only
//	inside   received → sent on, of requests and of answers, less copy
//	copy     pixels into shadows
//	send     sending to the far end
//	far      sent → the answer received
//	answer   sending to the near end
//	near     the rest of the round: the near end, and the way to it
//
// At the end of a connection it writes one line of JSON. It is for measurements of one
// client: it mixes the stages of clients that talk at the same time. The zero value
// measures nothing until Start.
type Meter struct {
	mu        sync.Mutex
	w         io.Writer // nil: off
	stage     stage
	last      time.Time
	cur       [stages]time.Duration
	copyBytes int
	answered  bool
	rounds    []round
}

type stage int

const (
	stageNear stage = iota
	stageArrive
	stageInside
	stageCopy
	stageSend
	stageFar
	stageAnswer
	stages
)

var stageNames = [stages]string{"near", "arrive", "inside", "copy", "send", "far", "answer"}

type round struct {
	times     [stages]time.Duration
	copyBytes int
}

// maxRounds bounds the rounds kept of a connection.
const maxRounds = 1 << 14

// A MeterLine is a Meter's line about a connection. Its stages are the mean of the middle
// half of all rounds, by their whole time: so they add up, and a start or a disturbance
// does not show.
type MeterLine struct {
	Rounds int                `json:"rounds"`
	Stages map[string]float64 `json:"stages_us"`
	Copied int                `json:"copied"` // bytes of pixels in the median round
}

// Start measures the connections made from now on, and writes their lines to w. It
// returns a function that stops it, and false when the meter is in use.
func (m *Meter) Start(w io.Writer) (stop func(), ok bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w != nil {
		return nil, false
	}
	m.w = w
	m.resetLocked()
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.w = nil
	}, true
}

func (m *Meter) resetLocked() {
	m.stage, m.last = stageNear, time.Now()
	m.cur, m.copyBytes, m.answered = [stages]time.Duration{}, 0, false
	m.rounds = m.rounds[:0]
}

func (m *Meter) on() bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.w != nil
}

// Near returns the transport to the asking end, measured while the meter runs.
func (m *Meter) Near(t wayland.Transport) wayland.Transport {
	if !m.on() {
		return t
	}
	if a, ok := t.(interface{ OnSend(f func()) }); ok {
		a.OnSend(func() { m.begin(stageArrive) })
	}
	return &meteredNear{Transport: t, m: m}
}

// Far returns the transport to the answering end.
func (m *Meter) Far(t wayland.Transport) wayland.Transport {
	if !m.on() {
		return t
	}
	return &meteredFar{t, m}
}

// begin notes bytes from the near end, which begin a round if the one before was
// answered.
func (m *Meter) begin(s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.markLocked(s)
	if !m.answered {
		return
	}
	if len(m.rounds) < maxRounds {
		m.rounds = append(m.rounds, round{m.cur, m.copyBytes})
	}
	m.cur, m.copyBytes, m.answered = [stages]time.Duration{}, 0, false
}

func (m *Meter) markLocked(s stage) {
	now := time.Now()
	m.cur[m.stage] += now.Sub(m.last)
	m.stage, m.last = s, now
}

func (m *Meter) mark(s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.markLocked(s)
	m.answered = m.answered || s == stageAnswer
}

// after notes the end of a stage, unless another has begun since: an answer may
// overtake the return from the system call that sent the question.
func (m *Meter) after(before, s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stage == before {
		m.markLocked(s)
	}
}

// Pixels notes a hook's copy of n bytes.
func (m *Meter) Pixels(n int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copyBytes += n
	m.cur[stageCopy] += took
	m.cur[stageInside] -= took
}

// flush writes the connection's line.
func (m *Meter) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w != nil {
		if b, err := json.Marshal(m.lineLocked()); err == nil {
			_, _ = m.w.Write(append(b, '\n')) // a reader that is gone needs no line
		}
	}
	m.resetLocked()
}

func (m *Meter) lineLocked() MeterLine {
	whole := func(r round) (d time.Duration) {
		for _, took := range r.times {
			d += took
		}
		return d
	}
	n := len(m.rounds)
	if n == 0 {
		return MeterLine{}
	}
	slices.SortFunc(m.rounds, func(a, b round) int { return cmp.Compare(whole(a), whole(b)) })
	middle := m.rounds[n/4 : n-n/4]
	l := MeterLine{Rounds: n, Stages: map[string]float64{}}
	for _, r := range middle {
		for s, took := range r.times {
			l.Stages[stageNames[s]] += float64(took.Nanoseconds()) / 1000 / float64(len(middle))
		}
	}
	l.Copied = m.rounds[n/2].copyBytes
	return l
}

type meteredNear struct {
	wayland.Transport
	m    *Meter
	once sync.Once
}

func (t *meteredNear) Recv(p []byte, ds []wayland.Desc) (int, []wayland.Desc, error) {
	n, ds, err := t.Transport.Recv(p, ds)
	if n > 0 {
		t.m.begin(stageInside)
	}
	return n, ds, err
}

func (t *meteredNear) Send(p []byte, ds []wayland.Desc) error {
	t.m.mark(stageAnswer)
	err := t.Transport.Send(p, ds)
	t.m.after(stageAnswer, stageNear)
	return err
}

func (t *meteredNear) Close() error {
	err := t.Transport.Close()
	t.once.Do(t.m.flush)
	return err
}

type meteredFar struct {
	wayland.Transport
	m *Meter
}

func (t *meteredFar) Recv(p []byte, ds []wayland.Desc) (int, []wayland.Desc, error) {
	n, ds, err := t.Transport.Recv(p, ds)
	if n > 0 {
		t.m.mark(stageInside)
	}
	return n, ds, err
}

func (t *meteredFar) Send(p []byte, ds []wayland.Desc) error {
	t.m.mark(stageSend)
	err := t.Transport.Send(p, ds)
	t.m.after(stageSend, stageFar)
	return err
}
