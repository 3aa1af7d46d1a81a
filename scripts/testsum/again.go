package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
)

// An excuse is why a test may fail once, if it then passes alone.
type excuse struct{ date, reason string }

// excuse reads the tests that are excused. A line of the file is
//
//	PACKAGE TEST DATE REASON
//
// where TEST may be a subtest's name, and DATE is that of the line (2006-01-02).
// Empty lines and those that begin with "#" say nothing.
func (s *summary) excuse(path string) error {
	if path == "" {
		return nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	s.excuses, err = parseExcuses(string(text))
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func parseExcuses(text string) (map[string]excuse, error) {
	excuses := map[string]excuse{}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		f := strings.Fields(line)
		if len(f) < 4 {
			return nil, fmt.Errorf("line %d: want PACKAGE TEST DATE REASON", n)
		}
		if _, err := time.Parse(time.DateOnly, f[2]); err != nil {
			return nil, fmt.Errorf("line %d: %w", n, err)
		}
		excuses[f[0]+" "+f[1]] = excuse{date: f[2], reason: strings.Join(f[3:], " ")}
	}
	return excuses, nil
}

// secondTries runs the tests of argv that failed once more, unless they are too many or
// the failure needs no diagnosis: a crash, a data race, a package out of time.
func (s *summary) secondTries(argv []string) {
	tests := s.untried()
	if len(s.problems) > 0 || len(tests) > s.again {
		return
	}
	for _, test := range tests {
		s.again--
		fmt.Fprintf(s.w, "once more, alone: %s\n", test)
		second := newSummary(s.w)
		second.complete, second.verbose, second.show = s.complete, s.verbose, s.show
		pkg, name, _ := strings.Cut(test, " ")
		err := second.run(alone(argv, pkg, name), os.DevNull)
		s.artifacts = append(s.artifacts, second.artifacts...)
		if err != nil || len(second.problems) > 0 || second.passes == 0 {
			continue
		}
		for _, failed := range slices.Clone(s.failsN) {
			if topLevel(failed) == test && !slices.Contains(second.failsN, failed) {
				s.passedAlone(failed)
			}
		}
	}
}

// untried returns the top-level tests that failed and have had no second try.
func (s *summary) untried() []string {
	var tests []string
	for _, name := range s.failsN {
		top := topLevel(name)
		if !s.raced[name] && !s.raced[top] && !s.tried[top] {
			s.tried[top] = true
			tests = append(tests, top)
		}
	}
	return tests
}

// topLevel is the test that name, a package and a test, is part of.
func topLevel(name string) string {
	top, _, _ := strings.Cut(name[strings.IndexByte(name, ' ')+1:], "/")
	return name[:strings.IndexByte(name, ' ')+1] + top
}

func (s *summary) passedAlone(name string) {
	s.unsteady = append(s.unsteady, name)
	if _, ok := s.excuses[name]; ok {
		s.fails--
		s.passes++
		s.failsN = slices.DeleteFunc(s.failsN, func(f string) bool { return f == name })
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
