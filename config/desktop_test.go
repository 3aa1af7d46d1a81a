package config

import (
	"slices"
	"strings"
	"testing"
)

func TestDesktopKeys(t *testing.T) {
	c, err := Parse("c", []byte(`[defaults]
workspace = "mail: 3"
[vm.a]
desktop = ["org.gnome.*", "foot"]
mime = ["image/*", "application/vnd.x+y"]
workspace = "3"
[vm.b]
desktop = []
`))
	if err != nil {
		t.Fatal(err)
	}
	a, b := c.VMs["a"], c.VMs["b"]
	if !slices.Equal(a.Desktop, []string{"org.gnome.*", "foot"}) || len(a.MIME) != 2 || a.Workspace != "3" {
		t.Errorf("%+v", a)
	}
	if b.Desktop == nil || len(b.Desktop) != 0 || b.Workspace != "mail: 3" {
		t.Errorf("%+v", b)
	}
	for _, bad := range []string{
		`workspace = ""`, `workspace = "a\"; exec x"`, `workspace = "a; exec x"`, `workspace = "$x"`, `workspace = "next"`,
		`workspace = "--x"`, `workspace = "a\u0007"`, `desktop = ["["]`, `desktop = ["a/b"]`, `desktop = [""]`,
		`mime = ["pdf"]`, `mime = ["image/p;q"]`, `mime = ["*/*"]`,
	} {
		if got := mistakes("[vm.a]\n" + bad); len(got) != 1 || !strings.HasPrefix(got[0], "c:2: vm.a.") {
			t.Errorf("%s: %v", bad, got)
		}
	}
}
