package main

import (
	"context"
	"os"
	"os/signal"
	"path"
	"regexp"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/agent"
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

const execLong = `Runs COMMAND in the running VM NAME, as the guest's ordinary user in its home
directory. To start a VM, use vix run. COMMAND is looked up in the guest.

Input, output, error, signals and exit status are the command's. On a terminal, only
text and colours pass, unless --raw is given; with --tty, everything that
full-screen programs need passes, and "~." at the beginning of a line leaves.
Of the host's environment, the command gets only the language.

Options stand before NAME, or between NAME and "--".

With --user root the command is root in the guest, which is no nearer to the host.`

const execExamples = `  vix exec web ls -l /tmp
  vix exec -it web top
  vix exec -u root web sh -c 'echo 1 >/proc/sys/vm/drop_caches'
  vix exec -w /tmp -e LANG=C web make
  tar c . | vix exec web tar x`

func execCommand(e *env) *cobra.Command {
	var o execOptions
	c := &cobra.Command{
		Use:               "exec [-t] [--user USER] [--cwd DIR] [--env K=V]… [--raw] NAME [--] COMMAND [ARG…]",
		Short:             "run a command in a running VM",
		Long:              execLong,
		Example:           execExamples,
		ValidArgsFunction: completeExec(e),
		RunE: func(c *cobra.Command, a []string) error {
			if len(a) == 0 || c.ArgsLenAtDash() == 0 {
				return usagef("exec: NAME missing; see %s --help", c.CommandPath())
			}
			name := a[0]
			if err := c.Flags().Parse(a[1:]); err != nil { // options between NAME and COMMAND
				return c.FlagErrorFunc()(c, err)
			}
			if help, err := c.Flags().GetBool("help"); err == nil && help {
				return pflag.ErrHelp
			}
			argv := c.Flags().Args()
			if len(argv) == 0 {
				return usagef("exec: COMMAND missing; see %s --help", c.CommandPath())
			}
			if err := o.check(name, argv); err != nil {
				return err
			}
			return runStatus(o.exec(c.Context(), e, name, argv))
		},
	}
	f := c.Flags()
	f.SetInterspersed(false) // what follows COMMAND is its own
	aliasFlags(f, map[string]string{"workdir": "cwd"})
	ignoreInteractive(f)
	f.StringVarP(&o.user, "user", "u", "", "run as this `USER` of the guest, by name or number")
	f.StringVarP(&o.cwd, "cwd", "w", "", "run in this `DIR` of the guest")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable, as `K=V` (may be repeated)")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the command a terminal")
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

func checkEnv(env []string) error {
	for _, kv := range env {
		if k, _, ok := strings.Cut(kv, "="); !ok || k == "" {
			return usagef("--env: want K=V, not %q", clip(kv))
		}
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
		return usagef("exec: --cwd: %q is not an absolute path in the guest", clip(o.cwd))
	}
	if err := checkEnv(o.env); err != nil {
		return usagef("exec: %v", err)
	}
	if argv[0] == "" {
		return usagef("exec: COMMAND is empty; see vix exec --help")
	}
	return nil
}

// passedSignals are the signals that are passed on to a program in a guest.
var passedSignals = []os.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2}

func (o *execOptions) exec(ctx context.Context, e *env, name string, argv []string) error {
	run := vm.Run{VM: name, Argv: argv, Env: o.env, How: vm.How{User: o.user, Cwd: agent.Bytes(o.cwd)}}
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

// runInVM runs a program in a VM, on our own streams; the error carries its exit status. The
// VM runs, unless run can launch it.
func runInVM(ctx context.Context, e *env, run vm.Run, tty, raw bool) error {
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()
	p := launch.NewProgress(e.stderr, e.terminal && (!tty || run.Launch != nil), run.VM)
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
