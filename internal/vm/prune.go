package vm

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
	"vix/internal/proc"
)

// What can be thrown away of the store: states in which nobody has ever put anything, and
// what a killed process has left.

// HoldsNothing reports whether the kept state of the VM name has nothing but what Vix itself
// put there: its home is empty, without even a directory.
func (s *Store) HoldsNothing(name string) (bool, error) {
	dir := filepath.Join(VMsName, name)
	top, err := openBelow(s.root, dir, diskFlags, 0)
	if err != nil {
		return false, err
	}
	defer top.Close()
	names, err := top.Readdirnames(-1)
	if err != nil {
		return false, err
	}
	for _, n := range names {
		if !slices.Contains([]string{MarkerName, lockName, usedName, HomeName}, n) && !strings.HasPrefix(n, durable.Prefix) {
			return false, nil
		}
	}
	home, err := openBelow(s.root, filepath.Join(dir, HomeName), diskFlags, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	defer home.Close()
	if _, err = home.Readdirnames(1); errors.Is(err, io.EOF) {
		return true, nil
	}
	return false, err
}

// RemoveEmpty drops the kept state of a VM that does not run, if that holds nothing.
func (r *Registry) RemoveEmpty(ctx context.Context, s *Store, name string) error {
	err := r.withState(ctx, s, name, "prune", func() error {
		switch empty, err := s.HoldsNothing(name); {
		case err != nil:
			return Failf("%s: %v", s.HomePath(name), proc.Cause(err))
		case !empty:
			return Failf("VM %s: has something in its home now, and keeps it", name)
		}
		return s.drop(ctx, name)
	})
	if err != nil {
		return err
	}
	return s.Sweep()
}

// Left returns the names, below the store, of what Sweep would remove: trees whose removal
// was interrupted, and staging folders of killed runs.
func (s *Store) Left() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return nil, Failf("%s: %v", s.path, proc.Cause(err))
	}
	var list []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removedPrefix) && s.isFree(e.Name(), diskFlags) {
			list = append(list, e.Name())
		}
	}
	entries, err = fs.ReadDir(s.root.FS(), StagingName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, Failf("%s: %v", filepath.Join(s.path, StagingName), proc.Cause(err))
	}
	for _, e := range entries {
		if folder, ok := strings.CutSuffix(e.Name(), stagingLock); ok && s.isFree(filepath.Join(StagingName, e.Name()), os.O_RDWR) {
			list = append(list, filepath.Join(StagingName, folder))
		}
	}
	return list, nil
}

// isFree reports whether nobody holds the lock on a file or directory.
func (s *Store) isFree(name string, flags int) bool {
	f, err := openBelow(s.root, name, flags|unix.O_NONBLOCK, 0)
	if err != nil {
		return errors.Is(err, fs.ErrPermission) // a guest's directory that its removal opens first
	}
	defer f.Close()
	free, _ := TryLock(f)
	return free
}

// Use counts what a file or directory below the store takes, until ctx ends.
func (s *Store) Use(ctx context.Context, name string) DiskUse { return MeasureDisk(ctx, s.root, name) }

// Entries returns the names in the store, except what belongs to VMs or is being removed.
func (s *Store) Entries() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), ".")
	var list []string
	for _, e := range entries {
		if n := e.Name(); n != VMsName && n != StagingName && !strings.HasPrefix(n, removedPrefix) {
			list = append(list, n)
		}
	}
	return list, err
}

// Path returns the path of the store.
func (s *Store) Path() string { return s.path }
