package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// keepJSON writes build/bench/NAME.json.
func keepJSON(tb testing.TB, name string, v any) {
	tb.Helper()
	dir := os.Getenv("VIX_BENCH_OUT")
	if dir == "" {
		dir = "../build/bench"
	}
	b, err := json.MarshalIndent(v, "", "\t")
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".json"), append(b, '\n'), 0o644)
	}
	if err != nil {
		tb.Fatal(err)
	}
}

func benchRig(b *testing.B, cfg Config) *Rig {
	b.Helper()
	if l := Lacks(); l != "" {
		b.Skip("lacks: " + l)
	}
	return New(b, cfg)
}

// BenchmarkStart: seconds from run to each stage of a cold VM, to the first
// window, and of a program's window in a VM that runs. Medians.
func BenchmarkStart(b *testing.B) {
	r := benchRig(b, Config{})
	seconds := map[string][]float64{}
	for b.Loop() {
		begin := time.Now()
		p := r.Start("run", "--vm", "cold", "foot", "sleep", "1000")
		r.WaitWindow(b, desktoptest.ByAppID("vix.cold.foot"))
		seconds["run to window"] = append(seconds["run to window"], time.Since(begin).Seconds())
		for _, s := range r.VM("cold").Stages {
			seconds["stage "+s.Name] = append(seconds["stage "+s.Name], s.Seconds)
		}
		begin = time.Now()
		q := r.Start("run", "--vm", "cold", "foot", "sleep", "1000")
		r.WaitWindows(b, 2, desktoptest.ByAppID("vix.cold.foot"))
		seconds["run to window, running VM"] = append(seconds["run to window, running VM"], time.Since(begin).Seconds())
		begin = time.Now()
		r.Guest("cold", "true")
		seconds["run true, running VM"] = append(seconds["run true, running VM"], time.Since(begin).Seconds())
		begin = time.Now()
		r.Must("stop", "cold")
		seconds["stop"] = append(seconds["stop"], time.Since(begin).Seconds())
		p.Stop()
		q.Stop()
	}
	r.CheckClean()
	medians := map[string]float64{}
	for _, name := range slices.Sorted(maps.Keys(seconds)) {
		list := seconds[name]
		slices.Sort(list)
		medians[name] = list[len(list)/2]
		b.ReportMetric(medians[name], strings.NewReplacer(" ", "_", ",", "").Replace(name)+"_s")
	}
	b.ReportMetric(0, "ns/op")
	keepJSON(b, "start", medians)
}

// BenchmarkMemory: proportional memory of every host process of an idle VM (one
// terminal) and of a busy one (the terminal scrolls, a GTK program runs).
// QEMU's includes the guest's memory.
func BenchmarkMemory(b *testing.B) {
	r := benchRig(b, Config{TOML: "[vm.busy]\nmemory = \"768M\"\n"})
	idle := r.Start("run", "--vm", "idle", "foot", "sleep", "1000")
	busy := r.Start("run", "--vm", "busy", "foot", "sh", "-c", "while :; do ls -lR /usr/bin; done")
	gtk := r.Start("run", "--vm", "busy", "gtk4-widget-factory")
	r.WaitWindows(b, 3, nil)
	table := map[string]map[string]float64{}
	for b.Loop() {
		for _, vm := range []string{"idle", "busy"} {
			table[vm] = map[string]float64{}
			for what, pid := range r.VM(vm).Processes() {
				measure := Memory
				if what == "supervisor" {
					measure = pss // without the others, which are its children
				}
				bytes, err := measure(pid)
				if err != nil {
					b.Fatal(err)
				}
				table[vm][what] = float64(bytes) / (1 << 20)
			}
		}
	}
	for _, vm := range []string{"idle", "busy"} {
		for _, what := range []string{"supervisor", "display", "virtiofsd", "qemu"} {
			b.ReportMetric(table[vm][what], fmt.Sprintf("%s_%s_MiB", vm, what))
		}
	}
	b.ReportMetric(0, "ns/op")
	keepJSON(b, "memory", table)
	r.Must("stop", "--all")
	for _, p := range []*desktoptest.Proc{idle, busy, gtk} {
		p.Stop()
	}
	r.CheckClean()
}
