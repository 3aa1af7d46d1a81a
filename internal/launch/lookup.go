package launch

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/vm"
)

// checkProgram refuses to start a VM for a program that it cannot have: its programs are
// this machine's, so a name is looked up before a boot that would end in "not found". A path
// is left to the guest, which has more than the host's /usr: its home, its shares.
func (l *Launcher) checkProgram(v config.VM, r vm.Run) error {
	if v.Root != config.RootHost || r.How.Kind != "" || r.How.User == "root" || len(r.Argv) == 0 || strings.Contains(r.Argv[0], "/") {
		return nil
	}
	if slices.ContainsFunc(r.Env, func(kv string) bool { return strings.HasPrefix(kv, "PATH=") }) {
		return nil
	}
	name := r.Argv[0]
	dirs := strings.Split(agent.UserPath, ":")
	for _, dir := range dirs {
		st, err := os.Stat(filepath.Join(l.System, dir, name))
		if err == nil && st.Mode().IsRegular() && st.Mode()&0o111 != 0 {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrInvalid) {
			return nil // the guest may know better
		}
	}
	hint := "install it, or set root in config.toml to one that has it"
	if near := nearNames(l.System, dirs, name); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	}
	return &vm.Failure{Code: vm.CodeNotFound, Text: fmt.Sprintf(`VM %s: %s: not found: its programs are this machine's (root = "host"), which has no such program; %s`, v.Name, plain.Clip(name), hint)}
}

// Of the names that are suggested: how many, and how far they may be from what was typed.
const (
	maxNear     = 3
	maxDistance = 2
)

// nearNames returns the programs whose names are nearest to a name, at most maxNear. A short
// name is near to too many: a letter of three may differ, of more two.
func nearNames(system string, dirs []string, name string) []string {
	type near struct {
		name     string
		distance int
	}
	most := min(maxDistance, (len(name)+1)/3)
	var found []near
	for _, dir := range dirs {
		entries, err := os.ReadDir(filepath.Join(system, dir))
		if err != nil {
			continue
		}
		for _, e := range entries {
			if diff := len(e.Name()) - len(name); diff > most || -diff > most {
				continue
			}
			if d := config.Distance(name, e.Name()); d > 0 && d <= most {
				found = append(found, near{e.Name(), d})
			}
		}
	}
	slices.SortFunc(found, func(a, b near) int {
		return cmp.Or(cmp.Compare(a.distance, b.distance), cmp.Compare(a.name, b.name))
	})
	found = slices.Compact(found)
	var names []string
	for _, n := range found[:min(len(found), maxNear)] {
		names = append(names, plain.Clip(n.name))
	}
	return names
}
