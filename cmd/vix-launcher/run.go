package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"vix/config"
	"vix/internal/durable"
	"vix/internal/launch"
	"vix/internal/vm"
)

type runOptions struct {
	vm         string
	memory     string
	cpus       int
	background bool
	timings    bool
	disposable bool
	notify     bool
	noNotify   bool
	shares     []string
	executable string
	gui, noGUI bool
	net        string
	publish    []string
	raw        bool
}

const runLong = `Runs PROGRAM in a VM. If the VM does not run it is started; if it runs, the
program joins it. The VM ends when its last program has ended.

Without --vm, the VM is the one whose "programs" in config.toml lists PROGRAM,
else one named after it (its base name, in lower case, with '-' for what a name
cannot hold). PROGRAM and its arguments are the guest's: a name is looked up on
the guest's PATH, a path is one of the guest's root. A name that this machine lacks
starts no VM with the root "host". It runs there as an
ordinary user. With --executable, PROGRAM only names the VM, and EXE is run in it.

In the foreground, standard input, output and error are the program's, signals
(INT, TERM, HUP, QUIT, USR1, USR2) are passed on to it, and its exit status is
that of run: 128+n for signal n, 126 if it cannot be executed, 127 if it is not
found, and 125, with one line, where Vix or the VM failed. Output that other
programs, left behind by PROGRAM, still write after its end is not waited for.
If run itself is killed, the program gets SIGHUP. Where the VM does not answer, run
says so after some seconds, and a second INT, TERM, HUP or QUIT leaves it. Where standard output or error is a
terminal, of what the program writes there pass text, newlines, colours, and moves
within the line, but no other control sequences; --raw passes every byte. To a pipe
or a file every byte goes in any case.

With --background, run returns 0 when the program has run for half a second, or its
status if it ends before; its output goes to the VM's log (vix logs). If it fails within
ten seconds without having opened a window, a notification says so.

What the VM's user has in the home directory is kept when the VM stops, in
$XDG_STATE_HOME/vix/vms/NAME/home (see reset, rename, remove); all else that is
written in the VM is thrown away. With --disposable nothing is kept but the last log (see
logs), and nothing
that was kept before is seen; such a run does not join a VM that keeps its home.

--share shows the VM a folder of the host's besides those of config.toml: read-only
without :rw, at /mnt/NAME without GUESTPATH. It shows that folder alone: no link leads
out of it, and what is mounted below it is empty. "--share staging" makes an empty
folder for this start of the VM, at a path in the guest that is not to be guessed; it
is removed when the VM stops.

With --no-gui the VM has no display: its programs open no windows, and it needs no
compositor, so that it runs over ssh too. --gui overrides "gui = false" of config.toml,
and does not join a VM without a display. A VM whose compositor has ended, as at a logout,
goes on: the windows of what is run in it from the next session are shown there. While
its compositor runs, they are shown on that one, and run says so.

A VM has no network unless it is asked for. With --net nat its programs reach by IPv4
what this machine does, but not its 127.0.0.1 (see vix-config.toml(5), net). --publish
[ADDR:]HOSTPORT:GUESTPORT[/udp] lets a port of this machine lead to one of the VM's, at
127.0.0.1 without ADDR.

--memory, --cpus, --disposable, --gui, --no-gui, --share, --net and --publish hold for
a VM that this run starts, and override config.toml (--share and --publish add to it).
--notify shows a start that takes a moment as a notification, until the program's first
window is there, and why it failed; on sway it says on which workspace the window is, if
you do not see it. A failure
is shown so also without it where run has no terminal, as when a key of the compositor has
started it; --no-notify shows none.
--timings writes a line to standard error for each stage of the VM's start as it
is done, with the seconds since the start and, for the guest's stages, the
guest's own clock: prepared (kernel and initramfs made), qemu (started), init,
root (mounted), proxy (ready), network (an address, with --net nat), ready
(programs can run), window (the first one is shown). In the background, stages after the program's start are to be seen
in list --json.`

const runExamples = `  vix run foot
  vix run --vm web --background firefox https://example.org
  vix run --vm web --memory 4G sh -c 'uname -nr'
  vix run --disposable firefox
  vix run --vm office --share ~/Documents:/home/user/Documents:rw libreoffice
  vix run --vm office --share staging libreoffice
  vix run --executable soffice office --writer
  vix run --vm build --no-gui make -C /srv/project
  vix run --vm web --net nat firefox
  vix run --vm srv --net nat --publish 8080:80 nginx
  echo hello | vix run --vm web cat`

func runCommand(e *env) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:               "run [--vm NAME] [--disposable] [--share HOSTDIR[:GUESTPATH][:ro|rw]]… [--net none|nat] [--publish PORTS]… [--gui|--no-gui] [--background] [--notify|--no-notify] [--raw] [--executable EXE] PROGRAM [ARG…]",
		Short:             "run a program in a VM, which is started if it does not run",
		Long:              runLong,
		Example:           runExamples,
		Args:              args(1, -1, "PROGRAM"),
		ValidArgsFunction: completeProgram(e),
		RunE: func(c *cobra.Command, argv []string) error {
			if o.vm == "" && c.Flags().Changed("vm") {
				return usagef("run: --vm: %v", config.CheckName(""))
			}
			empty := ""
			c.Flags().Visit(func(f *pflag.Flag) { // from a script's unset variable, perhaps
				if f.Value.Type() == "string" && f.Value.String() == "" {
					empty = f.Name
				}
			})
			if empty != "" {
				return usagef("run: --%s is empty; see vix run --help", empty)
			}
			return runStatus(o.run(c.Context(), e, argv, c.Flags().Changed("cpus")))
		},
	}
	o.register(c.Flags())
	_ = c.RegisterFlagCompletionFunc("net", cobra.FixedCompletions([]string{config.NetNone, config.NetNAT}, cobra.ShellCompDirectiveNoFileComp))
	_ = c.RegisterFlagCompletionFunc("vm", completeVM(e))
	return c
}

func (o *runOptions) register(f *pflag.FlagSet) {
	f.SetInterspersed(false) // arguments after PROGRAM belong to the program
	f.StringVar(&o.vm, "vm", "", "the VM's name")
	f.StringVar(&o.memory, "memory", "", "the VM's memory, such as 512M or 2G")
	f.IntVar(&o.cpus, "cpus", 0, "the VM's number of processors")
	f.BoolVar(&o.background, "background", false, "return when the program runs")
	f.BoolVar(&o.disposable, "disposable", false, "keep nothing of the VM when it stops")
	f.StringArrayVar(&o.shares, "share", nil, "show the VM a folder, as `HOSTDIR[:GUESTPATH][:ro|rw]` or \"staging\" (may be repeated)")
	f.BoolVar(&o.gui, "gui", false, "a VM with a display, whatever config.toml says")
	f.BoolVar(&o.noGUI, "no-gui", false, "a VM without a display")
	f.StringVar(&o.executable, "executable", "", "run `EXE` in PROGRAM's VM, in its place")
	f.StringVar(&o.net, "net", "", "the VM's network: none or nat")
	f.StringArrayVar(&o.publish, "publish", nil, "let a port of this machine lead to the VM, as `[ADDR:]HOSTPORT:GUESTPORT[/udp]` (may be repeated)")
	f.BoolVar(&o.notify, "notify", false, "show the start, and why it failed, as a notification")
	f.BoolVar(&o.noNotify, "no-notify", false, "show no notification, whatever happens")
	f.BoolVar(&o.raw, "raw", false, rawUsage)
	f.BoolVar(&o.timings, "timings", false, "write each stage of the start with its seconds to standard error")
}

const rawUsage = "on a terminal too, pass every byte that the guest writes"

// ignoredOptions returns the given options that cannot change a running VM.
func (o *runOptions) ignoredOptions(cpusSet bool) (list []string) {
	for _, f := range []struct {
		name  string
		isSet bool
	}{
		{"--memory", o.memory != ""}, {"--cpus", cpusSet}, {"--share", len(o.shares) > 0}, {"--no-gui", o.noGUI},
		{"--net", o.net != ""}, {"--publish", len(o.publish) > 0},
	} {
		if f.isSet {
			list = append(list, f.name)
		}
	}
	return list
}

func (o *runOptions) run(ctx context.Context, e *env, argv []string, cpusSet bool) error {
	v, err := o.choose(e, argv, cpusSet)
	if err != nil {
		return err
	}
	l := e.launcher()
	if err := l.BuildRoot(ctx, v); err != nil {
		return err
	}
	reg, err := e.registry()
	if err != nil {
		return err
	}
	defer reg.Close()

	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedSignals...)
	defer signal.Stop(signals)

	p := launch.NewProgress(e.stderr, e.terminal, v.Name)
	defer p.End()
	out := e.guestOutput(false, o.raw, nil)
	defer out.end()
	r := vm.Run{
		Argv: o.argv(argv), Background: o.background, Disposable: o.disposable, Quiet: o.noNotify, Await: o.notify, GUI: o.gui, Token: e.activationToken(),
		Stdin: e.stdin, Stdout: out.stdout, Stderr: out.stderr, Signals: signals,
	}
	stage, end := func(string) {}, func(error) {}
	if o.notify {
		stage, end = l.Startup(ctx, v.Name, argv[0])
	}
	r.OnJoin = func() error {
		if st, err := reg.State(ctx, v.Name); err != nil || st.State == vm.StateStopping {
			return nil // the program is about to have a VM of its own
		}
		if ignored := o.ignoredOptions(cpusSet); len(ignored) > 0 {
			p.Line("VM %s runs already: not used: %s; stop it first, or see vix mount", v.Name, strings.Join(ignored, ", "))
		}
		return nil
	}
	if v.NoGUI && !o.noGUI && l.WantsWindow(v, r.Argv[0]) && !hasDisplay(ctx, reg, v.Name) {
		p.Line("VM %s has no display (gui = false in config.toml), so %s can show no window; run it with --gui, or in another VM", v.Name, clip(filepath.Base(r.Argv[0])))
	}
	o.follow(e, &r, p, stage, end)
	exit, err := l.Run(ctx, reg, v, r)
	if err == nil && exit != nil && o.background {
		err = launch.EndedAtOnce(v.Name, argv[0], exit)
	}
	end(err)
	switch {
	case err != nil && o.notify:
		return launch.Told(err)
	case err != nil || exit == nil || o.background:
		return err
	}
	if code := exit.Status(); code != 0 {
		return &exitError{code: code}
	}
	return nil
}

// follow shows the progress of a start: on the terminal, and by stage and end, which update a
// notification.
func (o *runOptions) follow(e *env, r *vm.Run, p *launch.Progress, stage func(string), end func(error)) {
	r.OnStage = func(s vm.Stage) {
		p.Stage(s.Name)
		stage(s.Name)
		if o.timings {
			p.Line("%s", stageLine(s))
		}
	}
	r.OnNote = func(text string) {
		if strings.HasPrefix(text, vm.SlowNote) && e.terminal && !e.firstToday(slowStamp, time.Now()) {
			return // a person knows; status and doctor say it too
		}
		p.Note(false, text)
	}
	r.OnWindows = func(text string) { p.Note(false, text) }
	r.OnSilent = func() { p.Silent(false) }
	r.OnStart = func(vm.Program) {
		p.End()
		go end(nil) // run waits for it at its own end
	}
}

// slowStamp is the file, in $XDG_STATE_HOME/vix, with the day on which a person was last told
// that there is no KVM.
const slowStamp = "no-kvm-told"

// firstToday reports whether it is called for the first time on a day, as a file remembers.
func (e *env) firstToday(file string, now time.Time) bool {
	dir, err := e.xdg("XDG_STATE_HOME", ".local/state")
	if err != nil {
		return true
	}
	path, today := filepath.Join(dir, "vix", file), now.Format(time.DateOnly)
	if b, err := os.ReadFile(path); err == nil && strings.TrimSpace(string(b)) == today {
		return false
	}
	if os.MkdirAll(filepath.Dir(path), 0o700) == nil {
		_ = durable.ReplaceFile(path, 0o600, []byte(today+"\n")) // where that fails, it is told each time
	}
	return true
}

// hasDisplay reports whether a VM runs and has a display: one that was started with --gui does.
func hasDisplay(ctx context.Context, reg *vm.Registry, name string) bool {
	st, err := reg.State(ctx, name)
	return err == nil && st.PIDs.Display != 0
}

// argv returns the command line to run in the VM.
func (o *runOptions) argv(argv []string) []string {
	if o.executable == "" {
		return argv
	}
	return append([]string{o.executable}, argv[1:]...)
}

func stageLine(s vm.Stage) string {
	line := fmt.Sprintf("stage %-8s %7.2f s", s.Name, s.Seconds)
	if s.Uptime > 0 {
		line += fmt.Sprintf("  (guest's clock %.2f s)", s.Uptime)
	}
	return line
}

// choose finds the VM's configuration and applies the options to it.
func (o *runOptions) choose(e *env, argv []string, cpusSet bool) (config.VM, error) {
	if argv[0] == "" {
		return config.VM{}, usagef("run: PROGRAM is empty; see vix run --help")
	}
	if o.gui && o.noGUI {
		return config.VM{}, usagef("run: either --gui or --no-gui; see vix run --help")
	}
	if o.notify && o.noNotify {
		return config.VM{}, usagef("run: either --notify or --no-notify; see vix run --help")
	}
	if o.vm != "" {
		if err := config.CheckName(o.vm); err != nil {
			return config.VM{}, usagef("run: --vm: %v", err)
		}
	}
	var memory config.Size
	if o.memory != "" {
		var err error
		if memory, err = config.ParseMemory(o.memory); err != nil {
			return config.VM{}, usagef("run: --memory: %v", err)
		}
	}
	if cpusSet {
		if err := config.CheckCPUs(o.cpus); err != nil {
			return config.VM{}, usagef("run: --cpus: %v", err)
		}
	}
	conf, err := e.config()
	if err != nil {
		return config.VM{}, err
	}
	var v config.VM
	if o.vm != "" {
		v, err = conf.VM(o.vm)
	} else {
		v, err = conf.VMFor(argv[0])
	}
	if memory != 0 {
		v.Memory = memory
	}
	if cpusSet {
		v.CPUs = o.cpus
	}
	if err != nil {
		return v, err
	}
	if o.disposable {
		v.State = "none"
	}
	if o.gui || o.noGUI {
		v.NoGUI = o.noGUI
	}
	if err := o.network(&v); err != nil {
		return v, err
	}
	shares, err := e.parseShares(o.shares)
	if err != nil {
		return v, usagef("run: --share: %v", err)
	}
	return e.launcher().Complete(v, shares...)
}

// network applies --net and --publish to the configuration.
func (o *runOptions) network(v *config.VM) error {
	if o.net != "" {
		if err := config.CheckNet(o.net); err != nil {
			return usagef("run: --net: %v", err)
		}
		v.Net = o.net
	}
	if v.Net == config.NetNone {
		v.Publish = nil // drop the configuration's ports
	}
	v.Publish = slices.Clone(v.Publish)
	for _, text := range o.publish {
		p, err := config.ParsePublish(text)
		if err != nil {
			return usagef("run: --publish: %v", err)
		}
		v.Publish = append(v.Publish, p)
	}
	if err := config.CheckPublish(v.Publish); err != nil {
		return usagef("run: --publish: %v", err)
	}
	if v.Net != config.NetNAT && len(v.Publish) > 0 {
		return usagef("run: --publish: VM %s has no network; add --net nat", v.Name)
	}
	return nil
}

// parseShares parses the shares of the command line.
func (e *env) parseShares(texts []string) (list []config.Share, err error) {
	for _, text := range texts {
		share, err := e.parseShare(text)
		if err != nil {
			return nil, err
		}
		list = append(list, share)
	}
	return list, nil
}

// parseShare parses a share of the command line, where HOSTDIR may be relative.
func (e *env) parseShare(text string) (config.Share, error) {
	host, rest, _ := strings.Cut(text, ":")
	if text != config.Staging && host != "" && !filepath.IsAbs(host) && host != "~" && !strings.HasPrefix(host, "~/") {
		abs, err := filepath.Abs(host)
		if err != nil {
			return config.Share{}, err
		}
		text = strings.TrimSuffix(abs+":"+rest, ":")
	}
	s, err := config.ParseShare(text)
	if err != nil {
		return s, err
	}
	s.Host, err = e.dirs().Expand(s.Host)
	return s, err
}
