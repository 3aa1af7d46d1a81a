// Command vix-launcher runs programs in virtual machines of their own. Each verb has a file;
// its help text says what it does.
//
//	run, list, status, stop, logs, exec, shell, cp, install   clients of the VMs' supervisors
//	desktop, dbus-service          VMs as the desktop sees them; the bus starts the latter
//	doctor, config                 inspect the machine, and config.toml; change nothing
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
		for _, line := range errorLines(err) {
			fmt.Fprintln(e.stderr, "vix: "+line)
		}
		e.notifyFailure(c, err)
	}
	return code
}

// maxErrorLines is as much as a person reads after a verb that failed.
const maxErrorLines = 20

// errorLines returns an error as one line; the mistakes of config.toml, a line for each.
func errorLines(err error) []string {
	var lines []string
	var disabled *config.DisabledError
	var mistakes config.Errors
	switch {
	case errors.As(err, &disabled):
		lines = disabled.Lines()
	case errors.As(err, &mistakes):
		lines = mistakes.Lines()
	}
	if len(lines) < 2 {
		return []string{plain.Error(err)}
	}
	if n := len(lines) - maxErrorLines; n > 0 {
		lines = append(lines[:maxErrorLines], fmt.Sprintf("and %d more errors; see vix config check", n))
	}
	for i := range lines {
		lines[i] = plain.Error(errors.New(lines[i]))
	}
	return lines
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
		Long: `Runs each program in a virtual machine (VM) of its own, with its windows on your
desktop. A VM starts with its first program and ends with its last.

Exit status: 0 done, 1 failed, 2 wrong use. "run" in the foreground, "exec" and
"shell" end with the program's own status (128+n for signal n), with 125 if Vix
itself failed, 126 if the program cannot be executed, and 127 if it is not found.`,
		Example: `  vix run foot                 run a terminal in the VM "foot"
  vix run --vm web firefox     run Firefox in the VM "web"
  vix list                     list the running VMs
  vix doctor                   check what this machine lacks`,
		Version:       version,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,

		DisableFlagsInUseLine: true,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				_, err := fmt.Fprint(e.stdout, shortHelp)
				return err
			}
			if args[0] == "" {
				return usagef("a verb is missing; see vix --help")
			}
			return usagef("unknown verb %q; %s", clip(args[0]), didYouMean(nearVerbs(c, args[0]), "see vix --help"))
		},
	}
	root.SetVersionTemplate("{{.Name}} {{.Version}}\n")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%s%s; %s", verbOf(c), flagError(err), didYouMean(nearFlags(c, err), "see "+c.CommandPath()+" --help"))
	})
	root.AddCommand(clipboardCommand(e), holdCommand(e))
	root.AddCommand(runCommand(e), listCommand(e), stopCommand(e), logsCommand(e), traceCommand(e), doctorCommand(e),
		statusCommand(e), execCommand(e), shellCommand(e), cpCommand(e), installCommand(e), addCommand(e), guardCommand(e),
		mountCommand(e), umountCommand(e), dfCommand(e), pruneCommand(e), usbCommand(e), topCommand(e), backupCommand(e), restoreCommand(e), cloneCommand(e), resetCommand(e), renameCommand(e), removeCommand(e), menuCommand(e),
		desktopCommand(e), dbusServiceCommand(e),
		superviseCommand(e), flowCommand(e), confineCommand(e), completionCommand(e), versionCommand(e), configCommand(e))
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
	setHelp(root)
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
