package accept

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestServe runs in a separate process, whose limit of descriptors it lowers.
func TestServe(t *testing.T) {
	if os.Getenv("VIX_TEST_ACCEPT") != "" {
		serveShort(t)
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestServe$", "-test.v")
	cmd.Env = append(os.Environ(), "VIX_TEST_ACCEPT=1")
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
		t.Errorf("%v: %s", err, out)
	}
}

func serveShort(t *testing.T) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	served := make(chan *net.UnixConn, 8)
	go func() {
		ended <- Serve(l, func(c *net.UnixConn) { served <- c }, func(c *net.UnixConn, why error) { _, _ = io.WriteString(c, why.Error()) })
	}()
	dial := func() *net.UnixConn {
		c, err := net.DialUnix("unix", nil, l.Addr().(*net.UnixAddr))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	first := dial()
	(<-served).Close()
	// Only the client's own descriptor is left.
	var hold []*os.File
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 64, Max: was.Max}); err != nil {
		t.Fatal(err)
	}
	for {
		f, err := os.Open("/dev/null")
		if errors.Is(err, unix.EMFILE) {
			break
		}
		hold = append(hold, f)
	}
	for range 3 {
		hold[len(hold)-1].Close()
		c := dial()
		said, err := io.ReadAll(c)
		if err != nil || string(said) != "too many open files" {
			t.Errorf("refused by %q, %v", said, err)
		}
		c.Close()
		if hold[len(hold)-1], err = os.Open("/dev/null"); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range hold {
		f.Close()
	}
	second := dial()
	(<-served).Close()
	first.Close()
	second.Close()
	l.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
