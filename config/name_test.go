package config

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestAppID(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := AppID("vm", rapid.StringMatching(`(vix\.|[a-z.]|\PC)*`).Draw(t, "app"))
		if !strings.HasPrefix(s, "vix.vm.") || len(s) > len("vix.vm.")+maxApp || len(s) == len("vix.vm.") {
			t.Fatal(s)
		}
		if strings.Count(s, "vix.") != 1 {
			t.Fatal(s)
		}
		if strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' || strings.ContainsRune(`"[]=*/\`, r) }) {
			t.Fatal(s)
		}
	})
}

// A VM called "host" would be this machine in every rule: no VM can get that name, by any way.
func TestHostIsReserved(t *testing.T) {
	err := CheckName("host")
	if err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), "host-vm") {
		t.Errorf("CheckName: %v", err)
	}
	for _, base := range []string{"host", "HOST", "-host", "host-", "_host_", "--Host--"} {
		if name := NameFor(base); CheckName(name) != nil || name == ClipHost {
			t.Errorf("NameFor(%q) = %q: %v", base, name, CheckName(name))
		}
	}
	c, err := Parse("f", nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, err := c.VMFor("/usr/bin/host"); err != nil || v.Name != "host-vm" {
		t.Errorf("VMFor: %q, %v", v.Name, err)
	}
	if v, err := c.VM("host"); err == nil {
		t.Errorf("VM: %q", v.Name)
	}
	if got := mistakes("\n[vm.host]\nmemory = \"1G\"\n"); len(got) != 1 || !strings.HasPrefix(got[0], "c:2: vm.host: ") {
		t.Errorf("config: %v", got)
	}
	// In a rule, "host" still means this machine and "*" all; no VM has either name.
	if r := (&Clipboard{Rules: []ClipRule{{From: ClipHost, To: ClipAny, Action: ClipDeny}}}).Rule("host-vm", "vault"); r.Action == ClipDeny {
		t.Error("a rule of this machine's holds for host-vm")
	}
}

// NameFor always makes a valid VM name.
func TestNameFor(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.OneOf(rapid.String(), rapid.StringMatching(`[-_]*([hH][oO][sS][tT]|lock)[-_]*`)).Draw(t, "base")
		if err := CheckName(NameFor(base)); err != nil {
			t.Fatal(err)
		}
	})
}

// An app id identifies its VM: a name has no '.', so no two pairs of VM and program share one.
func TestAppIDsAreApart(t *testing.T) {
	names := rapid.StringMatching(`[a-z0-9][a-z0-9_-]{0,31}`).Filter(func(s string) bool { return CheckName(s) == nil })
	rapid.Check(t, func(t *rapid.T) {
		a, b := names.Draw(t, "a"), names.Draw(t, "b")
		id := AppID(a, rapid.StringMatching(`[a-z.]{0,20}`).Draw(t, "app"))
		if a != b && strings.HasPrefix(id, "vix."+b+".") {
			t.Fatalf("%s is of %s, and of %s", id, a, b)
		}
	})
}
