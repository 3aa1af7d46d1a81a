package agent

import "time"

// A Pace bounds how often something may come: Burst at once, then one in each Step. It is not
// safe for use by several goroutines.
type Pace struct {
	Burst int
	Step  time.Duration
	free  time.Time // when a whole burst may come again
}

// Admits reports whether one more may come now, and counts it if so.
func (p *Pace) Admits(now time.Time) bool {
	if p.free.Before(now) {
		p.free = now
	}
	if p.free.Sub(now) > time.Duration(p.Burst-1)*p.Step {
		return false
	}
	p.free = p.free.Add(p.Step)
	return true
}
