package main

import (
	"errors"
	"maps"
	"strings"
	"testing"
)

func TestVerdict(t *testing.T) {
	for want, status := range map[string][]string{
		"All is well; VMs can run.": {"ok", "ok"}, "1 warning; VMs can run.": {"ok", "warn"}, "2 warnings; VMs can run.": {"warn", "ok", "warn"},
	} {
		var checks []check
		for _, s := range status {
			checks = append(checks, check{Status: s})
		}
		if got := verdict(checks); got != want {
			t.Errorf("%v: %q, not %q", status, got, want)
		}
	}
}

// What a compositor lacks is said with its effect, and with advice that helps there.
func TestGlobalsCheck(t *testing.T) {
	sway := map[string]uint32{"wp_security_context_manager_v1": 1, "wl_data_device_manager": 3, "zwlr_data_control_manager_v1": 2, "zwlr_layer_shell_v1": 4, "wp_viewporter": 1}
	for _, g := range neededGlobals {
		sway[g] = 1
	}
	with := func(change map[string]uint32, without ...string) map[string]uint32 {
		m := maps.Clone(sway)
		maps.Copy(m, change)
		for _, name := range without {
			delete(m, name)
		}
		return m
	}
	for _, tt := range []struct {
		name        string
		globals     map[string]uint32
		status      string
		detail, fix string
		not         string // in neither
	}{
		{"sway", sway, "ok", "/s, 11 globals", "", "no "},
		{"newer data control", with(map[string]uint32{"ext_data_control_manager_v1": 1}, "zwlr_data_control_manager_v1"), "ok", "11 globals", "", "no "},
		{"GNOME", with(map[string]uint32{"gtk_shell1": 7}, "wp_security_context_manager_v1", "zwlr_data_control_manager_v1", "zwlr_layer_shell_v1"), "warn",
			"no zwlr_layer_shell_v1 (vix menu is an ordinary window)", "this is GNOME", "use a newer version"},
		{"Weston", with(nil, "zwlr_layer_shell_v1", "zwlr_data_control_manager_v1"), "warn", "no ext_data_control_manager_v1 (", "use a newer version", "GNOME"},
		{"no windows", with(nil, "xdg_wm_base"), "fail", "no xdg_wm_base", "another compositor", "GNOME"},
	} {
		c := globalsCheck("/s", tt.globals)
		if c.Status != tt.status || !strings.Contains(c.Detail, tt.detail) || !strings.Contains(c.Fix, tt.fix) || strings.Contains(c.Detail+c.Fix, tt.not) {
			t.Errorf("%s: %+v", tt.name, c)
		}
	}
}

func TestSpaceCheck(t *testing.T) {
	places := []place{{dir: "/a", holds: "homes", need: 1 << 30}, {dir: "/b", holds: "roots", need: 1 << 20}, {dir: "", holds: "logs", need: 1}}
	for _, tt := range []struct {
		free map[string]uint64
		want check
	}{
		{map[string]uint64{"/a": 1 << 30, "/b": 3 << 20}, good("1024 MiB free for homes, 3 MiB free for roots")},
		{map[string]uint64{"/a": 1<<30 - 1, "/b": 1 << 20}, warning("free some space there", "1023 MiB free for homes (/a), which may need 1024")},
		{map[string]uint64{"/a": 1 << 30}, warning("free some space there", "/b: gone")},
	} {
		got := spaceCheck(places, func(dir string) (uint64, error) {
			if n, ok := tt.free[dir]; ok {
				return n, nil
			}
			return 0, errors.New("gone")
		})
		if got != tt.want {
			t.Errorf("%v: %+v, not %+v", tt.free, got, tt.want)
		}
	}
	if got := present("/none/of/these"); got != "/" {
		t.Errorf("of /none/of/these there is %s", got)
	}
}
