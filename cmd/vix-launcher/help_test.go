package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// maxProse is how many lines a verb's help explains; the man page has the rest.
const maxProse = 12

// Every verb is in one group of vix --help, and its help has its usage and examples first,
// then a short explanation.
func TestHelp(t *testing.T) {
	root := command(osEnv())
	var grouped []string
	for _, g := range verbGroups {
		grouped = append(grouped, g.verbs...)
	}
	for _, c := range root.Commands() {
		if c.Hidden || !c.Runnable() || c.Name() == "help" {
			continue
		}
		i := slices.Index(grouped, c.Name())
		if i < 0 {
			t.Errorf("%s: in no group of help.go's verbGroups", c.Name())
			continue
		}
		grouped = slices.Delete(grouped, i, i+1)
		checkHelp(t, c)
		for _, sub := range c.Commands() {
			if !sub.Hidden {
				checkHelp(t, sub)
			}
		}
	}
	if len(grouped) > 0 {
		t.Errorf("grouped, but no verbs, or twice: %v", grouped)
	}
	for line := range strings.Lines(helpText(root) + shortHelp) {
		checkWidth(t, "vix", line)
	}
}

func checkHelp(t *testing.T, c *cobra.Command) {
	t.Helper()
	name := strings.TrimSuffix(verbOf(c), ": ")
	text := helpText(c)
	usage, examples := strings.Index(text, "Usage:\n"), strings.Index(text, "\nExamples:\n")
	prose := c.Long
	if prose == "" {
		prose = c.Short[1:]
	}
	if at := strings.Index(text, prose); usage != 0 || examples < 0 || at < examples {
		t.Errorf("%s: want usage, examples and prose, in this order:\n%s", name, text)
	}
	lines := 0
	for line := range strings.Lines(c.Long) {
		if strings.TrimSpace(line) != "" {
			lines++
		}
		checkWidth(t, name, line)
	}
	if lines > maxProse {
		t.Errorf("%s: %d lines of prose, more than %d: move some to the man page", name, lines, maxProse)
	}
}

func checkWidth(t *testing.T, name, line string) {
	t.Helper()
	if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > helpWidth+4 {
		t.Errorf("%s: a line of %d columns: %q", name, n, line)
	}
}
