package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/vm"
)

func listCommand(e *env) *cobra.Command {
	var asJSON, all, verbose bool
	c := &cobra.Command{
		Use:   "list [-a] [-v] [--json]",
		Short: "list the running VMs, or all",
		Long: `Lists the running VMs: state (starting, running, stopping; "not answering" if the
guest has given no sign of life for some seconds; "unresponsive" if the VM's
supervisor does not answer), memory, how much of the host's memory it uses, uptime,
color, windows and programs. With -a, also lists the VMs that do not run: those that
have kept a home ("stopped"), and those that only config.toml names ("configured"),
with what each home takes on the disk and when the VM was last used. With -v, also
shows what each VM may use, and what takes it back.

A VM that another version of Vix started, or whose root has been upgraded since, is
named on standard error. With --json, prints an array with an object for each VM.`,
		Example: `  vix list
  vix list -a
  vix list --json | jq -r '.[].name'
  vix list -a --json | jq 'map(.home_use.bytes) | add'`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(c *cobra.Command, _ []string) error { return list(c.Context(), e, all, verbose, asJSON) },
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	c.Flags().BoolVarP(&all, "all", "a", false, "also the VMs that do not run")
	c.Flags().BoolVarP(&verbose, "verbose", "v", false, "what each may use, too")
	return c
}

func list(ctx context.Context, e *env, all, verbose, asJSON bool) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	vms, err := reg.List(ctx)
	if err != nil {
		return err
	}
	entries := []vmEntry{}
	if all || verbose {
		k, err := openKnown(e)
		switch {
		case err != nil && all:
			return err
		case err != nil:
			fmt.Fprintf(e.stderr, "vix: %s\n", plain.Error(err))
		}
		defer k.close()
		entries, err = k.entries(ctx, vms, all)
		if err != nil {
			return err
		}
	} else {
		for _, st := range vms {
			entries = append(entries, vmEntry{vmUse: withUse(st)})
		}
	}
	if !verbose {
		for i := range entries {
			entries[i].MayUse = nil
		}
	}
	if asJSON {
		return printJSON(e.stdout, entries)
	}
	for _, v := range vms {
		if old := oldVersion(v); old != "" {
			fmt.Fprintf(e.stderr, "VM %s: %s\n", v.Name, old)
		}
		if v.Outdated {
			fmt.Fprintf(e.stderr, "vix: %s\n", vm.OutdatedText(v.Name, v.Root))
		}
	}
	switch {
	case all && len(entries) == 0:
		fmt.Fprintln(e.stderr, "vix: there is no VM yet; vix run PROGRAM makes and starts one")
	case !all && len(vms) == 0:
		sayNoneRuns(e)
	}
	if err := printList(e.stdout, entries, all); err != nil || !verbose {
		return err
	}
	for _, v := range entries {
		fmt.Fprintf(e.stdout, "\n%s may use, and what takes it back:\n", v.Name)
		if err := printGrants(e.stdout, v.grants, false); err != nil {
			return err
		}
	}
	return nil
}

// sayNoneRuns says on standard error what to do where a list is empty.
func sayNoneRuns(e *env) {
	fmt.Fprintln(e.stderr, "vix: no VM runs; vix run PROGRAM starts one, and vix list -a shows those that are stopped")
}

// shownTime is how times are shown.
const shownTime = "2006-01-02 15:04"

func printList(w io.Writer, vms []vmEntry, all bool) error {
	if len(vms) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	more := ""
	if all {
		more = "HOME\tLAST USED\t"
	}
	fmt.Fprintln(t, "NAME\tSTATE\t"+more+"MEMORY\tUSED\tUPTIME\tCOLOR\tWINDOWS\tPROGRAMS")
	for _, v := range vms {
		fmt.Fprintf(t, "%s\t%s\t", v.Name, v.State.State)
		if all {
			home, last := "-", "-"
			if v.HomeUse != nil {
				home = diskText(*v.HomeUse)
			}
			if !v.LastUsed.IsZero() {
				last = v.LastUsed.Local().Format(shownTime)
			}
			fmt.Fprintf(t, "%s\t%s\t", home, last)
		}
		if v.stopped {
			fmt.Fprintf(t, "%s\t-\t-\t%s\t-\t-\n", config.Size(v.Memory), v.Color)
			continue
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%d\t%s\n", config.Size(v.Memory), amount(int64(v.Used)),
			(time.Duration(v.Uptime) * time.Second).String(), v.Color, len(v.Windows), programNames(v.Programs))
	}
	return t.Flush()
}

// maxShown bounds a shown text from a guest or a stranger, in bytes.
const maxShown = 1 << 10

// maxNames bounds the last column.
const maxNames = 60

func programNames(programs []vm.Program) string {
	var names []string
	for _, p := range programs {
		if p.Exit == nil && len(p.Argv) > 0 {
			names = append(names, p.Argv[0])
		}
	}
	return short(strings.Join(names, ", "), maxNames)
}

// short returns s as plain text of at most most bytes, with a mark where it was cut.
func short(s string, most int) string {
	const cut = "…"
	if s = plain.Text(s, len(s), plain.OneLine); len(s) <= most {
		return s
	}
	return plain.Text(s, most-len(cut), plain.OneLine) + cut
}

// runningNames returns the names for shell completion, which cannot show errors.
func runningNames(ctx context.Context, e *env) []string {
	reg, err := e.registry()
	if err != nil {
		return nil
	}
	defer reg.Close()
	names, _ := reg.Names(ctx)
	return names
}

// completeNames completes the names of running VMs.
func completeNames(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return runningNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
	}
}
