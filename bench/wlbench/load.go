package main

import (
	"fmt"
	"time"
)

// Many small messages, in either direction.

const (
	window   = 1000 // requests to a sync
	inFlight = 4    // windows under way
	burst    = 2000 // events that the null compositor sends at once
)

// benchMsgs pipelines small requests for about d: up to inFlight windows of
// requests, each ended by a sync, are on their way. Requests are sent in
// writes of about 4 KiB, as libwayland does.
//
//	add:   wl_region.add on one region (a plain message)
//	churn: create_region, add, add, destroy (objects come and go, ids are reused)
func benchMsgs(path, mix string, d time.Duration) (metrics, error) {
	c, err := connect(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	m := msgLoad{client: c}
	if m.comp, _, err = c.bind("wl_compositor", 4); err != nil {
		return nil, err
	}
	m.region = c.newID()
	c.msg(m.comp, 1, m.region)
	if err := c.roundtrip(nil); err != nil {
		return nil, err
	}
	send := map[string]func(k int) int{"add": m.add, "churn": m.churn}[mix]
	if send == nil {
		return nil, fmt.Errorf("unknown mix %q; there are add and churn", mix)
	}
	t0 := time.Now()
	last := t0
	msgs := 0
	for sending := true; sending || len(m.pending) > 0; {
		if sending {
			if err := m.window(send); err != nil {
				return nil, err
			}
			msgs += window + 1
			if len(m.pending) < inFlight {
				continue
			}
		}
		if err := m.await(); err != nil {
			return nil, err
		}
		last = time.Now()
		sending = sending && last.Sub(t0) < d
	}
	el := last.Sub(t0).Seconds()
	return metrics{"count": float64(msgs), "seconds": el, "per_s": float64(msgs) / el}, nil
}

// msgLoad is the state of benchMsgs.
type msgLoad struct {
	*client
	comp, region uint32
	pending      []uint32 // callbacks of the windows under way
}

func (m *msgLoad) add(k int) int {
	m.msg(m.region, 1, uint32(k), 0, 64, 64)
	return 1
}

func (m *msgLoad) churn(int) int {
	r := m.newID()
	m.msg(m.comp, 1, r)
	m.msg(r, 1, 0, 0, 64, 64)
	m.msg(r, 1, 64, 0, 64, 64)
	m.msg(r, 0)
	return 4
}

// window sends one window of requests and its sync.
func (m *msgLoad) window(send func(k int) int) error {
	for k := 0; k < window; k += send(k) {
		if len(m.out) >= flushAt-32 {
			if err := m.flush(); err != nil {
				return err
			}
		}
	}
	cb := m.newID()
	m.msg(1, 0, cb)
	m.pending = append(m.pending, cb)
	return m.flush()
}

// await takes events until the oldest window's callback.
func (m *msgLoad) await() error {
	return m.each(func(id uint32, _ uint16, _ []byte) (bool, error) {
		if id != m.pending[0] {
			return false, nil
		}
		m.pending = m.pending[:copy(m.pending, m.pending[1:])]
		return true, nil
	})
}

// benchEvents has the null compositor send floods of wl_pointer.motion.
func benchEvents(path string, d time.Duration) (metrics, error) {
	c, err := connect(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	seat, _, err := c.bind("wl_seat", 5)
	if err != nil {
		return nil, err
	}
	comp, _, err := c.bind("wl_compositor", 4)
	if err != nil {
		return nil, err
	}
	ptr, region := c.newID(), c.newID()
	c.msg(seat, 0, ptr)
	c.msg(comp, 1, region)
	if err := c.roundtrip(nil); err != nil {
		return nil, err
	}
	asked := 0
	ask := func() error {
		asked++
		c.msg(region, 2, burst, 0, 0, 0)
		return c.flush()
	}
	t0 := time.Now()
	for range 2 { // two bursts ahead, so that the flood has no holes
		if err := ask(); err != nil {
			return nil, err
		}
	}
	got := 0
	for ; got < asked; got++ {
		if err := c.awaitBurst(ptr); err != nil {
			return nil, err
		}
		if time.Since(t0) < d {
			if err := ask(); err != nil {
				return nil, err
			}
		}
	}
	el := time.Since(t0).Seconds()
	n := float64(got * burst)
	return metrics{"count": n, "seconds": el, "per_s": n / el}, nil
}

// awaitBurst takes one burst of motion, whose times count from 1.
func (c *client) awaitBurst(ptr uint32) error {
	want := uint32(1)
	return c.each(func(id uint32, op uint16, body []byte) (bool, error) {
		if id != ptr || op != 2 {
			return false, nil
		}
		if t := ne.Uint32(body); t != want {
			return false, fmt.Errorf("event %d came where %d was due", t, want)
		}
		want++
		return want > burst, nil
	})
}
