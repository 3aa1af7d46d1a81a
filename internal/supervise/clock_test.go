package supervise

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The guest is given the time when the host's clock has jumped; that a jump is noticed
// is tested in cmd/vix-launcher, with a real clock.
func TestClockJumps(t *testing.T) {
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	st := b.state(s)
	r, w := io.Pipe()
	go func() { w.CloseWithError(b.reg.Logs(t.Context(), "t", true, w)) }()
	if err := unix.Kill(st.PIDs.Supervisor, unix.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	want := fmt.Sprintf("clock set to %d\n", time.Now().UTC().Year())
	var log strings.Builder
	for buf := make([]byte, 4096); !strings.Contains(log.String(), want); {
		n, err := r.Read(buf)
		log.Write(buf[:n])
		if err != nil {
			t.Fatalf("%v: %s", err, log.String())
		}
	}
	r.Close()
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
}

// A clock that is past the timer's second ends the watch, and does not make it spin; ours
// is for a second that no clock reaches.
func TestClockPastItsTimer(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := watchTimer(ctx, time.Now().Unix()-1, func() {}); err == nil || !strings.Contains(err.Error(), "the clock is past ") {
		t.Errorf("%v", err)
	}
	if y := time.Unix(clockEnd, 0).UTC().Year(); y != 2262 {
		t.Errorf("the timer fires in %d", y)
	}
	soon, stop := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer stop()
	if err := watchTimer(soon, clockEnd, func() {}); soon.Err() == nil {
		t.Errorf("the timer has fired: %v", err)
	}
}
