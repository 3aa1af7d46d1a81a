package display

import (
	"errors"
	"net"
	"os"
	"reflect"
	"strings"
	"testing"

	"vix/config"
)

func policy() Policy {
	return Policy{
		Tag: "the web", Color: "#d0312d", Frame: "full", Allow: []string{"zwp_pointer_constraints_v1"}, Deny: []string{"wl_output"},
		Limits: map[string]int64{"surfaces": 5, "mappings": 7},
		Drags:  []config.DragRule{{From: "web", To: "*", Limits: map[string]int64{"text": 9}, Strip: true}, {From: "*", To: "*"}},
	}
}

// The mistakes of a policy, and by which name they are told.
func TestCheck(t *testing.T) {
	for key, spoil := range map[string]func(*Policy){
		"color: \"red\": want #rrggbb":                               func(p *Policy) { p.Color = "red" },
		"frame: \"\": want full, border or none":                     func(p *Policy) { p.Frame = "" },
		"allow: unknown interface \"nonsense\"":                      func(p *Policy) { p.Allow = []string{"nonsense"} },
		"allow: wl_shell: cannot be allowed":                         func(p *Policy) { p.Allow = []string{"wl_shell"} },
		"deny: zwlr_screencopy_manager_v1: Vix does not carry it":    func(p *Policy) { p.Deny = []string{"zwlr_screencopy_manager_v1"} },
		"limits.surfaces: want a number above 0":                     func(p *Policy) { p.Limits["surfaces"] = 0 },
		"limits.mappings: want a number from 1 to 480, not 481":      func(p *Policy) { p.Limits["mappings"] = 481 },
		"limits.windows: unknown limit; there are connections, obje": func(p *Policy) { p.Limits["windows"] = 1 },
		"": func(*Policy) {},
	} {
		p := policy()
		spoil(&p)
		err := p.Check()
		var bad *PolicyError
		if (err == nil) != (key == "") || err != nil && (!errors.As(err, &bad) || !strings.HasPrefix(err.Error(), key)) {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// What the supervisor sends is what the display process reads, in one packet.
func TestSend(t *testing.T) {
	ours, theirs, err := NewControl()
	if err != nil {
		t.Fatal(err)
	}
	defer ours.Close()
	conn, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	want := policy()
	if err := Send(ours, Request{Request: RequestPolicy, Policy: &want}, nil); err != nil {
		t.Fatal(err)
	}
	if err := Send(ours, Request{Request: RequestTrace, Classes: "all"}, os.Stderr); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, MaxRequest)
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Parse(buf[:n])
	if err != nil || r.Request != RequestPolicy || !reflect.DeepEqual(*r.Policy, want) {
		t.Errorf("%+v, %v", r, err)
	}
	if n, err = conn.Read(buf); err != nil {
		t.Fatal(err)
	}
	if r, err = Parse(buf[:n]); err != nil || (r != Request{Request: RequestTrace, Classes: "all"}) {
		t.Errorf("%+v, %v", r, err)
	}
	want.Tag = strings.Repeat("x", MaxRequest)
	if err := Send(ours, Request{Request: RequestPolicy, Policy: &want}, nil); err == nil || !strings.Contains(err.Error(), "at most 65536") {
		t.Errorf("too long: %v", err)
	}
}
