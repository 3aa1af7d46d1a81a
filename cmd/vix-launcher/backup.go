package main

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/durable"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/vm"
)

// Copies of what a stopped VM has kept: as a tar file, and as another VM's.

func backupCommand(e *env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "backup [--force] NAME FILE",
		Short: "save a stopped VM's home directory to a tar file",
		Long: `Saves the home directory that the VM NAME has kept to FILE, as a tar file, which is
compressed if its name ends in .gz or .tgz. With "-" as FILE, writes to standard
output. The VM must not be running, and cannot start meanwhile. FILE appears when it
is complete; a file that exists is replaced only with --force.

Owners are not saved, because everything is yours; sockets, pipes and devices are
left out.`,
		Example: `  vix backup web web-2026-11.tar.gz
  vix backup web - | ssh nas 'cat >web.tar'`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, 2, "NAME or FILE")(c, a); err != nil {
				return err
			}
			if err := config.CheckName(a[0]); err != nil {
				return usagef("backup: %v", err)
			}
			if a[1] == "" {
				return usagef("backup: FILE is empty; see vix backup --help")
			}
			return nil
		},
		ValidArgsFunction: completeCopy(e, 0),
		RunE:              func(c *cobra.Command, a []string) error { return e.backup(c.Context(), a[0], a[1], force) },
	}
	c.Flags().BoolVar(&force, "force", false, "replace a FILE that exists")
	return c
}

func restoreCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "restore FILE NAME",
		Short: "give a new VM the home directory of a tar file",
		Long: `Makes the content of FILE, a tar file as vix backup writes it, compressed by gzip or
not, the home directory of the VM NAME, which must not have kept anything. With "-"
as FILE, reads standard input. A FILE with a name that leads out of that directory
is refused; owners, special files, and the bits setuid, setgid and sticky are
ignored. If anything fails, nothing is left.`,
		Example: `  vix restore web-2026-11.tar.gz web
  vix remove web && vix restore web.tar web`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, 2, "FILE or NAME")(c, a); err != nil {
				return err
			}
			if err := config.CheckName(a[1]); err != nil {
				return usagef("restore: %v", err)
			}
			return nil
		},
		ValidArgsFunction: completeCopy(e, 1),
		RunE:              func(c *cobra.Command, a []string) error { return e.restore(c.Context(), a[0], a[1]) },
	}
}

func cloneCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "clone FROM TO",
		Short: "give a new VM a copy of a stopped VM's home directory",
		Long: `Gives the VM TO, which must not have kept anything, a copy of the home directory
that the VM FROM has kept. Neither may be running. What config.toml says about FROM
does not apply to TO.`,
		Example: `  vix clone web web-test`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, 2, "FROM or TO")(c, a); err != nil {
				return err
			}
			for _, n := range a {
				if err := config.CheckName(n); err != nil {
					return usagef("clone: %v", err)
				}
			}
			if a[0] == a[1] {
				return usagef("clone: FROM and TO are both %s", a[0])
			}
			return nil
		},
		ValidArgsFunction: completeKept(e),
		RunE: func(c *cobra.Command, a []string) error {
			return e.copying(c.Context(), a[1], func(ctx context.Context, r *vm.Registry, s *vm.Store, m *meter) (vm.Skipped, error) {
				return r.Clone(ctx, s, a[0], a[1], m)
			})
		},
	}
}

// completeCopy completes the name of a VM that has kept something, as the argument at, and
// files elsewhere.
func completeCopy(e *env, at int) cobra.CompletionFunc {
	return func(c *cobra.Command, a []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(a) == at {
			return completeKept(e)(c, nil, word)
		}
		return nil, cobra.ShellCompDirectiveDefault
	}
}

// copying calls do with a meter on the terminal; a signal ends it. It says what was left out
// of the home of the VM name.
func (e *env) copying(ctx context.Context, name string, do func(context.Context, *vm.Registry, *vm.Store, *meter) (vm.Skipped, error)) error {
	ctx, stop := signal.NotifyContext(ctx, unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
	defer stop()
	return e.withStore(func(r *vm.Registry, s *vm.Store) error {
		m := newMeter(e.stderr, e.terminal)
		skipped, err := do(ctx, r, s, m)
		m.end()
		if err == nil && skipped > 0 {
			fmt.Fprintf(e.stderr, "vix: VM %s: left out: %s\n", name, count(int(skipped), "special file"))
		}
		_ = s.Sweep() // its failure does not concern the request
		return err
	})
}

func (e *env) backup(ctx context.Context, name, file string, force bool) error {
	if file == "-" {
		if _, ok := e.stdout.(*console); ok {
			return usagef("backup: standard output is a terminal; name a FILE")
		}
		return e.copying(ctx, name, func(ctx context.Context, r *vm.Registry, s *vm.Store, m *meter) (vm.Skipped, error) {
			return r.Backup(ctx, s, name, io.MultiWriter(e.stdout, m))
		})
	}
	shown := plain.Text(file, maxShown, plain.OneLine)
	if _, err := os.Lstat(file); err == nil && !force {
		return fmt.Errorf("backup: %s exists; name another file, or use --force", shown)
	}
	dir, err := os.Open(filepath.Dir(file))
	if err != nil {
		return fmt.Errorf("backup: %s: %w", shown, proc.Cause(err))
	}
	defer dir.Close()
	f, err := durable.New(dir, 0o600)
	if err != nil {
		return fmt.Errorf("backup: %s: %w", shown, proc.Cause(err))
	}
	err = e.copying(ctx, name, func(ctx context.Context, r *vm.Registry, s *vm.Store, m *meter) (vm.Skipped, error) {
		to, end := io.Writer(f), func() error { return nil }
		if strings.HasSuffix(file, ".gz") || strings.HasSuffix(file, ".tgz") {
			z := gzip.NewWriter(f)
			to, end = z, z.Close
		}
		skipped, err := r.Backup(ctx, s, name, io.MultiWriter(to, m))
		return skipped, errors.Join(err, end())
	})
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Place(filepath.Base(file), force)
	}
	return errors.Join(err, f.Close())
}

func (e *env) restore(ctx context.Context, file, name string) error {
	from := e.stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return fmt.Errorf("restore: %s: %w", plain.Text(file, maxShown, plain.OneLine), proc.Cause(err))
		}
		defer f.Close()
		from = f
	}
	return e.copying(ctx, name, func(ctx context.Context, r *vm.Registry, s *vm.Store, m *meter) (vm.Skipped, error) {
		skipped, err := r.Restore(ctx, s, name, io.TeeReader(from, m))
		if err != nil {
			err = fmt.Errorf("restore: %w", err)
		}
		return skipped, err
	})
}
