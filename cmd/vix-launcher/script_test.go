package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"

	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"github.com/rogpeppe/go-internal/testscript"
)

// The test binary doubles as vix-launcher and as the programs beside it, where only their
// existence counts.
func TestMain(m *testing.M) {
	// Under nohup SIGHUP is ignored, and programs inherit that; one that is caught is not.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGHUP)
	testscript.Main(cleaner{m}, map[string]func(){
		"vix":              main,
		"vix-launcher":     main,
		"vix-waylandproxy": func() {},
		"vix-guest":        func() {},
		"confined-copy":    confinedCopy,
	})
}

// cleaner removes directories that tests share.
type cleaner struct{ m *testing.M }

func (c cleaner) Run() int {
	code := c.m.Run()
	os.RemoveAll(cacheDir())
	if !testing.Short() {
		if dir, _ := build(); dir != "" {
			os.RemoveAll(dir)
		}
	}
	return code
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata",
		Setup: func(e *testscript.Env) error {
			// The path is short, for sockets, and has none of the machine's own files.
			dir, err := os.MkdirTemp("", "vix")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("RUN", dir)
			launcher, err := exec.LookPath("vix-launcher") // for scripts that change PATH
			if err != nil {
				return err
			}
			e.Setenv("LAUNCHER", launcher)
			e.Setenv("XDG_RUNTIME_DIR", dir)
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("WAYLAND_DISPLAY", "wayland-9")
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": scriptStatus},
		Condition: func(cond string) (bool, error) {
			if cond != "landlock" {
				return false, fmt.Errorf("unknown condition %q", cond)
			}
			_, err := landlocksys.LandlockGetABIVersion()
			return err == nil, nil
		},
	})
}

// scriptStatus is "status N CMD ARG…": CMD ends with N and, if it fails, prints exactly one
// line on standard error that begins with its name, besides the note about missing KVM.
func scriptStatus(ts *testscript.TestScript, neg bool, args []string) {
	want, err := strconv.Atoi(args[0])
	if err != nil || neg || len(args) < 2 {
		ts.Fatalf("usage: status N CMD ARG…")
	}
	code := 0
	var ee *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &ee) {
		code = ee.ExitCode()
	} else if err != nil {
		ts.Fatalf("%v", err)
	}
	stderr := ts.ReadFile("stderr")
	if code != want {
		ts.Fatalf("status %d, want %d: %s", code, want, stderr)
	}
	if note, rest, ok := strings.Cut(stderr, "\n"); ok && strings.Contains(note, "no KVM, so VM ") {
		stderr = rest
	}
	if code != 0 && (strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "vix: ")) {
		ts.Fatalf("not one line: %q", stderr)
	}
}
