// Command testsum runs `go test -json` commands and says what matters: the
// output of failed tests, why tests were skipped, and the closing counts.
//
//	testsum [-complete] [-v] [-show REGEXP] [-again N] [-excused FILE] [-out DIR] -- CMD ARG... [-- CMD ARG...]...
//
// It ends with status 1 if a test or a build failed, if a test was skipped
// without a stated reason, or if nothing ran. With -complete a test that was
// skipped because the machine lacks something ("lacks: …") has failed too. With
// -show it prints matching lines of any test's output. The raw events of the n-th
// command are kept in DIR/n.json.
//
// With -again, up to N tests that failed run once more, alone. That is a diagnosis:
// a test that then passes is named as unsteady, and has failed all the same, unless
// FILE excuses it (again.go). What a failed test kept of its VMs and processes
// (testing.T.ArtifactDir) is named in the closing lines.
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
	excused := flag.String("excused", "", "`file` of tests that may fail once")
	out := flag.String("out", "", "`directory` for the raw events")
	flag.Parse()
	s := newSummary(os.Stdout)
	s.complete, s.verbose, s.again = *complete, *verbose, *again
	if *show != "" {
		s.show = regexp.MustCompile(*show)
	}
	if err := s.excuse(*excused); err != nil {
		s.problem(err.Error())
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
	Path       string // of artifacts: a directory
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

	again     int // second tries that are left
	excuses   map[string]excuse
	raced     map[string]bool // failed tests whose output tells of a data race
	tried     map[string]bool // top-level tests that have had a second try
	unsteady  []string        // tests that failed, and passed alone
	artifacts []string        // tests that kept files, and the directory of each
}

func newSummary(w io.Writer) *summary {
	return &summary{w: w, lines: map[string][]string{}, parents: map[string]bool{}, failed: map[string]bool{}, raced: map[string]bool{}, tried: map[string]bool{}}
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
	case "artifacts":
		s.artifacts = append(s.artifacts, key+": "+e.Path)
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

// close prints the closing lines and returns the exit status.
func (s *summary) close() int {
	if s.total() == 0 && len(s.problems) == 0 {
		s.problem("no test ran")
	}
	for _, l := range s.skips {
		fmt.Fprintf(s.w, "skipped: %s\n", l)
	}
	for _, l := range s.unsteady {
		if x, ok := s.excuses[l]; ok {
			fmt.Fprintf(s.w, "unsteady: %s: failed, and passed alone; excused since %s: %s\n", l, x.date, x.reason)
			continue
		}
		fmt.Fprintf(s.w, "unsteady: %s: failed, and passed alone; find out why\n", l)
	}
	for _, l := range s.failsN {
		fmt.Fprintf(s.w, "failed: %s\n", l)
	}
	for _, l := range s.artifacts {
		fmt.Fprintf(s.w, "kept: %s\n", l)
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
