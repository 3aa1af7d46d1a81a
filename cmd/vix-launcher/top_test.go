package main

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"vix/internal/balloon"
	"vix/internal/vm"
)

// A guest's text reaches the terminal without escapes, and no line wraps.
func TestTopIsPlain(t *testing.T) {
	uses := []vmUsage{
		{
			Name: "web", State: "running", Color: "#12ab34", CPU: 12.34, Host: 300 << 20, Memory: 512 << 20, Windows: 2, Net: "nat", NetIn: 3 << 20, NetOut: 1e30,
			Guest:    &vm.GuestMemory{Size: 400 << 20, Stats: balloon.Stats{Total: 380 << 20, Available: 280 << 20}},
			Programs: []string{"sh\x1b[2J", strings.Repeat("x", 200)},
		},
		{Name: "b", State: "starting", Color: "#000000", Net: "none"},
	}
	lines := topLines(uses)
	for i, want := range []string{
		`^NAME +STATE +CPU +HOST +GUEST +NET +WIN  PROGRAMS$`,
		`^web +running +12\.3% +300 MiB +100 MiB/400 MiB +3\.0 MiB/[0-9]+ TiB +2  sh\[2J, x+$`,
		`^b +starting +0\.0% +0 B +- +- +0$`,
	} {
		if !regexp.MustCompile(want).MatchString(lines[i]) {
			t.Errorf("%q is not as %s", lines[i], want)
		}
	}
	var b strings.Builder
	if err := drawTop(&b, vm.Size{Rows: 5, Cols: 60}, uses, "host"); err != nil {
		t.Fatal(err)
	}
	view, ok := strings.CutPrefix(b.String(), clearView)
	view = strings.TrimSuffix(view, "\r\n")
	rows := strings.Split(view, "\r\n")
	if !ok || len(rows) != 4 || !strings.HasPrefix(rows[3], "\x1b[48;2;18;171;52m  \x1b[0m web") {
		t.Errorf("%q", b.String())
	}
	for _, row := range rows {
		if n := len([]rune(regexp.MustCompile("\x1b\\[[0-9;]*m").ReplaceAllString(row, ""))); n > 60 {
			t.Errorf("%d columns: %q", n, row)
		}
	}
}

// A guest's byte counters become a rate, and a counter that decreases has none.
func TestNetworkRate(t *testing.T) {
	for _, tt := range []struct{ in, out, wantIn, wantOut float64 }{
		{3000, 5000, 1000, 2000}, {1000, 1000, 0, 0}, {0, 1 << 60, 0, 1<<59 - 500},
	} {
		u := vmUsage{}
		counters{in: uint64(tt.in), out: uint64(tt.out)}.since(counters{in: 1000, out: 1000}, &u, 2*time.Second)
		if u.NetIn != tt.wantIn || u.NetOut != tt.wantOut {
			t.Errorf("%+v: %v, %v", tt, u.NetIn, u.NetOut)
		}
	}
}

func TestProcessorOf(t *testing.T) {
	one := processorOf(vm.PIDs{Supervisor: os.Getpid()})
	for start := time.Now(); one == 0 && time.Since(start) < 30*time.Second; one = processorOf(vm.PIDs{Supervisor: os.Getpid()}) {
	}
	if two := processorOf(vm.PIDs{Supervisor: os.Getpid(), QEMU: os.Getpid(), Display: 1 << 30}); one == 0 || two < 2*one {
		t.Errorf("%v, and twice %v", one, two)
	}
}

// top runs on a terminal, in a script, and until it is killed.
func testTop(t *testing.T, r *rig) {
	var uses []vmUsage
	if err := json.Unmarshal([]byte(r.vix(0, "top", "--once", "--json", "--every", "1s").out.String()), &uses); err != nil || len(uses) != 1 || uses[0].Name != "t" || uses[0].Host < 64<<20 || len(uses[0].Programs) == 0 {
		t.Errorf("%v: %+v", err, uses)
	}
	if out := r.vix(0, "top", "--once").out.String(); !regexp.MustCompile(`(?m)^t +running +[0-9.]+% `).MatchString(out) {
		t.Error(out)
	}
	if p := r.vix(2, "top"); !strings.Contains(p.err.String(), "top: needs a terminal; use --once or --json") {
		t.Error(p.err.String())
	}
	s := r.onTerminal(24, 100, "top", "--every", "500ms")
	s.says("VMs: 1; host: ")
	s.says(" t  ")
	if s.echoes() {
		t.Error("the terminal is not raw")
	}
	s.types("q")
	if c := s.code(); c != 0 || !s.echoes() {
		t.Errorf("status %d; echo %v: %s", c, s.echoes(), s.out.String())
	}
	s = r.onTerminal(24, 100, "top")
	s.says("VMs: 1; host: ")
	_ = s.Process.Signal(syscall.SIGKILL)
	s.code()
	for limit := time.Now().Add(5 * time.Second); !s.echoes(); time.Sleep(10 * time.Millisecond) { // the guard is not our child
		if time.Now().After(limit) {
			t.Fatal("killed: the terminal is left raw")
		}
	}
}
