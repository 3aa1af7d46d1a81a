package main

import (
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

func TestSummary(t *testing.T) {
	const begin = `{"Action":"start","Package":"p"}` + "\n"
	for _, c := range []struct {
		name, in string
		complete bool
		code     int
		says     []string
	}{
		{name: "passes", in: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/sub"}
{"Action":"pass","Package":"p","Test":"A/sub"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`, says: []string{"1 passed, 0 failed, 0 skipped"}},
		{name: "fails in a subtest", in: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/sub"}
{"Action":"output","Package":"p","Test":"A/sub","Output":"    a_test.go:3: broken\n"}
{"Action":"fail","Package":"p","Test":"A/sub"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, code: 1, says: []string{"broken", "failed: p A/sub", "0 passed, 1 failed, 0 skipped"}},
		{name: "fails outside its subtests", in: `{"Action":"run","Package":"p","Test":"A"}
{"Action":"run","Package":"p","Test":"A/sub"}
{"Action":"pass","Package":"p","Test":"A/sub"}
{"Action":"fail","Package":"p","Test":"A"}
{"Action":"fail","Package":"p"}`, code: 1, says: []string{"failed: p A\n", "1 passed, 1 failed, 0 skipped"}},
		{name: "crashes", in: `{"Action":"output","Package":"p","Output":"panic: oh\n"}
{"Action":"fail","Package":"p"}`, code: 1, says: []string{"panic: oh", "1 failed"}},
		{name: "does not build", in: `{"ImportPath":"p","Action":"build-output","Output":"a.go:1: no\n"}
{"ImportPath":"p","Action":"build-fail"}`, code: 1, says: []string{"a.go:1: no", "1 failed"}},
		{name: "skips with a reason", in: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:3: KVM works here\n"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`, says: []string{"skipped: p A: KVM works here", "0 passed, 0 failed, 1 skipped"}},
		{name: "skips without a reason", in: `{"Action":"output","Package":"p","Test":"A","Output":"--- SKIP: A (0.00s)\n"}
{"Action":"skip","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`, code: 1, says: []string{"p A: skipped without a reason"}},
		{name: "lacks a part", complete: true, in: `{"Action":"output","Package":"p","Test":"A","Output":"    a_test.go:3: lacks: sway\n"}
{"Action":"skip","Package":"p","Test":"A"}`, code: 1, says: []string{"lacks: sway"}},
		{name: "shows a line", in: `{"Action":"output","Package":"p","Output":"threat 01: forges: held\n"}
{"Action":"output","Package":"p","Output":"another line\n"}
{"Action":"pass","Package":"p","Test":"A"}
{"Action":"pass","Package":"p"}`, says: []string{"threat 01: forges: held\nok"}},
		{name: "nothing ran", in: `{"Action":"skip","Package":"p"}`, code: 1, says: []string{"no test ran"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			s := newSummary(&out)
			s.complete, s.show = c.complete, regexp.MustCompile("^threat ")
			for l := range strings.Lines(begin + c.in) {
				s.line([]byte(strings.TrimSpace(l)))
			}
			if code := s.close(); code != c.code {
				t.Errorf("status %d, want %d", code, c.code)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("does not say %q:\n%s", text, out.String())
				}
			}
		})
	}
}

// A test that failed once has failed, though it passes in its second try, unless it is
// excused; what both tries kept is named.
func TestAgain(t *testing.T) {
	const failure = `{"Action":"artifacts","Package":"vix/p","Test":"TestA","Path":"/kept/1"}
{"Action":"output","Package":"vix/p","Test":"TestA","Output":"    a_test.go:3: oh\n"}
{"Action":"fail","Package":"vix/p","Test":"TestA"}
{"Action":"fail","Package":"vix/p"}
`
	const parts = `{"Action":"run","Package":"vix/p","Test":"TestA/one"}
{"Action":"run","Package":"vix/p","Test":"TestA/two"}
{"Action":"fail","Package":"vix/p","Test":"TestA/one"}
{"Action":"fail","Package":"vix/p","Test":"TestA/two"}
{"Action":"fail","Package":"vix/p","Test":"TestA"}
{"Action":"fail","Package":"vix/p"}
`
	const success = `{"Action":"pass","Package":"vix/p","Test":"TestA"}
{"Action":"pass","Package":"vix/p"}
`
	const excused = "# none of ours\nvix/p TestA 2026-11-28 the kernel is late\n"
	for _, c := range []struct {
		name, first, second, excuses string
		again, code                  int
		says                         []string
	}{
		{name: "passes then", first: failure, second: success, again: 1, code: 1, says: []string{"unsteady: vix/p TestA: failed, and passed alone; find out why", "failed: vix/p TestA", "kept: vix/p TestA: /kept/1", "0 passed, 1 failed"}},
		{name: "excused", first: failure, second: success, excuses: excused, again: 1, says: []string{"unsteady: vix/p TestA: failed, and passed alone; excused since 2026-11-28: the kernel is late", "1 passed, 0 failed"}},
		{name: "excused, fails again", first: failure, second: failure, excuses: excused, again: 1, code: 1, says: []string{"failed: vix/p TestA", "kept: vix/p TestA: /kept/1\nkept: vix/p TestA: /kept/1"}},
		{name: "another is excused", first: failure, second: success, excuses: "vix/p TestB 2026-11-28 late", again: 1, code: 1, says: []string{"failed: vix/p TestA"}},
		{name: "no second tries", first: failure, second: success, excuses: excused, code: 1, says: []string{"failed: vix/p TestA"}},
		{name: "raced", first: strings.Replace(failure, "oh", "WARNING: DATA RACE", 1), second: success, excuses: excused, again: 1, code: 1, says: []string{"failed: vix/p TestA"}},
		{name: "two parts have one try", first: parts, second: success, again: 1, code: 1, says: []string{"unsteady: vix/p TestA/one", "unsteady: vix/p TestA/two", "2 failed"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range map[string]string{"first": c.first, "second": c.second, "excuses": c.excuses} {
				if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			// Stands for go test: what it prints depends on whether it is to run one test.
			const script = `case "$*" in *-run*) cat "$0/second" ;; *) cat "$0/first"; exit 1 ;; esac`
			argv := []string{"sh", "-c", script, dir, "-race", "vix/p", "./q/..."}
			var out strings.Builder
			s := newSummary(&out)
			s.again = c.again
			if err := errors.Join(s.excuse(filepath.Join(dir, "excuses")), s.run(argv, os.DevNull)); err != nil {
				t.Fatal(err)
			}
			s.secondTries(argv)
			s.secondTries(argv) // of the next command
			if code := s.close(); code != c.code {
				t.Errorf("status %d, want %d", code, c.code)
			}
			for _, text := range c.says {
				if !strings.Contains(out.String(), text) {
					t.Errorf("does not say %q:\n%s", text, out.String())
				}
			}
			if n := strings.Count(out.String(), "once more"); n > 1 {
				t.Errorf("%d second tries", n)
			}
		})
	}
	got := alone([]string{"go", "test", "-p", "1", "vix/p", "./q/..."}, "vix/p", "TestA")
	if want := []string{"go", "test", "-p", "1", "-count=1", "-run", "^TestA$", "vix/p"}; !slices.Equal(got, want) {
		t.Errorf("alone: %q", got)
	}
}

func TestExcusesAreChecked(t *testing.T) {
	for _, text := range []string{"vix/p TestA", "vix/p TestA 2026-11-28", "vix/p TestA yesterday it was late", "# fine\n\nvix/p TestA 2026-13-01 late"} {
		if _, err := parseExcuses(text); err == nil {
			t.Errorf("%q: no error", text)
		}
	}
}

// The list of excused tests may become shorter, and this number with it. An attack that
// was held only in the second try was not held.
func TestExcusesDoNotGrow(t *testing.T) {
	const most = 0
	text, err := os.ReadFile("unsteady")
	if err != nil {
		t.Fatal(err)
	}
	excuses, err := parseExcuses(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if len(excuses) > most {
		t.Errorf("%d tests are excused, and may be %d: mend one instead", len(excuses), most)
	}
	for name := range excuses {
		if strings.Contains(name, " TestThreat") || strings.Contains(name, " TestAttack") {
			t.Errorf("%s: an attack cannot be excused", name)
		}
	}
}
