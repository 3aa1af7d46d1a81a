// Command vix-launcher runs programs in virtual machines of their own. Each verb has a file;
// its help text says what it does.
//
//	run, list, status, stop, logs, exec, shell, cp, install   clients of the VMs' supervisors
//	desktop, dbus-service          VMs as the desktop sees them; the bus starts the latter
//	doctor                         inspects the machine, changes nothing
//	supervise, confine, clipboard-flow   hidden: the processes of a VM that are this program
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"vix/config"
	"vix/internal/launch"
	"vix/internal/plain"
	"vix/internal/vm"
)

// version is set by the Makefile.
var version = "devel"

func main() {
	// The name in ps of a process that vm.Running started.
	_ = os.WriteFile("/proc/self/comm", []byte(filepath.Base(os.Args[0])), 0)
	os.Exit(run(os.Args[1:], osEnv()))
}

// run executes one command line and returns the exit status.
func run(args []string, e *env) int {
	root := command(e)
	root.SetArgs(args)
	root.SetIn(e.stdin)
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	c, err := root.ExecuteContextC(context.Background())
	if err == nil {
		return 0
	}
	code, show := status(err)
	if show {
		fmt.Fprintln(e.stderr, "vix: "+plain.Error(err))
		e.notifyFailure(c, err)
	}
	return code
}

// notifyFailure shows a failure of run or menu as a notification, where a key or a launcher
// has started it: nobody sees its standard error there.
func (e *env) notifyFailure(c *cobra.Command, err error) {
	var what string
	switch c.Name() {
	case "run":
		what = "vix run"
		if program := c.Flags().Arg(0); program != "" {
			what += " " + clip(filepath.Base(program))
		}
	case "menu":
		what = "vix menu"
	default:
		return
	}
	on, _ := c.Flags().GetBool("notify") // menu has neither
	off, _ := c.Flags().GetBool("no-notify")
	if off || launch.IsTold(err) || byPerson(err) || !on && (e.unattended == nil || !e.unattended()) {
		return
	}
	e.launcher().NotifyFailure(c.Context(), what, err)
}

// byPerson reports whether a signal has ended a run before its program ran: whoever sent it
// knows.
func byPerson(err error) bool {
	var failure *vm.Failure
	var ended *launch.EndedError
	return errors.As(err, &failure) && failure.Code > 128 && !errors.As(err, &ended)
}

func command(e *env) *cobra.Command {
	root := &cobra.Command{
		Use:   "vix VERB",
		Short: "run programs in virtual machines of their own",
		Long: `Runs programs in virtual machines of their own, with their windows on your own
desktop. A VM starts with its first program, and ends with its last.

Exit status: 0 done, 1 failed, 2 wrong use. "run" in the foreground, "exec" and
"shell" pass on the program's own status (128+n for signal n), with 125 where Vix
itself failed, 126 for a program that cannot be executed, and 127 for one that is
not found.`,
		Example: `  vix run foot                 a terminal in the VM "foot"
  vix run --vm web firefox     Firefox in the VM "web"
  vix list                     what runs
  vix doctor                   what is missing on this machine`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "" {
				return usagef("a verb is missing; see vix --help")
			}
			hint := "see vix --help"
			if near := c.SuggestionsFor(args[0]); len(near) > 0 {
				hint = fmt.Sprintf("did you mean %q?", near[0])
			}
			return usagef("unknown verb %q; %s", clip(args[0]), hint)
		},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%s%s; see %s --help", verbOf(c), flagError(err), c.CommandPath())
	})
	root.AddCommand(clipboardCommand(e), holdCommand(e))
	root.AddCommand(runCommand(e), listCommand(e), stopCommand(e), logsCommand(e), traceCommand(e), doctorCommand(e),
		statusCommand(e), execCommand(e), shellCommand(e), cpCommand(e), installCommand(e), addCommand(e), guardCommand(e),
		mountCommand(e), umountCommand(e), usbCommand(e), topCommand(e), resetCommand(e), renameCommand(e), removeCommand(e), menuCommand(e),
		desktopCommand(e), dbusServiceCommand(e),
		superviseCommand(e), flowCommand(e), confineCommand(e), completionCommand(e), configTopic())
	root.CompletionOptions.DisableDefaultCmd = true // our own completion knows both names
	root.InitDefaultHelpCmd()
	if help, _, err := root.Find([]string{"help"}); err == nil {
		help.Args = func(_ *cobra.Command, args []string) error { // otherwise cobra shows its own help
			if _, rest, _ := root.Find(args); len(rest) > 0 {
				return usagef("help: no verb or topic %q; see vix --help", clip(rest[0]))
			}
			return nil
		}
	}
	for _, c := range root.Commands() {
		c.DisableFlagsInUseLine = true // each Use names the flags that matter
	}
	return root
}

// verbOf returns the beginning of a message about the use of a verb: "usb list: ".
func verbOf(c *cobra.Command) string {
	if !c.HasParent() {
		return ""
	}
	return strings.TrimPrefix(c.CommandPath(), c.Root().Name()+" ") + ": "
}

// flagError describes a wrong option, without the wording of Go's parsers.
func flagError(err error) string {
	text, _, _ := strings.Cut(err.Error(), ": strconv.")
	text, _, _ = strings.Cut(text, ": time: ")
	return text
}

// configTopic is a help topic, not a verb: vix help config.
func configTopic() *cobra.Command {
	var b strings.Builder
	b.WriteString(`config.toml is read at every start of a VM, from $XDG_CONFIG_HOME/vix or
~/.config/vix. [defaults] holds for every VM, [vm.NAME] for one. The keys:

`)
	_ = config.Explain(&b) // a Builder does not fail
	return &cobra.Command{Use: "config", Short: "the keys of config.toml", Long: strings.TrimSpace(b.String())}
}

// args checks the number of a verb's arguments; -1 for most means no limit.
func args(least, most int, names string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usagef("%s%s missing; see %s --help", verbOf(c), names, c.CommandPath())
		case most >= 0 && len(args) > most:
			return usagef("%sunexpected argument %q; see %s --help", verbOf(c), clip(args[most]), c.CommandPath())
		}
		return nil
	}
}

// The table of exit statuses.
const (
	exitFailed = 1
	exitUsage  = 2
)

// A usageError is a mistake on the command line.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, a ...any) error { return &usageError{fmt.Sprintf(format, a...)} }

// An exitError is an exit status; its error is shown, if there is one.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string { return fmt.Sprint(e.err) }
func (e *exitError) Unwrap() error { return e.err }

// status maps an error to the exit status, and reports whether it has a message to print.
func status(err error) (code int, show bool) {
	var exit *exitError
	switch {
	case isMisuse(err):
		return exitUsage, true
	case errors.As(err, &exit):
		return exit.code, exit.err != nil
	}
	return exitFailed, true
}

// isMisuse distinguishes a mistake on the command line from a failure.
func isMisuse(err error) bool {
	var usage *usageError
	var misuse *launch.MisuseError
	return errors.As(err, &usage) || errors.As(err, &misuse)
}

// runStatus maps an error of the verb run to its exit status.
func runStatus(err error) error {
	var exit *exitError
	var failure *vm.Failure
	switch {
	case err == nil || isMisuse(err) || errors.As(err, &exit):
		return err
	case errors.As(err, &failure):
		return &exitError{failure.Code, err}
	}
	return &exitError{vm.CodeVix, err}
}

// clip shortens a text that a message quotes.
func clip(s string) string { return plain.Clip(s) }
