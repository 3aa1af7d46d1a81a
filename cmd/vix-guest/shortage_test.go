package main

import "testing"

func TestKilledIn(t *testing.T) {
	for record, want := range map[string]string{
		"3,401,9000,-;Out of memory: Killed process 77 (perl) total-vm:9kB, anon-rss:1kB, UID:0 pgtables:2kB oom_score_adj:0\n":           "perl",
		"3,402,9001,c;Memory cgroup out of memory: Killed process 5 (a) b (c) total-vm:9kB, anon-rss:1kB\n SUBSYSTEM=x\n":                 "a) b (c",
		"6,403,9002,-;oom_reaper: reaped process 77 (perl), now anon-rss:0kB\n":                                                           "",
		"12,404,9003,-;Out of memory: Killed process 78 (a program's own words) total-vm:9kB\n":                                           "",
		"4,405,9004,-;perl invoked oom-killer: gfp_mask=0x140dca(GFP_HIGHUSER_MOVABLE|__GFP_ZERO|__GFP_COMP), order=0, oom_score_adj=0\n": "",
		"3,406,9005,-;Out of memory: Killed process 79\n":                                                                                 "",
		"x,407,9006,-;Out of memory: Killed process 80 (perl) total-vm:9kB\n":                                                             "",
		"":  "",
		";": "",
	} {
		if got, ok := killedIn([]byte(record)); got != want || ok != (want != "") {
			t.Errorf("%q: %q, %v", record, got, ok)
		}
	}
}
