package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"vix/config"
	"vix/internal/vm"
)

// A vmEntry is a VM with what it may use and has kept, as status and list -a show it.
type vmEntry struct {
	vmUse
	HomeUse  *vm.DiskUse `json:"home_use,omitempty"`
	LastUsed time.Time   `json:"last_used,omitzero"`
	MayUse   []grant     `json:"may_use,omitempty"`

	grants  []grant
	stopped bool
	start   string // the command that starts it
}

// A known is all that is known of VMs, whether or not they run: config.toml, and what they
// have kept.
type known struct {
	conf  *config.Config // nil if it cannot be read
	store *vm.Store      // nil if nothing was ever kept
	kept  []string
	dirs  func(string) (string, error) // puts the home directory in the place of "~"
	until time.Time                    // the end of counting
}

// openKnown reads what is known of VMs. It changes nothing, and makes no directory. With an
// error, what it returns has the rest.
func openKnown(e *env) (*known, error) {
	k := &known{dirs: e.dirs().Expand, until: time.Now().Add(countLimit)}
	conf, err := e.config()
	if err == nil {
		k.conf = conf
	}
	k.store, k.kept, err = openKept(e, err)
	return k, err
}

// openKept opens the store of kept data, if there is one, and lists the VMs in it. It joins
// its error to err.
func openKept(e *env, err error) (*vm.Store, []string, error) {
	dir, derr := e.xdg("XDG_STATE_HOME", ".local/state")
	if derr != nil {
		return nil, nil, errors.Join(err, derr)
	}
	if _, serr := os.Lstat(filepath.Join(dir, "vix")); errors.Is(serr, fs.ErrNotExist) {
		return nil, nil, err
	}
	store, serr := vm.OpenStore(dir)
	if serr != nil {
		return nil, nil, errors.Join(err, serr)
	}
	names, nerr := store.Names()
	return store, names, errors.Join(err, nerr)
}

func (k *known) close() {
	if k.store != nil {
		_ = k.store.Close()
	}
}

// names returns the names of the VMs in config.toml and of those that have kept something.
func (k *known) names() []string {
	list := slices.Clone(k.kept)
	if k.conf != nil {
		list = slices.AppendSeq(list, maps.Keys(k.conf.VMs))
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// countLimit bounds the count of all homes: a guest can make one that takes hours.
const countLimit = 5 * time.Second

// running describes a VM that runs.
func (k *known) running(ctx context.Context, st vm.State) vmEntry {
	v := vmEntry{vmUse: withUse(st)}
	k.count(ctx, &v, st.Home != "")
	h := holdingOf(st, true, k.conf, v.HomeUse)
	v.grants = h.mayUse()
	v.MayUse = forJSON(v.grants)
	return v
}

// count adds what the VM's home takes, and when it was used.
func (k *known) count(ctx context.Context, v *vmEntry, has bool) {
	if k.store == nil || !has {
		return
	}
	ctx, cancel := context.WithDeadline(ctx, k.until)
	defer cancel()
	use := k.store.HomeUse(ctx, v.Name)
	v.HomeUse, v.LastUsed = &use, k.store.LastUsed(v.Name)
}

// stopped describes a VM that does not run, as it would start.
func (k *known) stopped(ctx context.Context, name string) (vmEntry, error) {
	c, err := k.conf.VM(name)
	if err != nil {
		return vmEntry{}, err
	}
	st := vm.State{
		Name: name, State: vm.StateConfigured, Tag: c.Tag, Color: c.Color, Root: c.Root, Memory: uint64(c.Memory), CPUs: c.CPUs,
		Programs: []vm.Program{}, Windows: []vm.Window{}, Stages: []vm.Stage{}, Notes: []string{}, Shares: []vm.ShareState{},
		Net: vm.NetOf(c), USB: []vm.USBState{}, USBRules: vm.USBRulesOf(c), Clipboard: c.Clipboard, Display: vm.DisplayOf(c),
		Confinement: map[string]vm.Confinement{},
	}
	for _, s := range c.Shares {
		if host, err := k.dirs(s.Host); err == nil {
			s.Host = host
		}
		st.Shares = append(st.Shares, vm.ShareState{Host: s.Host, Guest: s.Guest, Write: s.Write})
	}
	kept := slices.Contains(k.kept, name)
	if kept {
		st.State, st.Home = vm.StateStopped, k.store.HomePath(name)
	}
	program := "PROGRAM"
	if len(c.Programs) > 0 {
		program = c.Programs[0]
	}
	v := vmEntry{vmUse: vmUse{State: st}, stopped: true, start: fmt.Sprintf("vix run --vm %s %s", name, program)}
	k.count(ctx, &v, kept)
	h := holdingOf(st, false, k.conf, v.HomeUse)
	v.grants = h.mayUse()
	v.MayUse = forJSON(v.grants)
	return v, nil
}

// entries describes the VMs that run and, with all, those that do not, by name.
func (k *known) entries(ctx context.Context, vms []vm.State, all bool) ([]vmEntry, error) {
	list := []vmEntry{}
	for _, st := range vms {
		list = append(list, k.running(ctx, st))
	}
	if !all {
		return list, nil
	}
	for _, name := range k.names() {
		if slices.ContainsFunc(vms, func(st vm.State) bool { return st.Name == name }) {
			continue
		}
		v, err := k.stopped(ctx, name)
		if err != nil {
			return nil, err
		}
		list = append(list, v)
	}
	slices.SortFunc(list, func(a, b vmEntry) int { return strings.Compare(a.Name, b.Name) })
	return list, nil
}

// nearName is the next step after a name that nobody knows: the nearest that is known.
func nearName(name string, names []string) string {
	best, dist := "", max(len(name)/2, 2)
	for _, n := range names {
		if d := config.Distance(name, n); d < dist || d == dist && cmp.Less(n, best) {
			best, dist = n, d
		}
	}
	if best == "" {
		return "see vix list -a"
	}
	return fmt.Sprintf("did you mean %s?", best)
}
