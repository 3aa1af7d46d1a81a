package main

import (
	"context"
	"os"
	"os/signal"
	"path"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/launch"
	"vix/internal/vm"
)

type execOptions struct {
	user string
	cwd  string
	env  []string
	tty  bool
	raw  bool
}

const execLong = `Runs COMMAND in the VM NAME, which has to run (or be starting): see run for a
program that starts its VM. A name is looked up on the guest's PATH, a path is
one of the guest's root.

Standard input, output and error are the command's; signals (INT, TERM, HUP,
QUIT, USR1, USR2, WINCH) are passed on to it; its exit status is that of exec:
128+n for signal n, 126 if it cannot be executed, 127 if it is not found, and
125, with one line, where Vix or the VM failed. Input and output are passed as
fast as they are taken: a slow reader stops the command, and fills no memory.
If exec itself is killed, the command gets SIGHUP. Where the VM does not answer, exec
says so after some seconds, and a second INT, TERM, HUP or QUIT leaves it.

Where standard output or error is a terminal, of what the command writes there pass
text, newlines, colours, and moves within the line; other control sequences do not.
--raw passes every byte. To a pipe or a file every byte goes in any case.

The command runs as the guest's ordinary user in its home directory. --user runs
it as another of the guest's users, by name or number, such as root: the guest is
your own machine, and whoever is root in it is no nearer to the host. --env adds
to the guest's environment; nothing of the host's is passed on but the language.

With --tty the command gets a terminal: its output is one stream, with the
terminal's line ends. If standard input is a terminal, that is put into raw mode,
its size is passed on, and "~." at the beginning of a line leaves (the command is
hung up). What programs that fill a terminal need passes then, but nothing that sets
the clipboard or a title, or makes the terminal answer; and what the command leaves
on (mouse, alternate screen, hidden cursor, …) is put back, however it ends.`

const execExamples = `  vix exec web -- ls -l /tmp
  vix exec web --user root -- sh -c 'echo 1 >/proc/sys/vm/drop_caches'
  vix exec web --cwd /tmp --env LANG=C -- make
  vix exec web --tty -- top
  tar c . | vix exec web -- tar x`

func execCommand(e *env) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:               "exec NAME [--user USER] [--cwd DIR] [--env K=V] [--tty] [--raw] -- COMMAND [ARG…]",
		Short:             "run a command in a VM that runs",
		Long:              execLong,
		Example:           execExamples,
		ValidArgsFunction: completeFirstName(e),
		Args: func(c *cobra.Command, a []string) error {
			switch dash := c.ArgsLenAtDash(); {
			case len(a) == 0 || dash == 0:
				return usagef("exec: NAME missing; see %s --help", c.CommandPath())
			case len(a) == 1:
				return usagef("exec: COMMAND missing; see %s --help", c.CommandPath())
			case dash > 1:
				return usagef("exec: unexpected argument %q before --; see %s --help", clip(a[1]), c.CommandPath())
			}
			return o.check(a[0], a[1:])
		},
		RunE: func(c *cobra.Command, a []string) error {
			return runStatus(o.exec(c.Context(), e, a[0], a[1:]))
		},
	}
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("exec: %s; what is COMMAND's comes after --; see %s --help", flagError(err), c.CommandPath())
	})
	f := c.Flags()
	f.StringVar(&o.user, "user", "", "the guest's `USER`, by name or number")
	f.StringVar(&o.cwd, "cwd", "", "the `DIR` of the guest to run in")
	f.StringArrayVar(&o.env, "env", nil, "set a variable, as `K=V` (may be repeated)")
	f.BoolVar(&o.tty, "tty", false, "give the command a terminal")
	f.BoolVar(&o.raw, "raw", false, rawUsage)
	return c
}

// guestUser matches a name or number in the guest's passwd, in the agent's form.
var guestUser = regexp.MustCompile(`^[A-Za-z0-9_-]{1,32}$`)

func checkUser(user string) error {
	if user != "" && !guestUser.MatchString(user) {
		return usagef("--user: %q is not the name or number of a user", clip(user))
	}
	return nil
}

func (o *execOptions) check(name string, argv []string) error {
	if err := config.CheckName(name); err != nil {
		return usagef("exec: %v", err)
	}
	if err := checkUser(o.user); err != nil {
		return usagef("exec: %v", err)
	}
	if o.cwd != "" && !path.IsAbs(o.cwd) {
		return usagef("exec: --cwd: %q is not an absolute path of the guest", clip(o.cwd))
	}
	for _, kv := range o.env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return usagef("exec: --env: want K=V, not %q", clip(kv))
		}
	}
	if argv[0] == "" {
		return usagef("exec: COMMAND is empty; see vix exec --help")
	}
	return nil
}

// passedSignals are the signals that are passed on to a program in a guest.
var passedSignals = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

func (o *execOptions) exec(ctx context.Context, e *env, name string, argv []string) error {
	run := vm.Run{VM: name, Argv: argv, Env: o.env, How: vm.How{User: o.user, Cwd: o.cwd}}
	passed := passedSignals
	if !o.tty {
		passed = append(passed[:len(passed):len(passed)], unix.SIGWINCH)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passed...)
	defer signal.Stop(signals)
	run.Signals = signals
	return runInVM(ctx, e, run, o.tty, o.raw)
}

// runInVM runs a program in a running VM, on our own streams; the error carries its exit
// status.
func runInVM(ctx context.Context, e *env, run vm.Run, tty, raw bool) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	p := launch.NewProgress(e.stderr, e.terminal && !tty, run.VM) // a raw terminal cannot show it
	defer p.End()
	run.Stdin, run.Session = e.stdin, e.session()
	run.OnStage = func(s vm.Stage) { p.Stage(s.Name) }
	run.OnStart = func(vm.Program) { p.End() }
	run.OnNote = func(text string) { p.Note(tty, text) }
	run.OnSilent = func() { p.Silent(tty) }
	if tty {
		var detach func()
		if run, ctx, detach, err = attach(ctx, e, run, raw); err != nil {
			return err
		}
		defer detach()
	} else {
		out := e.guestOutput(false, raw, nil)
		defer out.end()
		run.Stdout, run.Stderr = out.stdout, out.stderr
	}
	exit, err := reg.Run(ctx, run)
	if err != nil {
		return err
	}
	if code := exit.Status(); code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// completeFirstName completes a verb's first argument as the name of a running VM.
func completeFirstName(e *env) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return runningNames(c.Context(), e), cobra.ShellCompDirectiveNoFileComp
	}
}
