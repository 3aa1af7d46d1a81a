package clipboard

import (
	"strings"
	"testing"
	"time"

	"vix/e2e"
	"vix/internal/desktoptest"
)

// TestVMs holds in two real VMs what the other tests hold behind two proxies: a copy
// and a paste in one VM, from one to the other, and from and to the host.
func TestVMs(t *testing.T) {
	if l := e2e.Lacks(); l != "" {
		t.Skip("lacks: " + l)
	}
	s := e2e.New(t, e2e.Config{Bin: "../../build/bin", Timeout: 4 * time.Minute, TOML: "[vm.red]\nclipboard = \"shared-out\"\n[[clipboard.rule]]\nfrom = \"host\"\nto = \"blue\"\naction = \"allow\"\n"})
	for _, vm := range []string{"red", "blue"} {
		s.Start("run", "--vm", vm, "foot", "--app-id=held", "sleep", "10000")
		s.WaitWindow(t, desktoptest.ByAppID("vix."+vm+".held"))
	}
	guest := func(vm, script string) string {
		t.Helper()
		res := s.Vix("run", "--vm", vm, "sh", "-c", script)
		if res.Code != 0 {
			t.Errorf("%s in %s: %v", script, vm, res)
		}
		return res.Stdout
	}
	act := func(args ...string) {
		t.Helper()
		if res := s.Vix(append([]string{"clipboard"}, args...)...); res.Code != 0 {
			t.Errorf("clipboard %q: %v", args, res)
		}
	}
	const paste = "timeout 60 wl-paste --no-newline"
	for _, flag := range []string{"", " --primary"} {
		guest("red", "printf 'in red' | wl-copy"+flag)
		if got := guest("red", paste+flag); got != "in red" {
			t.Errorf("pasted in its own VM%s: %q", flag, got)
		}
	}
	guest("red", "head -c 60000 /dev/zero | tr '\\0' x | wl-copy")
	act("copy", "--vm", "red")
	act("paste", "--vm", "blue")
	if got := guest("blue", paste); got != strings.Repeat("x", 60000) {
		t.Errorf("from red to blue: %d bytes", len(got))
	}
	act("copy", "--vm", "red")
	act("paste", "--host")
	if res := s.Run(s.Command("wl-paste", "--no-newline")); len(res.Stdout) != 60000 {
		t.Errorf("from red to the host: %v", res)
	}
	if res := s.Run(s.Command("wl-copy", "of the host")); res.Code != 0 {
		t.Fatal(res)
	}
	act("copy", "--host")
	act("paste", "--vm", "blue")
	if got := guest("blue", paste); got != "of the host" {
		t.Errorf("from the host to blue: %q", got)
	}
	act("clear")
	// By red's profile, without an act.
	guest("red", "printf 'flows by itself' | wl-copy")
	again := time.NewTicker(100 * time.Millisecond) // what another process has has no event here
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		res := s.Run(s.Command("wl-paste", "--no-newline"))
		if res.Stdout == "flows by itself" {
			break
		}
		if time.Now().After(deadline) {
			t.Errorf("by red's profile the host has %v", res)
			break
		}
	}
	s.Run(s.Command("wl-copy", "--clear")) // ends the one that has the host's
	s.Must("stop", "--all")
	s.CheckClean()
}
