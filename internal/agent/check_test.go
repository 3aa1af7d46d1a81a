package agent

import (
	"strings"
	"testing"
)

// Requests are checked before they are sent.
func TestSpawnCheck(t *testing.T) {
	for _, c := range []struct {
		s    Spawn
		want string
	}{
		{Spawn{ID: 1, Argv: []string{"ls"}}, ""},
		{Spawn{ID: 1, Argv: []string{"ls"}, User: "root"}, ""},
		{Spawn{ID: 1, Argv: []string{"ls"}, User: "1000"}, ""},
		{Spawn{ID: 1, Kind: KindShell}, ""},
		{Spawn{ID: 1, Kind: KindShell, Argv: []string{"-c", "x"}}, ""},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{Send: &Send{Paths: []string{"a"}}}}, ""},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{Send: &Send{Paths: []string{"a"}}}, TTY: true}, "on a terminal"},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{Send: &Send{Paths: []string{"a"}}}, Argv: []string{"x"}}, "with arguments"},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{Unmount: &Unmount{Path: "/a"}}, User: "root"}, ""},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{Unmount: &Unmount{Path: "/a"}}}, `umount for user "", not root`},
		{Spawn{ID: 1, Kind: KindRequest, Argv: []string{"x"}}, "one without the other"},
		{Spawn{ID: 1, Request: &Request{Menu: &Menu{}}, Argv: []string{"x"}}, "one without the other"},
		{Spawn{ID: 1, Kind: KindRequest, Request: &Request{}}, "for 0 things"},
		{Spawn{ID: 1}, "no program named"},
		{Spawn{ID: 1, Argv: []string{""}}, "no program named"},
		{Spawn{ID: 1, Kind: "other", Argv: []string{"x"}}, `unknown kind "other"`},
		{Spawn{ID: 1, Argv: []string{"x"}, User: "../x"}, `user "../x": not a name`},
		{Spawn{ID: 1, Argv: []string{"x"}, User: strings.Repeat("u", 33)}, "not a name"},
		{Spawn{ID: 1, Argv: []string{"x"}, Cwd: "/\xff"}, ""},
		{Spawn{ID: 1, Argv: []string{"x"}, Cwd: "/a\x00"}, "NUL"},
		{Spawn{Argv: []string{"x"}}, "ids begin at 1"},
	} {
		err := c.s.check()
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q", c.s, err, c.want)
		}
	}
	if n := (Spawn{Kind: KindShell}).name(); n != "login shell" {
		t.Errorf("%q", n)
	}
}
