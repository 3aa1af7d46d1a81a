package vm

import (
	"encoding/json"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"vix/internal/durable"
	"vix/internal/rootfs"
)

// writtenName of the state directory lists the last maxWritten folders that were shared for
// writing: {"version": 1, "folders": [{vm, path, dev, ino}]}.
const (
	writtenName     = "written.json"
	writtenVersion  = 1
	maxWritten      = 1024
	maxWrittenBytes = 1 << 20
)

type WrittenFolder struct {
	VM   string `json:"vm"` // the last VM that had it
	Path string `json:"path"`
	rootfs.DirID
}

type writtenFile struct {
	Version int             `json:"version"`
	Folders []WrittenFolder `json:"folders"`
}

// Written returns the list. A file that cannot be read is an error: without it, Vix would
// follow a link that a guest has made.
func (s *Store) Written() ([]WrittenFolder, error) {
	path := filepath.Join(s.path, writtenName)
	b, err := readBelow(s.root, writtenName, maxWrittenBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, stateFailure(path, err)
	}
	var w writtenFile
	if json.Unmarshal(b, &w) != nil || w.Version != writtenVersion {
		return nil, Failf("%s: damaged, or of another version; remove it, if no VM has put links into a folder that it could write to", path)
	}
	return w.Folders, nil
}

// AddWritten adds a folder; the caller holds LockFolders.
func (s *Store) AddWritten(f WrittenFolder) error {
	list, err := s.Written()
	if err != nil {
		return err
	}
	if slices.Contains(list, f) {
		return nil
	}
	list = append(slices.DeleteFunc(list, func(x WrittenFolder) bool { return x.DirID == f.DirID }), f)
	b, err := json.Marshal(writtenFile{writtenVersion, list[max(0, len(list)-maxWritten):]})
	if err != nil {
		return err
	}
	if err := durable.Replace(s.root, writtenName, 0o600, append(b, '\n')); err != nil {
		return stateFailure(filepath.Join(s.path, writtenName), err)
	}
	return nil
}
