package main

import (
	"bufio"
	"log/slog"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// newControlTest returns a control and the supervisor's end of its channel.
func newControlTest(t *testing.T) (*tracing, *net.UnixConn) {
	t.Helper()
	waylandtest.LeakCheck(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	tr := &tracing{Switch: &relay.TapSwitch{}}
	near, err := inherited(fds[0], "control")
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(near, tr, nil, nil, slog.New(slog.DiscardHandler))
	far, err := inherited(fds[1], "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = far.Close()
		c.close()
	})
	return tr, far
}

// ask sends a request with a pipe's write end, and returns its read end.
func ask(t *testing.T, far *net.UnixConn, request string) *os.File {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	if _, _, err := far.WriteMsgUnix([]byte(request), unix.UnixRights(int(w.Fd())), nil); err != nil {
		t.Fatal(err)
	}
	w.Close()
	return r
}

// taps waits until n traces run.
func (t *tracing) wait(tt *testing.T, n int) []relay.Tap {
	tt.Helper()
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); {
		t.mu.Lock()
		taps := t.taps
		t.mu.Unlock()
		if len(taps) == n {
			return taps
		}
	}
	tt.Fatalf("never %d traces", n)
	return nil
}

func commit(tap relay.Tap) {
	m := &wayland.WlSurface.Requests[wayland.WlSurfaceReqCommit]
	tap.Message(7, true, wayland.WlSurface, 3, m, nil)
}

func TestControlTrace(t *testing.T) {
	tr, far := newControlTest(t)
	r := ask(t, far, `{"request":"trace","classes":"frame"}`+"\n")
	commit(tr.wait(t, 1)[0])
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, "#7 -> wl_surface#3.commit()\n") {
		t.Errorf("%q, %v", line, err)
	}
	r.Close()
	tr.wait(t, 0)
}

// TestControlSlowReader checks that a trace without a reader costs a bounded queue.
func TestControlSlowReader(t *testing.T) {
	tr, far := newControlTest(t)
	r := ask(t, far, `{"request":"trace","classes":""}`)
	tap := tr.wait(t, 1)[0]
	for range 3 * traceLines {
		commit(tap)
	}
	s := bufio.NewScanner(r)
	for s.Scan() {
		if strings.Contains(s.Text(), "messages left out") {
			return
		}
		commit(tap)
	}
	t.Error("nothing was left out")
}

func TestControlMistakes(t *testing.T) {
	for request, want := range map[string]string{
		`{"request":"trace","classes":"moton"}`: "unknown class",
		`{"request":"shout"}`:                   "unknown control request",
		`nonsense`:                              "unknown control request",
	} {
		t.Run(request, func(t *testing.T) {
			_, far := newControlTest(t)
			line, err := bufio.NewReader(ask(t, far, request)).ReadString('\n')
			if err != nil || !strings.Contains(line, want) {
				t.Errorf("%q, %v", line, err)
			}
		})
	}
}

func TestControlWithoutDescriptor(t *testing.T) {
	tr, far := newControlTest(t)
	if _, err := far.Write([]byte(`{"request":"trace"}`)); err != nil {
		t.Fatal(err)
	}
	r := ask(t, far, `{"request":"trace"}`)
	defer r.Close()
	tr.wait(t, 1)
}

// TestActivate: a token comes without a descriptor, and later requests work.
func TestActivate(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	tokens := make(chan string, 4)
	near, err := inherited(fds[0], "control")
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(near, nil, nil, func(s string) { tokens <- s }, slog.New(slog.DiscardHandler))
	defer c.close()
	far, err := inherited(fds[1], "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	for _, packet := range []string{`{"request":"activate","token":"a"}`, `{"request":"nonsense"}`, `{`, `{"request":"activate","token":"b"}`} {
		if _, err := far.Write([]byte(packet)); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := <-tokens, <-tokens; a != "a" || b != "b" {
		t.Errorf("tokens %q, %q", a, b)
	}
}
