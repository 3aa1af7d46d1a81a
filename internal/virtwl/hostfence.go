package virtwl

import (
	"sync"
	"time"
)

// A fenceWatch reports the fences that a context holds: their purpose, begin and end.
type fenceWatch struct {
	tell func(what string, begin, end time.Time)

	mu    sync.Mutex
	since map[Fence]heldFence // as many as a context may hold
}

type heldFence struct {
	what  string
	begin time.Time
}

// OnFence sets a function to call, with locks held, when a held fence of POLL, SEND or
// WRITE is signalled. It does not report fences that are already held.
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
