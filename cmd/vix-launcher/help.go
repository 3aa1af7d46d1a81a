package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// helpWidth is the width of help, in columns.
const helpWidth = 80

// verbGroups lists the verbs as "vix --help" shows them.
var verbGroups = []struct {
	title string
	verbs []string
}{
	{"Everyday", []string{"run", "list", "status", "shell", "exec", "stop", "menu"}},
	{"Files and clipboard", []string{"cp", "mount", "umount", "clipboard", "install", "add"}},
	{"Devices", []string{"usb"}},
	{"Keep and remove", []string{"df", "prune", "backup", "restore", "clone", "reset", "rename", "remove"}},
	{"Diagnose and set up", []string{"doctor", "top", "logs", "trace", "desktop", "config", "completion", "version"}},
}

// shortHelp is what "vix" alone prints.
const shortHelp = `Vix runs each program in a virtual machine (VM) of its own, and shows its windows
on your desktop. A VM starts with its first program and ends with its last.

  vix run foot                   run a terminal in the VM "foot"
  vix run --vm web firefox       run Firefox in the VM "web"
  vix list                       list the running VMs
  vix shell web                  open a shell in the VM "web"
  vix stop web                   stop the VM "web"

vix --help lists every verb, vix VERB --help explains one, and man vix has the
details. vix doctor says what this machine lacks.
`

// setHelp gives every command below root help in one form, and root's verbs their groups and
// other names.
func setHelp(root *cobra.Command) {
	groupOf := map[string]string{}
	for _, g := range verbGroups {
		root.AddGroup(&cobra.Group{ID: g.title, Title: g.title + ":"})
		for _, verb := range g.verbs {
			groupOf[verb] = g.title
		}
	}
	for _, c := range root.Commands() {
		c.GroupID = groupOf[c.Name()]
		c.Aliases, c.SuggestFor = verbAliases[c.Name()], verbMeant[c.Name()]
	}
	root.SetHelpFunc(func(c *cobra.Command, _ []string) { fmt.Fprint(c.OutOrStdout(), helpText(c)) })
}

// helpText returns a command's help: how it is used and examples first, then the explanation
// and the options.
func helpText(c *cobra.Command) string {
	if !c.HasParent() {
		return rootHelp(c)
	}
	var parts []string
	add := func(title, text string) {
		if text = strings.Trim(text, "\n"); text != "" {
			parts = append(parts, strings.TrimPrefix(title+"\n"+text, "\n"))
		}
	}
	if c.Runnable() {
		add("Usage:", usageLines(c))
		add("Also:", aliasLine(c))
		add("Examples:", c.Example)
	}
	long := c.Long
	if long == "" {
		long = strings.ToUpper(c.Short[:1]) + c.Short[1:] + "."
	}
	add("", long)
	add("Verbs:", verbLines(c.Commands()))
	add("Options:", optionLines(c))
	if c.Runnable() {
		add("", "See man vix for more.")
	}
	return strings.Join(parts, "\n\n") + "\n"
}

// rootHelp returns the help of vix itself: the verbs, in groups.
func rootHelp(root *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Usage:\n  %s\n\nExamples:\n%s\n\n%s\n", root.UseLine(), root.Example, root.Long)
	for _, g := range verbGroups {
		var verbs []*cobra.Command
		for _, name := range g.verbs {
			if c, _, err := root.Find([]string{name}); err == nil {
				verbs = append(verbs, c)
			}
		}
		fmt.Fprintf(&b, "\n%s:\n%s", g.title, verbLines(verbs))
	}
	b.WriteString("\nSee vix VERB --help for a verb, vix config keys for the keys of config.toml, and\nman vix for more.\n")
	return b.String()
}

// usageLines returns a command's forms, broken into lines between its options.
func usageLines(c *cobra.Command) string {
	path := "  " + strings.TrimSuffix(c.CommandPath(), c.Name())
	var b strings.Builder
	for _, form := range strings.Split(c.Use, " | ") {
		line, depth, begun := path, 0, false
		for _, word := range strings.Fields(form) {
			if begun && depth == 0 && len([]rune(line))+1+len([]rune(word)) > helpWidth {
				b.WriteString(line + "\n")
				line, begun = strings.Repeat(" ", len(path)+len(c.Name())), true
			}
			if begun {
				line += " "
			}
			line, begun = line+word, true
			depth += strings.Count(word, "[") - strings.Count(word, "]")
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// aliasLine returns a verb's other names.
func aliasLine(c *cobra.Command) string {
	if len(c.Aliases) == 0 {
		return ""
	}
	return "  vix " + strings.Join(c.Aliases, ", vix ")
}

// verbLines returns a line for each visible verb.
func verbLines(verbs []*cobra.Command) string {
	var b strings.Builder
	for _, c := range verbs {
		if !c.Hidden {
			fmt.Fprintf(&b, "  %-10s  %s\n", c.Name(), c.Short)
		}
	}
	return b.String()
}

// optionLines returns a command's options, except --help, which its reader knows.
func optionLines(c *cobra.Command) string {
	shown := pflag.NewFlagSet("", pflag.ContinueOnError)
	c.LocalFlags().VisitAll(func(f *pflag.Flag) {
		if f.Name != "help" {
			shown.AddFlag(f)
		}
	})
	return shown.FlagUsagesWrapped(helpWidth)
}
