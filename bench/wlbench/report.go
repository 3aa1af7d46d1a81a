package main

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
)

// The tables of a comparison, in Markdown.

func (c *comparison) has(name string) bool {
	return slices.ContainsFunc(c.targets, func(t target) bool { return t.Name == name })
}

// base is what the others are compared with.
func (c *comparison) base() string {
	if c.has(relayName) {
		return relayName
	}
	return c.targets[0].Name
}

func benchNamed(name string) bench {
	all := benches()
	return all[slices.IndexFunc(all, func(b bench) bool { return b.name == name })]
}

// pick collects f of each round's result, by round.
func (c *comparison) pick(target, bench string, f func(r result) float64) (byRun map[int]float64, failed int) {
	byRun = map[int]float64{}
	for _, r := range c.Results {
		switch {
		case r.Target != target || r.Bench != bench:
		case r.Err != "":
			failed++
		default:
			byRun[r.Run] = f(r)
		}
	}
	return byRun, failed
}

func values(byRun map[int]float64) []float64 {
	var v []float64
	for _, x := range byRun {
		v = append(v, x)
	}
	slices.Sort(v)
	return v
}

// ratio is the median of the rounds' ratios to the base: both of a pair were
// measured within seconds, so that a machine that slows down does not count.
func (c *comparison) ratio(target, bench string, f func(r result) float64) float64 {
	own, _ := c.pick(target, bench, f)
	base, _ := c.pick(c.base(), bench, f)
	var v []float64
	for run, x := range own {
		if b, ok := base[run]; ok && b > 0 {
			v = append(v, x/b)
		}
	}
	return median(v)
}

func (c *comparison) memoryOf(target string, f func(m memory) float64) float64 {
	var v []float64
	for _, m := range c.Memory {
		if m.Target == target {
			v = append(v, f(m))
		}
	}
	return median(v)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	if n := len(v); n%2 == 0 {
		return (v[n/2-1] + v[n/2]) / 2
	}
	return v[len(v)/2]
}

func num(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v), math.IsInf(v, 0):
		return "–"
	case a >= 1e6:
		return fmt.Sprintf("%.2fM", v/1e6)
	case a >= 1e4:
		return fmt.Sprintf("%.0fk", v/1e3)
	case a >= 100:
		return fmt.Sprintf("%.0f", v)
	case a >= 10:
		return fmt.Sprintf("%.1f", v)
	case a >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// A table is printed with its columns aligned.
type table [][]string

func (t table) print(title string) {
	if title != "" {
		fmt.Printf("%s\n\n", title)
	}
	width := make([]int, len(t[0]))
	for _, row := range t {
		for i, cell := range row {
			width[i] = max(width[i], len([]rune(cell)))
		}
	}
	for k, row := range t {
		for i, cell := range row {
			pad := strings.Repeat(" ", width[i]-len([]rune(cell)))
			if i == 0 {
				fmt.Printf("| %s%s |", cell, pad)
			} else {
				fmt.Printf(" %s%s |", pad, cell)
			}
		}
		fmt.Println()
		if k == 0 {
			for i := range row {
				fmt.Print([]string{"|", ""}[min(i, 1)], strings.Repeat("-", width[i]+1), []string{"-|", ":|"}[min(i, 1)])
			}
			fmt.Println()
		}
	}
	fmt.Println()
}

// perTarget makes a table with a column for each target.
func (c *comparison) perTarget(rows []string, cell func(row int, t target) string) table {
	head := []string{""}
	for _, t := range c.targets {
		head = append(head, t.Name)
	}
	out := table{head}
	for i, name := range rows {
		line := []string{name}
		for _, t := range c.targets {
			line = append(line, cell(i, t))
		}
		out = append(out, line)
	}
	return out
}

func (c *comparison) report() {
	c.reportRates()
	c.reportCPU()
	c.reportMemory()
	c.reportOthers()
	if len(c.Goals) == 0 {
		return
	}
	t := table{{"vix against the raw relay", "goal", "measured", ""}}
	for _, g := range c.Goals {
		got, mark := "–", "not measured"
		if g.Got != nil {
			unit := strings.TrimLeft(g.Want, "≥≤ 0123456789.")
			got, mark = fmt.Sprintf("%.2f%s", *g.Got, strings.Replace(unit, "MiB", " MiB", 1)), "not reached"
			if g.Reached {
				mark = "reached"
			}
		}
		t = append(t, []string{g.Goal, g.Want, got, mark})
	}
	t.print("")
}

func (c *comparison) reportRates() {
	bs := benches()
	var rows []string
	for _, b := range bs {
		rows = append(rows, b.name+", "+b.unit)
	}
	c.perTarget(rows, func(i int, t target) string {
		b := bs[i]
		get := func(r result) float64 { return r.Metrics[b.main] }
		byRun, failed := c.pick(t.Name, b.name, get)
		v := values(byRun)
		if len(v) == 0 {
			return "failed"
		}
		s := fmt.Sprintf("%s (%s–%s) ×%s", num(median(v)), num(v[0]), num(v[len(v)-1]), num(c.ratio(t.Name, b.name, get)))
		if b.main == "p50_us" {
			p99, _ := c.pick(t.Name, b.name, func(r result) float64 { return r.Metrics["p99_us"] })
			s += ", p99 " + num(median(values(p99)))
		}
		if failed > 0 {
			s += fmt.Sprintf(", %d failed", failed)
		}
		return s
	}).print("Median (lowest–highest) of the rounds; × is the median of the rounds' ratios to " + c.base() + ".")
}

func (c *comparison) reportCPU() {
	bs := benches()
	var rows []string
	for _, b := range bs {
		rows = append(rows, b.name+", "+b.perS)
	}
	c.perTarget(rows, func(i int, t target) string {
		med := func(f func(r result) float64) string {
			v, _ := c.pick(t.Name, bs[i].name, func(r result) float64 { return f(r) / r.Metrics["count"] * bs[i].per })
			return num(median(values(v)))
		}
		return med(func(r result) float64 { return r.ProxyCPU }) + " (" +
			med(func(r result) float64 { return r.ClientCPU }) + " + " +
			med(func(r result) float64 { return r.ServerCPU }) + ")"
	}).print("CPU of the proxy, all its processes (of the client + of the null compositor: is the instrument the bottleneck?), median.")
}

func (c *comparison) reportMemory() {
	rows := []struct {
		name string
		f    func(m memory) (float64, float64)
	}{
		{"idle", func(m memory) (float64, float64) { return m.Idle, m.IdleR }},
		{"one connection", func(m memory) (float64, float64) { return m.One, m.OneR }},
		{fmt.Sprintf("%d connections", holdConns), func(m memory) (float64, float64) { return m.Held, m.HeldR }},
		{"after all of the above", func(m memory) (float64, float64) { return m.After, m.AfterR }},
		{fmt.Sprintf("processes, idle / %d connections", holdConns), func(m memory) (float64, float64) {
			return float64(m.ProcsIdle), float64(m.ProcsHeld)
		}},
	}
	var names []string
	for _, r := range rows {
		names = append(names, r.name)
	}
	c.perTarget(names, func(i int, t target) string {
		a := c.memoryOf(t.Name, func(m memory) float64 { a, _ := rows[i].f(m); return a })
		b := c.memoryOf(t.Name, func(m memory) float64 { _, b := rows[i].f(m); return b })
		return num(a) + " / " + num(b)
	}).print("Memory of the proxy (all its processes), MiB, PSS / RSS, median.")
}

func (c *comparison) reportOthers() {
	bs := benches()
	var rows []string
	for _, b := range bs {
		rows = append(rows, b.name)
	}
	c.perTarget(rows, func(i int, t target) string {
		byRun, _ := c.pick(t.Name, bs[i].name, func(r result) float64 { return 100 * r.foreignShare() })
		v := values(byRun)
		if len(v) == 0 {
			return "–"
		}
		return fmt.Sprintf("%.0f (%.0f)", median(v), v[len(v)-1])
	}).print(fmt.Sprintf("What else ran on the machine meanwhile, %% of its %d CPUs, median (highest).", runtime.NumCPU()))
}
