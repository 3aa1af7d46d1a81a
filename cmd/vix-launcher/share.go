package main

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"

	"vix/config"
	"vix/internal/vm"
)

// stateDir is where the state of VMs is kept; "" where nothing says so.
func (e *env) stateDir() string {
	dir, err := e.xdg("XDG_STATE_HOME", filepath.Join(".local", "state"))
	if err != nil {
		return ""
	}
	return filepath.Clean(dir)
}

// private are the directories of Vix's own: a VM that could write to one of them, or
// read it, would have power over other VMs.
func (e *env) private() []string {
	var list []string
	for _, d := range []struct{ variable, below string }{
		{"XDG_CONFIG_HOME", ".config"}, {"XDG_CACHE_HOME", ".cache"}, {"XDG_STATE_HOME", ".local/state"},
	} {
		if dir, err := e.xdg(d.variable, d.below); err == nil {
			list = append(list, realPath(filepath.Join(dir, "vix")))
		}
	}
	if dir, err := e.runtimeDir(); err == nil {
		list = append(list, realPath(dir))
	}
	return list
}

// otherShares are the shares of the configuration's VMs but name. One whose place is not
// known is left out: its VM cannot start.
func (e *env) otherShares(conf *config.Config, name string) (list []vm.SharedFolder) {
	for _, other := range slices.Sorted(maps.Keys(conf.VMs)) {
		for _, s := range conf.VMs[other].Shares {
			host, err := e.expand(s.Host)
			if other != name && s.Host != "" && err == nil {
				list = append(list, vm.SharedFolder{VM: other, Host: host, Write: s.Write})
			}
		}
	}
	return list
}

// realPath is path without links, as far as it is there.
func realPath(path string) string {
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if dir := filepath.Dir(path); dir != path {
		return filepath.Join(realPath(dir), filepath.Base(path))
	}
	return path
}

// shares adds those of the command line to those of the configuration, and finds the
// home directory where one begins with "~/".
func (e *env) shares(list []config.Share, flags []string) ([]config.Share, error) {
	list = slices.Clone(list)
	for i := range list {
		var err error
		if list[i].Host, err = e.expand(list[i].Host); err != nil {
			return nil, err
		}
	}
	for _, text := range flags {
		s, err := e.parseShare(text)
		if err != nil {
			return nil, usagef("run: --share: %v", err)
		}
		list = append(list, s)
	}
	if err := config.CheckShares(list); err != nil {
		return nil, usagef("run: --share: %v", err)
	}
	return list, nil
}

// parseShare reads a share of the command line, where HOSTDIR may be relative.
func (e *env) parseShare(text string) (config.Share, error) {
	host, rest, _ := strings.Cut(text, ":")
	if text != config.Staging && host != "" && !filepath.IsAbs(host) && host != "~" && !strings.HasPrefix(host, "~/") {
		abs, err := filepath.Abs(host)
		if err != nil {
			return config.Share{}, err
		}
		text = strings.TrimSuffix(abs+":"+rest, ":")
	}
	s, err := config.ParseShare(text)
	if err != nil {
		return s, err
	}
	s.Host, err = e.expand(s.Host)
	return s, err
}

// expand puts the home directory in the place of "~".
func (e *env) expand(path string) (string, error) {
	if path != "~" && !strings.HasPrefix(path, "~/") {
		return path, nil
	}
	home := e.getenv("HOME")
	if !filepath.IsAbs(home) {
		return "", fmt.Errorf("%s: HOME is not set; name the folder in full", path)
	}
	return filepath.Join(home, path[1:]), nil
}
