package main

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vix/config"
)

// The words of other programs that Vix understands too: verbs and options of docker, podman
// and distrobox. The man page lists them.

// verbAliases are other names of verbs.
var verbAliases = map[string][]string{
	"list": {"ls", "ps"}, "remove": {"rm"}, "shell": {"enter"}, "stop": {"kill"},
}

// verbMeant are words that are no verbs, and make Vix suggest one.
var verbMeant = map[string][]string{
	"run": {"start", "create", "launch", "up"}, "stop": {"down", "halt", "shutdown"}, "status": {"inspect", "info", "show"},
	"remove": {"delete", "destroy"}, "top": {"stats"}, "cp": {"copy"}, "shell": {"attach", "ssh"}, "umount": {"unmount"},
}

// aliasFlags makes other names of a verb's options mean the same as these.
func aliasFlags(f *pflag.FlagSet, other map[string]string) {
	f.SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if same, ok := other[name]; ok {
			name = same
		}
		return pflag.NormalizedName(name)
	})
}

// ignoreInteractive adds -i, which changes nothing: programs get standard input in any case.
func ignoreInteractive(f *pflag.FlagSet) {
	f.BoolP("interactive", "i", false, "ignored: standard input is passed in any case")
	_ = f.MarkHidden("interactive")
}

// shortestPrefix is how many letters of a word suggest it.
const shortestPrefix = 2

// begun returns the words that begin with what was typed.
func begun(typed string, words []string) (list []string) {
	for _, w := range words {
		if len(typed) >= shortestPrefix && strings.HasPrefix(w, typed) {
			list = append(list, w)
		}
	}
	return list
}

// nearest returns the words from which what was typed differs least. A letter of three may
// be wrong, but no more than two of a word, so that nothing is suggested where nothing is near.
func nearest(typed string, words []string) (near []string) {
	best := min(2, (len(typed)+1)/3)
	for _, w := range words {
		switch d := config.Distance(typed, w); {
		case d > best || d > (len(w)+1)/3:
		case d < best:
			best, near = d, []string{w}
		default:
			near = append(near, w)
		}
	}
	return near
}

// maxTyped is how many bytes a mistyped word has that is compared with others.
const maxTyped = 32

// nearVerbs returns the names of the verbs that a mistyped one may mean.
func nearVerbs(root *cobra.Command, typed string) []string {
	if len(typed) > maxTyped {
		return nil
	}
	verbOf := map[string]string{} // of each word
	var names, meant []string
	for _, c := range root.Commands() {
		if c.Hidden {
			continue
		}
		names = slices.Concat(names, []string{c.Name()}, c.Aliases)
		meant = append(meant, c.SuggestFor...)
		for _, w := range slices.Concat([]string{c.Name()}, c.Aliases, c.SuggestFor) {
			verbOf[w] = c.Name()
		}
	}
	var list []string
	switch {
	case slices.Contains(meant, typed):
		list = []string{typed}
	case len(begun(typed, names)) > 0:
		list = begun(typed, names)
	case len(nearest(typed, names)) > 0:
		list = nearest(typed, names)
	default:
		list = nearest(typed, meant)
	}
	for i, w := range list {
		list[i] = verbOf[w]
	}
	slices.Sort(list)
	list = slices.Compact(list)
	for i, name := range list {
		list[i] = strconv.Quote(name)
	}
	return list
}

// nearFlags returns the options, with their dashes, that an unknown one may mean.
func nearFlags(c *cobra.Command, err error) []string {
	var unknown *pflag.NotExistError
	if !errors.As(err, &unknown) || unknown.GetSpecifiedShortnames() != "" || len(unknown.GetSpecifiedName()) > maxTyped {
		return nil
	}
	var words []string
	c.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			words = append(words, f.Name)
		}
	})
	typed := unknown.GetSpecifiedName()
	list := begun(typed, words)
	if len(list) == 0 {
		list = nearest(typed, words)
	}
	for i, name := range list {
		list[i] = "--" + name
	}
	return list
}

// maxSuggested is how many words a message suggests.
const maxSuggested = 3

// didYouMean returns the question that ends a message, or other where nothing is near.
func didYouMean(near []string, other string) string {
	if len(near) == 0 {
		return other
	}
	return "did you mean " + strings.Join(near[:min(len(near), maxSuggested)], " or ") + "?"
}
