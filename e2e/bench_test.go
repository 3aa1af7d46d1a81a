package e2e

import (
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
	if err := desktoptest.SaveJSON(filepath.Join(dir, name+".json"), v); err != nil {
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

// BenchmarkStart: seconds from run to each stage of a cold VM, to the first window, of
// a terminal and of a GTK program, and of each in a VM that runs. Medians.
func BenchmarkStart(b *testing.B) {
	r := benchRig(b, Config{})
	seconds := map[string][]float64{}
	since := func(what string, begin time.Time) { seconds[what] = append(seconds[what], time.Since(begin).Seconds()) }
	programs := map[string][]string{"": {"foot", "sleep", "1000"}, " of GTK 4": {"gtk4-widget-factory"}}
	for b.Loop() {
		for what, argv := range programs {
			argv = append([]string{"run", "--vm", "cold"}, argv...)
			begin := time.Now()
			p := r.Start(argv...)
			r.WaitWindow(b, desktoptest.ByAppIDPrefix("vix.cold."))
			since("run to window"+what, begin)
			if what == "" {
				for _, s := range r.VM("cold").Stages {
					seconds["stage "+s.Name] = append(seconds["stage "+s.Name], s.Seconds)
				}
				begin = time.Now()
				r.Guest("cold", "true")
				since("run true, running VM", begin)
			}
			begin = time.Now()
			q := r.Start(append([]string{"run", "--vm", "cold"}, programs[""]...)...)
			r.WaitWindows(b, 2, desktoptest.ByAppIDPrefix("vix.cold."))
			since("run to window, running VM", begin)
			q.Stop()
			begin = time.Now()
			r.Must("stop", "cold")
			since("stop", begin)
			p.Stop()
		}
		// The GTK program in a VM that runs.
		p := r.Start(append([]string{"run", "--vm", "cold"}, programs[""]...)...)
		r.WaitWindow(b, desktoptest.ByAppIDPrefix("vix.cold."))
		begin := time.Now()
		q := r.Start(append([]string{"run", "--vm", "cold"}, programs[" of GTK 4"]...)...)
		r.WaitWindows(b, 2, desktoptest.ByAppIDPrefix("vix.cold."))
		since("run to window of GTK 4, running VM", begin)
		r.Must("stop", "cold")
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
// QEMU's includes the guest's memory, but for what is its own.
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
			own, err := anonymous(r.VM(vm).Processes()["qemu"])
			if err != nil {
				b.Fatal(err)
			}
			table[vm]["qemu own"] = float64(own) / (1 << 20)
		}
	}
	for _, vm := range []string{"idle", "busy"} {
		for _, what := range []string{"supervisor", "display", "virtiofsd", "qemu", "qemu own"} {
			b.ReportMetric(table[vm][what], fmt.Sprintf("%s_%s_MiB", vm, strings.ReplaceAll(what, " ", "_")))
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

// anonymous is a process's private memory that no file backs: of QEMU's, what is not the
// guest's.
func anonymous(pid int) (bytes int64, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(b), "RssAnon:")
	_, err = fmt.Sscan(after, &bytes)
	return bytes << 10, err
}
