package virtwl

import (
	"sync"
	"time"
)

// A fenceWatch tells of the fences that a context holds: what for, from when, and
// until when.
type fenceWatch struct {
	tell func(what string, begin, end time.Time)

	mu    sync.Mutex
	since map[Fence]heldFence // as many as a context may hold
}

type heldFence struct {
	what  string
	begin time.Time
}

// OnFence sets what is called, with locks held, when a fence that had to wait is
// signalled: POLL, SEND or WRITE. Fences held already are not told of.
func (c *HostContext) OnFence(tell func(what string, begin, end time.Time)) {
	c.watch.Store(&fenceWatch{tell: tell, since: make(map[Fence]heldFence)})
}

// hold notes that f waits.
func (c *HostContext) hold(f Fence, what string) {
	if w := c.watch.Load(); w != nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.since[f] = heldFence{what, time.Now()}
	}
}

// signal completes the command of a fence.
func (c *HostContext) signal(f Fence) {
	c.port.Signal(f)
	w := c.watch.Load()
	if w == nil {
		return
	}
	w.mu.Lock()
	h, ok := w.since[f]
	delete(w.since, f)
	w.mu.Unlock()
	if ok {
		w.tell(h.what, h.begin, time.Now())
	}
}
