package main

import "fmt"

// A goal is what our proxy in local mode is to reach: issue 3's figures. They are
// information, and never a failure: a machine that others use moves them.
type goal struct {
	what string
	want float64
	low  bool // at most want, else at least
	unit string
	got  func(c *comparison) float64
}

func (c *comparison) goalList() []goal {
	ratio := func(bench string) func(*comparison) float64 {
		return func(c *comparison) float64 {
			b := benchNamed(bench)
			return c.ratio(oursName, bench, func(r result) float64 { return r.Metrics[b.main] })
		}
	}
	return []goal{
		{"requests (add)", 0.85, false, "×", ratio(nameAdd)},
		{"requests (churn)", 0.55, false, "×", ratio(nameChurn)},
		{"events", 0.7, false, "×", ratio(nameEvents)},
		{"sync, p50", 1.1, true, "×", ratio(nameSync)},
		{"frames, 64×64 damage", 1.0, false, "×", ratio(nameSmall)},
		{"frames, full 1080p", 0.95, false, "×", ratio(nameFull)},
		{"connections", 0.9, false, "×", ratio(nameConns)},
		{"CPU per 1M requests (add)", 1.6, true, "×", func(c *comparison) float64 { return c.ratio(oursName, nameAdd, cpuPer) }},
		{"PSS idle", 8, true, " MiB", func(c *comparison) float64 {
			return c.memoryOf(oursName, func(m memory) float64 { return m.Idle })
		}},
		{"PSS per further connection", 0.15, true, " MiB", func(c *comparison) float64 {
			return c.memoryOf(oursName, func(m memory) float64 { return (m.Held - m.One) / (holdConns - 1) })
		}},
	}
}

// cpuPer is the proxy's CPU time for one of what was counted.
func cpuPer(r result) float64 { return r.ProxyCPU / r.Metrics["count"] }

// reached is a goal and what came of it.
type reached struct {
	Goal    string   `json:"goal"`
	Want    string   `json:"want"`
	Got     *float64 `json:"got"` // null when it was not measured
	Reached bool     `json:"reached"`
}

// goals compares what was measured with the goals; nothing when our proxy or the
// relay was not among the targets.
func (c *comparison) goals() (out []reached) {
	if !c.has(oursName) || !c.has(relayName) {
		return nil
	}
	for _, g := range c.goalList() {
		sign := "≥"
		if g.low {
			sign = "≤"
		}
		r := reached{Goal: g.what, Want: fmt.Sprintf("%s %g%s", sign, g.want, g.unit)}
		if v := g.got(c); v == v { // not NaN: JSON has none
			r.Got = &v
			r.Reached = g.low && v <= g.want || !g.low && v >= g.want
		}
		out = append(out, r)
	}
	return out
}
