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

// A Session is one menu from its opening until what was chosen has been done.
type Session struct {
	Host
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

	to     *menu.Writer // vix-menu, nil before and without it
	work   sync.WaitGroup
	mu     sync.Mutex
	errs   []error // of what was done after the menu had gone
	closed bool
}

// Close gives back what the session has open.
func (s *Session) Close() {
	if s.reg != nil {
		s.reg.Close()
	}
	if s.state != nil {
		s.state.Close()
	}
}

// tell sends an update; a menu that has gone does not mind.
func (s *Session) tell(u menu.Update) {
	if s.to != nil {
		_ = s.to.Write(u)
	}
}

// Show opens the menu, and returns when it has closed and what was chosen is done.
// settled is called when the menu has all it needs: it may be open for long.
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
			// Slow, and for later: they would take the processor from the first frame.
			helpers.Go(func() {
				s.refresh(old)
				s.fontsAgain()
				s.offerUSB(watchCtx)
				settled()
			})
		})
	}
	stop()
	child.Stdin.Close()
	helpers.Wait()
	err = errors.Join(err, menuEnd(ctx, child.Wait()))
	s.work.Wait()
	s.keepIcons()
	return errors.Join(append([]error{err}, s.errs...)...)
}

// open finds what is to be shown, and has vix-menu show it.
func (s *Session) open(ctx context.Context) (old bool, err error) {
	if s.conf, err = s.Launcher.Config(); err != nil {
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

// ErrEnded: vix-menu has failed, and said why.
var ErrEnded = errors.New("the menu has ended")

// menuEnd is how vix-menu ended.
func menuEnd(ctx context.Context, err error) error {
	if ctx.Err() != nil || err == nil {
		return nil
	}
	if code, _ := exitCode(err); code == 1 {
		return ErrEnded
	}
	return fmt.Errorf("vix-menu: %w", err)
}

// listen does what the menu's events ask for until it has closed.
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

// do does something beside the menu. What goes wrong is a notice in the menu while it
// is open, and the verb's own error when it is not.
func (s *Session) do(f func() error) {
	s.work.Go(func() {
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
		fmt.Fprintln(s.Log, "vix-launcher: "+text)
	})
}

// watch tells the menu of VMs as they change.
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

// Start runs an item's program; how its VM starts, and why it fails, a notification
// says.
func (s *Session) Start(ctx context.Context, id, action, token string) error {
	s.mu.Lock()
	known := slices.ContainsFunc(s.items, func(it menu.Item) bool { return it.ID == id && !it.Machine })
	s.mu.Unlock()
	name, app, ok := strings.Cut(id, "/")
	if !known || !ok {
		return fmt.Errorf("menu: no entry %q; see vix-launcher menu --print", plain.Clip(id))
	}
	s.chose(id)
	return s.Launcher.Start(ctx, s.reg, launch.Request{VM: name, App: app, Action: action, Token: token})
}
