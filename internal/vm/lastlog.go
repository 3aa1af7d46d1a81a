package vm

import (
	"bytes"
	"cmp"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/durable"
	"vix/internal/proc"
)

// The log of a VM's last run outlives the VM, so that "vix logs" can still say why it ended.
// The supervisor keeps it at the end; for one that was killed, whoever clears its directory
// does. The file's modification time is the VM's end. The next end replaces the file, and
// "vix remove" removes it.
const (
	LogsName = "logs"

	maxLastLog   = 1 << 20 // bytes of one file: the end of the log
	maxLooseLogs = 16      // files of VMs that keep nothing else
)

// lostText ends the log of a supervisor that could not say why it ended.
const lostText = "         [vix] its supervisor was killed or crashed: the log ends here\n"

// KeepLog keeps the log of the VM name, whose supervisor calls it at its end.
func (r *Registry) KeepLog(name string) error { return r.keepLog(name, time.Now(), "") }

// keepLog keeps the end of a log with one more line. A VM that has said nothing has no log.
func (r *Registry) keepLog(name string, ended time.Time, more string) error {
	if r.StateDir == "" {
		return nil
	}
	log, err := r.readLog(name)
	if err != nil || len(log) == 0 {
		return err
	}
	s, err := OpenStore(r.StateDir)
	if err != nil {
		return err
	}
	defer s.Close()
	if err := s.makeDir(LogsName); err != nil {
		return err
	}
	dir, err := s.root.Open(LogsName)
	if err != nil {
		return err
	}
	defer dir.Close()
	f, err := durable.New(dir, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	// Not synced: no VM's end waits for a disk on behalf of a log.
	if _, err := f.Write(append(log, more...)); err != nil {
		return err
	}
	if err := f.Place(name, true); err != nil {
		return err
	}
	file := filepath.Join(LogsName, name)
	return errors.Join(s.root.Chtimes(file, ended, ended), s.sweepLogs())
}

// readLog returns the last maxLastLog bytes of a VM's log, in whole lines.
func (r *Registry) readLog(name string) ([]byte, error) {
	var log []byte
	for _, file := range []string{proc.OldLogName, proc.LogName} {
		b, err := r.Root.ReadFile(filepath.Join(name, file))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		log = append(log, b...)
	}
	if cut := len(log) - maxLastLog; cut > 0 {
		log = log[cut:]
		log = log[bytes.IndexByte(log, '\n')+1:]
	}
	return log, nil
}

// keepLost keeps the log of a dead supervisor. Its last line is the nearest to its end.
func (r *Registry) keepLost(name string) {
	st, err := r.Root.Lstat(filepath.Join(name, proc.LogName))
	if err == nil {
		// If it fails, what is left of the VM has to go all the same.
		_ = r.keepLog(name, st.ModTime(), lostText)
	}
}

// sweepLogs removes the oldest logs of VMs that keep nothing else, beyond maxLooseLogs.
func (s *Store) sweepLogs() error {
	durable.SweepFiles(s.root, LogsName)
	entries, err := fs.ReadDir(s.root.FS(), LogsName)
	if err != nil {
		return err
	}
	var loose []fs.FileInfo
	for _, e := range entries {
		if st, err := e.Info(); err == nil && config.CheckName(e.Name()) == nil {
			if _, err := s.root.Lstat(filepath.Join(VMsName, e.Name())); errors.Is(err, fs.ErrNotExist) {
				loose = append(loose, st)
			}
		}
	}
	slices.SortFunc(loose, func(a, b fs.FileInfo) int {
		return cmp.Or(b.ModTime().Compare(a.ModTime()), strings.Compare(a.Name(), b.Name()))
	})
	for _, st := range loose[min(len(loose), maxLooseLogs):] {
		err = errors.Join(err, s.dropLog(st.Name()))
	}
	return err
}

// hasLog reports whether there is a last log of the VM name.
func (s *Store) hasLog(name string) bool {
	st, err := s.root.Lstat(filepath.Join(LogsName, name))
	return err == nil && st.Mode().IsRegular()
}

// dropLog removes the last log of the VM name, if there is one.
func (s *Store) dropLog(name string) error {
	file := filepath.Join(LogsName, name)
	if err := s.root.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Failf("%s: cannot be removed: %v", filepath.Join(s.path, file), proc.Cause(err))
	}
	return nil
}

// renameLog gives the last log of one VM to another.
func (s *Store) renameLog(from, to string) error {
	err := s.root.Rename(filepath.Join(LogsName, from), filepath.Join(LogsName, to))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return Failf("%s: cannot be renamed: %v", filepath.Join(s.path, LogsName, from), proc.Cause(err))
	}
	return nil
}

// LogNames returns the names of the VMs that have a last log.
func (s *Store) LogNames() (names []string) {
	entries, _ := fs.ReadDir(s.root.FS(), LogsName)
	for _, e := range entries {
		if config.CheckName(e.Name()) == nil {
			names = append(names, e.Name())
		}
	}
	return names
}

// LastLog opens the log of the last run of the VM name, and returns when the VM ended. The
// error is fs.ErrNotExist if there is no log.
func (s *Store) LastLog(name string) (log io.ReadCloser, ended time.Time, err error) {
	f, err := openBelow(s.root, filepath.Join(LogsName, name), os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, ended, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, ended, errors.Join(err, f.Close())
	}
	return f, st.ModTime(), nil
}
