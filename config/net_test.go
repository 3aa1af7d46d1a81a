package config

import (
	"strings"
	"testing"
)

func TestParsePublish(t *testing.T) {
	for text, want := range map[string]string{
		"8080:80":              "127.0.0.1:8080:80",
		"0.0.0.0:53:5353/udp":  "0.0.0.0:53:5353/udp",
		"192.0.2.1:1:65535":    "192.0.2.1:1:65535",
		"127.0.0.1:80:80/tcp":  "127.0.0.1:80:80",
		"8080":                 "!HOSTPORT:GUESTPORT",
		"a:80:80":              "!IPv4 address",
		"::1:80:80":            "!HOSTPORT:GUESTPORT",
		"0:80":                 "!port from 1 to 65535",
		"80:65536":             "!port from 1 to 65535",
		"80:80/sctp":           `!"tcp" or "udp"`,
		"80:-1":                "!port from 1 to 65535",
		"":                     "!HOSTPORT:GUESTPORT",
		"1:2:3:4":              "!HOSTPORT:GUESTPORT",
		"127.0.0.1:80:80/udp/": `!"tcp" or "udp"`,
	} {
		p, err := ParsePublish(text)
		switch fault, bad := strings.CutPrefix(want, "!"); {
		case bad && (err == nil || !strings.Contains(err.Error(), fault)):
			t.Errorf("%q: got %v, %v; want an error with %q", text, p, err, fault)
		case !bad && (err != nil || p.String() != want):
			t.Errorf("%q: got %v, %v; want %s", text, p, err, want)
		case !bad:
			if again, err := ParsePublish(p.String()); err != nil || again != p {
				t.Errorf("%q: read again: %v, %v", text, again, err)
			}
		}
	}
}

func TestNetworkKeys(t *testing.T) {
	c, err := Parse("f", []byte("[defaults]\nnet = \"nat\"\n[vm.a]\npublish = [\"8080:80\", \"8080:80/udp\"]\n[vm.b]\nnet = \"none\"\n"))
	if err != nil {
		t.Fatal(err)
	}
	if a, b := c.VMs["a"], c.VMs["b"]; a.Net != NetNAT || len(a.Publish) != 2 || b.Net != NetNone {
		t.Errorf("a: %v %v, b: %v", a.Net, a.Publish, b.Net)
	}
	if v, _ := new(Config).VM("x"); v.Net == NetNAT {
		t.Error("a VM has a network that nobody asked for")
	}
	for text, want := range map[string]string{
		"[vm.a]\nnet = \"bridge\"":                                        `c:2: vm.a.net: want "none" or "nat", not "bridge"`,
		"[vm.a]\npublish = [\"80:80\"]":                                   `c:2: vm.a.publish: needs net = "nat"`,
		"[vm.a]\nnet = \"nat\"\npublish = [\"80:80\", \"0.0.0.0:80:81\"]": "c:3: vm.a.publish: port 80 is published twice",
		"[defaults]\npublish = [\"80:80\"]":                               "c:2: defaults.publish: belongs to one VM",
	} {
		if got := mistakes(text); len(got) != 1 || !strings.Contains(got[0], want) {
			t.Errorf("%q: got %v, want %s", text, got, want)
		}
	}
}
