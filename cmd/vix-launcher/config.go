package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/plain"
	"vix/internal/proc"
)

func configCommand(e *env) *cobra.Command {
	c := &cobra.Command{
		Use:   "config check|show|keys",
		Short: "config.toml: its errors, what holds, and its keys",
		Long: `config.toml is read at every start of a VM, from $XDG_CONFIG_HOME/vix or
~/.config/vix. [defaults] holds for every VM, [vm.NAME] for one. "config keys"
explains its keys, "config check" finds its errors, and "config show" shows what
holds and where it comes from.`,
		Example: `  vix config check
  vix config show web
  vix config keys`,
		Args: func(c *cobra.Command, a []string) error {
			if len(a) == 0 {
				return usagef("config: what is to be done is missing: check, show or keys; see %s --help", c.CommandPath())
			}
			return usagef("config: unknown %q; want check, show or keys", clip(a[0]))
		},
		RunE: func(*cobra.Command, []string) error { return nil },
	}
	c.AddCommand(configCheckCommand(e), configShowCommand(e), configKeysCommand(e))
	return c
}

func configKeysCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:               "keys",
		Short:             "explain every key of config.toml",
		Long:              "Explains every key of config.toml: its meaning, where it may stand, its default.",
		Example:           "  vix config keys | less",
		Args:              args(0, 0, ""),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE:              func(*cobra.Command, []string) error { return config.Explain(e.stdout) },
	}
}

func configCheckCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "check [FILE]",
		Short: "find every error in config.toml",
		Long: `Prints every error in config.toml, or in FILE, one on a line: the file and line, the
key, what is wrong, and what to do. The exit status is 1 if there is one.

An error in [vm.NAME] disables that VM alone, and one in [menu] gives the menu its
default look. Any other error stops every VM from starting: a default or a rule
may be what protects a VM. Of a file that is not TOML only the first error can be
found.`,
		Example: `  vix config check
  vix config check ~/config.toml.new && mv ~/config.toml.new ~/.config/vix/config.toml`,
		Args: args(0, 1, "FILE"),
		ValidArgsFunction: func(_ *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(a) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return nil, cobra.ShellCompDirectiveDefault
		},
		RunE: func(_ *cobra.Command, a []string) error {
			path, err := e.configPath()
			if len(a) > 0 {
				path, err = a[0], nil
			}
			if err != nil {
				return err
			}
			if _, err := os.Lstat(path); err != nil && (len(a) > 0 || !errors.Is(err, os.ErrNotExist)) {
				return fmt.Errorf("config check: %s: %w", path, proc.Cause(err))
			} else if err != nil {
				_, err = fmt.Fprintf(e.stdout, "%s is not there, and need not be\n", path)
				return err
			}
			c, err := loadConfig(path)
			var mistakes config.Errors
			what := "no VM can start"
			switch {
			case errors.As(err, &mistakes):
			case err != nil:
				return fmt.Errorf("config check: %w", err)
			case len(c.Errors) == 0:
				_, err := fmt.Fprintf(e.stdout, "%s: no errors, %s\n", path, count(len(c.VMs), "VM"))
				return err
			default:
				mistakes, what = c.Errors, consequence(c)
			}
			for _, line := range mistakes.Lines() {
				if _, err := fmt.Fprintln(e.stdout, plain.Error(errors.New(line))); err != nil {
					return err
				}
			}
			return fmt.Errorf("config check: %s: %s; %s", path, count(len(mistakes), "error"), what)
		},
	}
}

// consequence says what the errors of a file prevent that still lets VMs start.
func consequence(c *config.Config) string {
	names := slices.Sorted(maps.Keys(c.Disabled))
	switch len(names) {
	case 0:
		return "all VMs can start"
	case 1:
		return "VM " + names[0] + " is disabled"
	}
	return "VMs " + strings.Join(names[:len(names)-1], ", ") + " and " + names[len(names)-1] + " are disabled"
}

// shortLines returns the errors of a file that is named elsewhere, a line each.
func shortLines(mistakes config.Errors) []string {
	lines := make([]string, len(mistakes))
	for i, m := range mistakes {
		lines[i] = plain.Text(m.Short(), maxShown, plain.OneLine)
	}
	return lines
}

// count writes a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

func configShowCommand(e *env) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "show [--json] [NAME]",
		Short: "show what holds for a VM, and where it comes from",
		Long: `Shows every setting of the VM NAME, and where it comes from: a built-in default,
[defaults] or [vm.NAME] of config.toml with the line, the VM's name, or Vix's
choice. A VM that is not in the file has what it would start with. Without NAME,
shows the defaults of all VMs, [menu] and [clipboard], and the names of the VMs.

With --json, an array of objects {key, value, from, table, line}, where from is
"built-in", "file", "name" or "chosen"; without NAME, an object: settings (that
array), vms and disabled (names).`,
		Example: `  vix config show web
  vix config show --json web | jq -r '.[] | select(.from == "file").key'`,
		Args: func(c *cobra.Command, a []string) error {
			if err := args(0, 1, "NAME")(c, a); err != nil {
				return err
			}
			if len(a) == 1 {
				if err := config.CheckName(a[0]); err != nil {
					return usagef("config show: %v", err)
				}
			}
			return nil
		},
		ValidArgsFunction: func(c *cobra.Command, a []string, _ string) ([]string, cobra.ShellCompDirective) {
			if len(a) > 0 {
				return nil, cobra.ShellCompDirectiveNoFileComp
			}
			return vmNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
		},
		RunE: func(_ *cobra.Command, a []string) error {
			conf, err := e.config()
			if err != nil {
				return err
			}
			if len(a) == 0 {
				return showConfig(e.stdout, conf, asJSON)
			}
			list, err := conf.VMSettings(a[0])
			if err != nil {
				return err
			}
			if asJSON {
				return printJSON(e.stdout, list)
			}
			return printSettings(e.stdout, list)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return c
}

// showConfig shows what is not one VM's.
func showConfig(w io.Writer, conf *config.Config, asJSON bool) error {
	out := struct {
		Settings []config.Setting `json:"settings"`
		VMs      []string         `json:"vms"`
		Disabled []string         `json:"disabled"`
	}{VMs: []string{}, Disabled: []string{}}
	for _, part := range []struct {
		name string
		list []config.Setting
	}{{"defaults", conf.DefaultSettings()}, {"menu", conf.MenuSettings()}, {"clipboard", conf.ClipboardSettings()}} {
		for _, s := range part.list {
			s.Key = part.name + "." + s.Key
			out.Settings = append(out.Settings, s)
		}
	}
	out.VMs = slices.AppendSeq(out.VMs, maps.Keys(conf.VMs))
	out.Disabled = slices.AppendSeq(out.Disabled, maps.Keys(conf.Disabled))
	slices.Sort(out.VMs)
	slices.Sort(out.Disabled)
	if asJSON {
		return printJSON(w, out)
	}
	if err := printSettings(w, out.Settings); err != nil {
		return err
	}
	text := ""
	if len(out.VMs) > 0 {
		text = "\nVMs: " + strings.Join(out.VMs, ", ") + "; see vix config show NAME\n"
	}
	if len(out.Disabled) > 0 {
		text += "\nDisabled: " + strings.Join(out.Disabled, ", ") + "; see vix config check\n"
	}
	_, err := io.WriteString(w, text)
	return err
}

func printSettings(w io.Writer, list []config.Setting) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range list {
		fmt.Fprintf(t, "%s\t%s\t%s\n", s.Key, s.Text(), s.Where())
	}
	return t.Flush()
}

// loadConfig reads the file at path.
func loadConfig(path string) (*config.Config, error) {
	dir, err := os.OpenRoot(filepath.Dir(path))
	if os.IsNotExist(err) {
		return config.Parse(path, nil)
	}
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return config.Load(dir, filepath.Base(path), path, policyMistakes)
}
