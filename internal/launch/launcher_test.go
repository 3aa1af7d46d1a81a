package launch

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"vix/config"
	"vix/internal/desktop"
	"vix/internal/vm"
)

var errNoParts = errors.New("the VM would start now")

// testLauncher is one with a host of its own, on which a VM comes as far as its parts.
func testLauncher(t *testing.T, conf string) (*Launcher, *vm.Registry) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vix") // short: the path of a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	apps := filepath.Join(dir, "usr/share/applications")
	entry := "[Desktop Entry]\nType=Application\nName=Editor\nExec=edit %F\n"
	if err := errors.Join(os.MkdirAll(apps, 0o755), os.WriteFile(filepath.Join(apps, "editor.desktop"), []byte(entry), 0o644)); err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"edit", "true", "foot"} {
		if err := os.WriteFile(filepath.Join(bin, name), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	at := func(name string) string { return filepath.Join(dir, "home", name) }
	l := &Launcher{
		Version: "test", System: dir, Log: io.Discard,
		Dirs:     Dirs{Home: at(""), Config: at("config"), Cache: at("cache"), State: at("state"), Data: at("data"), Runtime: dir},
		Config:   func() (*config.Config, error) { return config.Parse("config.toml", []byte(conf)) },
		Parts:    func() (vm.Parts, error) { return vm.Parts{}, errNoParts },
		Check:    checkTag,
		Warnings: func(config.VM) []string { return nil },
		Look:     func(name string) (string, error) { return "", fmt.Errorf("%s is not installed", name) },
	}
	reg, err := vm.OpenRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { reg.Close() })
	return l, reg
}

// checkTag stands for the display's policy.
func checkTag(v config.VM) error {
	if v.Tag == "refused" {
		return errors.New("the policy refuses it")
	}
	return nil
}

// A machine that can start VMs starts none for a program that it lacks.
func TestStartOfMissingProgram(t *testing.T) {
	l, reg := testLauncher(t, "[defaults]\ngui = false\n")
	l.Parts = func() (vm.Parts, error) { return vm.Parts{}, nil }
	err := l.Start(t.Context(), reg, Request{VM: "web", Argv: []string{"edti"}})
	if want := `VM web: edti: not found: its programs are this machine's (root = "host"), which has no such program; did you mean edit?`; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
	if names, err := reg.Names(t.Context()); err != nil || len(names) > 0 {
		t.Errorf("%v, %v", names, err)
	}
}

// What is asked for is found, or refused for its own reason, before a VM is started.
func TestStart(t *testing.T) {
	l, reg := testLauncher(t, `
[vm.web]
programs = ["edit"]
[vm.bad]
tag = "refused"
`)
	for _, tt := range []struct {
		request Request
		want    string
	}{
		{Request{VM: "web", App: "editor"}, "VM web: " + errNoParts.Error()},
		{Request{VM: "new", Argv: []string{"true"}}, "VM new: " + errNoParts.Error()},
		{Request{VM: "web", App: "editor", Action: desktop.ActionDisposable}, "VM web-d1: " + errNoParts.Error()},
		{Request{VM: "web", App: "editor", Action: desktop.ActionShell}, "VM web: " + errNoParts.Error()},
		{Request{VM: "web", App: "other"}, "VM web: its root has no program other; run vix desktop sync"},
		{Request{VM: "web", App: "editor", Action: "dance"}, `unknown action "dance"; want disposable, shell or stop`},
		{Request{VM: "web", App: "editor", Files: make([]string, maxOpen+1)}, "33 files; at most 32 at once"},
		{Request{VM: "web", App: "editor", Files: []string{"/none"}}, "/none: no such file or directory"},
		{Request{VM: "bad", App: "editor"}, "the policy refuses it"},
		{Request{VM: "UP", App: "editor"}, config.CheckName("UP").Error()},
	} {
		if err := l.Start(t.Context(), reg, tt.request); err == nil || err.Error() != tt.want {
			t.Errorf("%+v: %v, want %s", tt.request, err, tt.want)
		}
	}
	var misuse *MisuseError
	if err := l.Start(t.Context(), reg, Request{VM: "web", App: "editor", Action: "dance"}); !errors.As(err, &misuse) {
		t.Errorf("%v is no misuse", err)
	}
	if left, _ := filepath.Glob(filepath.Join(l.Dirs.Data, grantsDir, "*")); len(left) > 0 {
		t.Errorf("%v is left of files that were not opened", left)
	}
}

// Of disposable VMs that start at once, each has a name of its own, and all else of the
// configuration that they are made by.
func TestDisposable(t *testing.T) {
	long := strings.Repeat("n", config.MaxName)
	l, reg := testLauncher(t, `
[vm.web]
tag = "the web"
memory = "1G"
[vm.web-d2]
`)
	conf, err := l.Config()
	if err != nil {
		t.Fatal(err)
	}
	web, err := conf.VM("web")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	seats := map[string]*vm.Seat{}
	take := func(v config.VM) error {
		seat, err := reg.Take(t.Context(), v.Name)
		if err == nil && seat == nil {
			err = vm.ErrTaken
		}
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		seats[v.Name] = seat
		_, number, _ := strings.Cut(v.Name, "-")
		if v.State != "none" || v.Tag != "the web "+number || v.Memory != web.Memory || v.Color != web.Color {
			t.Errorf("%+v", v)
		}
		return nil
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			if err := l.Disposable(t.Context(), reg, web, take); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if got := slices.Sorted(maps.Keys(seats)); !slices.Equal(got, []string{"web-d1", "web-d3", "web-d4", "web-d5"}) {
		t.Errorf("%q", got)
	}
	// The lowest free number comes first.
	seats["web-d3"].Close()
	if err := reg.RemoveDir(t.Context(), "web-d3"); err != nil {
		t.Fatal(err)
	}
	if err := l.Disposable(t.Context(), reg, web, take); err != nil || len(seats) != 4 {
		t.Errorf("%v, %q", err, slices.Sorted(maps.Keys(seats)))
	}
	for _, s := range seats {
		s.Close()
	}
	// Names and tags stay within their bounds; another error ends it; there is an end.
	v, err := conf.VM(long)
	if err != nil {
		t.Fatal(err)
	}
	v.Tag = strings.Repeat("ü", config.MaxTag)
	tries := 0
	err = l.Disposable(t.Context(), reg, v, func(v config.VM) error {
		tries++
		if err := config.CheckName(v.Name); err != nil || utf8.RuneCountInString(v.Tag) > config.MaxTag || !strings.HasSuffix(v.Tag, fmt.Sprintf(" d%d", tries)) {
			t.Errorf("%+v: %v", v, err)
		}
		return vm.ErrTaken
	})
	if err == nil || tries != maxDisposable || !strings.Contains(err.Error(), "99 disposable VMs of it are running") {
		t.Errorf("%d tries: %v", tries, err)
	}
	if err := l.Disposable(t.Context(), reg, v, func(config.VM) error { return errNoParts }); !errors.Is(err, errNoParts) {
		t.Error(err)
	}
}

// Places that begin with "~" are the home directory's, or an error that names them.
func TestComplete(t *testing.T) {
	l, _ := testLauncher(t, "")
	v := config.VM{
		Name: "web", Kernel: "~/kernel", Initrd: "~/initrd", Root: config.RootImage + "~/disk",
		Shares: []config.Share{{Host: "~/notes", Guest: "/mnt/notes"}},
	}
	shares := slices.Clone(v.Shares)
	more := config.Share{Host: "/srv", Guest: "/mnt/srv"}
	got, err := l.Complete(v, more)
	if err != nil {
		t.Fatal(err)
	}
	in := func(name string) string { return filepath.Join(l.Dirs.Home, name) }
	if got.Kernel != in("kernel") || got.Initrd != in("initrd") || got.Root != config.RootImage+in("disk") ||
		len(got.Shares) != 2 || got.Shares[0].Host != in("notes") || got.Shares[1] != more {
		t.Errorf("%+v", got)
	}
	if !slices.Equal(v.Shares, shares) {
		t.Errorf("the configuration's own shares were changed: %+v", v.Shares)
	}
	l.Dirs.Home = ""
	if _, err := l.Complete(v); err == nil || err.Error() != "~/kernel: HOME is not set; give the folder's full path" {
		t.Error(err)
	}
	v.Kernel = ""
	if _, err := l.Complete(v); err == nil || !strings.Contains(err.Error(), "initrd is set but kernel is not") {
		t.Error(err)
	}
}

// What Vix keeps of its own is named where anything names it, by its real path.
func TestPrivate(t *testing.T) {
	l, _ := testLauncher(t, "")
	real := filepath.Join(l.Dirs.Runtime, "elsewhere")
	if err := errors.Join(os.MkdirAll(real, 0o700), os.Mkdir(l.Dirs.Home, 0o700), os.Symlink(real, l.Dirs.Cache)); err != nil {
		t.Fatal(err)
	}
	l.Dirs.State = ""
	want := []string{filepath.Join(l.Dirs.Config, "vix"), filepath.Join(real, "vix"), l.Dirs.Runtime}
	if got := l.private(); !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	if _, err := (Dirs{}).Roots(); err == nil || err.Error() != "neither XDG_CACHE_HOME nor HOME is set" {
		t.Error(err)
	}
}

// A VM that an error in config.toml disables starts for nobody, and nothing of it starts
// elsewhere; its folders stay its own.
func TestStartOfDisabledVM(t *testing.T) {
	l, reg := testLauncher(t, `
[vm.web]
memory = 1
programs = ["edit"]
shares = ["/srv/web:rw"]
[vm.other]
`)
	want := `VM web is disabled: config.toml:3: vm.web.memory: want a size in quotes, with its unit, such as "512M" or "2G", not 1`
	for _, r := range []Request{
		{VM: "web", App: "editor"}, {VM: "web", Argv: []string{"true"}}, {VM: "web", Argv: []string{"true"}, Disposable: true},
		{VM: "web", App: "editor", Action: desktop.ActionDisposable}, {VM: "web", App: "editor", Action: desktop.ActionShell},
	} {
		var off *config.DisabledError
		if err := l.Start(t.Context(), reg, r); !errors.As(err, &off) || err.Error() != want {
			t.Errorf("%+v: %v, want %s", r, err, want)
		}
	}
	if err := l.Start(t.Context(), reg, Request{VM: "other", App: "editor"}); err == nil || err.Error() != "VM other: "+errNoParts.Error() {
		t.Error(err)
	}
	conf, err := l.Config()
	if err != nil {
		t.Fatal(err)
	}
	if list := l.OtherShares(conf, "other"); len(list) != 1 || list[0] != (vm.SharedFolder{VM: "web", Host: "/srv/web", Write: true}) {
		t.Errorf("%+v", list)
	}
	l.Config = func() (*config.Config, error) { return config.Parse("config.toml", []byte("[")) }
	if err := l.Start(t.Context(), reg, Request{VM: "web", Action: desktop.ActionStop}); err == nil || strings.Contains(err.Error(), "config.toml") {
		t.Errorf("stop: %v", err)
	}
}
