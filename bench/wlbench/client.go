package main

import (
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

type global struct {
	name, version uint32
}

// client is a minimal Wayland client on a wireConn.
type client struct {
	*wireConn
	nextID  uint32
	free    []uint32
	globals map[string]global
	nGlob   int
	reg     uint32
}

var errProxyGone = errors.New("connection closed by the other side")

func connect(path string) (*client, error) {
	w, err := dialWire(path)
	if err != nil {
		return nil, err
	}
	c := &client{wireConn: w, nextID: 2, globals: map[string]global{}}
	c.reg = c.newID()
	c.msg(1, 1, c.reg)
	if err := c.roundtrip(func(id uint32, op uint16, body []byte) {
		if id == c.reg && op == 0 {
			a := args{b: body}
			n, i, v := a.u(), a.s(), a.u()
			c.globals[i] = global{n, v}
			c.nGlob++
		}
	}); err != nil {
		c.close()
		return nil, err
	}
	return c, nil
}

func (c *client) newID() uint32 {
	if n := len(c.free); n > 0 {
		id := c.free[n-1]
		c.free = c.free[:n-1]
		return id
	}
	id := c.nextID
	c.nextID++
	return id
}

// each reads events, and handles wl_display's, until f says stop.
func (c *client) each(f func(id uint32, op uint16, body []byte) (stop bool, err error)) error {
	for {
		id, op, body, ok, err := c.next()
		if err != nil {
			return err
		}
		if !ok {
			if err := c.fill(); errors.Is(err, io.EOF) {
				return errProxyGone
			} else if err != nil {
				return err
			}
			continue
		}
		if id == 1 {
			if err := c.display(op, body); err != nil {
				return err
			}
			continue
		}
		stop, err := f(id, op, body)
		if err != nil || stop {
			return err
		}
	}
}

// display handles an event of wl_display.
func (c *client) display(op uint16, body []byte) error {
	a := args{b: body}
	switch op {
	case 0:
		o, code, text := a.u(), a.u(), a.s()
		return fmt.Errorf("wl_display.error: object %d code %d: %s", o, code, text)
	case 1:
		c.free = append(c.free, a.u())
	}
	return nil
}

func (c *client) roundtrip(f func(id uint32, op uint16, body []byte)) error {
	cb := c.newID()
	c.msg(1, 0, cb)
	if err := c.flush(); err != nil {
		return err
	}
	return c.each(func(id uint32, op uint16, body []byte) (bool, error) {
		if id == cb {
			return true, nil
		}
		if f != nil {
			f(id, op, body)
		}
		return false, nil
	})
}

func (c *client) bind(ifn string, maxVer uint32) (uint32, uint32, error) {
	g, ok := c.globals[ifn]
	if !ok {
		return 0, 0, fmt.Errorf("no global %s", ifn)
	}
	v := min(g.version, maxVer)
	id := c.newID()
	at := c.begin(c.reg, 0)
	c.u(g.name)
	c.s(ifn)
	c.u(v)
	c.u(id)
	c.end(at)
	return id, v, nil
}

type metrics map[string]float64

func pct(sorted []time.Duration, p float64) float64 {
	if len(sorted) == 0 {
		return 0
	}
	return float64(sorted[min(len(sorted)-1, int(p*float64(len(sorted))))].Nanoseconds()) / 1e3
}

// benchSync measures wl_display.sync → wl_callback.done, one at a time. With
// a gap the client sleeps in between, so that everything on the way is asleep.
func benchSync(path string, n int, gap time.Duration) (metrics, error) {
	c, err := connect(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	warm := n / 10
	lat := make([]time.Duration, 0, n)
	t0 := time.Now()
	for i := range n + warm {
		if i == warm {
			t0 = time.Now()
		}
		if gap > 0 {
			ts := unix.NsecToTimespec(int64(gap/2) + rand.Int64N(int64(gap)))
			_ = unix.Nanosleep(&ts, nil) // not time.Sleep: this thread is to be woken as a C program's is
		}
		t := time.Now()
		if err := c.roundtrip(nil); err != nil {
			return nil, err
		}
		if i >= warm {
			lat = append(lat, time.Since(t))
		}
	}
	el := time.Since(t0)
	slices.Sort(lat)
	return metrics{
		"count": float64(n + warm), "seconds": el.Seconds(),
		"p50_us": pct(lat, .5), "p90_us": pct(lat, .9), "p99_us": pct(lat, .99), "max_us": pct(lat, 1),
	}, nil
}

// benchConns: connect, get_registry, sync, close; one after the other.
func benchConns(path string, d time.Duration) (metrics, error) {
	t0 := time.Now()
	var lat []time.Duration
	for len(lat) == 0 || time.Since(t0) < d {
		t := time.Now()
		c, err := connect(path)
		if err != nil {
			return nil, fmt.Errorf("connection %d: %w", len(lat), err)
		}
		if c.nGlob == 0 {
			c.close()
			return nil, errors.New("no globals")
		}
		c.close()
		lat = append(lat, time.Since(t))
	}
	el := time.Since(t0).Seconds()
	slices.Sort(lat)
	n := float64(len(lat))
	return metrics{"count": n, "seconds": el, "per_s": n / el, "p50_us": pct(lat, .5), "p99_us": pct(lat, .99)}, nil
}

// hold opens n idle connections, each with a bound compositor and a surface.
func hold(path string, n int) (closeAll func(), err error) {
	var cs []*client
	closeAll = func() {
		for _, c := range cs {
			c.close()
		}
	}
	for i := range n {
		c, err := connect(path)
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
		cs = append(cs, c)
		comp, _, err := c.bind("wl_compositor", 4)
		if err == nil {
			c.msg(comp, 0, c.newID())
			err = c.roundtrip(nil)
		}
		if err != nil {
			closeAll()
			return nil, fmt.Errorf("connection %d: %w", i, err)
		}
	}
	return closeAll, nil
}
