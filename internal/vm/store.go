package vm

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/durable"
	"vix/internal/proc"
	"vix/internal/rootfs"
)

// The state that VMs keep, and the folders for one run:
//
//	$XDG_STATE_HOME/vix/           0700
//	  vms/NAME/                    0700
//	    vix.json                   {"version": 1}; without it, a directory is not ours
//	    lock                       flock: held while the VM runs, or its state is changed
//	    used                       empty; its time is that of the last start or end (usage.go)
//	    home/                      the home directory of the guest's user
//	  staging/NAME-XXXXXXXX/       0700; removed with the run, or by a later one
//	  staging/NAME-XXXXXXXX.lock   flock: held while that run lasts
//	  logs/NAME                    0600; the log of a VM's last run (lastlog.go)
//	  .removed-XXXXXXXXXXXX/       a tree that is being removed (removal.go)
//	  colors.json                  the colours of VMs that config.toml gives none (colors.go)
//	  written.json                 the user's folders that a VM could ever write to (written.go)
//
// A guest has written whatever is in home and staging: Vix removes and renames it, but never
// reads it. Nothing above them may be a symbolic link, and everything belongs to the user
// alone: no other user can execute a VM's files.
const (
	storeVersion = 1
	MarkerName   = "vix.json"
	HomeName     = "home"
	VMsName      = "vms"
	StagingName  = "staging"
)

// A Store is the state directory of one user.
type Store struct {
	path         string // of $XDG_STATE_HOME/vix
	root         *os.Root
	StagingLocks map[string]*os.File // locks of the staging folders that this Store has made, by name
}

// OpenStore opens dir/vix, and makes it if there is none. dir is $XDG_STATE_HOME.
func OpenStore(dir string) (*Store, error) {
	path := filepath.Join(dir, "vix")
	err := os.MkdirAll(dir, 0o700)
	if err == nil {
		if err = os.Mkdir(path, 0o700); errors.Is(err, fs.ErrExist) {
			err = nil
		}
	}
	if err != nil {
		return nil, stateFailure(path, err)
	}
	root, at, err := openOwn(path)
	switch {
	case errors.Is(err, errNotOwn):
		return nil, Failf("%s: %v; remove it, or run with --disposable", path, err)
	case err != nil:
		return nil, stateFailure(path, err)
	}
	return &Store{path, root, map[string]*os.File{}}, at.Close()
}

// Close releases the directory.
func (s *Store) Close() error {
	for _, lock := range s.StagingLocks {
		lock.Close()
	}
	return s.root.Close()
}

// stateFailure says what to do if the state cannot be kept.
func stateFailure(path string, err error) *Failure {
	next := "run with --disposable, or set XDG_STATE_HOME to a directory that can be written to"
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		next = "free some, or run with --disposable"
	}
	return Failf("%s: %v; %s", path, proc.Cause(err), next)
}

var errNotOwn = errors.New("not a directory of yours alone (mode 0700)")

// ownDir refuses what is not a directory of this user's alone: a link would lead a
// VM's writes, or a removal, elsewhere.
func ownDir(st fs.FileInfo) error {
	sys, ok := st.Sys().(*syscall.Stat_t)
	if !st.IsDir() || !ok || int(sys.Uid) != os.Getuid() || st.Mode().Perm()&0o077 != 0 {
		return errNotOwn
	}
	return nil
}

// makeDir makes a directory below s.root, or checks the one that is there.
func (s *Store) makeDir(name string) error {
	path := filepath.Join(s.path, name)
	if err := s.root.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return stateFailure(path, err)
	}
	st, err := s.root.Lstat(name)
	if err != nil {
		return stateFailure(path, err)
	}
	if err := ownDir(st); err != nil {
		return Failf("%s: %v; move it away, or run with --disposable", path, err)
	}
	return nil
}

// A KeptState is the state of one VM, locked.
type KeptState struct {
	path string // of its directory
	Lock *os.File
	used func() // notes the end of a use; nil if there was none
}

func (k *KeptState) Home() string { return filepath.Join(k.path, HomeName) }

func (k *KeptState) Close() error {
	if k.used != nil {
		k.used()
	}
	return k.Lock.Close()
}

const maxMarker = 4 << 10

// marker is vix.json.
type marker struct {
	Version int `json:"version"`
}

// Open opens the state of the VM name, which it makes if there is none, and locks it.
func (s *Store) Open(name string) (*KeptState, error) {
	dir := filepath.Join(VMsName, name)
	for _, d := range []string{VMsName, dir} {
		if err := s.makeDir(d); err != nil {
			return nil, err
		}
	}
	k, err := s.lock(name)
	if err != nil {
		return nil, err
	}
	if err := s.fill(dir); err != nil {
		return nil, errors.Join(err, k.Close())
	}
	s.touch(name)
	k.used = func() { s.touch(name) }
	return k, nil
}

// fill makes the marker and the home in a new state, and checks those of an old one.
func (s *Store) fill(dir string) error {
	file := filepath.Join(dir, MarkerName)
	switch m, err := s.readMarker(dir); {
	case errors.Is(err, fs.ErrNotExist):
		durable.SweepFiles(s.root, dir)
		b, _ := json.Marshal(marker{storeVersion})
		if err := durable.Replace(s.root, file, 0o600, append(b, '\n')); err != nil {
			return stateFailure(filepath.Join(s.path, file), err)
		}
	case err != nil:
		return Failf("%s: %v; move the VM's state away, or run with --disposable", filepath.Join(s.path, file), proc.Cause(err))
	case m.Version != storeVersion:
		return Failf("%s: version %d, but this Vix knows %d; use a newer Vix, or run with --disposable", filepath.Join(s.path, file), m.Version, storeVersion)
	}
	return s.makeDir(filepath.Join(dir, HomeName))
}

func (s *Store) readMarker(dir string) (m marker, err error) {
	notOurs := errors.New("not one of Vix's files")
	f, err := openBelow(s.root, filepath.Join(dir, MarkerName), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ELOOP) {
		return m, notOurs
	}
	if err != nil {
		return m, err
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Size() > maxMarker {
		return m, notOurs
	}
	b, err := io.ReadAll(io.LimitReader(f, maxMarker))
	if err != nil {
		return m, err
	}
	if json.Unmarshal(b, &m) != nil {
		return m, fs.ErrNotExist // a power cut has left a part of it, or zeros; fill can make it again
	}
	return m, nil
}

// unlockLimit is how long killed processes may still hold a state.
const unlockLimit = 3 * time.Second

// lock locks an existing state.
func (s *Store) lock(name string) (*KeptState, error) {
	file := filepath.Join(VMsName, name, lockName)
	f, err := openBelow(s.root, file, os.O_RDWR|os.O_CREATE, 0o600)
	if errors.Is(err, unix.EROFS) {
		// The state can be locked all the same, and the home read, if it was made before.
		f, err = openBelow(s.root, file, os.O_RDONLY, 0)
	}
	if err != nil {
		return nil, stateFailure(filepath.Join(s.path, file), err)
	}
	// The home's server holds the lock too: it ends a moment after a supervisor is killed.
	ctx, cancel := context.WithTimeout(context.Background(), unlockLimit)
	defer cancel()
	switch err := waitLock(ctx, f); {
	case errors.Is(err, context.DeadlineExceeded):
		return nil, Failf("VM %s: its state is in use by a VM of another session; stop that one, or run with --disposable", name)
	case err != nil:
		return nil, stateFailure(filepath.Join(s.path, file), err)
	}
	return &KeptState{path: filepath.Join(s.path, VMsName, name), Lock: f}, nil
}

// Names returns the names of the VMs that have kept something.
func (s *Store) Names() ([]string, error) {
	entries, err := fs.ReadDir(s.root.FS(), VMsName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, Failf("%s: %v", filepath.Join(s.path, VMsName), proc.Cause(err))
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() && config.CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// openExisting locks a VM's kept state; nil if there is none.
func (s *Store) openExisting(name string) (*KeptState, error) {
	dir := filepath.Join(VMsName, name)
	st, err := s.root.Lstat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, stateFailure(filepath.Join(s.path, dir), err)
	case ownDir(st) != nil:
		return nil, Failf("%s: %v; look at it, and remove it by hand", filepath.Join(s.path, dir), ownDir(st))
	}
	return s.lock(name)
}

// drop puts a VM's kept state away; Sweep removes it. Its colour is free again.
func (s *Store) drop(ctx context.Context, name string) error {
	_, err := s.putAway(filepath.Join(VMsName, name))
	if err == nil {
		_ = s.moveColor(ctx, name, "") // a full disk keeps no VM from being removed
	}
	return err
}

// dropHome empties a VM's home; Sweep removes its content.
func (s *Store) dropHome(name string) error {
	home := filepath.Join(VMsName, name, HomeName)
	if _, err := s.putAway(home); err != nil {
		return err
	}
	_ = s.makeDir(home) // if the disk is full, the next start makes it
	return nil
}

// OpenDir opens a directory of the store by the name that it was made with: nothing on the
// way is a link.
func (s *Store) OpenDir(name string) (*rootfs.Folder, error) {
	dir, err := openBelow(s.root, name, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, stateFailure(filepath.Join(s.path, name), err)
	}
	f, err := rootfs.FolderOf(dir)
	if err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	st, err := f.File.Stat()
	if err == nil {
		err = ownDir(st)
	}
	if err != nil {
		return nil, errors.Join(Failf("%s: %v; move it away, or run with --disposable", f.Path, err), f.Close())
	}
	return f, nil
}
