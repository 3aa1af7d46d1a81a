package launch

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/vm"
)

// A program that the host lacks is refused before the VM starts, with the names that are
// near; all else is left to the guest.
func TestCheckProgram(t *testing.T) {
	system := t.TempDir()
	bin := filepath.Join(system, "usr/bin")
	if err := os.MkdirAll(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"firefox", "firefox-esr", "foot", "data"} {
		mode := os.FileMode(0o755)
		if name == "data" {
			mode = 0o644
		}
		if err := os.WriteFile(filepath.Join(bin, name), nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	l := &Launcher{System: system}
	host := config.VM{Name: "t", Root: config.RootHost}
	for _, c := range []struct {
		v    config.VM
		r    vm.Run
		want string
	}{
		{host, vm.Run{Argv: []string{"firefox"}}, ""},
		{host, vm.Run{Argv: []string{"fierfox"}}, "did you mean firefox?"},
		{host, vm.Run{Argv: []string{"foo"}}, "did you mean foot?"},
		{host, vm.Run{Argv: []string{"data"}}, "install it, or set root"},
		{host, vm.Run{Argv: []string{"chromium"}}, "install it, or set root"},
		{host, vm.Run{Argv: []string{"/opt/x"}}, ""},
		{host, vm.Run{Argv: []string{"./x"}}, ""},
		{host, vm.Run{Argv: []string{"mine"}, Env: []string{"PATH=/opt/bin"}}, ""},
		{host, vm.Run{How: vm.How{Kind: agent.KindShell}}, ""},
		{config.VM{Name: "t", Root: "debian:13"}, vm.Run{Argv: []string{"chromium"}}, ""},
	} {
		err := l.checkProgram(c.v, c.r)
		var f *vm.Failure
		if (err == nil) != (c.want == "") || err != nil && (!errors.As(err, &f) || f.Code != vm.CodeNotFound || !strings.Contains(f.Text, c.want)) {
			t.Errorf("%q: %v, not %q", c.r.Argv, err, c.want)
		}
	}
	if near := nearNames(system, strings.Split(agent.UserPath, ":"), "firefox-esx"); !slices.Equal(near, []string{"firefox-esr"}) {
		t.Errorf("%q", near)
	}
}
