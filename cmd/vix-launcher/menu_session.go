package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/icon"
	"vix/internal/launch"
	"vix/internal/menu"
	"vix/internal/plain"
	"vix/internal/vm"
)

// A menuSession is one menu from its opening until what was chosen has been done.
//
//	load ─► setup ─► vix-menu ─► events ─► handle ─► vix-launcher run --background, stop, …
//	Registry.Watch, the portal, icons ─► updates ─► vix-menu
type menuSession struct {
	env  *env
	conf *config.Config

	reg      *vm.Registry
	state    *os.Root // nil if nothing can be remembered
	history  *menu.History
	running  []vm.State             // when the menu was opened
	programs []menu.Item            // of items, those of the roots
	items    []menu.Item            // mu, once the menu is open
	apps     map[string]desktop.App // by item; nil where the programs were remembered
	vms      map[string]menu.VM

	fontsAgain func()
	themes     *icon.Themes // for dmenu, when it is needed
	icons      iconMemory   // mu: what this menu has found, and the last one had
	iconsAs    string       // what icons depend on
	iconsNew   bool         // mu: icons is not what the last menu left

	to      *menu.Writer // vix-menu, nil before and without it
	working sync.WaitGroup
	mu      sync.Mutex
	errs    []error // of what was done after the menu had gone
	closed  bool
}

// tell sends an update; a menu that has gone does not mind.
func (s *menuSession) tell(u menu.Update) {
	if s.to != nil {
		_ = s.to.Write(u)
	}
}

// show opens the menu, and returns when it has closed and what was chosen is done.
func (s *menuSession) show(ctx context.Context) error {
	path, err := s.env.sibling("vix-menu")
	if err != nil {
		return err
	}
	// Told to end it closes the window by itself; what was chosen before goes on.
	cmd := exec.CommandContext(ctx, path)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = s.env.stderr // it may name what a guest calls itself
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.to = menu.NewWriter(in)
	watching, stop := context.WithCancel(ctx)
	old, err := s.open(ctx)
	var helpers sync.WaitGroup
	if err == nil {
		helpers.Go(func() { s.watch(watching) })
		helpers.Go(func() { s.askScheme(watching) })
		err = s.listen(watching, menu.NewReader(out), func() {
			// Slow, and for later: they would take the processor from the first frame.
			helpers.Go(func() {
				s.refresh(old)
				s.fontsAgain()
				s.offerUSB(watching)
				// Nothing of it is needed again, and the menu may be open for long.
				debug.SetGCPercent(40)
				debug.FreeOSMemory()
			})
		})
	}
	stop()
	in.Close()
	helpers.Wait()
	err = errors.Join(err, menuEnd(ctx, cmd.Wait()))
	s.working.Wait()
	s.keepIcons()
	return errors.Join(append([]error{err}, s.errs...)...)
}

// open finds what is to be shown, and has vix-menu show it.
func (s *menuSession) open(ctx context.Context) (old bool, err error) {
	if s.conf, err = s.env.config(); err != nil {
		return false, err
	}
	setup, err := s.setup(ctx)
	if err != nil {
		return false, err
	}
	if err := s.to.Write(setup); err != nil {
		return false, err
	}
	if old, err = s.load(ctx, true); err != nil {
		return old, err
	}
	err = s.to.Write(menu.Update{Items: s.items, Actions: actions(), VMs: s.vms, HaveVMs: true})
	return old, err
}

// menuEnd is how vix-menu ended; it has said why itself.
func menuEnd(ctx context.Context, err error) error {
	var exit *exec.ExitError
	if ctx.Err() != nil || err == nil {
		return nil
	}
	if errors.As(err, &exit) && exit.ExitCode() == 1 {
		return &exitError{code: exitFailed}
	}
	return fmt.Errorf("vix-menu: %w", err)
}

// listen does what the menu's events ask for until it has closed.
func (s *menuSession) listen(ctx context.Context, from *menu.Reader, shown func()) error {
	for {
		var ev menu.Event
		err := from.Read(&ev)
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		switch ev.Kind {
		case menu.EventClosed:
			s.mu.Lock()
			s.closed = true
			s.mu.Unlock()
			return nil
		case menu.EventShown:
			s.mu.Lock()
			s.iconsNew = s.iconsNew || s.icons.Scale != ev.Scale
			s.icons.Scale = ev.Scale
			s.mu.Unlock()
			shown()
		case menu.EventIcon:
			s.working.Go(func() { s.icon(ctx, ev) })
		case menu.EventFont:
			s.working.Go(func() { s.findFont(ctx, ev.Text) })
		case menu.EventRun:
			s.do(func() error { return s.start(context.WithoutCancel(ctx), ev.Item, "", ev.Token) })
		case menu.EventAction:
			s.do(func() error { return s.act(context.WithoutCancel(ctx), ev) })
		}
	}
}

// do does something beside the menu. What goes wrong is a notice in the menu while it
// is open, and the verb's own error when it is not.
func (s *menuSession) do(f func() error) {
	s.working.Go(func() {
		err := f()
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			s.errs = append(s.errs, err)
			return
		}
		text := plain.Error(err)
		s.tell(menu.Update{Notice: &menu.Notice{Text: text, Bad: true}})
		fmt.Fprintln(s.env.stderr, "vix-launcher: "+text)
	})
}

// watch tells the menu of VMs as they change.
func (s *menuSession) watch(ctx context.Context) {
	vms := map[string]menu.VM{}
	ready := false
	err := s.reg.Watch(ctx, "", func(ev vm.Event) error {
		switch ev.Event {
		case vm.EventReady:
			ready = true
		case vm.EventEnded:
			delete(vms, ev.Name)
		case vm.EventState:
			if now := menuVM(*ev.State); vms[ev.Name] != now {
				vms[ev.Name] = now
			}
		}
		if ready {
			// An empty map has to be said too: a VM has ended.
			s.tell(menu.Update{VMs: vms, HaveVMs: true})
		}
		return nil
	})
	if err != nil {
		s.tell(menu.Update{Notice: &menu.Notice{Text: plain.Error(err), Bad: true}})
	}
}

// findFont has fontconfig find a font for characters that the menu's fonts lack.
func (s *menuSession) findFont(ctx context.Context, text string) {
	var codes []string
	for _, r := range text {
		if len(codes) < 16 {
			codes = append(codes, fmt.Sprintf("%x", r))
		}
	}
	if file := s.env.fontFile(ctx, "sans-serif:charset="+strings.Join(codes, " ")); file != "" {
		s.tell(menu.Update{Font: file})
	}
}

// start runs an item's program; how its VM starts, and why it fails, a notification
// says.
func (s *menuSession) start(ctx context.Context, id, action, token string) error {
	s.mu.Lock()
	known := slices.ContainsFunc(s.items, func(it menu.Item) bool { return it.ID == id && !it.Machine })
	s.mu.Unlock()
	name, app, ok := strings.Cut(id, "/")
	if !known || !ok {
		return fmt.Errorf("menu: no entry %q; see vix-launcher menu --print", clip(id))
	}
	s.chose(id)
	return s.env.launcher().Start(ctx, s.reg, launch.Request{VM: name, App: app, Action: action, Token: token})
}

// terminals are programs that run a command in a window, the first to be preferred.
var terminals = [][]string{
	{"xdg-terminal-exec"}, {"foot"}, {"alacritty", "-e"}, {"kitty"}, {"ghostty", "-e"}, {"wezterm", "start"},
	{"konsole", "-e"}, {"gnome-terminal", "--"}, {"xterm", "-e"},
}

// shell opens a terminal with a shell of the VM, which outlives the menu.
func (s *menuSession) shell(name, token string) error {
	argv, err := s.env.terminalArgv()
	if err != nil {
		return err
	}
	self, err := s.env.self()
	if err != nil {
		return err
	}
	cmd := exec.Command(argv[0], append(argv[1:], self, "shell", name)...)
	cmd.Env = s.env.environ()
	if token != "" {
		cmd.Env = append(cmd.Env, "XDG_ACTIVATION_TOKEN="+token)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	return cmd.Process.Release()
}

func (e *env) terminalArgv() ([]string, error) {
	if t := e.getenv("TERMINAL"); t != "" {
		if path, err := e.look(t); err == nil {
			i := slices.IndexFunc(terminals, func(known []string) bool { return known[0] == filepath.Base(t) })
			if i >= 0 {
				return append([]string{path}, terminals[i][1:]...), nil
			}
			return []string{path, "-e"}, nil
		}
	}
	for _, t := range terminals {
		if path, err := e.look(t[0]); err == nil {
			return append([]string{path}, t[1:]...), nil
		}
	}
	return nil, errors.New("no terminal is installed; install foot, or set TERMINAL")
}
