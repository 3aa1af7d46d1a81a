package session

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/launch"
	"vix/internal/menu"
	"vix/internal/vm"
)

const testConfig = `
[vm.web]
programs = ["edit"]
`

// testHost is a machine with one program, where the start of a VM fails when it looks for parts.
func testHost(t *testing.T) Host {
	t.Helper()
	dir, err := os.MkdirTemp("", "vix") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	apps := filepath.Join(dir, "usr/share/applications")
	entry := "[Desktop Entry]\nType=Application\nName=Editor\nName[de]=Schreiber\nExec=edit %F\n"
	bin := filepath.Join(dir, "usr/bin")
	if err := errors.Join(os.MkdirAll(apps, 0o755), os.WriteFile(filepath.Join(apps, "editor.desktop"), []byte(entry), 0o644),
		os.MkdirAll(bin, 0o755), os.WriteFile(filepath.Join(bin, "edit"), nil, 0o755)); err != nil {
		t.Fatal(err)
	}
	return Host{
		Launcher: &launch.Launcher{
			Version: "test", System: dir, Log: io.Discard,
			Dirs:    launch.Dirs{Cache: filepath.Join(dir, "cache"), State: filepath.Join(dir, "state"), Runtime: dir},
			Session: vm.Session{Wayland: filepath.Join(dir, "wayland-0")},
			Config:  func() (*config.Config, error) { return config.Parse("config.toml", []byte(testConfig)) },
			Parts:   func() (vm.Parts, error) { return vm.Parts{}, errors.New("the VM would start now") },
			Check:   func(config.VM) error { return nil }, Warnings: func(config.VM) []string { return nil },
		},
		Locale: "C", Language: "de", Log: io.Discard,
		Programs: Programs{
			Font: func(context.Context, string) string { return "" },
			Verb: func(_ context.Context, args ...string) ([]byte, error) {
				if slices.Equal(args, []string{"usb", "list", "--json"}) {
					return []byte(`[{"Port": "1-2", "Name": "Stick"}, {"Port": "1-%v", "Name": "Evil"}, {"Port": "1", "Name": "Hub", "Hub": true}]`), nil
				}
				return []byte(strings.Join(args, " ") + "\x1b\n"), nil
			},
		},
	}
}

// An exitStatus is a program's exit status, as an error.
type exitStatus int

func (e exitStatus) Error() string { return "it ended" }
func (e exitStatus) ExitCode() int { return int(e) }

// A screen is the test's end of a menu, in place of vix-menu.
type screen struct {
	t    *testing.T
	from *menu.Reader
	to   *menu.Writer
	done chan error // the result of Show
}

func openMenu(t *testing.T, host Host, settled func(), end error) (*screen, menu.Setup) {
	t.Helper()
	in, setup, err1 := os.Pipe()
	events, out, err2 := os.Pipe()
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = errors.Join(in.Close(), events.Close(), out.Close()) })
	host.Programs.Menu = func(context.Context) (*Child, error) {
		return &Child{Stdin: setup, Stdout: events, Wait: func() error { return end }}, nil
	}
	s := &Session{Host: host}
	sc := &screen{t, menu.NewReader(in), menu.NewWriter(out), make(chan error, 1)}
	go func() {
		defer s.Close()
		sc.done <- s.Show(t.Context(), settled)
	}()
	var first menu.Setup
	if err := sc.from.Read(&first); err != nil {
		t.Fatal(err)
	}
	return sc, first
}

// next reads updates until of accepts one.
func (sc *screen) next(of func(menu.Update) bool) menu.Update {
	sc.t.Helper()
	for {
		var u menu.Update
		if err := sc.from.Read(&u); err != nil {
			sc.t.Fatal(err)
		}
		if of(u) {
			return u
		}
	}
}

func (sc *screen) send(ev menu.Event) {
	sc.t.Helper()
	if err := sc.to.Write(ev); err != nil {
		sc.t.Fatal(err)
	}
}

func notice(u menu.Update) bool { return u.Notice != nil }

// A menu runs from its opening until the chosen action is done. An error is a notice while the
// menu is open, and the verb's own error afterwards.
func TestShow(t *testing.T) {
	settled := make(chan struct{})
	sc, setup := openMenu(t, testHost(t), func() { close(settled) }, nil)
	if setup.Socket != "wayland-0" || setup.Locale != "C" {
		t.Errorf("%+v", setup)
	}
	u := sc.next(func(u menu.Update) bool { return len(u.Items) > 0 })
	var ids []string
	for _, it := range u.Items {
		ids = append(ids, it.ID)
	}
	if !slices.Equal(ids, []string{"web/editor", "vm:web"}) || u.Items[0].Name != "Schreiber" {
		t.Errorf("%q, %+v", ids, u.Items)
	}
	sc.send(menu.Event{Kind: menu.EventShown, Scale: 1})
	u = sc.next(func(u menu.Update) bool { return len(u.Actions) > len(actions()) })
	if last := u.Actions[len(u.Actions)-1]; last.ID != "verb usb attach %v 1-2" || len(u.Actions) != len(actions())+1 {
		t.Errorf("%+v", u.Actions)
	}
	<-settled
	for ev, want := range map[menu.Event]menu.Notice{
		{Kind: menu.EventRun, Item: "web/other"}:                                             {Text: `menu: no entry "web/other"; see vix menu --print`, Bad: true},
		{Kind: menu.EventRun, Item: "vm:web"}:                                                {Text: `menu: no entry "vm:web"; see vix menu --print`, Bad: true},
		{Kind: menu.EventRun, Item: "web/editor"}:                                            {Text: "VM web: the VM would start now", Bad: true},
		{Kind: menu.EventAction, Item: "web/editor", Action: desktop.ActionDisposable}:       {Text: "VM web-d1: the VM would start now", Bad: true},
		{Kind: menu.EventAction, Item: "web/editor", Action: "dance"}:                        {Text: `menu: no action "dance"`, Bad: true},
		{Kind: menu.EventAction, Item: "vm:web", Action: actionVerb + "usb attach %v 1-2"}:   {Text: "usb attach web 1-2"},
		{Kind: menu.EventAction, Item: "vm:none", Action: actionVerb + "usb attach %v 1-2"}:  {Text: `menu: no entry "vm:none"`, Bad: true},
		{Kind: menu.EventAction, Item: "web/editor", Action: actionVerb + "clipboard clear"}: {Text: "clipboard clear"},
	} {
		sc.send(ev)
		if u := sc.next(notice); *u.Notice != want {
			t.Errorf("%+v: %+v, want %+v", ev, *u.Notice, want)
		}
	}
	sc.send(menu.Event{Kind: menu.EventClosed})
	if err := <-sc.done; err != nil {
		t.Error(err)
	}
}

// With a broken configuration the menu opens, says what is wrong, and starts nothing.
func TestShowBrokenConfig(t *testing.T) {
	host := testHost(t)
	broken := errors.New("config.toml:3: no such key\x1b")
	host.Launcher.Config = func() (*config.Config, error) { return nil, broken }
	sc, _ := openMenu(t, host, func() {}, nil)
	u := sc.next(func(u menu.Update) bool { return u.Items != nil })
	if want := (menu.Notice{Text: "config.toml:3: no such key", Bad: true}); u.Notice == nil || *u.Notice != want {
		t.Errorf("%+v, want %+v", u.Notice, want)
	}
	sc.send(menu.Event{Kind: menu.EventRun, Item: u.Items[0].ID})
	if u := sc.next(notice); u.Notice.Text != "config.toml:3: no such key" || !u.Notice.Bad {
		t.Errorf("%+v", u.Notice)
	}
	sc.send(menu.Event{Kind: menu.EventClosed})
	if err := <-sc.done; !errors.Is(err, broken) || !launch.IsTold(err) {
		t.Errorf("%v", err)
	}
}

// A VM without a display has no programs in a menu: none could show a window.
func TestNoDisplayNoPrograms(t *testing.T) {
	host := testHost(t)
	for config, want := range map[string]string{testConfig: "web/editor vm:web", testConfig + "gui = false\n": "vm:web", "[defaults]\ngui = false\n": ""} {
		host.Launcher.Config = configOf(config)
		s := &Session{Host: host}
		defer s.Close()
		if err := s.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		var ids []string
		for _, it := range s.Entries() {
			ids = append(ids, it.ID)
		}
		if got := strings.Join(ids, " "); got != want {
			t.Errorf("%s: %q, want %q", config, got, want)
		}
	}
}

func configOf(text string) func() (*config.Config, error) {
	return func() (*config.Config, error) { return config.Parse("config.toml", []byte(text)) }
}

// What fails when the menu has closed counts as told: a notification has shown it.
func TestFailureAfterClose(t *testing.T) {
	host := testHost(t)
	late := make(chan struct{})
	host.Programs.Verb = func(context.Context, ...string) ([]byte, error) {
		<-late
		return nil, errors.New("nothing to paste")
	}
	sc, _ := openMenu(t, host, func() {}, nil)
	sc.next(func(u menu.Update) bool { return len(u.Items) > 0 })
	sc.send(menu.Event{Kind: menu.EventAction, Item: "vm:web", Action: actionVerb + "clipboard paste --vm %v"})
	sc.send(menu.Event{Kind: menu.EventClosed})
	var u menu.Update
	for sc.from.Read(&u) == nil { // until the session has heard that the menu has closed
	}
	close(late)
	if err := <-sc.done; !launch.IsTold(err) || err.Error() != "nothing to paste" {
		t.Errorf("%v", err)
	}
}

// A failure that vix-menu itself has reported is distinguished from others.
func TestMenuFails(t *testing.T) {
	for end, want := range map[error]string{
		exitStatus(1): ErrEnded.Error(), exitStatus(2): "vix-menu: it ended", errors.New("lost"): "vix-menu: lost",
	} {
		sc, _ := openMenu(t, testHost(t), func() {}, end)
		sc.send(menu.Event{Kind: menu.EventClosed})
		if err := <-sc.done; err == nil || err.Error() != want {
			t.Errorf("%v: %v, want %s", end, err, want)
		}
	}
}

// Another menu gets lines and returns the chosen one, or nothing.
func TestDmenu(t *testing.T) {
	const line = "Schreiber  [web]"
	for _, tt := range []struct {
		command, lines, out string
		err                 error
		want                string // "" for nothing
	}{
		{"fuzzel --width 60", line + "\n", "0\n", nil, "VM web: the VM would start now"},
		{"fuzzel", line + "\n", "-1\n", nil, ""},
		{"fuzzel", line + "\n", "1\n", nil, `menu: want the index of an entry, not "1"`},
		{"/usr/bin/tofi", line + "\n", line + "\n", nil, "VM web: the VM would start now"},
		{"tofi", line + "\n", "Schreib\n", nil, `menu: "Schreib" is none of the entries`},
		{"tofi", line + "\n", "", exitStatus(1), ""},
		{"tofi", line + "\n", "", exitStatus(-1), ""},
		{"tofi", line + "\n", "", exitStatus(127), "menu: --dmenu tofi: it ended"},
		{"tofi", line + "\n", "", errors.New("no shell"), "menu: --dmenu tofi: no shell"},
		{"", line + "\n", "", nil, ""},
	} {
		host := testHost(t)
		host.Programs.Chooser = func(_ context.Context, command string, _ []string, lines []byte) ([]byte, error) {
			if command != tt.command || string(lines) != tt.lines {
				t.Errorf("%s: %q", command, lines)
			}
			return []byte(tt.out), tt.err
		}
		s := &Session{Host: host}
		err := s.Load(t.Context())
		if err == nil {
			err = s.Dmenu(t.Context(), tt.command, "")
		}
		s.Close()
		text := ""
		if err != nil {
			text = err.Error()
		}
		if text != tt.want {
			t.Errorf("%s, %q: %v, want %s", tt.command, tt.out, err, tt.want)
		}
	}
}

// A VM that an error in config.toml disables is shown with the error, and its program nowhere
// else; the rest of the menu works, also after a menu that knew another configuration.
func TestDisabledVM(t *testing.T) {
	host := testHost(t)
	conf := ""
	host.Launcher.Config = func() (*config.Config, error) { return config.Parse("config.toml", []byte(conf)) }
	open := func() (ids []string, u menu.Update) {
		settled := make(chan struct{})
		sc, _ := openMenu(t, host, func() { close(settled) }, nil)
		u = sc.next(func(u menu.Update) bool { return len(u.Items) > 0 })
		sc.send(menu.Event{Kind: menu.EventShown, Scale: 1})
		sc.next(func(u menu.Update) bool { return len(u.Actions) > len(actions()) })
		<-settled
		sc.send(menu.Event{Kind: menu.EventClosed})
		if err := <-sc.done; err != nil {
			t.Error(err)
		}
		for _, it := range u.Items {
			ids = append(ids, it.ID)
		}
		return ids, u
	}
	if ids, u := open(); !slices.Equal(ids, []string{"edit/editor"}) || u.Notice != nil {
		t.Errorf("without a configuration: %q, %v", ids, u.Notice)
	}
	conf = "[vm.web]\nmemory = 1\nprograms = [\"edit\"]\n[menu]\n"
	ids, u := open()
	if !slices.Equal(ids, []string{"vm:web"}) || !strings.HasPrefix(u.Items[0].Generic, "Disabled: config.toml, line 2: vm.web.memory: want a size") {
		t.Errorf("%q, %+v", ids, u.Items)
	}
	if u.Notice == nil || !u.Notice.Bad || !strings.HasPrefix(u.Notice.Text, "config.toml, line 2: vm.web.memory: want a size") {
		t.Errorf("%+v", u.Notice)
	}
	conf = "[vm.web]\nmemory = 1\ndesktop = [\"edit*\", 1]\n[menu]\n"
	if ids, _ := open(); !slices.Equal(ids, []string{"vm:web"}) {
		t.Errorf("a program that only desktop names: %q", ids)
	}
	conf += "width = 1\n"
	if _, u := open(); u.Notice == nil || u.Notice.Text != "config.toml has 3 errors; see vix config check" {
		t.Errorf("%+v", u.Notice)
	}
}

// TestItemsOfHost: a program of the host is offered in the VM that has its name, also if its
// entry gives it arguments, and Vix's own entry is not offered.
func TestItemsOfHost(t *testing.T) {
	host := testHost(t)
	for name, exec := range map[string]string{"usr/share/applications/tool.desktop": "tool --now", "usr/share/applications/dev.vix.Launcher.desktop": "vix-launcher menu"} {
		text := "[Desktop Entry]\nType=Application\nName=N\nExec=" + exec + "\n"
		bin := filepath.Join(host.Launcher.System, "usr/bin", strings.Fields(exec)[0])
		if err := errors.Join(os.WriteFile(filepath.Join(host.Launcher.System, name), []byte(text), 0o644), os.WriteFile(bin, nil, 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	s := &Session{Host: host}
	defer s.Close()
	if err := s.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range s.Entries() {
		if !e.Machine {
			got = append(got, e.ID)
		}
	}
	if want := []string{"web/editor", "tool/tool"}; !slices.Equal(got, want) {
		t.Errorf("items %q, want %q", got, want)
	}
}
