package launch

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/vm"
)

// private returns Vix's own directories: a VM that could write to one of them, or read it,
// would have power over other VMs.
func (l *Launcher) private() []string {
	var list []string
	for _, dir := range []string{l.Dirs.Config, l.Dirs.Cache, l.Dirs.State} {
		if dir != "" {
			list = append(list, realPath(filepath.Join(dir, "vix")))
		}
	}
	if l.Dirs.Runtime != "" {
		list = append(list, realPath(l.Dirs.Runtime))
	}
	return list
}

// OtherShares returns the shares of the configured VMs except name, also of those that an
// error in config.toml disables. It leaves out a share whose path is not known: that VM
// cannot start.
func (l *Launcher) OtherShares(conf *config.Config, name string) (list []vm.SharedFolder) {
	shares := map[string][]config.Share{}
	for other, v := range conf.VMs {
		shares[other] = v.Shares
	}
	for other, d := range conf.Disabled {
		shares[other] = d.VM.Shares
	}
	for _, other := range slices.Sorted(maps.Keys(shares)) {
		for _, s := range shares[other] {
			host, err := l.Dirs.Expand(s.Host)
			if other != name && s.Host != "" && err == nil {
				list = append(list, vm.SharedFolder{VM: other, Host: host, Write: s.Write})
			}
		}
	}
	return list
}

// realPath returns path without links, as far as the path exists.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(realPath(dir), filepath.Base(path))
	}
	return path
}

// expandShares puts the home directory in the place of a leading "~" of each share.
func (d Dirs) expandShares(list []config.Share) ([]config.Share, error) {
	list = slices.Clone(list)
	for i := range list {
		var err error
		if list[i].Host, err = d.Expand(list[i].Host); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// Expand puts the home directory in the place of a leading "~".
func (d Dirs) Expand(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	if d.Home == "" {
		return "", fmt.Errorf("%s: HOME is not set; give the folder's full path", path)
	}
	return filepath.Join(d.Home, path[1:]), nil
}
