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
	var asJSON bool
	c := &cobra.Command{
		Use:   "list [--json]",
		Short: "list the running VMs",
		Long: `Lists the running VMs: state (starting, running, stopping; "not answering" if the
guest has given no sign of life for some seconds; "unresponsive" if the VM's
supervisor does not answer), memory, how much of the host's memory it uses, uptime,
color, windows and programs.

A VM that another version of Vix started, or whose root has been upgraded since, is
named on standard error. With --json, prints an array with an object for each VM.`,
		Example: `  vix list
  vix list --json | jq -r '.[].name'`,
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(c *cobra.Command, _ []string) error {
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			vms, err := reg.List(c.Context())
			if err != nil {
				return err
			}
			list := []vmUse{}
			for _, v := range vms {
				list = append(list, withUse(v))
			}
			if asJSON {
				return printJSON(e.stdout, list)
			}
			for _, v := range list {
				if old := oldVersion(v.State); old != "" {
					fmt.Fprintf(e.stderr, "VM %s: %s\n", v.Name, old)
				}
				if v.Outdated {
					fmt.Fprintf(e.stderr, "vix: %s\n", vm.OutdatedText(v.Name, v.Root))
				}
			}
			return printList(e.stdout, list)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

func printList(w io.Writer, vms []vmUse) error {
	if len(vms) == 0 {
		return nil
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "NAME\tSTATE\tMEMORY\tUSED\tUPTIME\tCOLOR\tWINDOWS\tPROGRAMS")
	for _, v := range vms {
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s\n", v.Name, v.State.State, config.Size(v.Memory), amount(int64(v.Used)),
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
