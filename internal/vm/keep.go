package vm

import (
	"context"
	"errors"
	"io/fs"
	"path/filepath"
	"slices"

	"vix/internal/proc"
)

// The verbs that change a VM's kept state. While one works, the VM cannot start: the verb
// holds the VM's seat, as a supervisor would, and a run waits for it.

// verbRemove is the verb that also works on a VM that has kept only its last log.
const verbRemove = "remove"

// CheckKept says why the verb cannot work on the VM name: it runs, or it has kept nothing.
func (r *Registry) CheckKept(ctx context.Context, s *Store, name, verb string) error {
	live, err := r.Names(ctx)
	if err != nil {
		return err
	}
	if slices.Contains(live, name) {
		return runs(name, verb)
	}
	names, err := s.Names()
	if err == nil && !slices.Contains(names, name) && (verb != verbRemove || !s.hasLog(name)) {
		err = noState(name)
	}
	return err
}

func runs(name, verb string) *Failure {
	return Failf("VM %s: is running; stop it first with vix stop %s, then %s it", name, name, verb)
}

func noState(name string) *Failure { return Failf("VM %s: has kept nothing", name) }

// withState calls f while the VM name does not run, and its kept state is locked.
func (r *Registry) withState(ctx context.Context, s *Store, name, verb string, f func() error) error {
	seat, err := r.Take(ctx, name)
	if err != nil {
		return err
	}
	if seat == nil {
		return runs(name, verb)
	}
	defer seat.Close()
	change := func() error {
		k, err := s.openExisting(name)
		if err != nil {
			return err
		}
		switch {
		case k != nil:
			return errors.Join(f(), k.Close())
		case verb == verbRemove && s.hasLog(name):
			return f()
		}
		return noState(name)
	}
	return errors.Join(change(), r.RemoveDir(context.WithoutCancel(ctx), name))
}

// Reset empties the home that the VM has kept. The VM can start again before all of it is
// removed.
func (r *Registry) Reset(ctx context.Context, s *Store, name string) error {
	if err := r.withState(ctx, s, name, "reset", func() error { return s.dropHome(name) }); err != nil {
		return err
	}
	return s.Sweep()
}

// Remove drops all that the VM has kept, and its last log.
func (r *Registry) Remove(ctx context.Context, s *Store, name string) error {
	drop := func() error { return errors.Join(s.drop(ctx, name), s.dropLog(name)) }
	if err := r.withState(ctx, s, name, verbRemove, drop); err != nil {
		return err
	}
	return s.Sweep()
}

// Rename gives the kept state of the VM from to the VM to, which must have none.
func (r *Registry) Rename(ctx context.Context, s *Store, from, to string) error {
	seat, err := r.Take(ctx, to)
	if err != nil {
		return err
	}
	if seat == nil {
		return runs(to, "rename "+from+" to")
	}
	defer seat.Close()
	err = r.withState(ctx, s, from, "rename", func() error {
		old, target := filepath.Join(VMsName, from), filepath.Join(VMsName, to)
		if _, err := s.root.Lstat(target); !errors.Is(err, fs.ErrNotExist) {
			return Failf("VM %s: has already kept something; remove that first with vix remove %s", to, to)
		}
		if err := s.root.Rename(old, target); err != nil {
			return Failf("%s: cannot be renamed: %v", filepath.Join(s.path, old), proc.Cause(err))
		}
		return errors.Join(s.renameLog(from, to), s.moveColor(ctx, from, to))
	})
	return errors.Join(err, r.RemoveDir(context.WithoutCancel(ctx), to))
}
