package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/spf13/cobra"

	"vix/internal/logtest"
)

// TestVMScripts runs the scripts that need a VM, on the real programs.
func TestVMScripts(t *testing.T) {
	r := newRig(t)
	testscript.Run(t, testscript.Params{
		Dir: filepath.Join("testdata", "vm"),
		Setup: func(e *testscript.Env) error {
			for _, kv := range r.env {
				name, value, _ := strings.Cut(kv, "=")
				e.Setenv(name, value)
			}
			// Scripts run side by side, and each has VMs of its own.
			run, err := os.MkdirTemp(r.dir, "run")
			if err != nil {
				return err
			}
			logtest.Watch(t, run)
			e.Setenv("XDG_RUNTIME_DIR", run)
			e.Setenv("PATH", r.bin+":/usr/bin:/bin")
			e.Setenv("XDG_STATE_HOME", filepath.Join(e.WorkDir, "state"))
			e.Setenv("LONG", strings.Repeat("a", 300))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"status": scriptStatus},
	})
}

// lists are the verbs that list something, so they must have JSON output too.
var lists = []string{"list", "status", "df", "top", "usb list", "menu", "desktop list", "doctor", "clipboard status", "config show"}

// elsewhere are tests of good uses that no script can show: they need a package archive, a
// window, or QEMU's USB devices.
var elsewhere = map[string]string{
	"add": "add_vm_test.go", "usb attach": "usb_vm_test.go", "usb detach": "usb_vm_test.go", "doctor": "vm_test.go",
	"trace": "../../e2e/window_test.go", "clipboard copy": "../../e2e/clipboard/acts_test.go", "clipboard paste": "../../e2e/clipboard/acts_test.go",
}

// Every verb has a script with a good and a bad use, help with examples, a section in the man
// page, and completion of its arguments.
func TestEveryVerb(t *testing.T) {
	used := usesInScripts(t)
	b, err := os.ReadFile("../../packaging/man/vix.1.scd")
	if err != nil {
		t.Fatal(err)
	}
	man := string(b)
	root := command(osEnv())
	verbs := leaves(root)
	if len(verbs) < 30 {
		t.Fatalf("only %d verbs", len(verbs))
	}
	for _, c := range verbs {
		name := strings.TrimSuffix(verbOf(c), ": ")
		words := strings.Fields(name)
		u := used[name]
		if file := elsewhere[name]; file != "" {
			b, err := os.ReadFile(file)
			u.good = err == nil && bytes.Contains(b, []byte(`"`+words[len(words)-1]+`"`))
		}
		if !u.good || !u.bad {
			t.Errorf("%s: a good use in a script: %v, a bad one: %v; see testdata", name, u.good, u.bad)
		}
		if section := "\n*" + words[0] + "*"; !strings.Contains(man, section) || !strings.Contains(man, "*"+words[len(words)-1]+"*") && !strings.Contains(man, words[len(words)-1]) {
			t.Errorf("%s: not in the man page", name)
		}
		var out, errs bytes.Buffer
		e := &env{getenv: func(string) string { return "" }, environ: func() []string { return nil }, stdin: strings.NewReader(""), stdout: &out, stderr: &errs}
		if code := run(append(words, "--help"), e); code != 0 || !strings.Contains(out.String(), "Usage:") || !strings.Contains(out.String(), "Examples:") {
			t.Errorf("%s --help: status %d, no usage or no examples: %s%s", name, code, out.String(), errs.String())
		}
		if c.Args != nil && c.Args(c, []string{"x"}) == nil && c.ValidArgsFunction == nil && len(c.ValidArgs) == 0 {
			t.Errorf("%s: takes arguments, and completes none", name)
		}
	}
	for _, name := range lists {
		c, _, err := root.Find(strings.Fields(name))
		if err != nil || c.Flags().Lookup("json") == nil {
			t.Errorf("%s: lists, but not with --json", name)
		}
	}
}

// leaves returns the verbs; subverbs replace their parent.
func leaves(c *cobra.Command) (list []*cobra.Command) {
	for _, sub := range c.Commands() {
		switch {
		case sub.Hidden || sub.Name() == "help":
		case sub.HasSubCommands():
			list = append(list, leaves(sub)...)
		case sub.Runnable():
			list = append(list, sub)
		}
	}
	return list
}

type uses struct{ good, bad bool }

// scriptLine matches a use of a verb in a script: its expected status, and its words.
var scriptLine = regexp.MustCompile(`(?m)^(! exec|exec|status \d+) (?:sh -c ')?vix ([a-z]+)(?: ([a-z]+))?(.*)$`)

func usesInScripts(t *testing.T) map[string]uses {
	t.Helper()
	files, _ := filepath.Glob(filepath.Join("testdata", "*.txtar"))
	more, _ := filepath.Glob(filepath.Join("testdata", "vm", "*.txtar"))
	found := map[string]uses{}
	for _, file := range append(files, more...) {
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range scriptLine.FindAllStringSubmatch(string(b), -1) {
			if strings.Contains(m[4], "--help") {
				continue
			}
			good := m[1] == "exec" || m[1] == "status 0" || strings.HasPrefix(m[0], "! exec vix shell t") // a shell passes the status on
			for _, name := range []string{m[2], m[2] + " " + m[3]} {
				u := found[name]
				u.good, u.bad = u.good || good, u.bad || !good
				found[name] = u
			}
		}
	}
	return found
}
