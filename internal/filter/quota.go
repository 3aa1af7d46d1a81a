package filter

import (
	"context"
	"fmt"
	"math"
	"sync"
	"time"

	"vix/internal/display"
	"vix/internal/relay"
	"vix/internal/wayland"
)

// take counts n more of the objects that k limits, or returns an error for the request
// of o that needs them.
func (f *Filter) take(o *relay.Object, k display.Limit, n int64) error {
	if f.reserve(k, n) {
		return nil
	}
	return relay.Fail(o, relay.ErrNoMemory, "%s", f.refusal(k))
}

// give undoes take.
func (f *Filter) give(k display.Limit, n int64) { f.used[k].Add(-n) }

// reserve is take for callers without a request to blame.
func (f *Filter) reserve(k display.Limit, n int64) bool {
	most := f.cfg.Limits.Of(k)
	if used := f.used[k].Add(n); used > most && n > 0 {
		f.used[k].Add(-n)
		f.cfg.Log.Warn("limit reached", "vm", f.cfg.VM, "limit", k.String(), "value", most)
		return false
	}
	return true
}

func (f *Filter) refusal(k display.Limit) string {
	return fmt.Sprintf("limit reached: VM %s may have %d %s", f.cfg.VM, f.cfg.Limits.Of(k), k)
}

// refuse tells a client why it has no connection.
func (f *Filter) refuse(t wayland.Transport, k display.Limit) error {
	var e wayland.Encoder
	e.Begin(1, wayland.WlDisplayEvtError)
	e.Uint(1)
	e.Uint(relay.ErrNoMemory)
	e.String(f.refusal(k))
	if err := e.End(); err != nil {
		return err
	}
	return t.Send(e.B, nil)
}

// Bounds of objects of one connection, where the VM's bound of all objects is
// not enough: each binding of a global makes the compositor send its whole state, and
// each keyboard brings a copy of the keymap.
const (
	maxBindings  = 256
	maxKeyboards = 64
)

// maxOf is relay.Config.MaxOf.
var maxOf = sync.OnceValue(func() []int32 {
	m := make([]int32, len(wayland.Interfaces()))
	for _, i := range wayland.Interfaces() {
		m[i.Index] = relay.MaxObjects
		if _, global := display.Rules[i]; global {
			m[i.Index] = maxBindings
		}
	}
	m[wayland.WlRegistry.Index] = maxBindings
	m[wayland.WlKeyboard.Index] = maxKeyboards
	for i, most := range selectionMost {
		m[i.Index] = most
	}
	return m
})

// quotaHooks count limited objects. Regions always count their rectangles: the model
// needs to know whether they have any. A compositor may split n rectangles into up to n²,
// and it keeps several regions for each surface besides the client's.
func quotaHooks(l relay.Layer, limits *display.Limits) {
	l.Request(wayland.WlCompositor, wayland.WlCompositorReqCreateRegion, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		if err := filterOf(c).take(m.Obj, display.Regions, 1); err != nil {
			return false, err
		}
		m.New.Data = &regionData{}
		return true, nil
	})
	end := func(c *relay.Conn, o *relay.Object) {
		if o.Data != nil {
			o.Data = nil
			filterOf(c).give(display.Regions, 1)
		}
	}
	l.Request(wayland.WlRegion, wayland.WlRegionReqDestroy, func(c *relay.Conn, m *relay.Msg) (bool, error) {
		end(c, m.Obj)
		return true, nil
	})
	l.Gone(wayland.WlRegion, end)
	rects := uint32(min(limits.Of(display.Rectangles), math.MaxUint32-1))
	for _, op := range []int{wayland.WlRegionReqAdd, wayland.WlRegionReqSubtract} {
		l.RequestAfter(wayland.WlRegion, op, rects, onManyRects)
	}
}

// Unlimited is the value of a limit that does not limit.
const Unlimited = 1 << 40

// pace is relay.Config.Pace, nil without a limit of requests.
func (f *Filter) pace(s *state) func(requests int) time.Duration {
	if f.cfg.Limits.Of(display.Requests) >= Unlimited {
		return nil
	}
	return func(n int) time.Duration { return s.wait(display.Requests, int64(n)) }
}

// commitStep is how many commits a connection takes from the VM's bucket at a
// time, so that a commit costs no look at the clock.
const commitStep = 32

// countCommit slows the client down when its VM commits too fast.
func (st *state) countCommit(c *relay.Conn) {
	if st.commits++; st.commits%commitStep == 0 {
		c.Delay(st.wait(display.Commits, commitStep))
	}
}

// countResize slows the client down when its VM resizes windows too fast.
func (st *state) countResize(c *relay.Conn) { c.Delay(st.wait(display.Commits, display.ResizeCost)) }

// pauseConnect waits until the VM may open one more connection: each makes the
// compositor send its whole state.
func (st *state) pauseConnect(ctx context.Context) error {
	d := st.wait(display.Connects, 1)
	if d <= 0 {
		return context.Cause(ctx)
	}
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// countOpen slows the client down when its VM opens windows and popups too fast: each
// makes the compositor arrange its windows again.
func (st *state) countOpen(c *relay.Conn) { c.Delay(st.wait(display.Opens, 1)) }

// wait takes n tokens of the rate k, and returns how long the client has to wait for
// them.
func (st *state) wait(k display.Limit, n int64) time.Duration {
	f := st.filter
	d := f.rates[k].take(n, f.cfg.Limits.Of(k), time.Now())
	if d > 0 && !st.slowLogged[k] {
		st.slowLogged[k] = true
		f.cfg.Log.Warn("limit reached; the connection is slowed down", "vm", f.cfg.VM, "limit", k.String(), "value", f.cfg.Limits.Of(k))
	}
	return d
}

// regionData is the Data of a counted region.
type regionData struct {
	many bool // it had more rectangles than a compositor should have to combine
}

// onManyRects drops the rectangles beyond the limit: the region is not used any more.
func onManyRects(c *relay.Conn, m *relay.Msg) (bool, error) {
	if r := m.Obj.Data.(*regionData); !r.many {
		r.many = true
		f := filterOf(c)
		f.cfg.Log.Info("limit reached: a region counts as everything", "vm", f.cfg.VM, "limit", display.Rectangles.String(), "value", f.cfg.Limits.Of(display.Rectangles))
	}
	return false, nil
}

// A bucket lets a number of tokens through each second, and after a rest a second's
// worth at once.
type bucket struct {
	mu sync.Mutex
	// free is the time at which the tokens taken so far are paid for.
	free time.Time
}

// take takes n tokens of perSecond and returns how long to wait for them.
func (b *bucket) take(n, perSecond int64, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.free = b.with(n, perSecond, now)
	return b.free.Sub(now)
}

// has takes a token of perSecond if there is one without a wait.
func (b *bucket) has(perSecond int64, now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	free := b.with(1, perSecond, now)
	if free.After(now) {
		return false
	}
	b.free = free
	return true
}

// with returns free with n tokens more.
func (b *bucket) with(n, perSecond int64, now time.Time) time.Time {
	free := b.free
	if floor := now.Add(-time.Second); free.Before(floor) {
		free = floor
	}
	return free.Add(time.Duration(n) * time.Second / time.Duration(perSecond))
}
