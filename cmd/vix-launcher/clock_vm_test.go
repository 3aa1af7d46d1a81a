package main

import (
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// The clock of a guest is corrected when the host's clock is set (here to its own time). The
// kernel reports a wake-up of the host in the same way.
func testClock(t *testing.T, r *rig) {
	now := func() (ts unix.Timespec) {
		_ = unix.ClockGettime(unix.CLOCK_REALTIME, &ts)
		return ts
	}
	r.vix(0, "exec", "t", "--user", "root", "--", "date", "-s", "2001-01-01")
	if y := strings.TrimSpace(r.vix(0, "exec", "t", "--", "date", "+%Y").out.String()); y != "2001" {
		t.Fatalf("the year in the guest is %s", y)
	}
	ts := now()
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		t.Skipf("who runs the tests may not set the clock: %v", err)
	}
	r.vix(0, "exec", "t", "--", "sh", "-c", "until [ $(date +%Y) != 2001 ]; do sleep 0.05; done")
	var guest int64
	p := r.vix(0, "exec", "t", "--", "date", "+%s")
	if _, err := fmt.Sscan(p.out.String(), &guest); err != nil || guest < ts.Sec || guest > now().Sec {
		t.Errorf("the guest says %q; the host said %d before and %d after", p.out.String(), ts.Sec, now().Sec)
	}
	if !strings.Contains(r.vix(0, "logs", "t").out.String(), "the host's clock has jumped") {
		t.Error("the log does not say so")
	}
}
