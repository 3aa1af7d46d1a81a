package supervise

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/rootfs"
	"vix/internal/vm"
)

// A share's folder is chosen once, and by its descriptor (rootfs.Folder):
//
//	path ─ open, link by link ─► Folder ─ not Vix's own? apart from all other shares? ─►
//	noted in folders, and kept as long as the share ─► virtiofsd's view, by the descriptor
//
// A guest that can write to a folder chooses what the names in it mean. So no share may lie
// in a folder that a VM can write to, or hold one: at its next start it would be whatever
// that guest has put in its place. And names live (in config.toml, in somebody's history)
// longer than VMs run. So the state directory has a list of every folder that was ever
// shared for writing: in those, no link of a path is followed.
//
// Running VMs are asked where their shares lie now, of which they have descriptors; the
// shares of other configured VMs are looked up. Two VMs that start at once wait for one
// another: the decision and its note are under one lock.

// A sharedFolder is a folder of a share of ours.
type sharedFolder struct {
	*rootfs.Folder
	write bool
}

// folders are the folders of shares and root that the VM's processes get, and start the
// virtiofsds that serve them.
type folders struct {
	*host
	list    []sharedFolder // of shares that exist or are being made; under host.mu
	serveMu sync.Mutex     // held while a virtiofsd starts: there is one socket name
}

// openFolder opens the folder at path for a share, and notes it; the share drops it.
func (s *folders) openFolder(path string, write bool) (*rootfs.Folder, error) {
	lock, err := s.reg.LockFolders(s.ctx)
	if err != nil {
		return nil, err
	}
	defer lock.Close()
	others, written, err := s.otherFolders()
	if err != nil {
		return nil, err
	}
	f, err := s.findFolder(path, write, others, written)
	if err != nil {
		return nil, err
	}
	if write {
		if err := s.remember(f); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = append(s.list, sharedFolder{f, write})
	return f, nil
}

// findFolder opens path, and says why it cannot be shared.
func (s *folders) findFolder(path string, write bool, others []vm.FolderState, written map[rootfs.DirID]bool) (*rootfs.Folder, error) {
	fail := func(format string, a ...any) error {
		return vm.Failf("VM %s: share %s: %s", s.launch.VM.Name, path, fmt.Sprintf(format, a...))
	}
	f, err := rootfs.OpenFolder(path, func(id rootfs.DirID) bool { return written[id] })
	switch {
	case errors.Is(err, rootfs.ErrNotDir):
		return nil, fail("%v; share the directory that it is in", err)
	case errors.Is(err, rootfs.ErrLink):
		return nil, fail("%v; name the folder itself", err)
	case err != nil:
		return nil, fail("%v; create it, or remove it from shares", proc.Cause(err))
	}
	above, err := f.Above()
	if err == nil {
		err = s.notOurs(above)
	}
	if err == nil {
		err = apart(f, above, write, others)
	}
	if err != nil {
		return nil, errors.Join(fail("%v", proc.Cause(err)), f.Close())
	}
	return f, nil
}

// notOurs refuses a folder that holds a directory of Vix's own, or lies in one.
func (s *folders) notOurs(above []rootfs.DirID) error {
	if len(above) == 1 {
		return errors.New("is /, which would show the VM every file of this machine; name a folder")
	}
	for _, own := range s.launch.Private {
		chain, there, err := nearest(own)
		if err != nil {
			return err
		}
		if slices.Contains(chain, above[0]) || there && slices.Contains(above, chain[0]) {
			return fmt.Errorf("is or holds one of Vix's own folders (%s), which would give the VM power over others; share another folder", own)
		}
	}
	return nil
}

// nearest returns where path lies, or where it would lie if it does not exist.
func nearest(path string) (chain []rootfs.DirID, there bool, err error) {
	there = true
	for {
		f, err := rootfs.OpenFolder(path, func(rootfs.DirID) bool { return false })
		switch {
		case err == nil:
			chain, err = f.Above()
			return chain, there, errors.Join(err, f.Close())
		case !errors.Is(err, fs.ErrNotExist) || path == "/":
			return nil, false, err
		}
		path, there = filepath.Dir(path), false
	}
}

// apart refuses a folder that lies in a share, or holds one, if either of them can be
// written to. The same folder may be shared twice: no guest can change what it is.
func apart(f *rootfs.Folder, above []rootfs.DirID, write bool, others []vm.FolderState) error {
	for _, o := range others {
		switch {
		case !write && !o.Write || o.ID() == above[0]:
		case slices.Contains(above, o.ID()) || f.Passes(o.ID()):
			return fmt.Errorf("lies in %s, a share of VM %s, and one of the two is writable: its guest could replace the other; share separate folders", o.Path, o.VM)
		case slices.Contains(o.Above, above[0]):
			return fmt.Errorf("holds %s, a share of VM %s, and one of the two is writable: its guest could replace the other; share separate folders", o.Path, o.VM)
		}
	}
	return nil
}

// otherFolders returns the shares of this VM, of running VMs and of configured VMs; and
// the directories that a guest could ever write to.
func (s *folders) otherFolders() (list []vm.FolderState, written map[rootfs.DirID]bool, err error) {
	if list, err = s.folderStates(); err != nil {
		return nil, nil, err
	}
	names, err := s.reg.Names(s.ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		if name == s.launch.VM.Name {
			continue
		}
		its, err := s.reg.Folders(s.ctx, name)
		if err != nil {
			return nil, nil, vm.Failf("VM %s: what VM %s shares is not known: %v; stop that one first", s.launch.VM.Name, name, err)
		}
		list = append(list, its...)
	}
	if written, err = s.writtenFolders(); err != nil {
		return nil, nil, err
	}
	for _, o := range list {
		if o.Write {
			written[o.ID()] = true
		}
	}
	for _, o := range s.launch.Others {
		f, err := rootfs.OpenFolder(o.Host, func(id rootfs.DirID) bool { return written[id] })
		if err != nil {
			continue // it does not exist: its own VM will report that
		}
		above, err := f.Above()
		_ = f.Close()
		if err != nil {
			return nil, nil, vm.Failf("VM %s: share %s of VM %s: %v", s.launch.VM.Name, o.Host, o.VM, proc.Cause(err))
		}
		list = append(list, vm.FolderState{VM: o.VM, Path: f.Path, Write: o.Write, Above: above})
		if o.Write {
			written[above[0]] = true
		}
	}
	return list, written, nil
}

// checkPlaces refuses a root, an image, a kernel or an initrd in a folder that a VM can
// write to: that guest could choose what this VM is made of. They are opened by name, so
// nobody but the user may be able to change what the names mean.
func (s *folders) checkPlaces() error {
	v := s.launch.VM
	root := v.Root
	if image, ok := strings.CutPrefix(root, config.RootImage); ok {
		root = image
	}
	places := [][2]string{{"kernel", v.Kernel}, {"initrd", v.Initrd}}
	if filepath.IsAbs(root) {
		places = append(places, [2]string{"root", root})
	}
	for _, p := range places {
		if p[1] == "" {
			continue
		}
		if err := s.checkPlace(p[1]); err != nil {
			return vm.Failf("VM %s: %s %s: %v", v.Name, p[0], p[1], proc.Cause(err))
		}
	}
	return nil
}

func (s *folders) checkPlace(path string) error {
	f, err := s.openPlace(path)
	if err != nil {
		return err
	}
	return f.Close()
}

// openPlace opens the directory that path is, or is in, unless a VM can write there.
func (s *folders) openPlace(path string) (*rootfs.Folder, error) {
	others, written, err := s.otherFolders()
	if err != nil {
		return nil, err
	}
	f, err := rootfs.OpenParent(path, func(id rootfs.DirID) bool { return written[id] })
	if err != nil {
		return nil, err
	}
	above, err := f.Above()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	for _, o := range others {
		if o.Write && (slices.Contains(above, o.ID()) || f.Passes(o.ID())) {
			return nil, errors.Join(fmt.Errorf("is in %s, which VM %s can write to; move it to a place where only you can write", o.Path, o.VM), f.Close())
		}
	}
	return f, nil
}

// folderStates returns where our shares lie now.
func (s *folders) folderStates() ([]vm.FolderState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	list := []vm.FolderState{}
	for _, f := range s.list {
		above, err := f.Above()
		if err != nil {
			return nil, vm.Failf("VM %s: share %s: %v", s.launch.VM.Name, f.Path, err)
		}
		list = append(list, vm.FolderState{VM: s.launch.VM.Name, Path: f.Path, Write: f.write, Above: above})
	}
	return list, nil
}

func (s *supervisor) serveFolders(c *vm.Control) {
	list, err := s.folders.folderStates()
	if err != nil {
		s.tell(c, vm.Reply{Fail: s.failure(err)})
		return
	}
	s.tell(c, vm.Reply{Folders: &list})
}

// dropFolder forgets the folder of a share that has ended.
func (s *folders) dropFolder(f *rootfs.Folder) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list = slices.DeleteFunc(s.list, func(x sharedFolder) bool { return x.Folder == f })
	_ = f.Close()
}

// folderStore opens the state directory. It returns nil if there is none: then no folder
// is remembered.
func (s *folders) folderStore() (*vm.Store, error) {
	if s.launch.StateDir == "" {
		return nil, nil
	}
	return vm.OpenStore(s.launch.StateDir)
}

func (s *folders) writtenFolders() (map[rootfs.DirID]bool, error) {
	written := map[rootfs.DirID]bool{}
	store, err := s.folderStore()
	if store == nil || err != nil {
		return written, err
	}
	defer store.Close()
	list, err := store.Written()
	for _, f := range list {
		written[f.DirID] = true
	}
	return written, err
}

func (s *folders) remember(f *rootfs.Folder) error {
	store, err := s.folderStore()
	if store == nil || err != nil {
		return err
	}
	defer store.Close()
	id, err := f.ID()
	if err != nil {
		return err
	}
	return store.AddWritten(vm.WrittenFolder{VM: s.launch.VM.Name, Path: f.Path, DirID: id})
}
