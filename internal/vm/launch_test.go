package vm

import (
	"errors"
	"strings"
	"testing"

	"vix/config"
)

// A VM is not started by a path that JSON would change; the line names it.
func TestLaunchPaths(t *testing.T) {
	const odd = "/home/\xff"
	for name, l := range map[string]Launch{
		"cache":        {CacheDir: odd},
		"compositor":   {Wayland: odd},
		"root":         {VM: config.VM{Root: config.RootImage + odd}},
		"share":        {VM: config.VM{Shares: []config.Share{{Host: odd, Guest: "/a"}}}},
		"other share":  {Others: []SharedFolder{{Host: odd}}},
		"private":      {Private: []string{"/ok", odd}},
		"vix-launcher": {Parts: Parts{Self: odd}},
	} {
		err := l.checkPaths()
		var f *Failure
		if !errors.As(err, &f) || f.Code != CodeVix || !strings.Contains(f.Text, `/home/\xff" is not UTF-8`) || strings.Contains(f.Text, "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := (Launch{CacheDir: "/home/ü\ufffd", GuestEnv: []string{"LC_ALL=\xff"}}).checkPaths(); err != nil {
		t.Error(err)
	}
}
