package launch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/desktop"
	"vix/internal/plain"
	"vix/internal/vm"
)

// A Request of a desktop entry, the D-Bus service or the menu asks for a program of a VM,
// with nobody at a terminal.
type Request struct {
	VM     string
	App    string // the desktop file's id in the VM; "" with Argv
	Argv   []string
	Action string // one of desktop.Actions, or "" for the program itself
	Files  []string
	Token  string // xdg-activation: the user's wish for a window, of our own desktop
	// Disposable, with Argv: a VM of its own, which keeps nothing.
	Disposable bool
}

// Start starts r's program. It returns when the program runs; with files, when the program
// has ended. A notification shows the user its progress, and why it failed.
func (l *Launcher) Start(ctx context.Context, reg *vm.Registry, r Request) error {
	if r.Action == desktop.ActionStop {
		return l.failure(ctx, r, reg.Stop(ctx, r.VM, false)) // whatever config.toml says now
	}
	conf, err := l.Config()
	if err != nil {
		return l.failure(ctx, r, err)
	}
	v, p, err := l.find(ctx, conf, r)
	if err != nil {
		return l.failure(ctx, r, err)
	}
	if v, err = l.Complete(v); err != nil {
		return l.failure(ctx, r, err)
	}
	start := func(v config.VM) error {
		if len(r.Files) == 0 {
			return l.startProgram(ctx, reg, v, p, r)
		}
		return l.openFiles(ctx, reg, v, p, r)
	}
	if !r.fresh() {
		return start(v)
	}
	var last error // is shown by whoever has it
	err = l.Disposable(ctx, reg, v, func(v config.VM) error {
		last = start(v)
		return last
	})
	if err != nil && !errors.Is(err, last) {
		return l.failure(ctx, r, err)
	}
	return err
}

// fresh reports whether the request is for a VM of its own.
func (r Request) fresh() bool { return r.Disposable || r.Action == desktop.ActionDisposable }

// A program is what a Request starts: the commands that open files (of which there is always
// one), and the directory that they run in, "" for the home.
type program struct {
	runs func(files []string) [][]string
	dir  string
}

// find returns the VM and the program of r.
func (l *Launcher) find(ctx context.Context, conf *config.Config, r Request) (config.VM, program, error) {
	constant := func(argv ...string) program {
		return program{runs: func(files []string) [][]string { return [][]string{append(slices.Clone(argv), files...)} }}
	}
	if r.App == "" {
		v, err := conf.VM(r.VM)
		return v, constant(r.Argv...), err
	}
	v, app, err := l.FindApp(ctx, conf, r.VM, r.App)
	if err != nil {
		return v, program{}, err
	}
	p := program{func(files []string) [][]string { return app.Runs(files...) }, app.Dir}
	switch r.Action {
	case "", desktop.ActionDisposable:
	case desktop.ActionShell:
		p = constant("foot")
	default:
		err = misusef("unknown action %q; want disposable, shell or stop", plain.Clip(r.Action))
	}
	return v, p, err
}

// maxDisposable bounds the disposable VMs of one VM's configuration that run at once.
const maxDisposable = 99

// Disposable calls run with v under the names of its disposable VMs, such as web-d1, web-d2,
// until one of them did not run yet: as long as run's error is vm.ErrTaken. A name is taken
// when its VM starts, so that of two that start at once each has its own. All but the name is
// as v's configuration says: the tag too, with the number, so that nobody takes the VM's
// windows for those of the one that keeps its home.
func (l *Launcher) Disposable(ctx context.Context, reg *vm.Registry, v config.VM, run func(config.VM) error) error {
	conf, err := l.Config()
	if err != nil {
		return err
	}
	running, err := reg.Names(ctx)
	if err != nil {
		return err
	}
	base, tag := v.Name, []rune(v.Tag)
	for i := 1; i <= maxDisposable; i++ {
		number := fmt.Sprintf("d%d", i)
		v.Name = base[:min(len(base), config.MaxName-len("-")-len(number))] + "-" + number
		_, disabled := conf.Disabled[v.Name]
		if _, configured := conf.VMs[v.Name]; configured || disabled || slices.Contains(running, v.Name) {
			continue
		}
		v.State, v.NoColor = "none", false // the colour is NAME's
		v.Tag = string(tag[:min(len(tag), config.MaxTag-len(" ")-len(number))]) + " " + number
		if err := run(v); !errors.Is(err, vm.ErrTaken) {
			return err
		}
	}
	return fmt.Errorf("VM %s: %d disposable VMs of it are running; stop some", base, maxDisposable)
}

// startProgram runs p in the background, with a notification of the VM's start.
func (l *Launcher) startProgram(ctx context.Context, reg *vm.Registry, v config.VM, p program, r Request) error {
	argv := p.runs(nil)[0]
	stage, end := l.Startup(ctx, v.Name, argv[0])
	err := l.BuildRoot(ctx, v)
	if err == nil {
		var exit *vm.Exit
		exit, err = l.Run(ctx, reg, v, vm.Run{
			Argv: argv, How: vm.How{Cwd: agent.Bytes(p.dir)}, Background: true, Disposable: v.State == "none", Fresh: r.fresh(), Detached: true, Await: true, Token: r.Token,
			OnStage: func(s vm.Stage) { stage(s.Name) },
		})
		if err == nil && exit != nil {
			err = EndedAtOnce(v.Name, argv[0], exit)
		}
	}
	end(err)
	return Told(err)
}

// Startup begins the notification of a program's start. end ends it, with the error
// if it failed, and waits for that, but not for long; only the first call's error counts. A
// bus that does not answer delays nothing else.
func (l *Launcher) Startup(ctx context.Context, vmName, program string) (stage func(string), end func(error)) {
	if l.Bus == "" {
		return func(string) {}, func(error) {} // nobody to tell
	}
	stages, result, done := make(chan string, 16), make(chan error, 1), make(chan struct{})
	go func() {
		defer close(done)
		conn, err := l.DialBus(ctx)
		if err != nil {
			return
		}
		defer conn.Close()
		s := desktop.NewNotifier(conn).Startup(ctx, vmName, path.Base(program))
		for {
			select {
			case name := <-stages:
				s.Stage(name)
			case err := <-result:
				if errors.Is(err, vm.ErrTaken) {
					err = nil // another name's start begins
				}
				for len(stages) > 0 { // which came before
					s.Stage(<-stages)
				}
				s.End(noticeOf(err))
				return
			}
		}
	}()
	stage = func(name string) {
		select {
		case stages <- name:
		default: // nobody shows them
		}
	}
	return stage, func(err error) {
		select {
		case result <- err:
		default: // not the first
		}
		limit := time.NewTimer(noticeLimit)
		defer limit.Stop()
		select {
		case <-done:
		case <-limit.C:
		}
	}
}

// failure shows the error of a request that started nothing.
func (l *Launcher) failure(ctx context.Context, r Request, err error) error {
	if err == nil {
		return nil
	}
	if conn, derr := l.DialBus(ctx); derr == nil {
		_ = desktop.NewNotifier(conn).Failed(ctx, r.VM, r.App, err)
		conn.Close()
	}
	return Told(err)
}

// maxOpen is how many files a program gets at once.
const maxOpen = 32

// openFiles shows the program its files, in the VM's folder of grants, and takes them back
// when it has ended.
func (l *Launcher) openFiles(ctx context.Context, reg *vm.Registry, v config.VM, p program, r Request) error {
	fail := func(err error) error { return l.failure(ctx, r, err) }
	if len(r.Files) > maxOpen {
		return fail(misusef("%d files; at most %d at once", len(r.Files), maxOpen))
	}
	data, err := l.Dirs.data()
	if err != nil {
		return fail(err)
	}
	g, err := openGrants(data, v.Name)
	if err != nil {
		return fail(err)
	}
	defer g.revoke(func() bool {
		ctx := context.WithoutCancel(ctx)
		if reg.Umount(ctx, v.Name, grantsPath, true) == nil {
			return true
		}
		_, err := reg.State(ctx, v.Name)
		return err != nil
	})
	var inside []string
	for _, f := range r.Files {
		name, err := g.add(f)
		if err != nil {
			return fail(err)
		}
		inside = append(inside, path.Join(grantsPath, name))
	}
	// Of a VM of its own, the first command takes the name; the others join it.
	taken, ended := make(chan struct{}), make(chan struct{})
	runs := p.runs(inside)
	errs := make([]error, len(runs))
	var all sync.WaitGroup
	for i, argv := range runs {
		f := fileRun{argv: argv, dir: p.dir, share: config.Share{Host: g.path, Guest: grantsPath}}
		if i == 0 {
			f.token, f.fresh, f.onTake = r.Token, r.fresh(), sync.OnceFunc(func() { close(taken) })
		}
		all.Go(func() {
			if i > 0 && r.fresh() {
				select {
				case <-taken:
				case <-ended:
					select {
					case <-taken:
					default:
						return // it has failed
					}
				}
			}
			errs[i] = l.runWithFiles(ctx, reg, v, f)
			if i == 0 {
				close(ended)
			}
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// A fileRun is a command that opens files of a share.
type fileRun struct {
	argv   []string
	dir    string // that it runs in; "" for the home
	share  config.Share
	token  string
	fresh  bool // in a VM that does not run yet
	onTake func()
}

// runWithFiles runs f until it ends, with the share: one of those that the VM starts with, or
// added to a VM that runs, or there already. The notification is over when the program runs.
func (l *Launcher) runWithFiles(ctx context.Context, reg *vm.Registry, v config.VM, f fileRun) error {
	stage, end := l.Startup(ctx, v.Name, f.argv[0])
	started := v
	started.Shares = append(slices.Clone(v.Shares), f.share)
	_, err := l.Run(ctx, reg, started, vm.Run{
		Argv: f.argv, How: vm.How{Cwd: agent.Bytes(f.dir)}, Disposable: v.State == "none", Fresh: f.fresh, Await: true, Token: f.token,
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		Wants: vm.Wanted{Shares: []string{f.share.String()}}, OnTake: f.onTake,
		OnStage: func(s vm.Stage) { stage(s.Name) },
		OnStart: func(vm.Program) { go end(nil) },
	})
	end(err)
	return Told(err)
}
