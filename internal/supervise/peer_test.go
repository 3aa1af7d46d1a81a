package supervise

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// dialAs connects as another user, of whom only one thread is for a moment.
func dialAs(uid int, path string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, ^uintptr(0), uintptr(uid), ^uintptr(0)); errno != 0 {
			done <- result{err: errno}
			return
		}
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		f := os.NewFile(uintptr(fd), "control")
		defer f.Close()
		conn, err := net.FileConn(f)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// Another user does not reach the control socket; if somebody opens the way to it, the
// supervisor still does not listen to him.
func TestSecondUser(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can be a second user")
	}
	b := newBench(t)
	s := b.goRun(b.start("t", "sleep", "60"))
	b.state(s)
	socket := b.reg.Control("t")
	const stranger = 65534
	if _, err := dialAs(stranger, socket); !errors.Is(err, unix.EACCES) {
		t.Errorf("through closed directories: %v", err)
	}
	for path := socket; path != filepath.Dir(filepath.Dir(b.dir)); path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := dialAs(stranger, socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	c := &vm.Control{Conn: conn.(*net.UnixConn)}
	_ = c.Send(vm.Request{Version: vm.ControlVersion, Op: vm.OpState})
	_ = conn.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := conn.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a stranger gets an answer: %d, %v", n, err)
	}
	var log strings.Builder
	if err := b.reg.Logs(t.Context(), "t", false, &log); err != nil || !strings.Contains(log.String(), "refused: control socket: the peer is user 65534, not 0") {
		t.Errorf("%v: %s", err, log.String())
	}
	// The runtime directory is not trusted any more.
	if _, err := vm.OpenRegistry(b.dir); err == nil || !strings.Contains(err.Error(), "not a directory of yours alone") {
		t.Error(err)
	}
	if err := os.Chmod(filepath.Join(b.dir, "vix"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := b.reg.Stop(t.Context(), "t", false); err != nil {
		t.Error(err)
	}
	<-s.done
}

// A state that another version has saved is not misread.
func TestSavedState(t *testing.T) {
	dir, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	for _, c := range []struct {
		text  string
		state string
	}{
		{`{"version": 1, "name": "t", "state": "running"}`, "running"},
		{`{"version": 2, "name": "t", "state": "running"}`, ""},
		{`{"name": "t", "state": "running"}`, ""},
		{`{"version": 1, "na`, ""},
		{"", ""},
	} {
		_ = dir.MkdirAll("t", 0o700)
		if err := dir.WriteFile("t/"+vm.StateName, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if st, err := vm.LoadState(dir, "t"); err != nil || st.Name != "t" || st.State != c.state {
			t.Errorf("%s: %+v, %v", c.text, st, err)
		}
	}
}
