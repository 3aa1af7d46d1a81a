package main

import (
	"regexp"
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
