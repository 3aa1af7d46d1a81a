package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland/waylandtest"
)

// newBrokerTest returns a broker, and the supervisor's end of its channel.
func newBrokerTest(t *testing.T) (*broker, *net.UnixConn) {
	t.Helper()
	waylandtest.LeakCheck(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBroker(fds[0])
	if err != nil {
		t.Fatal(err)
	}
	far, err := inherited(fds[1], "supervisor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.close()
		far.Close()
	})
	return b, far
}

// answer waits for a request and answers it.
func answer(t *testing.T, far *net.UnixConn, want, text string, fds ...int) {
	t.Helper()
	got := make([]byte, 64)
	n, err := far.Read(got)
	if err != nil || string(got[:n]) != want {
		t.Errorf("asked for %q, %v", got[:n], err)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if _, _, err := far.WriteMsgUnix([]byte(text), oob, nil); err != nil {
		t.Error(err)
	}
}

func TestBrokerConnects(t *testing.T) {
	b, far := newBrokerTest(t)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	done := make(chan struct{})
	go func() {
		defer close(done)
		answer(t, far, "connect", "ok", fds[0])
		unix.Close(fds[0])
	}()
	up, err := b.connect()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	if err := up.Send([]byte("hello"), nil); err != nil {
		t.Error(err)
	}
	buf := make([]byte, 8)
	if n, err := unix.Read(fds[1], buf); string(buf[:n]) != "hello" || err != nil {
		t.Errorf("%q, %v", buf[:n], err)
	}
	if err := up.Close(); err != nil {
		t.Error(err)
	}
}

func TestBrokerFails(t *testing.T) {
	b, far := newBrokerTest(t)
	pipe := make([]int, 2)
	if err := unix.Pipe2(pipe, unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pipe[0])
	defer unix.Close(pipe[1])
	for _, tt := range []struct {
		text string
		fds  []int
		want string
	}{
		{"connect: no such file\x1b[31m", nil, "no such file"},
		{"ok", []int{pipe[0]}, "socket"},
		{"ok", []int{pipe[0], pipe[1]}, ""},
	} {
		done := make(chan struct{})
		go func() {
			defer close(done)
			answer(t, far, "through", tt.text, tt.fds...)
		}()
		_, err := b.through()
		<-done
		if err == nil || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "\x1b") {
			t.Errorf("%q with %v: %v", tt.text, tt.fds, err)
		}
	}
	far.Close()
	if _, err := b.connect(); err == nil {
		t.Error("no error after the supervisor's end")
	}
}

func TestHostFont(t *testing.T) {
	dir := t.TempDir()
	good, huge := filepath.Join(dir, "good"), filepath.Join(dir, "huge")
	if err := os.WriteFile(good, []byte("font"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(huge, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(huge, maxFont+1); err != nil {
		t.Fatal(err)
	}
	if b := hostFont([]string{filepath.Join(dir, "none"), dir, huge, "/dev/zero", good}); string(b) != "font" {
		t.Errorf("%q", b)
	}
	if b := hostFont([]string{huge}); b != nil {
		t.Errorf("%d bytes", len(b))
	}
}
