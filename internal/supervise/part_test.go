package supervise

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/vm"
)

// A brokenPart fails at one moment, and notes that it was stopped.
type brokenPart struct {
	part
	when  string // "before" or "after" it has started, or in its "stop"
	stops *[]string
}

var errBroken = errors.New("this part is broken")

func (p *brokenPart) start() error {
	if p.when == "before" {
		return errBroken
	}
	err := p.part.start()
	if err == nil && p.when == "after" {
		return errBroken
	}
	return err
}

func (p *brokenPart) stop(graceful bool) error {
	*p.stops = append(*p.stops, partName(p.part))
	err := p.part.stop(graceful)
	if p.when == "stop" {
		err = errors.Join(err, errBroken)
	}
	return err
}

func partName(p part) string { return strings.TrimPrefix(fmt.Sprintf("%T", p), "*supervise.") }

// withBroken runs a VM whose i-th part is broken, and returns the names of all its parts, of
// those that were stopped, how a program's run in it ended, and the VM.
func (b *bench) withBroken(name string, i int, when string) (all, stops []string, run, end error) {
	b.t.Helper()
	seat, err := b.reg.Take(b.t.Context(), name)
	if err != nil || seat == nil {
		b.t.Fatal(seat, err)
	}
	l := b.launchWithShares(name, b.t.TempDir()+":/mnt/x:rw")
	l.VM.State, l.VM.Net, l.VM.Clipboard = "home", config.NetNAT, config.ClipShared
	s, err := newSupervisor(l, Desktop{})
	if err != nil {
		b.t.Fatal(err)
	}
	for k, p := range s.parts {
		all = append(all, partName(p))
		broken := &brokenPart{part: p, stops: &stops}
		if k == i {
			broken.when = when
		}
		s.parts[k] = broken
	}
	ln, err := listen(seat.Listener)
	if err != nil {
		b.t.Fatal(err)
	}
	ended := make(chan error)
	go func() { ended <- errors.Join(s.run(b.t.Context(), ln), seat.Lock.Close()) }()
	r := b.start(name, "true").run
	r.Launch = nil
	_, run = b.reg.Run(b.t.Context(), r)
	return all, stops, run, <-ended
}

// Every part fails at every moment: the person hears why, what has begun to start is stopped,
// last first, and nothing is left.
func TestParts(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // which would close what nobody has closed
	b := newBench(t)
	all, _, _, _ := b.withBroken("t", -1, "")
	fds, n := openFiles(t), 0
	for i, name := range all {
		for _, when := range []string{"before", "after", "stop"} {
			t.Run(name+" "+when, func(t *testing.T) {
				n++
				id := fmt.Sprintf("t%d", n)
				_, stops, run, end := b.withBroken(id, i, when)
				begun := all
				if when == "stop" {
					if run != nil || !errors.Is(end, errBroken) {
						t.Errorf("the run ended with %v, the VM with %v", run, end)
					}
				} else {
					begun = all[:i+1]
					var f *vm.Failure
					if !errors.As(run, &f) || f.Text != "VM "+id+": "+errBroken.Error() || end != nil {
						t.Errorf("the run ended with %v, the VM with %v", run, end)
					}
				}
				want := slices.Clone(begun)
				slices.Reverse(want)
				if !slices.Equal(stops, want) {
					t.Errorf("stopped %v, not %v", stops, want)
				}
				if left := b.processes(); len(left) > 0 {
					t.Errorf("left: %v", left)
				}
				if _, err := os.Stat(b.dir + "/vix/" + id); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("the VM's directory: %v", err)
				}
				b.waitFor("descriptors are closed", func() bool { return openFiles(t) <= fds })
			})
		}
	}
}
