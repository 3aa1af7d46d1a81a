package vm

import (
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
