package launch

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/plain"
	"vix/internal/rootfs"
)

// A VMApps is a VM's programs for menus, and the root to read them from.
type VMApps struct {
	VM   config.VM
	Apps []desktop.App
	Root *os.Root // nil if it cannot be read
}

// Apps returns the programs of every configured VM that its configuration wants
// in menus, by VM. notes say what could not be read, a line each. The caller closes
// the roots.
func (l *Launcher) Apps(conf *config.Config) (list []VMApps, notes []string) {
	for _, name := range slices.Sorted(maps.Keys(conf.VMs)) {
		v := conf.VMs[name]
		a := VMApps{VM: v}
		if wantsNone(v) {
			list = append(list, a)
			continue
		}
		var more []string
		var err error
		if a.Root, err = l.OpenRoot(v); err == nil {
			a.Apps, more, err = desktop.Apps(a.Root, name)
		}
		if err != nil && !errors.Is(err, errUnread) { // ReadImages has said why
			more = append(more, err.Error())
		}
		notes = append(notes, more...)
		a.Apps = slices.DeleteFunc(a.Apps, func(app desktop.App) bool { return !app.Wanted(v) })
		list = append(list, a)
	}
	return list, notes
}

// wantsNone reports whether v shows no programs, so that its root need not be read.
func wantsNone(v config.VM) bool {
	if v.Desktop != nil {
		return len(v.Desktop) == 0
	}
	return v.Root == "host" && len(v.Programs) == 0
}

// CloseApps closes the roots.
func CloseApps(list []VMApps) {
	for _, a := range list {
		if a.Root != nil {
			a.Root.Close()
		}
	}
}

// OpenRoot opens the tree of a VM's root; of an image, the tree that ReadImages keeps.
func (l *Launcher) OpenRoot(v config.VM) (*os.Root, error) {
	v, err := l.Dirs.expandPaths(v)
	if err != nil {
		return nil, err
	}
	roots, err := l.Dirs.Roots()
	if err != nil {
		return nil, err
	}
	r, err := rootfs.FindRoot(v.Root, v.Packages, roots)
	switch {
	case errors.Is(err, rootfs.ErrNotBuilt):
		return nil, fmt.Errorf("VM %s: root %s is not built yet; run a program in it once", v.Name, v.Root)
	case err != nil:
		return nil, fmt.Errorf("VM %s: %w", v.Name, err)
	case r.View:
		return os.OpenRoot(l.System)
	case r.Dir != "":
		return os.OpenRoot(r.Dir)
	}
	root, err := os.OpenRoot(l.imageTree(r.Disk))
	if errors.Is(err, fs.ErrNotExist) {
		err = fmt.Errorf("VM %s: %w; run vix desktop sync", v.Name, errUnread)
	}
	return root, err
}

// errUnread: nobody has read the image yet, or the result is gone.
var errUnread = errors.New("the programs of its image are not known yet")

// WantsWindow reports whether a VM's root has a desktop entry which says that a program shows
// windows of its own.
func (l *Launcher) WantsWindow(v config.VM, program string) bool {
	root, err := l.OpenRoot(v)
	if err != nil {
		return false
	}
	defer root.Close()
	apps, _, err := desktop.Apps(root, v.Name)
	return err == nil && slices.ContainsFunc(apps, func(a desktop.App) bool {
		return !a.Terminal && path.Base(a.Argv()[0]) == path.Base(program)
	})
}

// FindApp returns one program of a VM by its id.
func (l *Launcher) FindApp(ctx context.Context, conf *config.Config, vm, id string) (config.VM, desktop.App, error) {
	v, err := conf.VM(vm)
	if err != nil {
		return v, desktop.App{}, err
	}
	root, err := l.OpenRoot(v)
	if errors.Is(err, errUnread) {
		if err = l.readImage(ctx, v); err == nil {
			root, err = l.OpenRoot(v)
		}
	}
	if err != nil {
		return v, desktop.App{}, err
	}
	defer root.Close()
	apps, _, err := desktop.Apps(root, vm)
	if err != nil {
		return v, desktop.App{}, err
	}
	for _, a := range apps {
		if a.ID == id {
			return v, a, nil
		}
	}
	return v, desktop.App{}, fmt.Errorf("VM %s: its root has no program %s; run vix desktop sync", vm, plain.Clip(id))
}
