package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/launch"
)

// A place is a directory in which Vix keeps things.
type place struct {
	dir      string // the user's; Vix has a directory vix in it. "": nothing names one
	variable string // that names it
	holds    string
	need     uint64 // bytes that should be free
	without  string // what happens if it cannot be written; "": no VM can run
}

// places lists Vix's directories, with as much free space as a day's work may take: a home
// that fills, a root that is built (some 500 MB), the log of a VM.
func (e *env) places() []place {
	d := e.dirs()
	return []place{
		{d.State, "XDG_STATE_HOME", "what VMs keep", 1 << 30, "only VMs that keep nothing (--disposable) can run"},
		{d.Cache, "XDG_CACHE_HOME", "kernels and roots", 1 << 30, ""},
		{d.Runtime, "XDG_RUNTIME_DIR", "sockets and logs", 16 << 20, ""},
	}
}

// present returns the part of path that exists; Vix makes the rest.
func present(path string) string {
	for {
		_, err := os.Stat(path)
		up := filepath.Dir(path)
		if !errors.Is(err, fs.ErrNotExist) || up == path {
			return path
		}
		path = up
	}
}

// checkDirectories checks that Vix can write to its directories.
func checkDirectories(_ context.Context, e *env) check {
	var list []string
	var weak *check
	for _, p := range e.places() {
		r := p.writable()
		switch r.Status {
		case "fail":
			return r
		case "warn":
			weak = &r
		}
		list = append(list, fmt.Sprintf("%s (%s)", r.Detail, p.holds))
	}
	if weak != nil {
		return *weak
	}
	return good("%s", strings.Join(list, ", "))
}

func (p place) writable() check {
	report := func(err error, text string) check {
		fix := fmt.Sprintf("make it a directory that you can write to, or set %s to one", p.variable)
		if p.without != "" {
			return warning(fix, "%s: %v: %s", text, err, p.without)
		}
		return bad(fix, "%s: %v", text, err)
	}
	if p.dir == "" {
		return report(fmt.Errorf("nowhere, because %s is not set", p.variable), p.holds)
	}
	dir := filepath.Join(p.dir, "vix")
	at := present(dir)
	st, err := os.Stat(at)
	if err != nil {
		return report(errors.Unwrap(err), at)
	}
	if !st.IsDir() {
		return report(unix.ENOTDIR, at)
	}
	if err := unix.Access(at, unix.W_OK|unix.X_OK); err != nil {
		return report(err, at)
	}
	return good("%s", dir)
}

// checkSpace checks that there is room in Vix's directories.
func checkSpace(_ context.Context, e *env) check {
	return spaceCheck(e.places(), func(dir string) (uint64, error) {
		var st unix.Statfs_t
		err := unix.Statfs(present(dir), &st)
		return st.Bavail * uint64(st.Bsize), err
	})
}

// spaceCheck compares what is free, in bytes, with what the places need.
func spaceCheck(places []place, free func(dir string) (uint64, error)) check {
	var low, all []string
	for _, p := range places {
		if p.dir == "" {
			continue // another check reports it
		}
		n, err := free(p.dir)
		if err != nil {
			low = append(low, fmt.Sprintf("%s: %v", p.dir, err))
			continue
		}
		all = append(all, fmt.Sprintf("%d MiB free for %s", n>>20, p.holds))
		if n < p.need {
			low = append(low, fmt.Sprintf("%d MiB free for %s (%s), which may need %d", n>>20, p.holds, p.dir, p.need>>20))
		}
	}
	if len(low) > 0 {
		return warning("free some space there", "%s", strings.Join(low, "; "))
	}
	return good("%s", strings.Join(all, ", "))
}

// absentShares lists configured shares whose folder is not there, each folder once: their VMs
// do not start.
func absentShares(l *launch.Launcher, c *config.Config) (list []string) {
	seen := map[string]bool{}
	look := func(owner string, shares []config.Share) {
		for _, s := range shares {
			host, err := l.Dirs.Expand(s.Host)
			if err != nil || host == "" || seen[host] {
				continue
			}
			seen[host] = true
			if st, err := os.Stat(host); err != nil {
				list = append(list, fmt.Sprintf("share of %s: %s: %v", owner, host, errors.Unwrap(err)))
			} else if !st.IsDir() {
				list = append(list, fmt.Sprintf("share of %s: %s: %v", owner, host, unix.ENOTDIR))
			}
		}
	}
	look("[defaults]", c.Defaults.Shares)
	for _, name := range slices.Sorted(maps.Keys(c.VMs)) {
		look("VM "+name, c.VMs[name].Shares)
	}
	return list
}
