package relay

import "sync"

// A waker calls Config.Woken for other goroutines, mostly those of other
// connections: they hold their own connection's lock and must not wait for this
// one's. Many wakes share one goroutine, and at most one pending call.
type waker struct {
	mu      sync.Mutex
	wg      sync.WaitGroup
	running bool
	again   bool
	over    bool
}

// Wake makes a goroutine call Config.Woken soon, unless the connection ends before. It
// waits for nothing, and may be called with any lock held except waker's.
func (c *Conn) Wake() {
	w := &c.waker
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over || c.cfg.Woken == nil {
		return
	}
	w.again = true
	if !w.running {
		w.running = true
		w.wg.Go(func() { c.wake() })
	}
}

// next tells whether there is another call to make.
func (w *waker) next() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.running = w.again && !w.over
	w.again = false
	return w.running
}

// end returns when no call is made any more.
func (w *waker) end() {
	w.mu.Lock()
	w.over = true
	w.mu.Unlock()
	w.wg.Wait()
}

func (c *Conn) wake() {
	for c.waker.next() {
		c.mu.Lock()
		c.current = nil
		c.cfg.Woken(c)
		err := c.flushInjected()
		if err != nil {
			c.end(err)
		}
	}
}

// flushInjected sends what was written to both sides outside a batch. It needs c.mu, and
// releases it.
func (c *Conn) flushInjected() error {
	if c.server.inject.spill != nil || c.client.inject.spill != nil {
		c.mu.Unlock()
		return errFlood
	}
	var boxes [2]outbox
	sides := [2]*side{&c.server, &c.client}
	for k, s := range sides {
		if !s.inject.empty() {
			boxes[k], s.inject = s.inject, outbox{}
			s.sendMu.Lock()
		}
	}
	c.mu.Unlock()
	var failed error
	for k, s := range sides {
		if boxes[k].empty() {
			continue
		}
		// A side that is gone ends the pump that receives from it.
		if err := s.send(boxes[k].B, boxes[k].descs); failed == nil && !isGone(err) {
			failed = err
		}
		s.sendMu.Unlock()
	}
	return failed
}
