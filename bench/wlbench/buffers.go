package main

import (
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// What a buffer costs to have: in a VM the relay gives each a shadow in memory of
// the host's, and where it takes that from was chosen by this (internal/guestproxy's
// shadow.go).

// slabSide is a buffer that fits the relay's slabs, which are there already;
// ownSide is one that needs a blob of its own, mapped for it and given back after
// it. Both are square.
const (
	slabSide = 512
	ownSide  = 2304 // 20 MiB
)

// benchBuffers makes a pool with one buffer, as many programs do for each, and
// destroys both, again and again. Nothing is painted or copied.
func benchBuffers(path string, side int, d time.Duration) (metrics, error) {
	c, err := connect(path)
	if err != nil {
		return nil, err
	}
	defer c.close()
	shm, _, err := c.bind("wl_shm", 1)
	if err != nil {
		return nil, err
	}
	size := 4 * side * side
	fd, err := unix.MemfdCreate("wlbench", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	made := func() error {
		pool, buf := c.newID(), c.newID()
		at := c.begin(shm, 0)
		c.u(pool)
		c.i(int32(size))
		c.end(at)
		c.outFds = append(c.outFds, fd)
		c.msg(pool, 0, buf, 0, uint32(side), uint32(side), uint32(4*side), 1)
		c.msg(pool, 1)
		if err := c.roundtrip(nil); err != nil {
			return err
		}
		c.msg(buf, 0)
		return c.roundtrip(nil)
	}
	if err := made(); err != nil { // the first one makes the slab
		return nil, fmt.Errorf("a buffer of %d bytes: %w", size, err)
	}
	var lat []time.Duration
	t0 := time.Now()
	for len(lat) == 0 || time.Since(t0) < d {
		t := time.Now()
		if err := made(); err != nil {
			return nil, err
		}
		lat = append(lat, time.Since(t))
	}
	el := time.Since(t0).Seconds()
	slices.Sort(lat)
	return metrics{"count": float64(len(lat)), "seconds": el, "p50_us": pct(lat, .5), "p99_us": pct(lat, .99)}, nil
}
