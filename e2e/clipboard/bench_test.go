package clipboard

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// sizes are of what is pasted, with how often.
var sizes = []struct {
	name   string
	bytes  int
	rounds int
}{{"1 KiB", 1 << 10, 9}, {"50 MiB", 50 << 20, 3}}

const benchRules = "[clipboard]\nttl = \"10m\"\n[[clipboard.rule]]\nfrom = \"host\"\nto = \"*\"\naction = \"allow\"\nlimit = \"64M\"\n"

// times are milliseconds of each way of pasting, by size.
type times map[string]map[string][]float64

func (s times) add(size, way string, d time.Duration) {
	if s[size] == nil {
		s[size] = map[string][]float64{}
	}
	s[size][way] = append(s[size][way], float64(d.Microseconds())/1000)
}

// alone is the way that the others are compared with.
const alone = "host alone"

// report writes medians, throughput and ratios, as metrics and into build/bench.
func (s times) report(b *testing.B, name string) {
	b.Helper()
	type row struct{ Milliseconds, Ratio, MiBps float64 }
	table := map[string]map[string]row{}
	for _, size := range sizes {
		table[size.name] = map[string]row{}
		base := median(s[size.name][alone])
		for _, way := range slices.Sorted(maps.Keys(s[size.name])) {
			m := median(s[size.name][way])
			r := row{m, m / base, float64(size.bytes) / (1 << 20) / m * 1000}
			table[size.name][way] = r
			b.Logf("%-7s %-28s %9.1f ms  ×%-6.2f %8.1f MiB/s", size.name, way, r.Milliseconds, r.Ratio, r.MiBps)
			b.ReportMetric(m, strings.ReplaceAll(size.name+" "+way, " ", "_")+"_ms")
		}
	}
	b.ReportMetric(0, "ns/op")
	dir := os.Getenv("VIX_BENCH_OUT")
	if dir == "" {
		dir = "../../build/bench"
	}
	if err := desktoptest.SaveJSON(filepath.Join(dir, name+".json"), table); err != nil {
		b.Fatal(err)
	}
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return list[len(list)/2]
}

func since(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// BenchmarkPaste measures wl-paste, with its start: on the host alone, in a VM, and of
// what two acts carried from the host into the VM, in turn. On the host wl-paste has
// data-control and opens no window; in a VM it has to, to get the keyboard.
func BenchmarkPaste(b *testing.B) {
	b.Run("filter", benchFilter)
	b.Run("VM", benchVM)
}

// benchFilter is without a VM: what the display process costs.
func benchFilter(b *testing.B) {
	d := newDesk(b)
	d.config(benchRules)
	d.window("red")
	s := times{}
	for b.Loop() {
		for _, size := range sizes {
			data := bytes.Repeat([]byte("x"), size.bytes)
			paste := func(way, vm string) {
				s.add(size.name, way, since(func() {
					if got, complaint := d.pastes(vm); len(got) != len(data) {
						b.Fatalf("%s: %d bytes: %s", way, len(got), complaint)
					}
				}))
			}
			for range size.rounds {
				d.copies("", data)
				paste(alone, "")
				d.copies("red", data)
				paste("in a VM", "red")
				s.add(size.name, "host to VM: the acts", since(func() {
					d.must("copy", "--host")
					d.must("paste", "--vm", "red")
				}))
				paste("host to VM: the paste", "red")
				d.must("clear")
			}
		}
	}
	s.report(b, "paste-filter")
}

func benchVM(b *testing.B) {
	if l := e2e.Lacks(); l != "" {
		b.Skip("lacks: " + l)
	}
	r := e2e.New(b, e2e.Config{Bin: "../../build/bin", Timeout: 4 * time.Minute, TOML: "[vm.red]\nmemory = \"1G\"\n" + benchRules})
	foot := r.Start("run", "--vm", "red", "foot", "--app-id=held", "sleep", "10000")
	r.WaitWindow(b, desktoptest.ByAppID("vix.red.held"))
	s := times{}
	for b.Loop() {
		for _, size := range sizes {
			text := fmt.Sprintf("head -c %d /dev/zero | tr '\\0' x", size.bytes)
			run := func(argv ...string) string {
				res := r.Run(r.Command(argv...))
				if res.Code != 0 {
					b.Fatalf("%q: %v", argv, res)
				}
				return res.Stdout
			}
			// guest runs a paste in the VM, timed there: vix run is not what is measured.
			guest := func(way string) {
				out := r.Guest("red", `s=$(date +%s%N); n=$(timeout 60 wl-paste --no-newline | wc -c); e=$(date +%s%N); echo $n $((e-s))`)
				n, ns, _ := strings.Cut(out, " ")
				t, err := strconv.ParseInt(ns, 10, 64)
				if n != strconv.Itoa(size.bytes) || err != nil {
					b.Fatalf("%s: %q", way, out)
				}
				s.add(size.name, way, time.Duration(t))
			}
			for range size.rounds {
				run("sh", "-c", text+" | wl-copy")
				s.add(size.name, alone, since(func() { run("sh", "-c", "wl-paste --no-newline | wc -c") }))
				r.Guest("red", text+" | wl-copy")
				guest("in a VM")
				s.add(size.name, "host to VM: the acts", since(func() {
					r.Must("clipboard", "copy", "--host")
					r.Must("clipboard", "paste", "--vm", "red")
				}))
				guest("host to VM: the paste")
				r.Must("clipboard", "clear")
			}
		}
	}
	s.report(b, "paste-vm")
	r.Run(r.Command("wl-copy", "--clear"))
	r.Must("stop", "--all")
	foot.Stop()
}
