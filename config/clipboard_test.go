package config

import (
	"strings"
	"testing"
	"time"
)

func TestClipboard(t *testing.T) {
	c, err := Parse("f", []byte(`
[clipboard]
ttl = "10s"
moment = "1s"
history = "on"
[[clipboard.rule]]
from = "vault"
to = "*"
action = "deny"
[[clipboard.rule]]
from = "work"
to = "host"
action = "ask"
kinds = ["text", "html"]
limit = "1M"
strip = false
ttl = "5s"
[[clipboard.rule]]
from = "*"
to = "vault"
action = "allow"
`))
	if err != nil {
		t.Fatal(err)
	}
	k := c.Clipboard
	if k.TTL != 10*time.Second || k.Moment != time.Second || !k.History {
		t.Errorf("%+v", k)
	}
	for _, w := range []struct {
		from, to, kind string
		action         string
		may            int64
	}{
		{"vault", "host", "text", "deny", 0},
		{"vault", "vault", "text", "deny", 0},
		{"work", "host", "html", "ask", 1 << 20},
		{"work", "host", "image", "ask", 0},
		{"work", "web", "text", "allow", DefaultClipLimit},
		{"work", "web", "html", "allow", 0},
		{"host", "vault", "image", "allow", DefaultImageLimit},
	} {
		if r := k.Rule(w.from, w.to); r.Action != w.action || r.May(w.kind) != w.may {
			t.Errorf("%s to %s: %s, %d bytes of %s", w.from, w.to, r.Action, r.May(w.kind), w.kind)
		}
	}
	if k.Rule("work", "host").Strip || !k.Rule("work", "web").Strip {
		t.Error("strip is mixed up")
	}
	if k.Most("work", "html") != 1<<20 || k.Most("web", "html") != 0 {
		t.Error(k.Most("work", "html"), k.Most("vault", "text"), k.Most("web", "html"))
	}
	flow, err := Parse("f", []byte(`
[defaults]
clipboard = "shared"
[vm.out]
clipboard = "shared-out"
[vm.in]
clipboard = "shared-in"
[vm.none]
clipboard = "isolated"
[[clipboard.rule]]
from = "asks"
to = "*"
action = "ask"
[[clipboard.rule]]
from = "denied"
to = "host"
action = "deny"
[[clipboard.rule]]
from = "out"
to = "in"
action = "allow"
kinds = ["html"]
[[clipboard.rule]]
from = "*"
to = "both"
action = "allow"
`))
	if err != nil {
		t.Fatal(err)
	}
	for way, want := range map[[2]string]bool{
		{"out", "host"}: true, {"host", "out"}: false, {"in", "host"}: false, {"host", "in"}: true,
		{"none", "host"}: false, {"host", "none"}: false, {"both", "host"}: true, {"host", "both"}: true,
		{"asks", "host"}: false, {"denied", "host"}: false, {"host", "denied"}: true,
		{"out", "in"}: true, {"in", "out"}: false, {"out", "both"}: false, {"both", "in"}: false, {"both", "both"}: false,
	} {
		if rule, ok := flow.Flow(way[0], way[1]); ok != want {
			t.Errorf("what flows from %s to %s: %+v %v", way[0], way[1], rule, ok)
		}
	}
	if rule, _ := flow.Flow("out", "in"); rule.May("html") == 0 || rule.May("text") != 0 {
		t.Errorf("%+v", rule)
	}
	if got := flow.Clipboard.Drags("out"); len(got) != 3 || got[0].Limits != nil || got[1].To != "in" || got[1].Limits["html"] != DefaultClipLimit || got[2].To != "both" || !got[2].Strip {
		t.Errorf("drags: %+v", got)
	}
	if got := flow.Clipboard.Drags("asks"); len(got) != 2 || got[0].Limits != nil || got[1].Limits == nil {
		t.Errorf("drags: %+v", got)
	}
	if got := flow.Clipboard.Drags("denied"); len(got) != 3 || got[1].Limits != nil {
		t.Errorf("drags: %+v", got)
	}
	k.Rules = k.Rules[:2] // none allows the drag
	if got := k.Drags("work"); got != nil {
		t.Errorf("drags: %+v", got)
	}
	for text, want := range map[string]string{
		"[vm.a]\nclipboard = \"open\"":           `c:2: vm.a.clipboard: want "isolated", "shared-out", "shared-in" or "shared", not "open"`,
		"[clipboard]\nttl = 3":                   `c:2: clipboard.ttl: want a time in quotes, with its unit, such as "30s", not 3`,
		"[clipboard]\nttl = \"2h\"":              `want a time from "1s" to "1h"`,
		"clipboard = 1":                          "want the table [clipboard]",
		"[clipboard]\nmomnt = 1":                 `unknown key; did you mean "moment"?`,
		"[clipboard]\nrule = 1":                  "want tables such as",
		"[[clipboard.rule]]\nfrom = \"a\"":       "from, to and action are required",
		"[[clipboard.rule]]\nfrom = \"A\"":       "from: VM name",
		"[[clipboard.rule]]\nkinds = [\"file\"]": "is none of text",
		"[[clipboard.rule]]\nlimit = \"65M\"":    "want a size",
	} {
		if got := strings.Join(mistakes(text), "\n"); !strings.Contains(got, want) {
			t.Errorf("%q: %v", text, got)
		}
	}
}
