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
	env        []string
	tty        bool
}

const runLong = `Runs PROGRAM in a VM, as the guest's ordinary user. The VM starts if it does not
run yet, and ends with its last program.

Without --vm, the VM is the one whose "programs" in config.toml list PROGRAM, else
one named after it. PROGRAM is looked up in the guest; "host", the default root,
has this machine's programs.

In the foreground, input, output, error, signals and exit status are the program's.
The VM keeps its user's home directory (see reset, rename, remove) and nothing
else. With --disposable, each run starts a new VM, NAME-d1 or the next free number,
which is configured like NAME and keeps nothing. A VM sees no folder of the host
and no network, unless --share, --net or config.toml says so. Options about the VM
override config.toml; --share and --publish add to it. A VM that runs already is
given the --share; any other that it does not have is an error.`

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
		Use:               "run [--vm NAME] [--disposable] [--share HOSTDIR[:GUESTPATH][:ro|rw]]… [--net none|nat] [--publish PORTS]… [--gui|--no-gui] [--background] [--notify|--no-notify] [--env K=V]… [-t] [--raw] [--executable EXE] PROGRAM [ARG…]",
		Short:             "run a program in a VM, starting the VM if necessary",
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
	aliasFlags(f, map[string]string{"name": "vm", "rm": "disposable", "detach": "background", "volume": "share"})
	f.StringVarP(&o.vm, "vm", "n", "", "the `NAME` of the VM")
	f.StringVarP(&o.memory, "memory", "m", "", "the `SIZE` of the VM's memory, such as 512M or 2G")
	f.IntVar(&o.cpus, "cpus", 0, "give the VM `N` processors")
	f.BoolVarP(&o.background, "background", "d", false, "return once the program runs; its output goes to the VM's log")
	f.BoolVar(&o.disposable, "disposable", false, "start a new VM, which keeps nothing")
	f.StringArrayVarP(&o.env, "env", "e", nil, "set a variable for the program: `K=V` (may be repeated)")
	f.BoolVarP(&o.tty, "tty", "t", false, "give the program a terminal, as vix shell does")
	ignoreInteractive(f)
	f.StringArrayVarP(&o.shares, "share", "v", nil, "share a host `FOLDER` with the VM, as HOSTDIR[:GUESTPATH][:ro|rw], or a new empty one, \"staging\" (may be repeated; read-only without rw)")
	f.BoolVar(&o.gui, "gui", false, "give the VM a display, whatever config.toml says")
	f.BoolVar(&o.noGUI, "no-gui", false, "give the VM no display: works without a compositor, as over ssh")
	f.StringVar(&o.executable, "executable", "", "run `EXE` in PROGRAM's VM, instead of PROGRAM")
	f.StringVar(&o.net, "net", "", "the VM's network: `none|nat`")
	f.StringArrayVarP(&o.publish, "publish", "p", nil, "forward `PORTS` of this machine to the VM, as [ADDR:]HOSTPORT:GUESTPORT[/udp] (may be repeated; without ADDR, on 127.0.0.1)")
	f.BoolVar(&o.notify, "notify", false, "show a slow start, until the first window, and why a start failed, as a notification")
	f.BoolVar(&o.noNotify, "no-notify", false, "show no notification, not even of a failure that nobody would see")
	f.BoolVar(&o.raw, "raw", false, rawUsage)
	f.BoolVar(&o.timings, "timings", false, "print how long each stage of the start takes")
}

const rawUsage = "pass every byte that the guest writes, to a terminal too"

// wants returns what the options ask of the VM, of which v has them.
func (o *runOptions) wants(v config.VM) (w vm.Wanted) {
	if o.memory != "" {
		w.Memory = v.Memory
	}
	w.CPUs, w.NoGUI, w.Net = o.cpus, o.noGUI, o.net
	for _, p := range v.Publish[len(v.Publish)-len(o.publish):] {
		w.Publish = append(w.Publish, p.String())
	}
	for _, share := range v.Shares[len(v.Shares)-len(o.shares):] {
		w.Shares = append(w.Shares, share.String())
	}
	return w
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

	start := func(v config.VM) error { return o.runIn(ctx, e, l, reg, v, argv) }
	if o.disposable {
		return l.Disposable(ctx, reg, v, start)
	}
	return start(v)
}

// runIn runs the program in v.
func (o *runOptions) runIn(ctx context.Context, e *env, l *launch.Launcher, reg *vm.Registry, v config.VM, argv []string) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, passedSignals...)
	defer signal.Stop(signals)

	p := launch.NewProgress(e.stderr, e.terminal, v.Name)
	defer p.End()
	r := vm.Run{
		VM: v.Name, Argv: o.argv(argv), Env: o.env, Background: o.background, Disposable: o.disposable, Fresh: o.disposable, Wants: o.wants(v), Quiet: o.noNotify, Await: o.notify, GUI: o.gui, Token: e.activationToken(),
		Stdin: e.stdin, Signals: signals,
	}
	tty := o.tty && !o.background
	stage, end := func(string) {}, func(error) {}
	if o.notify {
		stage, end = l.Startup(ctx, v.Name, argv[0])
	}
	if v.NoGUI && !o.noGUI && l.WantsWindow(v, r.Argv[0]) && !hasDisplay(ctx, reg, v.Name) {
		p.Line("VM %s has no display (gui = false in config.toml), so %s can show no window; run it with --gui, or in another VM", v.Name, clip(filepath.Base(r.Argv[0])))
	}
	r.OnTake = func() {
		if o.disposable && e.terminal {
			p.Note(tty, fmt.Sprintf("VM %s: new; it keeps nothing, and is gone with its last program", v.Name))
		}
	}
	o.follow(e, &r, p, tty, stage, end)
	if tty {
		var detach func()
		var err error
		if r, ctx, detach, err = attach(ctx, e, r, o.raw); err != nil {
			return err
		}
		defer detach()
	} else {
		out := e.guestOutput(false, o.raw, nil)
		defer out.end()
		r.Stdout, r.Stderr = out.stdout, out.stderr
	}
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
func (o *runOptions) follow(e *env, r *vm.Run, p *launch.Progress, tty bool, stage func(string), end func(error)) {
	r.OnStage = func(s vm.Stage) {
		p.Stage(s.Name)
		stage(s.Name)
		if o.timings {
			p.Note(tty, stageLine(s))
		}
	}
	r.OnNote = func(text string) {
		if strings.HasPrefix(text, vm.SlowNote) && e.terminal && !e.firstToday(slowStamp, time.Now()) {
			return // a person knows; status and doctor say it too
		}
		p.Note(tty, text)
	}
	r.OnWindows = func(text string) { p.Note(tty, text) }
	r.OnSilent = func() { p.Silent(tty) }
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
		return config.VM{}, usagef("run: use either --gui or --no-gui; see vix run --help")
	}
	if err := checkEnv(o.env); err != nil {
		return config.VM{}, usagef("run: %v", err)
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
