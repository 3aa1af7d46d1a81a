package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/icon"
	"vix/internal/launch"
	"vix/internal/menu"
	"vix/internal/plain"
	"vix/internal/vm"
)

// A Session is one menu, from its opening until the chosen action is done.
type Session struct {
	Host
	conf   *config.Config
	broken error // what is wrong with the configuration that Show has found

	reg      *vm.Registry
	state    *os.Root // nil if nothing can be stored
	history  *menu.History
	running  []vm.State             // when the menu was opened
	programs []menu.Item            // the items that come from roots
	items    []menu.Item            // guarded by mu once the menu is open
	apps     map[string]desktop.App // by item; nil if the programs come from the cache
	vms      map[string]menu.VM

	fontsAgain func()
	themes     *icon.Themes // for dmenu, loaded when needed
	icons      iconMemory   // guarded by mu: icons found by this menu and the last
	iconsAs    string       // identifies the icons' inputs
	iconsNew   bool         // guarded by mu: icons differs from the cache

	to     *menu.Writer // vix-menu; nil before its start and without it
	work   sync.WaitGroup
	mu     sync.Mutex
	errs   []error // errors of actions after the menu had closed
	closed bool
}

// Close releases the session's files.
func (s *Session) Close() {
	if s.reg != nil {
		s.reg.Close()
	}
	if s.state != nil {
		s.state.Close()
	}
}

// tell sends an update to the menu; a closed menu is no error.
func (s *Session) tell(u menu.Update) {
	if s.to != nil {
		_ = s.to.Write(u)
	}
}

// Show opens the menu, and returns when it has closed and the chosen action is done. It calls
// settled when the menu has everything it needs: the menu may stay open for long.
func (s *Session) Show(ctx context.Context, settled func()) error {
	child, err := s.Programs.Menu(ctx)
	if err != nil {
		return err
	}
	s.to = menu.NewWriter(child.Stdin)
	watchCtx, stop := context.WithCancel(ctx)
	old, err := s.open(ctx)
	var helpers sync.WaitGroup
	if err == nil {
		helpers.Go(func() { s.watch(watchCtx) })
		helpers.Go(func() { s.askScheme(watchCtx) })
		err = s.listen(watchCtx, menu.NewReader(child.Stdout), func() {
			// These are slow, and would take the processor from the first frame if they began earlier.
			helpers.Go(func() {
				s.refresh(old)
				s.fontsAgain()
				s.offerUSB(watchCtx)
				settled()
			})
		})
	}
	shown := err == nil
	stop()
	child.Stdin.Close()
	helpers.Wait()
	err = errors.Join(err, menuEnd(ctx, child.Wait()))
	if s.broken != nil && shown && err == nil {
		err = launch.Told(s.broken)
	}
	s.work.Wait()
	s.keepIcons()
	return errors.Join(append([]error{err}, s.errs...)...)
}

// open finds the entries, and makes vix-menu show them.
func (s *Session) open(ctx context.Context) (old bool, err error) {
	if s.conf, s.broken = s.Launcher.Config(); s.broken != nil {
		// The menu opens all the same, to say what is wrong. What it would start reads the
		// configuration again, and fails.
		if s.conf, err = config.Parse("", nil); err != nil {
			return false, err
		}
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
	first := menu.Update{Items: s.items, Actions: actions(), VMs: s.vms, HaveVMs: true, Notice: s.mistakes()}
	if s.broken != nil {
		first.Notice = &menu.Notice{Text: plain.Error(s.broken), Bad: true}
	}
	err = s.to.Write(first)
	return old, err
}

// mistakes returns a notice of the errors in config.toml; nil if there are none.
func (s *Session) mistakes() *menu.Notice {
	if text := s.Mistakes(); text != "" {
		return &menu.Notice{Text: text, Bad: true}
	}
	return nil
}

// Mistakes returns a line about the errors in config.toml; "" if there are none.
func (s *Session) Mistakes() string {
	switch n := len(s.conf.Errors); n {
	case 0:
		return ""
	case 1:
		return "config.toml, " + plain.Error(errors.New(s.conf.Errors[0].Short()))
	default:
		return fmt.Sprintf("config.toml has %d errors; see vix config check", n)
	}
}

// ErrEnded means that vix-menu has failed, and has reported why.
var ErrEnded = errors.New("the menu has ended")

// menuEnd explains the end of vix-menu.
func menuEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || err == nil {
		return nil
	}
	if code, _ := exitCode(err); code == 1 {
		return ErrEnded
	}
	return fmt.Errorf("vix-menu: %w", err)
}

// listen carries out the menu's events until the menu has closed.
func (s *Session) listen(ctx context.Context, from *menu.Reader, shown func()) error {
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
			s.work.Go(func() { s.icon(ctx, ev) })
		case menu.EventFont:
			s.work.Go(func() { s.findFont(ctx, ev.Text) })
		case menu.EventRun:
			s.do(func() error { return s.Start(context.WithoutCancel(ctx), ev.Item, "", ev.Token) })
		case menu.EventAction:
			s.do(func() error { return s.act(context.WithoutCancel(ctx), ev) })
		}
	}
}

// do runs an action beside the menu. An error becomes a notice in the menu while it is open,
// and the verb's own error otherwise.
func (s *Session) do(f func() error) {
	s.work.Go(func() {
		err := f()
		if err == nil {
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.closed {
			if !launch.IsTold(err) {
				s.Launcher.NotifyFailure(context.Background(), "vix menu", err)
			}
			s.errs = append(s.errs, launch.Told(err))
			return
		}
		text := plain.Error(err)
		s.tell(menu.Update{Notice: &menu.Notice{Text: text, Bad: true}})
		fmt.Fprintln(s.Log, "vix: "+text)
	})
}

// watch sends changes of VMs to the menu.
func (s *Session) watch(ctx context.Context) {
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
			// An empty map must be sent too: it means that a VM has ended.
			s.tell(menu.Update{VMs: vms, HaveVMs: true})
		}
		return nil
	})
	if err != nil {
		s.tell(menu.Update{Notice: &menu.Notice{Text: plain.Error(err), Bad: true}})
	}
}

// findFont asks fontconfig for a font with characters that the menu's fonts lack.
func (s *Session) findFont(ctx context.Context, text string) {
	var codes []string
	for _, r := range text {
		if len(codes) < 16 {
			codes = append(codes, fmt.Sprintf("%x", r))
		}
	}
	if file := s.Programs.Font(ctx, "sans-serif:charset="+strings.Join(codes, " ")); file != "" {
		s.tell(menu.Update{Font: file})
	}
}

// Start runs an item's program; a notification shows the progress of its VM's start, or why it
// fails.
func (s *Session) Start(ctx context.Context, id, action, token string) error {
	s.mu.Lock()
	known := slices.ContainsFunc(s.items, func(it menu.Item) bool { return it.ID == id && !it.Machine })
	s.mu.Unlock()
	name, app, ok := strings.Cut(id, "/")
	if disabled := (*config.DisabledError)(nil); !known && ok {
		if _, err := s.conf.VM(name); errors.As(err, &disabled) {
			return err
		}
	}
	if !known || !ok {
		return fmt.Errorf("menu: no entry %q; see vix menu --print", plain.Clip(id))
	}
	s.chose(id)
	return s.Launcher.Start(ctx, s.reg, launch.Request{VM: name, App: app, Action: action, Token: token})
}
