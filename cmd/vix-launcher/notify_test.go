package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"vix/internal/desktop"
	"vix/internal/desktoptest"
)

// keyEnv is what a key of the compositor starts run with, on a machine with a broken
// config.toml.
func keyEnv(t *testing.T, bus string, alone bool) (*env, *bytes.Buffer) {
	t.Helper()
	dir := t.TempDir()
	conf := filepath.Join(dir, ".config/vix")
	if err := os.MkdirAll(conf, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(conf, "config.toml"), []byte("[defaults]\nmemory = \"much\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var errs bytes.Buffer
	return &env{
		getenv: func(name string) string {
			return map[string]string{"HOME": dir, "XDG_RUNTIME_DIR": dir, "DBUS_SESSION_BUS_ADDRESS": bus}[name]
		},
		environ: func() []string { return nil }, self: func() (string, error) { return "/vix-launcher", nil },
		stdin: strings.NewReader(""), stdout: &bytes.Buffer{}, stderr: &errs,
		unattended: func() bool { return alone },
	}, &errs
}

// A failure of run or menu, which a key has started, is shown as a notification. On a
// terminal it is not, unless it is asked for.
func TestFailureIsShown(t *testing.T) {
	if lacks := desktoptest.Lacks() + desktoptest.LacksBus(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	d := desktoptest.Start(t, desktoptest.Config{})
	bus := d.StartBus(t, "")
	d.Mako(t)
	conn, err := desktop.DialBus(t.Context(), bus)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	n := desktop.NewNotifier(conn)
	for _, tt := range []struct {
		alone bool
		args  string
		code  int
		want  string // "" for none
	}{
		{true, "run --background /usr/bin/foot", 125, `vix run foot failed: .*memory`},
		{false, "run --background foot", 125, ""},
		{false, "run --notify foot", 125, `vix run foot failed: .*memory`},
		{true, "run --no-notify foot", 125, ""},
		{true, "run --bogus foot", 2, `vix run failed: run: unknown flag: --bogus`},
		{true, "run --notify --no-notify foot", 2, ""},
		{true, "menu", 1, `vix menu failed: vix-menu is neither beside`},
		{true, "list --bogus", 2, ""},
	} {
		e, errs := keyEnv(t, bus, tt.alone)
		code := run(strings.Fields(tt.args), e)
		if code != tt.code || strings.Count(errs.String(), "\n") != 1 {
			t.Errorf("%s: status %d, want %d: %q", tt.args, code, tt.code, errs)
		}
		var shown []map[string]dbus.Variant
		if err := conn.Object("org.freedesktop.Notifications", "/fr/emersion/Mako").Call("fr.emersion.Mako.ListNotifications", 0).Store(&shown); err != nil {
			t.Fatal(err)
		}
		var texts []string
		for _, s := range shown {
			texts = append(texts, fmt.Sprint(s["summary"].Value(), ": ", s["body"].Value()))
			if err := n.Close(t.Context(), s["id"].Value().(uint32)); err != nil {
				t.Error(err)
			}
		}
		first, rest, _ := strings.Cut(tt.want, ".*")
		ok := func(s string) bool { return strings.HasPrefix(s, first) && strings.Contains(s, rest) }
		if tt.want == "" && len(texts) > 0 || tt.want != "" && (len(texts) != 1 || !slices.ContainsFunc(texts, ok)) {
			t.Errorf("%s: shown %q, want %q", tt.args, texts, tt.want)
		}
	}
}

// Neither a bus that is not there nor one that does not answer keeps a failure from the
// caller.
func TestFailureWithoutBus(t *testing.T) {
	dir, err := os.MkdirTemp("", "vix") // short, for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	hung, err := net.Listen("unix", filepath.Join(dir, "bus")) // it accepts nobody
	if err != nil {
		t.Fatal(err)
	}
	defer hung.Close()
	for _, bus := range []string{"", "unix:path=" + filepath.Join(dir, "none"), "unix:path=" + filepath.Join(dir, "bus"), "nonsense"} {
		for _, args := range []string{"run foot", "run --notify foot"} {
			e, errs := keyEnv(t, bus, true)
			if code := run(strings.Fields(args), e); code != 125 || !strings.Contains(errs.String(), "memory") || strings.Count(errs.String(), "\n") != 1 {
				t.Errorf("%s, bus %q: status %d: %q", args, bus, code, errs)
			}
		}
	}
}

// What a person needs to hear once a day is told once a day, for as long as it can be noted.
func TestFirstToday(t *testing.T) {
	e, _ := keyEnv(t, "", false)
	day := time.Date(2026, 11, 28, 10, 0, 0, 0, time.Local)
	for i, tt := range []struct {
		at   time.Time
		want bool
	}{{day, true}, {day.Add(time.Hour), false}, {day.AddDate(0, 0, 1), true}, {day.AddDate(0, 0, 1), false}, {day, true}} {
		if got := e.firstToday(slowStamp, tt.at); got != tt.want {
			t.Errorf("%d: %v, %v", i, tt.at, got)
		}
	}
	state := filepath.Join(e.getenv("HOME"), ".local/state/vix")
	if err := os.RemoveAll(state); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(state, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if !e.firstToday(slowStamp, day) {
			t.Error("not told, and not noted")
		}
	}
}
