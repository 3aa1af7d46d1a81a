// Package soak looks for what is lost, or left, over time and by chance: real VMs on a
// headless sway, their verbs in parallel, and faults.
//
//	TestMachine: seed ─► rounds of operations (ops) ─► at once, on three VMs (world)
//	                 ─► after each: what list tells, the next run, the other VMs, what is left
//	TestFlat:    the same work again and again, without faults ─► what every process has,
//	             before, during, after
//
// A VM is held by a canary, a program that counts on the kept disk: every number that it has
// said to be there must be there, however the VM ended, and where nothing was done to its VM
// it must go on. Chance decides before anything runs, so -seed and -round make the same
// operations again; what they meet is the machine's.
package soak

import (
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

var (
	minutes  = flag.Float64("minutes", 0, "how long to go on; 0: some rounds")
	seedFlag = flag.Uint64("seed", 0, "of the operations; 0: a fixed one, and a random one")
	onlyFlag = flag.Uint64("round", 0, "only this round of the seed")
	only     = flag.String("only", "", "a regular expression: the kinds of operations that are taken")
	rounds   = flag.Uint64("rounds", 1, "how many rounds of each seed, without -minutes")
)

func TestMachine(t *testing.T) {
	w := newWorld(t)
	t.Cleanup(func() { t.Logf("\n%v", w.stats) })
	seeds := []uint64{1, rand.Uint64N(1 << 32)}
	switch {
	case *seedFlag != 0:
		seeds = []uint64{*seedFlag}
	case *minutes > 0:
		seeds = seeds[1:]
	}
	begin := time.Now()
	for _, seed := range seeds {
		for round := uint64(1); ; round++ {
			switch {
			case *onlyFlag != 0 && round > *onlyFlag:
			case *minutes > 0 && time.Since(begin).Minutes() >= *minutes:
			case *minutes == 0 && *onlyFlag == 0 && round > *rounds:
			default:
				if *onlyFlag != 0 {
					round = *onlyFlag
				}
				w.round(seed, round)
				continue
			}
			break
		}
	}
	w.end()
}

// round does the operations of one round, and looks at what came of them.
func (w *world) round(seed, round uint64) {
	w.t.Helper()
	ops := draw(seed, round)
	var text strings.Builder
	for _, o := range ops {
		fmt.Fprintf(&text, "\n  %v", o)
	}
	w.notes = nil
	begin := time.Now()
	fail := func(err error) {
		w.t.Fatalf("-seed=%d -round=%d, after %.1f s: %v\noperations:%s\nthey met:\n  %s", seed, round, time.Since(begin).Seconds(), err, text.String(), strings.Join(w.notes, "\n  "))
	}
	if err := w.holdAll(); err != nil {
		fail(err)
	}
	held := time.Since(begin)
	w.filled.Store(slices.ContainsFunc(ops, func(o op) bool { return o.kind == "fill" }))
	errs := make([]error, len(ops))
	took := make([]time.Duration, len(ops))
	var all sync.WaitGroup
	for i, o := range ops {
		all.Go(func() {
			time.Sleep(o.at) // the moment is chance's
			k := kinds[slices.IndexFunc(kinds, func(k kind) bool { return k.name == o.kind })]
			w.stats.count(o.kind)
			began := time.Now()
			defer func() { took[i] = time.Since(began) }()
			if err := k.do(w, w.vms[o.vm], o); err != nil {
				errs[i] = fmt.Errorf("%v: %w", o, err)
			}
		})
	}
	all.Wait()
	done := time.Since(begin)
	if err := errors.Join(errs...); err != nil {
		fail(err)
	}
	if err := w.check(); err != nil {
		fail(err)
	}
	for i, o := range ops {
		w.t.Logf("  %v: %.1f s", o, took[i].Seconds())
	}
	w.t.Logf("seed %d, round %d: %d operations; held after %.1f s, done after %.1f s, checked after %.1f s", seed, round, len(ops), held.Seconds(), done.Seconds(), time.Since(begin).Seconds())
}

// holdAll starts what does not run, and a canary where there is none: the next run works.
func (w *world) holdAll() error {
	errs := make([]error, len(w.vms))
	var all sync.WaitGroup
	for i, m := range w.vms {
		m.mu.Lock()
		m.ends = nil
		m.mu.Unlock()
		if c := m.held(); !m.loose && (c == nil || c.ended()) {
			all.Go(func() { errs[i] = m.hold() })
		}
	}
	all.Wait()
	return errors.Join(errs...)
}

// check: list tells the truth, the VMs that nothing was done to go on, what was said to be on
// the disk is there, and nothing is left.
func (w *world) check() error {
	vms, err := w.settled()
	if err != nil {
		return err
	}
	for _, m := range w.vms {
		v, listed := vms[m.name]
		c := m.held()
		switch {
		case m.loose:
		case m.ending():
			if !listed || v.PIDs.Supervisor != m.supervisor {
				if _, err := until("the end of the run that held VM "+m.name, hang, func() (bool, error) { return c.ended(), nil }); err != nil {
					return err
				}
				if err := m.kept(); err != nil {
					return err
				}
			}
		case !listed:
			return fmt.Errorf("VM %s: list does not tell of it; its run ended with %d: %s", m.name, c.Wait(), c.Output())
		case v.PIDs.Supervisor != m.supervisor:
			return fmt.Errorf("VM %s: is another, and nothing was done to it", m.name)
		default:
			if err := c.sings(); err != nil {
				return err
			}
		}
		if !listed {
			continue
		}
		if r := w.vix("exec", m.name, "--", "echo", "here"); r.out != "here\n" && !m.loose {
			return fmt.Errorf("VM %s: is %s, and exec: %v", m.name, v.State, r)
		}
		for _, s := range v.Shares {
			if r := w.vix("umount", "--force", m.name, s.Guest); r.code != 0 && !m.loose {
				return fmt.Errorf("umount of what a cut client left: %v", r)
			}
		}
	}
	return w.nothingLeft()
}

// settled waits until no VM starts or stops: then each that list tells of lives.
func (w *world) settled() (vms map[string]vm, err error) {
	_, err = until("all VMs running", hang, func() (bool, error) {
		if vms, err = w.list(); err != nil {
			return false, err
		}
		for _, v := range vms {
			if v.State != "running" {
				return false, fmt.Errorf("VM %s is %s", v.Name, v.State)
			}
		}
		return true, nil
	})
	return vms, err
}

func (w *world) nothingLeft() error {
	if vms, err := w.list(); err == nil && len(w.strays(vms)) > 0 {
		w.finish(vms)
	}
	d, err := until("nothing left behind", 20*time.Second, func() (bool, error) {
		vms, err := w.list()
		if err != nil {
			return false, err
		}
		left := w.strays(vms)
		return len(left) == 0, fmt.Errorf("left behind:\n  %s", strings.Join(left, "\n  "))
	})
	w.stats.add("round (nothing left)", d)
	return err
}

// end stops all, of which nothing may be left.
func (w *world) end() {
	w.t.Helper()
	if r := w.vix("stop", "--all"); r.code != 0 {
		w.t.Errorf("stop --all: %v", r)
	}
	_ = w.vix("clipboard", "clear")
	for _, m := range w.vms {
		if err := m.kept(); err != nil {
			w.t.Error(err)
		}
	}
	w.CheckClean()
}
