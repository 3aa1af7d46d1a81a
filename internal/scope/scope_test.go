package scope

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
	"golang.org/x/sys/unix"
)

// sleeper is a process that can be moved between groups.
func sleeper(t *testing.T) int {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd.Process.Pid
}

func groupOf(t *testing.T, pid int) string {
	t.Helper()
	dir, err := ownGroup("/proc", pid)
	if err != nil {
		t.Skipf("lacks: a control group (version 2): %v", err)
	}
	return dir
}

// Without systemd, the process gets a group of its own, with its weight if the machine allows
// that, and nothing is left afterwards.
func TestGroup(t *testing.T) {
	pid := sleeper(t)
	before := groupOf(t, pid)
	c := Config{Name: "t", Weight: 50, Memory: 3 << 30, PID: pid, Proc: "/proc"}
	if p := Probe(t.Context(), c); p.Kind != KindGroup {
		t.Skipf("lacks: a control group that may be written: %v", p.Weaker)
	}
	// The next start of the VM removes what a killed supervisor has left.
	stale := filepath.Join(parent(before), "vix-t-999999999")
	if err := os.Mkdir(stale, 0o755); err != nil {
		t.Fatal(err)
	}
	s := Enter(t.Context(), c)
	if s.Kind != KindGroup || !strings.Contains(strings.Join(s.Weaker, ";"), "no scope: no session bus") {
		t.Fatalf("%+v", s)
	}
	if now := groupOf(t, pid); now != s.Name || filepath.Base(now) != fmt.Sprintf("vix-t-%d", pid) {
		t.Errorf("in %s, not %s", now, s.Name)
	}
	if _, err := os.Stat(stale); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", stale, err)
	}
	if err := s.RemoveLeft("t"); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a group with a process in it: %v", err)
	}
	if w, err := os.ReadFile(filepath.Join(s.Name, "cpu.weight")); err == nil && strings.TrimSpace(string(w)) != "50" {
		t.Errorf("weight %q", w)
	} else if err != nil && !strings.Contains(strings.Join(s.Weaker, ";"), "no share of the processors") {
		t.Errorf("no weight, and nothing is said: %v", s.Weaker)
	}
	if m, err := os.ReadFile(filepath.Join(s.Name, "memory.max")); err == nil && strings.TrimSpace(string(m)) != "3221225472" {
		t.Errorf("memory %q", m)
	} else if err != nil && !strings.Contains(strings.Join(s.Weaker, ";"), "no bound of its memory") {
		t.Errorf("no bound of its memory, and nothing is said: %v", s.Weaker)
	}
	// Leave waits for a process that is ending and is not a child here.
	last := exec.Command("sleep", "0.3")
	if err := last.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = last.Wait() }()
	if err := writeGroup(s.Name, "cgroup.procs", strconv.Itoa(last.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := s.Leave(); err != nil {
		t.Error(err)
	}
	if now := groupOf(t, pid); now != before {
		t.Errorf("afterwards in %s, not %s", now, before)
	}
	if _, err := os.Stat(s.Name); !os.IsNotExist(err) {
		t.Errorf("%s is left: %v", s.Name, err)
	}
}

func TestNoGroup(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, "1", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct{ cgroup, mounts, want string }{
		{"4:memory:/x\n", "", "no cgroup version 2"},
		{"0::/x\n", "31 23 0:26 / /sys rw - sysfs sysfs rw\n", "is not mounted"},
		{"0::/x\n", "31 23 0:26 /other /sys/fs/cgroup rw - cgroup2 cgroup rw\n", "is not to be seen here"},
		{"0::/x/y\n", "31 23 0:26 / " + dir + "/none rw - cgroup2 cgroup rw\n", "no such file or directory"},
	} {
		write("cgroup", tt.cgroup)
		write("mountinfo", tt.mounts)
		c := Config{Name: "t", Weight: 100, PID: 1, Proc: dir, Bus: "tcp:host=localhost"}
		for _, s := range []Scope{Enter(t.Context(), c), Probe(t.Context(), c)} {
			if text := strings.Join(s.Weaker, "; "); s.Kind != KindNone || !strings.Contains(text, tt.want) || !strings.Contains(text, "not a socket") {
				t.Errorf("%q: %+v", tt.want, s)
			}
			if err := s.Leave(); err != nil {
				t.Error(err)
			}
		}
	}
}

func TestUnitName(t *testing.T) {
	if got := UnitName("my-web", 12); got != `app-vix-my\x2dweb-12.scope` {
		t.Error(got)
	}
}

// bus starts a session bus.
func bus(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("dbus-daemon"); err != nil {
		t.Skip("lacks: dbus-daemon")
	}
	cmd := exec.Command("dbus-daemon", "--session", "--nofork", "--print-address", "--address=unix:dir="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// systemdTwin answers like systemd (org.freedesktop.systemd1(5)): the real one cannot run on a
// machine whose control groups it does not manage.
type systemdTwin struct {
	conn   *dbus.Conn
	result atomic.Value // a string
	got    chan map[string]any
}

func (s *systemdTwin) StartTransientUnit(name, mode string, properties []property, _ []aux) (dbus.ObjectPath, *dbus.Error) {
	got := map[string]any{"name": name, "mode": mode}
	for _, p := range properties {
		got[p.Name] = p.Value.Value()
	}
	result := s.result.Load() // read before the test goes on, and changes it
	s.got <- got
	job := dbus.ObjectPath(systemdPath + "/job/7")
	go func() {
		for _, j := range []dbus.ObjectPath{systemdPath + "/job/6", job} { // another job's end comes first
			_ = s.conn.Emit(systemdPath, manager+".JobRemoved", uint32(7), j, name, result)
		}
	}()
	return job, nil
}

func (s *systemdTwin) SetUnitProperties(name string, runtime bool, properties []property) *dbus.Error {
	got := map[string]any{"name": name, "runtime": runtime}
	for _, p := range properties {
		got[p.Name] = p.Value.Value()
	}
	s.got <- got
	return nil
}

func TestScope(t *testing.T) {
	address := bus(t)
	c := Config{Name: "my-web", Weight: 20, Memory: 5 << 30, PID: os.Getpid(), Bus: address, Proc: t.TempDir()}
	if s := Enter(t.Context(), c); s.Kind != KindNone || !strings.Contains(s.Weaker[0], "systemd of the session: ") {
		t.Errorf("a bus without systemd: %+v", s)
	}
	if s := Probe(t.Context(), c); !strings.Contains(s.Weaker[0], "no systemd on the session bus") {
		t.Errorf("a bus without systemd: %+v", s)
	}
	conn, err := dbus.Connect(address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	twin := &systemdTwin{conn: conn, got: make(chan map[string]any, 1)}
	twin.result.Store("done")
	if err := conn.ExportMethodTable(map[string]any{"StartTransientUnit": twin.StartTransientUnit, "SetUnitProperties": twin.SetUnitProperties}, systemdPath, manager); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.RequestName(systemd, dbus.NameFlagDoNotQueue); err != nil {
		t.Fatal(err)
	}
	unit := UnitName(c.Name, c.PID)
	s := Enter(t.Context(), c)
	if s.Kind != KindScope || s.Name != unit || len(s.Weaker) > 0 || s.Leave() != nil {
		t.Errorf("%+v", s)
	}
	got := <-twin.got
	if got["MemoryMax"] != uint64(5<<30) {
		t.Errorf("asked for %v", got)
	}
	if pids, _ := got["PIDs"].([]uint32); got["name"] != unit || got["mode"] != "fail" || got["Slice"] != appSlice || got["CPUWeight"] != uint64(20) || !slices.Equal(pids, []uint32{uint32(c.PID)}) {
		t.Errorf("asked for %v", got)
	}
	if s := Probe(t.Context(), c); s.Kind != KindScope {
		t.Errorf("%+v", s)
	}
	if err := s.Bound(t.Context(), 6<<30); err != nil {
		t.Error(err)
	}
	if got := <-twin.got; got["name"] != unit || got["runtime"] != true || got["MemoryMax"] != uint64(6<<30) {
		t.Errorf("asked for %v", got)
	}
	twin.result.Store("failed")
	if s := Enter(t.Context(), c); s.Kind != KindNone || !strings.Contains(s.Weaker[0], unit+": failed") {
		t.Errorf("%+v", s)
	}
}

// A bus that does not answer delays a caller only up to his own deadline.
func TestBusThatHangs(t *testing.T) {
	dir := t.TempDir()
	ln := listen(t, filepath.Join(dir, "bus"))
	defer ln.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	done := make(chan Scope, 1)
	go func() {
		done <- Enter(ctx, Config{Name: "t", PID: os.Getpid(), Bus: "unix:path=" + dir + "/bus", Proc: dir})
	}()
	select {
	case s := <-done:
		if s.Kind != KindNone {
			t.Errorf("%+v", s)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("it hangs")
	}
}

func listen(t *testing.T, path string) *net.UnixListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// The groups of the VM web are not those of the VM web-1, whatever its supervisor's pid.
func TestStaleGroupsAreOfOneVM(t *testing.T) {
	dir, proc := t.TempDir(), t.TempDir()
	for _, name := range []string{"vix-web-77", "vix-web-1-88", "vix-web-x", "vix-web-"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	removeStale(dir, Config{Name: "web", PID: os.Getpid(), Proc: proc})
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{"vix-web-", "vix-web-1-88", "vix-web-x"}; !slices.Equal(left, want) {
		t.Errorf("left %q, want %q", left, want)
	}
}
