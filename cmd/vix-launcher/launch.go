package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os/signal"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/godbus/dbus/v5"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/vm"
)

// A launch is what a desktop entry, the D-Bus service or the menu asks for: a program
// of a VM, with nobody at a terminal.
type launch struct {
	vm     string
	app    string // the desktop file's id in the VM; "" with argv
	argv   []string
	action string // one of desktop.Actions, or "" for the program itself
	files  []string
	token  string // xdg-activation: the user's wish for a window, of our own desktop
	// disposable, with argv: the VM keeps nothing.
	disposable bool
}

// desktopLaunchCommand is what the Exec of an entry names.
func desktopLaunchCommand(e *env) *cobra.Command {
	var l launch
	c := &cobra.Command{
		Use:    "launch [--action ACTION] VM APP [FILE…]",
		Hidden: true,
		Args:   args(2, -1, "VM or APP"),
		RunE: func(c *cobra.Command, a []string) error {
			l.vm, l.app, l.files, l.token = a[0], a[1], a[2:], e.activationToken()
			reg, err := e.registry()
			if err != nil {
				return err
			}
			defer reg.Close()
			ctx, stop := signal.NotifyContext(c.Context(), unix.SIGINT, unix.SIGTERM, unix.SIGHUP)
			defer stop() // files that were handed over are taken back
			return runStatus(e.launchApp(ctx, reg, l))
		},
	}
	c.Flags().StringVar(&l.action, "action", "", "instead of the program itself")
	return c
}

// activationToken is the one that whoever started us gave us: his permission to show
// a window.
func (e *env) activationToken() string {
	for _, name := range []string{"XDG_ACTIVATION_TOKEN", "DESKTOP_STARTUP_ID"} {
		if t := e.getenv(name); t != "" {
			return t
		}
	}
	return ""
}

// launchApp does what l asks for. It returns when the program runs; with files, when
// it has ended. How far it is, and why it failed, the user sees as a notification.
func (e *env) launchApp(ctx context.Context, reg *vm.Registry, l launch) error {
	conf, err := e.config()
	if err != nil {
		return e.failed(ctx, l, err)
	}
	if l.action == desktop.ActionStop {
		return e.failed(ctx, l, reg.Stop(ctx, l.vm, false))
	}
	v, argv, err := e.findLaunch(ctx, conf, reg, &l)
	if err != nil {
		return e.failed(ctx, l, err)
	}
	if v, err = e.complete(v, nil); err != nil {
		return e.failed(ctx, l, err)
	}
	if len(l.files) == 0 {
		return e.startProgram(ctx, reg, v, argv(nil), l.token)
	}
	return e.openFiles(ctx, reg, v, argv, l)
}

// findLaunch returns the VM and the command of l.
func (e *env) findLaunch(ctx context.Context, conf *config.Config, reg *vm.Registry, l *launch) (config.VM, func([]string) []string, error) {
	fixed := func(argv ...string) func([]string) []string {
		return func(files []string) []string { return append(slices.Clone(argv), files...) }
	}
	if l.app == "" {
		v, err := conf.VM(l.vm)
		if l.disposable {
			v.State = "none"
		}
		return v, fixed(l.argv...), err
	}
	v, app, err := e.findApp(ctx, conf, l.vm, l.app)
	if err != nil {
		return v, nil, err
	}
	argv := func(files []string) []string { return app.Argv(files...) }
	switch l.action {
	case "":
	case desktop.ActionShell:
		argv = fixed("foot")
	case desktop.ActionDisposable:
		err = e.disposable(ctx, reg, &v)
	default:
		err = usagef("unknown action %q; there are disposable, shell and stop", clip(l.action))
	}
	return v, argv, err
}

// disposable makes v a VM of another name, which does not run and keeps nothing.
func (e *env) disposable(ctx context.Context, reg *vm.Registry, v *config.VM) error {
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

// startProgram runs argv in the background, with a notification of the VM's start.
func (e *env) startProgram(ctx context.Context, reg *vm.Registry, v config.VM, argv []string, token string) error {
	stage, end := e.startup(ctx, v.Name, argv[0])
	err := e.buildRoot(ctx, v)
	if err == nil {
		var exit *vm.Exit
		exit, err = reg.Run(ctx, vm.Run{
			VM:     v.Name,
			Launch: func() (vm.Launch, error) { return e.launch(v) },
			Argv:   argv, Background: true, Disposable: v.State == "none",
			Detached: true, Token: token, Session: e.session(),
			OnStage: func(s vm.Stage) { stage(s.Name) },
		})
		if err == nil && exit != nil {
			err = endedAtOnce(v.Name, argv[0], exit)
		}
	}
	end(err)
	return err
}

// startup begins the notification of a program's start. end ends it, with the error
// if it failed; only the first call counts.
func (e *env) startup(ctx context.Context, vmName, program string) (stage func(string), end func(error)) {
	conn, err := e.dialBus(ctx)
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

// failed shows an error of what was not started at all.
func (e *env) failed(ctx context.Context, l launch, err error) error {
	if err == nil {
		return nil
	}
	if conn, derr := e.dialBus(ctx); derr == nil {
		_ = desktop.NewNotifier(conn).Failed(ctx, l.vm, l.app, err)
		conn.Close()
	}
	return err
}

// dialBus connects to the session bus.
func (e *env) dialBus(ctx context.Context) (*dbus.Conn, error) {
	address, err := e.sessionBus()
	if err != nil {
		return nil, err
	}
	return desktop.DialBus(ctx, address)
}

// maxOpen is how many files are handed to a program at once.
const maxOpen = 32

// openFiles shows the program its files, in the VM's folder of grants, and takes them back
// when it has ended.
func (e *env) openFiles(ctx context.Context, reg *vm.Registry, v config.VM, argv func([]string) []string, l launch) error {
	fail := func(err error) error { return e.failed(ctx, l, err) }
	if len(l.files) > maxOpen {
		return fail(usagef("%d files: at most %d at once", len(l.files), maxOpen))
	}
	data, err := e.xdg("XDG_DATA_HOME", filepath.Join(".local", "share"))
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
	for _, f := range l.files {
		name, err := g.add(f)
		if err != nil {
			return fail(err)
		}
		inside = append(inside, path.Join(grantsPath, name))
	}
	return e.runWithFiles(ctx, reg, v, argv(inside), config.Share{Host: g.path, Guest: grantsPath}, l.token)
}

// runWithFiles runs argv until it ends, with the share: one of those that the VM starts
// with, or added to a VM that runs, or there already. The notification is over when the
// program runs.
func (e *env) runWithFiles(ctx context.Context, reg *vm.Registry, v config.VM, argv []string, share config.Share, token string) error {
	stage, end := e.startup(ctx, v.Name, argv[0])
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	name, started := v.Name, v
	started.Shares = append(slices.Clone(v.Shares), share)
	// Who else is starting the VM is found out when it is joined, before argv runs.
	join := func() {
		_, err := reg.Mount(ctx, name, share.String())
		if err == nil {
			return
		}
		st, serr := reg.State(ctx, name)
		if serr != nil || st.State != vm.StateRunning && st.State != vm.StateNotAnswering {
			return // on its way out: Run starts another
		}
		if !slices.ContainsFunc(st.Shares, func(sh vm.ShareState) bool { return sh.Guest == share.Guest && sh.PID > 0 }) {
			cancel(err)
		}
	}
	_, err := reg.Run(ctx, vm.Run{
		VM:     name,
		Launch: func() (vm.Launch, error) { return e.launch(started) },
		Argv:   argv, Disposable: v.State == "none", Token: token, Session: e.session(),
		Stdin: strings.NewReader(""), Stdout: io.Discard, Stderr: io.Discard,
		OnJoin:  join,
		OnStage: func(s vm.Stage) { stage(s.Name) },
		OnStart: func(vm.Program) { end(nil) },
	})
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		err = cause // of the share
	}
	end(err)
	return err
}
