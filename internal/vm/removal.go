package vm

import (
	"cmp"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/durable"
	"vix/internal/proc"
)

// The removal of what VMs have kept and staged.
//
//	putAway   NAME ─► .removed-XXXXXXXX    in one step: nothing is ever half there under its name
//	takeApart         .removed-XXXXXXXX ─► nothing
//
// An interruption between the two leaves a tree without its name. Sweep goes on with it:
// every verb that drops something calls Sweep, and so does every start of a VM that keeps
// something, in the background. A lock on the tree itself keeps them apart.
const removedPrefix = ".removed-"

// putAway puts a tree out of the way, and returns its name there; "" if there was none.
func (s *Store) putAway(name string) (away string, err error) {
	away = removedPrefix + strings.ToLower(rand.Text()[:12])
	err = s.root.Rename(name, away)
	if errors.Is(err, fs.ErrPermission) { // a guest may have made its home read-only, which also forbids a move
		_ = s.root.Chmod(name, 0o700)
		err = s.root.Rename(name, away)
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", nil
	case err != nil:
		return "", Failf("%s: cannot be removed: %v", filepath.Join(s.path, name), proc.Cause(err))
	}
	return away, nil
}

// takeApart removes a tree that was put away, unless another process does.
func (s *Store) takeApart(away string) error {
	top, err := openBelow(s.root, away, os.O_RDONLY|unix.O_DIRECTORY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err == nil:
		defer top.Close()
		if ours, _ := TryLock(top); !ours {
			return nil
		}
	}
	return s.removeAll(away)
}

// Sweep finishes the removals that were interrupted, and removes what killed runs have
// staged. It returns the first of its errors, having tried everything.
func (s *Store) Sweep() error {
	first := s.SweepStaging("")
	// Earlier versions put trees away here.
	for _, pattern := range []string{VMsName + "/" + removedPrefix + "*", VMsName + "/*/" + removedPrefix + "*"} {
		old, _ := fs.Glob(s.root.FS(), pattern)
		for _, name := range old {
			_, err := s.putAway(name)
			first = cmp.Or(first, err)
		}
	}
	entries, err := fs.ReadDir(s.root.FS(), ".")
	if err != nil {
		return cmp.Or[error](first, Failf("%s: %v", s.path, proc.Cause(err)))
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), removedPrefix) {
			first = cmp.Or(first, s.takeApart(e.Name()))
		}
	}
	durable.SweepFiles(s.root, ".")
	return first
}

// stagingLock ends the name of the file beside a staging folder that is locked while the
// folder is in use. Earlier versions made none: the next run of the VM removes such a
// folder.
const stagingLock = ".lock"

// NewStaging makes a fresh folder for one run of the VM name, and returns its path. The
// folder is in use until DropStaging, or the Store's end.
func (s *Store) NewStaging(name, word string) (string, error) {
	if err := s.makeDir(StagingName); err != nil {
		return "", err
	}
	parent, err := openBelow(s.root, StagingName, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return "", stateFailure(filepath.Join(s.path, StagingName), err)
	}
	defer parent.Close()
	folder := name + "-" + word
	lock, err := durable.Locked(parent, folder+stagingLock)
	if err != nil {
		return "", stateFailure(filepath.Join(s.path, StagingName, folder), err)
	}
	s.StagingLocks[folder] = lock
	dir := filepath.Join(StagingName, folder)
	if err := s.makeDir(dir); err != nil {
		return "", errors.Join(err, s.DropStaging(folder))
	}
	return filepath.Join(s.path, dir), nil
}

// DropStaging removes a folder that newStaging made.
func (s *Store) DropStaging(folder string) error {
	away, err := s.unstage(folder)
	if lock := s.StagingLocks[folder]; lock != nil {
		lock.Close()
		delete(s.StagingLocks, folder)
	}
	if away == "" {
		return err
	}
	return s.takeApart(away)
}

// unstage puts a folder away, and then its lock, which the caller holds.
func (s *Store) unstage(folder string) (away string, err error) {
	dir := filepath.Join(StagingName, folder)
	if away, err = s.putAway(dir); err != nil {
		return "", err
	}
	if err := s.root.Remove(dir + stagingLock); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return away, Failf("%s: cannot be removed: %v", filepath.Join(s.path, dir+stagingLock), proc.Cause(err))
	}
	return away, nil
}

// SweepStaging puts away what killed runs have staged: also what an earlier version's
// run of the VM name has, which is the caller's. A name has no '.', and a word no '-': no
// VM's is another's.
func (s *Store) SweepStaging(name string) (first error) {
	entries, err := fs.ReadDir(s.root.FS(), StagingName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Failf("%s: %v", filepath.Join(s.path, StagingName), proc.Cause(err))
	}
	locks := map[string]bool{}
	for _, e := range entries {
		if folder, ok := strings.CutSuffix(e.Name(), stagingLock); ok {
			locks[folder] = true
			first = cmp.Or(first, s.sweepFolder(folder))
		}
	}
	for _, e := range entries {
		i := strings.LastIndexByte(e.Name(), '-')
		if i >= 0 && e.Name()[:i] == name && e.IsDir() && !locks[e.Name()] {
			_, err := s.unstage(e.Name())
			first = cmp.Or(first, err)
		}
	}
	durable.SweepFiles(s.root, StagingName)
	return first
}

// sweepFolder puts away a folder that is not in use.
func (s *Store) sweepFolder(folder string) error {
	path := filepath.Join(StagingName, folder+stagingLock)
	lock, err := openBelow(s.root, path, os.O_RDWR|unix.O_NONBLOCK, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return Failf("%s: %v", filepath.Join(s.path, path), proc.Cause(err))
	}
	defer lock.Close()
	if free, _ := TryLock(lock); !free {
		return nil
	}
	_, err = s.unstage(folder)
	return err
}

// removeAll removes a tree that a guest may have made: directories without
// permissions are given them first.
func (s *Store) removeAll(name string) error {
	err := s.root.RemoveAll(name)
	if errors.Is(err, fs.ErrPermission) {
		_ = fs.WalkDir(s.root.FS(), name, func(path string, d fs.DirEntry, _ error) error {
			if d != nil && d.IsDir() {
				_ = s.root.Chmod(path, 0o700)
			}
			return nil
		})
		err = s.root.RemoveAll(name)
	}
	if err != nil {
		return Failf("%s: cannot be removed: %v", filepath.Join(s.path, name), proc.Cause(err))
	}
	return nil
}
