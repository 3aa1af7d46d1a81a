package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/vm"
)

// holder is a program that (with "grow") allocates and frees 600 MiB, reads a file of the same
// size through the guest's cache, and allocates the memory again; each step on request.
const holder = `$| = 1; use Time::HiRes "time";
sub grow { my $t = time; my $x = "x"; $x x= 600 << 20; printf "%s %.2f s\n", $_[0], time - $t; <STDIN>; undef $x }
if (@ARGV) { grow("grown"); print "freed\n"; } else { print "up\n"; } <STDIN>;
open(my $f, "<", "/mnt/data/file") or die "$!"; my $b; while (read($f, $b, 1 << 20)) {} print "cached\n"; <STDIN>;
grow("again"); print "done\n"; <STDIN>;`

const held = 600 << 20

// A memoryHog is one VM with that program.
type memoryHog struct {
	name  string
	p     *launched
	stdin io.WriteCloser
	qemu  int
}

func (h *memoryHog) next(says string) {
	fmt.Fprintln(h.stdin)
	h.p.says(says)
}

// used returns how much of the guest's memory the host holds: the blocks of its file.
func (h *memoryHog) used(t *testing.T) uint64 {
	t.Helper()
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", h.qemu))
	for _, l := range links {
		if to, _ := os.Readlink(l); strings.HasPrefix(to, "/memfd:memory-backend-memfd") {
			st, err := os.Stat(l)
			if err != nil {
				t.Fatal(err)
			}
			return uint64(st.Sys().(*syscall.Stat_t).Blocks) * 512
		}
	}
	return residentOf(h.qemu) // the file of another user is not visible
}

func (r *rig) hold(name, data string, args ...string) *memoryHog {
	stdin, keep := io.Pipe()
	r.t.Cleanup(func() { keep.Close() })
	p := r.start(stdin, append([]string{"run", "--vm", name, "--memory", "1G", "--cpus", "1", "--share", data, "perl", "-e", holder}, args...)...)
	p.patience = 8 * time.Minute // three emulated guests touch 600 MiB at once
	return &memoryHog{name: name, stdin: keep, p: p}
}

// Memory that idle VMs have freed returns to the host by itself, and memory that they could
// free returns when the host is short; a guest that grows gets it back before it suffers.
func TestVMMemoryGoesBack(t *testing.T) {
	r := newRig(t)
	pressure := r.pressure
	setPressure := func(percent string) {
		t.Helper()
		text := fmt.Sprintf("some avg10=%s avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", percent)
		if err := os.WriteFile(pressure+".new", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(pressure+".new", pressure); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() { os.Remove(pressure) })
	data := filepath.Join(r.dir, "data")
	if err := os.Mkdir(data, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(data, "file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(filepath.Join(data, "file"), held); err != nil { // zeros fill a guest's cache too
		t.Fatal(err)
	}
	events := r.start(nil, "status", "--watch", "--json")
	var vms []*memoryHog
	sum := func() (n uint64) {
		for _, h := range vms {
			n += h.used(t)
		}
		return n
	}
	add := func(h *memoryHog, says string) {
		h.p.says(says)
		for _, s := range r.list() {
			if s.Name == h.name {
				h.qemu = s.PIDs.QEMU
			}
		}
		vms = append(vms, h)
	}
	m0 := r.hold("m0", data, "grow")
	add(m0, "grown")
	grown := sum()
	m0.next("freed")
	reported := waitBelow(t, sum, grown-held*8/10)
	t.Logf("freed: %d MiB of the host's before, %d after (%d %% of what was freed), by itself", grown>>20, reported>>20, share(grown-reported, held))

	m1, m2 := r.hold("m1", data), r.hold("m2", data)
	add(m1, "up")
	add(m2, "up")
	before := sum()
	for _, h := range vms {
		fmt.Fprintln(h.stdin)
	}
	for _, h := range vms {
		h.p.says("cached")
	}
	cached := sum()
	all := cached - before // the host had already given some of these pages
	if all < 3*held/2 {
		t.Fatalf("the guests do not keep the file: %d MiB, then %d", before>>20, cached>>20)
	}
	start := time.Now()
	setPressure("25.00")
	// Each of the three keeps 64 MiB available (package balloon), a tenth of what it read, and
	// what it needed since "up": about 80 % comes back.
	taken := waitBelow(t, sum, cached-all*7/10)
	took := time.Since(start)
	t.Logf("idle, and the host is short: %d MiB before the file was read, %d after, then %d (%d %% of it back), %.1f s after the pressure began", before>>20, cached>>20, taken>>20, share(cached-taken, all), took.Seconds())
	for _, s := range r.list() {
		if m := s.GuestMemory; m == nil || m.Size >= 1<<30 || m.Available > m.Total || m.Total > 1<<30 {
			t.Errorf("%s: %+v", s.Name, m)
		}
	}
	m0.next("again") // the host stays short
	var first, again float64
	_, _ = fmt.Sscanf(m0.p.out.String(), "grown %f", &first)
	_, after, _ := strings.Cut(m0.p.out.String(), "again ")
	_, _ = fmt.Sscanf(after, "%f", &again)
	t.Logf("a guest then grows by %d MiB in %.1f s; with all its memory it took %.1f s", held>>20, again, first)
	setPressure("0.00")
	writeBench(t, "memory.json", map[string]any{
		"vms": 3, "touched_mib_each": held >> 20, "grown_mib": grown >> 20, "after_free_mib": reported >> 20, "free_page_reporting_percent": share(grown-reported, held),
		"before_cache_mib": before >> 20, "cached_mib": cached >> 20, "under_pressure_mib": taken >> 20, "under_pressure_percent": share(cached-taken, all), "under_pressure_seconds": took.Seconds(),
		"first_growth_seconds": first, "growth_under_pressure_seconds": again,
	})
	// A program's start gives the VM all its memory back.
	r.vix(0, "exec", "m1", "--", "true")
	waitEvent(t, events, func(s vm.State) bool { return s.Name == "m1" && s.GuestMemory != nil && s.GuestMemory.Size == 1<<30 })
	for _, h := range vms {
		h.stdin.Close()
		if code := h.p.code(); code != 0 {
			t.Errorf("%s: status %d: %s", h.name, code, h.p.err.String())
		}
	}
	r.vix(0, "stop", "--all") // a run ends with its program, its VM a moment later
	_ = events.Process.Signal(syscall.SIGINT)
	events.code()
}

func share(part, whole uint64) uint64 { return part * 100 / whole }

// waitBelow returns n's value once it is below limit. A returned page has no event.
func waitBelow(t *testing.T, n func() uint64, limit uint64) uint64 {
	t.Helper()
	patience := time.After(3 * time.Minute)
	for {
		if now := n(); now < limit {
			return now
		}
		select {
		case <-patience:
			t.Fatalf("%d MiB, and does not fall below %d", n()>>20, limit>>20)
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// waitEvent returns when a line of status --watch --json satisfies ok. The newest line counts.
func waitEvent(t *testing.T, events *launched, ok func(vm.State) bool) {
	t.Helper()
	limit := time.After(2 * time.Minute)
	for seen := 0; ; {
		text, more := events.out.text()
		for line := range strings.Lines(text[seen:]) {
			if !strings.HasSuffix(line, "\n") {
				break
			}
			seen += len(line)
			var e vm.Event
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if e.State != nil && ok(*e.State) {
				return
			}
		}
		select {
		case <-more:
		case <-limit:
			t.Fatalf("the event does not come:\n%s", text)
		}
	}
}

func writeBench(t *testing.T, name string, v any) {
	t.Helper()
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join("..", "..", "build", "bench")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}
