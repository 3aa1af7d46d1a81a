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

// A Meter tells where the time of a client goes that asks, waits for the answer
// and asks again: what each stage takes of such a round, in µs.
//
//	who asks (near) ⇄ transport ⇄ [ relay ] ⇄ transport ⇄ who answers (far)
//
//	arrive   from the request's arrival at the transport until the relay has it:
//	         known of a cross-domain context only
//	inside   received → sent on, of requests and of answers, less copy
//	copy     pixels into shadows
//	send     sending to the far end
//	far      sent → the answer received
//	answer   sending to the near end
//	near     the rest of the round: the near end, and what is on the way to it
//
// At the end of a connection it writes one line of JSON. It is made for measurements:
// the stages of two clients that talk at the same time mingle. The zero value
// measures nothing until Start.
type Meter struct {
	mu       sync.Mutex
	w        io.Writer // nil: off
	stage    stage
	last     time.Time
	cur      [stages]time.Duration
	copied   int
	answered bool
	rounds   []round
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
	took   [stages]time.Duration
	copied int
}

// maxRounds bounds what is kept of a connection.
const maxRounds = 1 << 14

// A MeterLine is what a Meter writes of a connection. Its stages are those of an
// ordinary round: the mean of the middle half of all, by their whole time, so that
// they add up and a start or a disturbance does not show.
type MeterLine struct {
	Rounds int                `json:"rounds"`
	Stages map[string]float64 `json:"stages_us"`
	Copied int                `json:"copied"` // bytes of pixels in the median round
}

// Start lets the connections made from now on be measured, and writes their
// lines to w. It returns what ends that, false when the meter is in use.
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
	m.cur, m.copied, m.answered = [stages]time.Duration{}, 0, false
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

// Near returns the transport to who asks, measured while the meter runs.
func (m *Meter) Near(t wayland.Transport) wayland.Transport {
	if !m.on() {
		return t
	}
	if a, ok := t.(interface{ OnSend(f func()) }); ok {
		a.OnSend(func() { m.begin(stageArrive) })
	}
	return &meteredNear{Transport: t, m: m}
}

// Far returns the transport to who answers.
func (m *Meter) Far(t wayland.Transport) wayland.Transport {
	if !m.on() {
		return t
	}
	return &meteredFar{t, m}
}

// begin notes that something came from the near end, which begins a round when the
// one before was answered.
func (m *Meter) begin(s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.markLocked(s)
	if !m.answered {
		return
	}
	if len(m.rounds) < maxRounds {
		m.rounds = append(m.rounds, round{m.cur, m.copied})
	}
	m.cur, m.copied, m.answered = [stages]time.Duration{}, 0, false
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
func (m *Meter) after(was, s stage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stage == was {
		m.markLocked(s)
	}
}

// Pixels notes a copy of n bytes, which a hook made meanwhile.
func (m *Meter) Pixels(n int, took time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.copied += n
	m.cur[stageCopy] += took
	m.cur[stageInside] -= took
}

// flush writes the connection's line.
func (m *Meter) flush() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.w != nil {
		if b, err := json.Marshal(m.lineLocked()); err == nil {
			_, _ = m.w.Write(append(b, '\n')) // who reads no longer wants nothing
		}
	}
	m.resetLocked()
}

func (m *Meter) lineLocked() MeterLine {
	whole := func(r round) (d time.Duration) {
		for _, took := range r.took {
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
		for s, took := range r.took {
			l.Stages[stageNames[s]] += float64(took.Nanoseconds()) / 1000 / float64(len(middle))
		}
	}
	l.Copied = m.rounds[n/2].copied
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
