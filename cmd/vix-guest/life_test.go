package main

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"vix/internal/agent"
)

func timeNow() int64 { return time.Now().Unix() }

// ends waits for QEMU to end by itself, and returns the time that it took.
func (v *vm) ends(t *testing.T, limit time.Duration) time.Duration {
	t.Helper()
	at := time.Now()
	select {
	case err := <-v.off:
		if err != nil {
			t.Errorf("qemu: %v", err)
		}
	case <-time.After(limit):
		t.Fatalf("the machine is still on after %v", limit)
	}
	return time.Since(at)
}

func TestPowerOff(t *testing.T) {
	v := startVM(t, "root")
	// A program that is requested before the guest is ready waits.
	polite, err := v.host.Spawn(t.Context(), sh("trap 'echo bye; exit 5' TERM; echo up; while :; do sleep 0.05; done"))
	if err != nil {
		t.Fatal(err)
	}
	v.ready(t)
	stubborn, err := v.host.Spawn(t.Context(), sh("trap '' TERM; echo up; while :; do sleep 1; done"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range []*agent.Process{polite, stubborn} {
		if _, err := io.ReadFull(p.Stdout, make([]byte, 3)); err != nil {
			t.Fatal(err)
		}
	}
	at := time.Now()
	if err := v.host.PowerOff(t.Context()); err != nil {
		t.Fatal(err)
	}
	v.ends(t, 5*time.Second)
	t.Logf("off after %v, of which a second is the stubborn program's grace", time.Since(at))
	if b, err := io.ReadAll(polite.Stdout); string(b) != "bye\n" || err != nil {
		t.Errorf("its last words are %q, %v", b, err)
	}
	if st, err := polite.Wait(); st.Code != 5 || err != nil {
		t.Errorf("a program that ends when asked: %v, %v", st, err)
	}
	if st, err := stubborn.Wait(); st.Signal != 9 || err != nil {
		t.Errorf("a program that does not: %v, %v", st, err)
	}
	if err := <-v.ran; err != nil {
		t.Errorf("the channel ended with %v", err)
	}
	if _, err := v.host.Spawn(t.Context(), sh("true")); !errors.Is(err, agent.ErrClosed) {
		t.Errorf("spawned in a machine that is off: %v", err)
	}
}

func TestChannelClosed(t *testing.T) {
	v := startVM(t, "root").ready(t)
	if _, err := v.host.Spawn(t.Context(), sh("trap '' TERM; sleep 1000")); err != nil {
		t.Fatal(err)
	}
	_ = v.conn.Close()
	t.Logf("off %v after the host's end closed", v.ends(t, 5*time.Second))
}

func TestNoRoot(t *testing.T) {
	v := startVM(t, "nosuchtag")
	err := v.host.Ready(t.Context())
	var ge *agent.GuestError
	if !errors.As(err, &ge) || !strings.Contains(err.Error(), `root share "nosuchtag"`) {
		t.Errorf("ready: %v", err)
	}
	v.ends(t, 5*time.Second)
}

// TestSignedModules: a kernel that insists on signatures gets them.
func TestSignedModules(t *testing.T) {
	v := startVM(t, "root module.sig_enforce=1").ready(t)
	if got := v.expect(t, sh("cat /sys/module/module/parameters/sig_enforce; grep -c ^overlay /proc/modules")); got != "Y\n1" {
		t.Errorf("%q", got)
	}
}
