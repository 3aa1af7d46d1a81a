package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vix/config"
	"vix/internal/vm"
)

// longName is this program's second installed name.
const longName = "vix-launcher"

func completionCommand(e *env) *cobra.Command {
	return &cobra.Command{
		Use:   "completion bash|zsh|fish",
		Short: "print a shell's completion script",
		Long: `Prints the shell's completion script, for vix and vix-launcher: verbs, options,
names of VMs, programs, and paths in VMs. If Vix is installed system-wide, shells
find it by themselves.`,
		Example: `  source <(vix completion bash)
  vix completion zsh >~/.zfunc/_vix     (a directory of fpath)
  vix completion fish >~/.config/fish/completions/vix.fish`,
		Args:      args(1, 1, "bash, zsh or fish"),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(c *cobra.Command, a []string) error {
			script, err := completionScript(c.Root(), a[0])
			if err != nil {
				return err
			}
			_, err = e.stdout.Write(script)
			return err
		},
	}
}

// completionScript returns cobra's script for a shell. cobra's knows one name of the program;
// this one knows the other too.
func completionScript(root *cobra.Command, shell string) ([]byte, error) {
	var b bytes.Buffer
	name := root.Name()
	switch shell {
	case "bash":
		err := root.GenBashCompletionV2(&b, true)
		fmt.Fprintf(&b, "complete -o default -F __start_%s %s\n", name, longName)
		return b.Bytes(), err
	case "zsh":
		if err := root.GenZshCompletion(&b); err != nil {
			return nil, err
		}
		both := name + " " + longName
		script := bytes.Replace(b.Bytes(), []byte("#compdef "+name+"\n"), []byte("#compdef "+both+"\n"), 1)
		return bytes.Replace(script, []byte("compdef _"+name+" "+name+"\n"), []byte("compdef _"+name+" "+both+"\n"), 1), nil
	case "fish":
		err := root.GenFishCompletion(&b, true)
		fmt.Fprintf(&b, "\ncomplete -c %s -w %s\n", longName, name)
		return b.Bytes(), err
	}
	return nil, usagef("completion: %q is not bash, zsh or fish", clip(shell))
}

// completeVM completes the name of a VM in which a program will run, from all known VMs, each
// with a description. Completion cannot show errors.
func completeVM(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		return vmNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
	}
}

func vmNames(ctx context.Context, e *env) []string {
	what := map[string]string{}
	_ = e.withStore(func(_ *vm.Registry, s *vm.Store) error {
		names, err := s.Names()
		for _, name := range names {
			what[name] = "stopped"
		}
		return err
	})
	if cfg, err := e.config(); err == nil {
		for name := range cfg.VMs {
			what[name] = "configured"
		}
	}
	for _, name := range runningNames(ctx, e) {
		what[name] = "runs"
	}
	var list []string
	for name, state := range what {
		list = append(list, name+"\t"+state)
	}
	slices.Sort(list)
	return list
}

// completeProgram completes run's program: those in the configuration and, once something is
// typed, the host's programs that a guest sees too. It leaves the program's arguments alone.
func completeProgram(e *env) cobra.CompletionFunc {
	return func(_ *cobra.Command, a []string, word string) ([]string, cobra.ShellCompDirective) {
		if len(a) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		var list []string
		if cfg, err := e.config(); err == nil {
			for _, v := range cfg.VMs {
				for _, program := range v.Programs {
					list = append(list, program+"\tin VM "+v.Name)
				}
			}
		}
		if word != "" {
			list = append(list, hostPrograms(filepath.SplitList(e.getenv("PATH")), word)...)
		}
		slices.Sort(list)
		return slices.Compact(list), cobra.ShellCompDirectiveNoFileComp
	}
}

// hostPrograms lists the programs below /usr whose names begin with prefix.
func hostPrograms(path []string, prefix string) []string {
	var names []string
	for _, dir := range path {
		if !strings.HasPrefix(dir, "/usr/") {
			continue
		}
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue
		}
		for _, f := range entries {
			if strings.HasPrefix(f.Name(), prefix) && !f.IsDir() {
				names = append(names, f.Name())
			}
		}
	}
	return names
}

// completeExec completes exec's VM, its options, and the name of a program of the VM's.
func completeExec(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, a []string, word string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(a) == 0:
			return runningNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
		case c.Flags().Parse(a[1:]) != nil || c.Flags().NArg() > 0:
			return nil, cobra.ShellCompDirectiveNoFileComp // in the midst of an option, or COMMAND's arguments
		case strings.HasPrefix(word, "-"):
			return flagNames(c.Flags(), word), cobra.ShellCompDirectiveNoFileComp
		}
		return guestPrograms(c.Context(), e, a[0], word), cobra.ShellCompDirectiveNoFileComp
	}
}

func flagNames(flags *pflag.FlagSet, word string) (names []string) {
	flags.VisitAll(func(f *pflag.Flag) {
		if !f.Hidden && strings.HasPrefix("--"+f.Name, word) {
			names = append(names, "--"+f.Name+"\t"+f.Usage)
		}
	})
	return names
}

// What completion takes of a guest.
const (
	guestPatience    = time.Second / 2
	maxGuestOutput   = 64 << 10 // bytes
	maxGuestPrograms = 256
)

// programWord matches the names of programs that completion offers. A guest chose them, and
// they go to a shell.
var programWord = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,63}$`)

// listPrograms prints the programs on the guest's PATH whose names begin with $1.
const listPrograms = `IFS=:; for d in $PATH; do for f in "$d/$1"*; do [ -f "$f" ] && [ -x "$f" ] && echo "${f##*/}"; done; done; :`

// guestPrograms asks a running VM for the programs whose names begin with word. Nothing is
// offered for an empty word, or if the VM does not answer at once.
func guestPrograms(ctx context.Context, e *env, name, word string) []string {
	if !programWord.MatchString(word) || config.CheckName(name) != nil {
		return nil
	}
	reg, err := e.registry()
	if err != nil {
		return nil
	}
	defer reg.Close()
	ctx, cancel := context.WithTimeout(ctx, guestPatience)
	defer cancel()
	if st, err := reg.State(ctx, name); err != nil || st.State != vm.StateRunning {
		return nil
	}
	var out boundedBuffer
	_, err = reg.Run(ctx, vm.Run{
		VM: name, Argv: []string{"sh", "-c", listPrograms, "sh", word},
		Stdin: strings.NewReader(""), Stdout: &out, Stderr: io.Discard,
	})
	if err != nil {
		return nil
	}
	return programWords(out.String(), word)
}

// programWords returns the lines of a guest's output that are names of programs and begin
// with word, each once.
func programWords(output, word string) []string {
	var names []string
	for line := range strings.Lines(output) {
		line, whole := strings.CutSuffix(line, "\n")
		if whole && strings.HasPrefix(line, word) && programWord.MatchString(line) {
			names = append(names, line)
		}
	}
	slices.Sort(names)
	names = slices.Compact(names)
	return names[:min(len(names), maxGuestPrograms)]
}

// A boundedBuffer keeps the first maxGuestOutput bytes written to it.
type boundedBuffer struct{ bytes.Buffer }

func (b *boundedBuffer) Write(p []byte) (int, error) {
	b.Buffer.Write(p[:min(len(p), maxGuestOutput-b.Len())])
	return len(p), nil
}
