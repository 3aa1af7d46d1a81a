package main

import "testing"

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
