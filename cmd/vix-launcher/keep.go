package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/vm"
)

// The verbs about data that VMs keep.

func resetCommand(e *env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "reset [--force] NAME",
		Short: "empty the home directory that a VM has kept",
		Long: `Empties the home directory that the VM NAME has kept: its next start finds a new
one. The VM must not be running. Asks first on a terminal; elsewhere, needs --force.`,
		Example: `  vix reset web
  vix reset --force web`,
		Args:              oneVM("reset"),
		ValidArgsFunction: completeKept(e),
		RunE: func(c *cobra.Command, a []string) error {
			return e.drop(c.Context(), a[0], "reset", "empty the home directory of", force)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	return c
}

func removeCommand(e *env) *cobra.Command {
	var force bool
	c := &cobra.Command{
		Use:   "remove [--force] NAME",
		Short: "remove everything that a VM has kept",
		Long: `Removes everything that the VM NAME has kept, with its home directory. The VM must
not be running. Asks first on a terminal; elsewhere, needs --force. What config.toml
says about the VM stays: Vix never writes that file.`,
		Example: `  vix remove web
  vix remove --force web`,
		Args:              oneVM("remove"),
		ValidArgsFunction: completeKept(e),
		RunE: func(c *cobra.Command, a []string) error {
			return e.drop(c.Context(), a[0], "remove", "remove everything that is kept of", force)
		},
	}
	c.Flags().BoolVar(&force, "force", false, "do not ask")
	return c
}

func renameCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "rename OLD NEW",
		Short: "rename a stopped VM, with what it has kept",
		Long: `Gives what the VM OLD has kept, its home directory, to the VM NEW, which must not
have kept anything itself. Neither may be running. What config.toml says about OLD
does not apply to NEW: change the name there too.`,
		Example: `  vix rename firefox web`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(2, 2, "OLD or NEW")(c, a); err != nil {
				return err
			}
			for _, n := range a {
				if err := config.CheckName(n); err != nil {
					return usagef("rename: %v", err)
				}
			}
			if a[0] == a[1] {
				return usagef("rename: OLD and NEW are both %s", a[0])
			}
			return nil
		},
		ValidArgsFunction: completeKept(e),
		RunE: func(c *cobra.Command, a []string) error {
			return e.withStore(func(r *vm.Registry, s *vm.Store) error {
				err := r.Rename(c.Context(), s, a[0], a[1])
				_ = s.Sweep() // its failure does not concern the request
				return err
			})
		},
	}
}

// oneVM checks that a verb has one VM's name as its argument.
func oneVM(verb string) cobra.PositionalArgs {
	return func(c *cobra.Command, a []string) error {
		if err := args(1, 1, "NAME")(c, a); err != nil {
			return err
		}
		if err := config.CheckName(a[0]); err != nil {
			return usagef("%s: %v", verb, err)
		}
		return nil
	}
}

// withStore calls f with the registry of VMs and the store of their data.
func (e *env) withStore(f func(*vm.Registry, *vm.Store) error) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	dir, err := e.xdg("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return err
	}
	store, err := vm.OpenStore(dir)
	if err != nil {
		return err
	}
	defer store.Close()
	return f(reg, store)
}

// drop asks, and deletes data that a VM has kept.
func (e *env) drop(ctx context.Context, name, verb, what string, force bool) error {
	return e.withStore(func(r *vm.Registry, s *vm.Store) error {
		if err := r.CheckKept(ctx, s, name, verb); err != nil {
			_ = s.Sweep() // of an earlier drop, perhaps, that was interrupted
			return err
		}
		if !force {
			yes, err := e.ask(fmt.Sprintf("%s VM %s?", what, name), "--force")
			if err != nil {
				return usagef("%s: %v", verb, err)
			}
			if !yes {
				return &exitError{code: exitFailed, err: fmt.Errorf("%s: nothing was done", verb)}
			}
		}
		if verb == "reset" {
			return r.Reset(ctx, s, name)
		}
		return r.Remove(ctx, s, name)
	})
}

// ask asks a question on the terminal; any answer but yes means no. option is the one that
// answers it without a terminal.
func (e *env) ask(question, option string) (bool, error) {
	in, ok := e.stdin.(*os.File)
	if st, err := os.Stdin.Stat(); !ok || !e.terminal || err != nil || st.Mode()&os.ModeCharDevice == 0 {
		return false, fmt.Errorf("no terminal to ask on; use %s to %s", option, strings.TrimSuffix(question, "?"))
	}
	fmt.Fprintf(e.stderr, "vix: %s [y/N] ", question)
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil {
		return false, nil
	}
	line = strings.ToLower(strings.TrimSpace(line))
	return line == "y" || line == "yes", nil
}

// completeKept completes the names of VMs with kept data.
func completeKept(e *env) cobra.CompletionFunc {
	return func(_ *cobra.Command, a []string, _ string) (names []string, _ cobra.ShellCompDirective) {
		if len(a) == 0 {
			_ = e.withStore(func(_ *vm.Registry, s *vm.Store) (err error) {
				names, err = s.Names()
				return err
			})
		}
		return names, cobra.ShellCompDirectiveNoFileComp
	}
}
