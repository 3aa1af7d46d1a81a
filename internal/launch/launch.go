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

	"vix/config"
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
	// Disposable, with Argv: the VM keeps nothing.
	Disposable bool
}

// Start starts r's program. It returns when the program runs; with files, when the program
// has ended. A notification shows the user its progress, and why it failed.
func (l *Launcher) Start(ctx context.Context, reg *vm.Registry, r Request) error {
	conf, err := l.Config()
	if err != nil {
		return l.failure(ctx, r, err)
	}
	if r.Action == desktop.ActionStop {
		return l.failure(ctx, r, reg.Stop(ctx, r.VM, false))
	}
	v, p, err := l.find(ctx, conf, reg, r)
	if err != nil {
		return l.failure(ctx, r, err)
	}
	if v, err = l.Complete(v); err != nil {
		return l.failure(ctx, r, err)
	}
	if len(r.Files) == 0 {
		return l.startProgram(ctx, reg, v, p, r.Token)
	}
	return l.openFiles(ctx, reg, v, p, r)
}

// A program is what a Request starts: the commands that open files (of which there is always
// one), and the directory that they run in, "" for the home.
type program struct {
	runs func(files []string) [][]string
	dir  string
}

// find returns the VM and the program of r.
func (l *Launcher) find(ctx context.Context, conf *config.Config, reg *vm.Registry, r Request) (config.VM, program, error) {
	constant := func(argv ...string) program {
		return program{runs: func(files []string) [][]string { return [][]string{append(slices.Clone(argv), files...)} }}
	}
	if r.App == "" {
		v, err := conf.VM(r.VM)
		if r.Disposable {
			v.State = "none"
		}
		return v, constant(r.Argv...), err
	}
	v, app, err := l.FindApp(ctx, conf, r.VM, r.App)
	if err != nil {
		return v, program{}, err
	}
	p := program{func(files []string) [][]string { return app.Runs(files...) }, app.Dir}
	switch r.Action {
	case "":
	case desktop.ActionShell:
		p = constant("foot")
	case desktop.ActionDisposable:
		err = l.disposable(ctx, reg, &v)
	default:
		err = misusef("unknown action %q; there are disposable, shell and stop", plain.Clip(r.Action))
	}
	return v, p, err
}

// disposable makes v a VM of another name, which does not run and keeps nothing.
func (l *Launcher) disposable(ctx context.Context, reg *vm.Registry, v *config.VM) error {
	running, err := reg.Names(ctx)
	if err != nil {
		return err
	}
	base := v.Name[:min(len(v.Name), config.MaxName-len("-tmp99"))]
	for i := 1; i < 100; i++ {
		name := fmt.Sprintf("%s-tmp%d", base, i)
		if !slices.Contains(running, name) {
			v.Name, v.State = name, "none"
			tag := []rune(v.Tag)
			v.Tag = string(tag[:min(len(tag), config.MaxTag-len(" tmp99"))]) + fmt.Sprintf(" tmp%d", i)
			return nil
		}
	}
	return fmt.Errorf("VM %s: 99 disposable VMs of it run; stop some", v.Name)
}

// startProgram runs p in the background, with a notification of the VM's start.
func (l *Launcher) startProgram(ctx context.Context, reg *vm.Registry, v config.VM, p program, token string) error {
	argv := p.runs(nil)[0]
	stage, end := l.Startup(ctx, v.Name, argv[0])
	err := l.BuildRoot(ctx, v)
	if err == nil {
		var exit *vm.Exit
		exit, err = l.Run(ctx, reg, v, vm.Run{
			Argv: argv, How: vm.How{Cwd: p.dir}, Background: true, Disposable: v.State == "none", Detached: true, Token: token,
			OnStage: func(s vm.Stage) { stage(s.Name) },
		})
		if err == nil && exit != nil {
			err = EndedAtOnce(v.Name, argv[0], exit)
		}
	}
	end(err)
	return err
}

// Startup begins the notification of a program's start. end ends it, with the error
// if it failed; only the first call counts.
func (l *Launcher) Startup(ctx context.Context, vmName, program string) (stage func(string), end func(error)) {
	conn, err := l.DialBus(ctx)
	if err != nil {
		return func(string) {}, func(error) {} // no bus, nobody to tell
	}
	s := desktop.NewNotifier(conn).Startup(ctx, vmName, path.Base(program))
	var once sync.Once
	return s.Stage, func(err error) {
		once.Do(func() {
			s.End(err)
			conn.Close()
		})
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
	return err
}

// maxOpen is how many files a program gets at once.
const maxOpen = 32

// openFiles shows the program its files, in the VM's folder of grants, and takes them back
// when it has ended.
func (l *Launcher) openFiles(ctx context.Context, reg *vm.Registry, v config.VM, p program, r Request) error {
	fail := func(err error) error { return l.failure(ctx, r, err) }
	if len(r.Files) > maxOpen {
		return fail(misusef("%d files: at most %d at once", len(r.Files), maxOpen))
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
	runs := p.runs(inside)
	errs := make([]error, len(runs))
	var all sync.WaitGroup
	for i, argv := range runs {
		all.Go(func() {
			token := r.Token
			if i > 0 {
				token = "" // it is for one window
			}
			errs[i] = l.runWithFiles(ctx, reg, v, argv, p.dir, config.Share{Host: g.path, Guest: grantsPath}, token)
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// runWithFiles runs argv until it ends, with the share: one of those that the VM starts
// with, or added to a VM that runs, or there already. The notification is over when the
// program runs.
func (l *Launcher) runWithFiles(ctx context.Context, reg *vm.Registry, v config.VM, argv []string, dir string, share config.Share, token string) error {
	stage, end := l.Startup(ctx, v.Name, argv[0])
	name, started := v.Name, v
	started.Shares = append(slices.Clone(v.Shares), share)
	// Run joins a VM that another process is starting before argv runs.
	join := func() error {
		_, err := reg.Mount(ctx, name, share.String())
		if err == nil {
			return nil
		}
		st, serr := reg.State(ctx, name)
		if serr != nil || st.State != vm.StateRunning && st.State != vm.StateNotAnswering {
			return nil // it is stopping: Run starts another
		}
		if slices.ContainsFunc(st.Shares, func(sh vm.ShareState) bool { return sh.Guest == share.Guest && sh.PID > 0 }) {
			return nil
		}
		return err
	}
	_, err := l.Run(ctx, reg, started, vm.Run{
		Argv: argv, How: vm.How{Cwd: dir}, Disposable: v.State == "none", Token: token,
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		OnJoin:  join,
		OnStage: func(s vm.Stage) { stage(s.Name) },
		OnStart: func(vm.Program) { end(nil) },
	})
	end(err)
	return err
}
