package supervise

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/proc"
	"vix/internal/vm"
)

// brokerRig is a supervisor that does nothing but broker, a compositor's socket, and
// the display's end.
func brokerRig(t *testing.T) (s *supervisor, display *net.UnixConn, compositor *net.UnixListener) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vixbroker")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	reg, err := vm.OpenRegistry(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer reg.Close()
	if err := reg.Root.Mkdir("t", 0o700); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "wayland-1")
	s, err = newSupervisor(vm.Launch{VM: config.VM{Name: "t"}, RuntimeDir: dir, Wayland: socket}, Desktop{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = s.log.Close()
		s.dir.Close()
		s.reg.Close()
	})
	compositor, err = net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { compositor.Close() })
	ours, theirs, err := brokerFiles()
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.FileConn(theirs)
	theirs.Close()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.display.serveBroker(ours)
	}()
	t.Cleanup(func() {
		c.Close()
		<-done // the end of the display ends it
		ours.Close()
	})
	return s, c.(*net.UnixConn), compositor
}

// askBroker returns the answer and its file, nil if there is none. The file is the
// test's: a second os.File of its descriptor would, when it is collected, close
// whatever has the number by then.
func askBroker(t *testing.T, c *net.UnixConn, what string) (string, *os.File) {
	t.Helper()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
	b, oob := make([]byte, 512), make([]byte, unix.CmsgSpace(8))
	n, on, _, _, err := c.ReadMsgUnix(b, oob)
	if err != nil {
		t.Fatal(err)
	}
	files, err := proc.ParseFiles(oob[:on])
	if err != nil || len(files) == 0 {
		return string(b[:n]), nil
	}
	t.Cleanup(func() { proc.CloseFiles(files) })
	return string(b[:n]), files[0]
}

func TestBroker(t *testing.T) {
	_, c, compositor := brokerRig(t)
	if answer, f := askBroker(t, c, "connect"); answer != "ok" || f == nil {
		t.Fatalf("connect: %q, %v", answer, f)
	}
	witness, err := compositor.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	if answer, f := askBroker(t, c, "through"); answer == "ok" || f != nil {
		t.Errorf("through before listen: %q, %v", answer, f)
	}
	var listeners []net.Listener
	for range 2 { // the second takes the place of the first
		answer, f := askBroker(t, c, "listen")
		if answer != "ok" || f == nil {
			t.Fatalf("listen: %q, %v", answer, f)
		}
		l, err := net.FileListener(f)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		listeners = append(listeners, l)
	}
	if answer, f := askBroker(t, c, "through"); answer != "ok" || f == nil {
		t.Fatalf("through: %q, %v", answer, f)
	}
	if _, err := listeners[1].Accept(); err != nil {
		t.Error(err)
	}
	// There is no way around the context, whatever the display does to it.
	if answer, f := askBroker(t, c, "listen"); answer != "ok" || f == nil {
		t.Errorf("listen: %q, %v", answer, f)
	}
	if answer, f := askBroker(t, c, "connect"); !strings.HasPrefix(answer, "refused: ") || f != nil {
		t.Errorf("connect beside the context: %q, %v", answer, f)
	}
	witness.Close() // as a compositor's end does
	if answer, f := askBroker(t, c, "connect"); answer != "ok" || f == nil {
		t.Errorf("connect to a new compositor: %q, %v", answer, f)
	}
}

// A display that was taken over may ask for anything.
func TestBrokerRefuses(t *testing.T) {
	_, c, compositor := brokerRig(t)
	for _, what := range []string{"connect ", "connect\x00", "/run/user/0/bus", "listenlistenlistenlisten"} {
		if answer, f := askBroker(t, c, what); answer != "unknown request" || f != nil {
			t.Errorf("%q: %q, %v", what, answer, f)
		}
	}
	compositor.Close()
	if answer, f := askBroker(t, c, "connect"); answer == "ok" || f != nil {
		t.Errorf("without a compositor: %q, %v", answer, f)
	}
	if _, err := c.Write(nil); err != nil && !errors.Is(err, unix.EPIPE) {
		t.Error(err)
	}
}
