// Command testsum runs `go test -json` commands and says what matters: the
// output of failed tests, why tests were skipped, and the closing counts.
//
//	testsum [-complete] [-v] [-show REGEXP] [-again N] [-steady REGEXP] [-out DIR] -- CMD ARG... [-- CMD ARG...]...
//
// It ends with status 1 if a test or a build failed, if a test was skipped
// without a stated reason, or if nothing ran. With -complete a test that was
// skipped because the machine lacks something ("lacks: …") has failed too. With
// -show it prints matching lines of any test's output. The raw events of the n-th
// command are kept in DIR/n.json.
//
// Tests that boot emulated VMs share two processors with whatever else runs. With
// -again, up to N tests that failed run once more, alone; one that then passes is
// named as unsteady in the closing lines, with its failure's output above. A data
// race, a crash, a time-out of a whole package and tests that match -steady get no
// second try.
package main

import (
	"bufio"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() {
	complete := flag.Bool("complete", false, "a test skipped for what the machine lacks has failed")
	verbose := flag.Bool("v", false, "print every test's name and output")
	show := flag.String("show", "", "print output lines that match `regexp`")
	again := flag.Int("again", 0, "up to `N` failed tests have a second try, alone")
	steady := flag.String("steady", "", "tests that match `regexp` have none")
	out := flag.String("out", "", "`directory` for the raw events")
	flag.Parse()
	s := newSummary(os.Stdout)
	s.complete, s.verbose, s.again = *complete, *verbose, *again
	if *show != "" {
		s.show = regexp.MustCompile(*show)
	}
	if *steady != "" {
		s.steady = regexp.MustCompile(*steady)
	}
	for i, argv := range split(flag.Args()) {
		if err := s.run(argv, rawFile(*out, i+1)); err != nil {
			s.problem(err.Error())
		}
		s.secondTries(argv)
	}
	os.Exit(s.close())
}

// split cuts args into commands at "--".
func split(args []string) [][]string {
	var cmds [][]string
	for {
		i := slices.Index(args, "--")
		if i < 0 {
			if len(args) > 0 {
				cmds = append(cmds, args)
			}
			return cmds
		}
		if i > 0 {
			cmds = append(cmds, args[:i])
		}
		args = args[i+1:]
	}
}

func rawFile(dir string, n int) string {
	if dir == "" {
		return os.DevNull
	}
	return filepath.Join(dir, fmt.Sprintf("%d.json", n))
}

// An event is a line of test2json (go doc cmd/test2json).
type event struct {
	Action     string
	Package    string
	ImportPath string // of build-output and build-fail
	Test       string
	Elapsed    float64
	Output     string
}

type summary struct {
	complete, verbose bool
	show              *regexp.Regexp
	w                 io.Writer

	lines                   map[string][]string // output of what has not ended yet, by package and test
	parents                 map[string]bool     // tests that have subtests: they are not counted
	failed                  map[string]bool     // packages of which a failure has been shown
	passes, fails, skipsN   int
	problems, skips, failsN []string

	again    int // second tries that are left
	steady   *regexp.Regexp
	raced    map[string]bool // failed tests whose output tells of a data race
	unsteady []string
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, lines: map[string][]string{}, parents: map[string]bool{}, failed: map[string]bool{}, raced: map[string]bool{}}
}

func (s *summary) run(argv []string, raw string) error {
	f, err := os.Create(raw)
	if err != nil {
		return err
	}
	defer f.Close()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stderr = os.Stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	begin, before := time.Now(), s.total()
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(io.TeeReader(pipe, f))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		s.line(lines.Bytes())
	}
	scanErr := lines.Err()
	waitErr := cmd.Wait()
	fmt.Fprintf(s.w, "%s: %.0f s\n", strings.Join(argv[:min(2, len(argv))], " "), time.Since(begin).Seconds())
	switch {
	case scanErr != nil:
		return scanErr
	case waitErr != nil && s.fails == 0 && len(s.problems) == 0:
		return fmt.Errorf("%s: %w", argv[0], waitErr)
	case s.total() == before && waitErr == nil:
		return fmt.Errorf("%s: no test ran", strings.Join(argv, " "))
	}
	return nil
}

func (s *summary) total() int { return s.passes + s.fails + s.skipsN }

func (s *summary) line(b []byte) {
	var e event
	if json.Unmarshal(b, &e) != nil {
		fmt.Fprintf(s.w, "%s\n", b)
		return
	}
	key := e.Package + " " + e.Test
	switch e.Action {
	case "run":
		if i := strings.LastIndexByte(e.Test, '/'); i >= 0 {
			s.parents[e.Package+" "+e.Test[:i]] = true
		}
	case "build-output":
		fmt.Fprint(s.w, e.Output)
	case "build-fail":
		s.problem("build failed: " + e.ImportPath)
	case "output":
		if s.verbose || s.show != nil && s.show.MatchString(e.Output) {
			fmt.Fprint(s.w, e.Output)
		}
		s.lines[key] = append(s.lines[key], e.Output)
	case "pass", "fail", "skip":
		s.end(e, key)
		delete(s.lines, key)
	}
}

// end counts what has ended: a test, or a package when e.Test is empty.
func (s *summary) end(e event, key string) {
	out := strings.Join(s.lines[key], "")
	if e.Test == "" {
		switch {
		case e.Action == "fail" && !s.failed[e.Package]:
			// Not one of its tests failed: it crashed, timed out or did not build.
			fmt.Fprint(s.w, out)
			s.problem(e.Package + ": failed outside its tests")
		case e.Action == "pass":
			fmt.Fprintf(s.w, "ok    %-34s %6.1f s\n", e.Package, e.Elapsed)
		case e.Action == "fail":
			fmt.Fprintf(s.w, "FAIL  %-34s %6.1f s\n", e.Package, e.Elapsed)
		}
		return
	}
	if s.parents[key] && e.Action != "fail" {
		return
	}
	name := e.Package + " " + e.Test
	switch e.Action {
	case "pass":
		s.passes++
	case "fail":
		if !s.verbose {
			fmt.Fprint(s.w, out)
		}
		s.failed[e.Package] = true
		s.raced[name] = strings.Contains(out, "DATA RACE")
		if !s.parents[key] {
			s.fails++
			s.failsN = append(s.failsN, name)
		} else if !slices.ContainsFunc(s.failsN, func(f string) bool { return strings.HasPrefix(f, name+"/") }) {
			s.fails++ // the parent's own failure
			s.failsN = append(s.failsN, name)
		}
	case "skip":
		s.skip(name, out)
	}
}

// A reason is a log line of the test: "    file_test.go:12: text".
var reason = regexp.MustCompile(`(?m)^\s*\S+\.go:\d+: (.*\S)`)

func (s *summary) skip(name, out string) {
	s.skipsN++
	m := reason.FindAllStringSubmatch(out, -1)
	if m == nil {
		s.problem(name + ": skipped without a reason")
		return
	}
	why := m[len(m)-1][1]
	if s.complete && strings.HasPrefix(why, "lacks: ") {
		s.problem(name + ": skipped, " + why)
		return
	}
	s.skips = append(s.skips, name+": "+why)
}

func (s *summary) problem(text string) { s.problems = append(s.problems, text) }

// secondTries runs what failed once more, unless it is too much, or something is wrong
// that a second try must not hide.
func (s *summary) secondTries(argv []string) {
	if len(s.problems) > 0 || len(s.failsN) == 0 || len(s.failsN) > s.again {
		return
	}
	for _, name := range slices.Clone(s.failsN) {
		pkg, test, _ := strings.Cut(name, " ")
		top, _, _ := strings.Cut(test, "/")
		if s.raced[name] || s.raced[pkg+" "+top] || s.steady != nil && s.steady.MatchString(top) {
			continue
		}
		fmt.Fprintf(s.w, "once more, alone: %s\n", name)
		second := newSummary(s.w)
		second.complete, second.verbose, second.show = s.complete, s.verbose, s.show
		err := second.run(alone(argv, pkg, top), os.DevNull)
		if err != nil || second.fails+len(second.problems) > 0 || second.passes == 0 {
			continue
		}
		s.again--
		s.fails--
		s.passes++
		s.failsN = slices.DeleteFunc(s.failsN, func(f string) bool { return f == name })
		s.unsteady = append(s.unsteady, name)
	}
}

// alone is the command that runs one test of what argv runs.
func alone(argv []string, pkg, test string) []string {
	last := len(argv)
	for last > 0 && (strings.HasPrefix(argv[last-1], "./") || strings.HasPrefix(argv[last-1], "vix/")) {
		last--
	}
	return append(slices.Clone(argv[:last]), "-count=1", "-run", "^"+test+"$", pkg)
}

// close prints the closing lines and returns the exit status.
func (s *summary) close() int {
	if s.total() == 0 && len(s.problems) == 0 {
		s.problem("no test ran")
	}
	for _, l := range s.skips {
		fmt.Fprintf(s.w, "skipped: %s\n", l)
	}
	for _, l := range s.unsteady {
		fmt.Fprintf(s.w, "unsteady: %s: failed, and passed alone; find out why\n", l)
	}
	for _, l := range s.failsN {
		fmt.Fprintf(s.w, "failed: %s\n", l)
	}
	for _, l := range s.problems {
		fmt.Fprintf(s.w, "problem: %s\n", l)
	}
	fmt.Fprintf(s.w, "%d passed, %d failed, %d skipped\n", s.passes, s.fails+len(s.problems), s.skipsN)
	if s.fails+len(s.problems) > 0 {
		return 1
	}
	return 0
}
