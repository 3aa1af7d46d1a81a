package main

import "time"

// A bench is one measurement of the table.
type bench struct {
	name string
	unit string
	main string // the metric of the table
	low  bool   // whether a lower one is better
	run  func(path string, d time.Duration) (metrics, error)
	per  float64 // CPU is reported for this many
	perS string
}

// Names that the goals refer to.
const (
	nameSync   = "sync, p50"
	nameAdd    = "requests (add)"
	nameChurn  = "requests (churn)"
	nameEvents = "events (motion)"
	nameSmall  = "frames, 1080p, 64×64 damage"
	nameFull   = "frames, 1080p, full, text"
	nameConns  = "connections"
)

const perMillion, perThousand = "s per 1M", "s per 1k"

// syncs is how many round trips a measurement makes: enough for a p99.
const syncs = 5000

func benches() []bench {
	return []bench{
		{nameSync, "µs", "p50_us", true, func(p string, _ time.Duration) (metrics, error) { return benchSync(p, syncs, 0) }, 1e6, perMillion},
		{"sync after a pause, p50", "µs", "p50_us", true, func(p string, d time.Duration) (metrics, error) {
			const gap = 2 * time.Millisecond
			return benchSync(p, int(d/gap), gap)
		}, 1e6, perMillion},
		{nameAdd, "/s", "per_s", false, msgsBench("add"), 1e6, perMillion},
		{nameChurn, "/s", "per_s", false, msgsBench("churn"), 1e6, perMillion},
		{nameEvents, "/s", "per_s", false, benchEvents, 1e6, perMillion},
		{nameSmall, "/s", "per_s", false, framesBench(64, "text"), 1e3, perThousand},
		{nameFull, "/s", "per_s", false, framesBench(0, "text"), 1e3, perThousand},
		{"frames, 1080p, full, noise", "/s", "per_s", false, framesBench(0, "noise"), 1e3, perThousand},
		{nameConns, "/s", "per_s", false, benchConns, 1e3, perThousand},
	}
}

func msgsBench(mix string) func(string, time.Duration) (metrics, error) {
	return func(p string, d time.Duration) (metrics, error) { return benchMsgs(p, mix, d) }
}

// framesBench makes frames of 1080p with a damaged square, 0 for everything.
func framesBench(side int, content string) func(string, time.Duration) (metrics, error) {
	return func(p string, d time.Duration) (metrics, error) {
		return benchFrames(p, frameOpts{w: 1920, h: 1080, dw: side, dh: side, content: content, stamp: true, d: d})
	}
}
