package main

import (
	"context"
	"errors"
	"fmt"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"vix/internal/vm"
)

func pruneCommand(e *env) *cobra.Command {
	var dry, yes bool
	c := &cobra.Command{
		Use:   "prune [--dry-run] [--yes]",
		Short: "remove what nobody needs from the disk",
		Long: `Removes what nobody needs from the disk: cached kernels and initramfs of kernels or
versions of Vix that are no longer installed, roots and packages that no VM of
config.toml uses, empty homes of VMs that config.toml does not name, and what
killed processes have left. vix df marks the same. A home with anything in it
stays, and so does whatever a running VM may use. A root is built again when a VM
needs it.

It first lists each thing with its size and the reason, and asks on a terminal;
elsewhere it needs --yes. With --dry-run it only lists.`,
		Example: `  vix prune --dry-run
  vix prune --yes`,
		Args: func(c *cobra.Command, a []string) error {
			if dry && yes {
				return usagef("prune: either --dry-run or --yes; see vix prune --help")
			}
			return args(0, 0, "")(c, a)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			return e.withDisk(c.Context(), func(d *disk) error { return d.prune(c.Context(), dry, yes) })
		},
	}
	c.Flags().BoolVar(&dry, "dry-run", false, "list what would be removed, and remove nothing")
	c.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return c
}

func (d *disk) prune(ctx context.Context, dry, yes bool) error {
	e := d.env
	d.tell()
	var list []diskItem
	sum := vm.DiskUse{Whole: true}
	for _, it := range d.items {
		if it.Unneeded != "" {
			list = append(list, it)
			sum.Add(it.DiskUse)
		}
	}
	if len(list) == 0 {
		fmt.Fprintln(e.stdout, "nothing to remove")
		return nil
	}
	t := tabwriter.NewWriter(e.stdout, 0, 0, 2, ' ', 0)
	for _, it := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", diskText(it.DiskUse), it.Kind, it.shown(), it.Unneeded)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	what := fmt.Sprintf("remove these, %s in all", diskText(sum))
	if dry {
		fmt.Fprintf(e.stdout, "%s: vix prune would do it\n", what)
		return nil
	}
	if !yes {
		ok, err := e.ask(what+"?", "--yes")
		if err != nil {
			return usagef("prune: %v", err)
		}
		if !ok {
			return &exitError{code: exitFailed, err: errors.New("prune: nothing was done")}
		}
	}
	var errs []error
	gone := vm.DiskUse{Whole: true}
	for _, it := range list {
		if err := it.remove(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", it.Name, err))
			continue
		}
		gone.Add(it.DiskUse)
	}
	fmt.Fprintf(e.stdout, "removed %s\n", diskText(gone))
	return errors.Join(errs...)
}
