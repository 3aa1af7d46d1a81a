package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/vm"
)

// join applies a run's options to a VM that is already running: it mounts a share, as mount
// does. An option that differs from the VM and cannot be changed is an error.
func (o *runOptions) join(ctx context.Context, e *env, reg *vm.Registry, v config.VM, cpusSet bool) error {
	st, err := reg.State(ctx, v.Name)
	if err != nil {
		return nil // the VM is ending: the run starts it again
	}
	var refused []string
	for _, f := range []struct {
		name    string
		refused bool
		is      string
	}{
		{"--memory " + o.memory, o.memory != "" && st.Memory != uint64(v.Memory), "it has " + config.Size(st.Memory).String()},
		{"--cpus " + fmt.Sprint(o.cpus), cpusSet && st.CPUs != v.CPUs, fmt.Sprintf("it has %d", st.CPUs)},
		{"--no-gui", o.noGUI && st.PIDs.Display > 0, "it has a display"},
		{"--net " + o.net, o.net != "" && st.Net.Kind != v.Net, "it has " + st.Net.Kind},
	} {
		if f.refused {
			refused = append(refused, fmt.Sprintf("%s (%s)", f.name, f.is))
		}
	}
	for _, text := range o.publish {
		p, err := config.ParsePublish(text)
		if err == nil && !slices.Contains(st.Net.Publish, p.String()) {
			refused = append(refused, "--publish "+text)
		}
	}
	if len(refused) > 0 {
		return vm.Failf("VM %s: runs already, and cannot change: %s; stop it first, or leave that out", v.Name, strings.Join(refused, ", "))
	}
	shares, err := e.parseShares(o.shares)
	if err != nil {
		return err
	}
	for _, sh := range shares {
		if err := mountOnce(ctx, reg, st, sh); err != nil {
			return err
		}
	}
	return nil
}

// mountOnce mounts a share, unless the VM has it already.
func mountOnce(ctx context.Context, reg *vm.Registry, st vm.State, sh config.Share) error {
	has := func(st vm.State) bool {
		return sh.Host != "" && slices.ContainsFunc(st.Shares, func(x vm.ShareState) bool {
			real, err := filepath.EvalSymlinks(sh.Host)
			return err == nil && x.Host == real && x.Guest == sh.Guest && x.Write == sh.Write && x.PID > 0
		})
	}
	if has(st) {
		return nil
	}
	_, err := reg.Mount(ctx, st.Name, sh.String())
	if err != nil {
		if now, serr := reg.State(ctx, st.Name); serr == nil && has(now) { // the VM started meanwhile, with this share
			return nil
		}
	}
	return err
}
