package balloon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestHostRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	meminfo := write("meminfo", "MemTotal:       24683980 kB\nMemFree:         2180000 kB\nMemAvailable:   22000000 kB\n")
	low := write("low", "MemTotal:       24683980 kB\nMemAvailable:   1000000 kB\n")
	calm := write("calm", "some avg10=0.12 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	hard := write("hard", "some avg10=31.07 avg60=12.00 avg300=0.00 total=923\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	for _, tt := range []struct {
		pressure, meminfo string
		short             bool
		err               string
	}{
		{calm, meminfo, false, ""},
		{hard, meminfo, true, ""},
		{filepath.Join(dir, "none"), meminfo, false, ""},
		{calm, low, true, ""},
		{filepath.Join(dir, "none"), low, true, ""},
		{write("odd", "full avg10=1"), meminfo, false, "not as PSI writes it"},
		{calm, write("empty", ""), false, "no MemTotal"},
		{calm, filepath.Join(dir, "none"), false, "no such file"},
	} {
		h := OpenHost(tt.pressure, tt.meminfo)
		m, err := h.Read()
		if err == nil && tt.err != "" || err != nil && (tt.err == "" || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%v: %v", tt, err)
		}
		if m.Short() != tt.short || h.Triggered() {
			t.Errorf("%v: %+v", tt, m)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(calm); err != nil || !strings.HasPrefix(string(b), "some avg10=0.12") {
		t.Errorf("a file that is not the kernel's was written to: %q, %v", b, err)
	}
}

// The kernel accepts the trigger, and Watch ends with its context.
func TestHostWatch(t *testing.T) {
	h := OpenHost("/proc/pressure/memory", "/proc/meminfo")
	if !h.Triggered() {
		t.Skip("lacks: PSI, or the right to set a trigger (CONFIG_PSI, Linux 6.4)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, func() {}) }()
	if m, err := h.Read(); err != nil || m.Available == 0 || m.Total < m.Available {
		t.Errorf("%+v, %v", m, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}

// The trigger fires when programs wait for memory: here those of a control group, which
// repeatedly read more than it may hold. The trigger belongs to the group too: so the machine
// need not be short, and its other programs do not fire the trigger.
func TestTriggerFires(t *testing.T) {
	g := newGroup(t, 16<<20)
	h := OpenHost(filepath.Join(g.dir, "memory.pressure"), "/proc/meminfo")
	defer h.Close()
	if !h.Triggered() {
		t.Skip("lacks: PSI, or the right to set a trigger (CONFIG_PSI, Linux 6.4)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	short := make(chan struct{}, 1)
	done := make(chan error, 1)
	go func() {
		done <- h.Watch(ctx, func() {
			select {
			case short <- struct{}{}:
			default:
			}
		})
	}()
	g.thrash(t, 96<<20)
	begin := time.Now()
	select {
	case <-short:
		t.Logf("after %.1f s", time.Since(begin).Seconds())
	case <-time.After(time.Minute):
		b, _ := os.ReadFile(filepath.Join(g.dir, "memory.pressure"))
		t.Errorf("the trigger did not fire: %s", b)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// A group is a control group with little memory for its programs.
type group struct {
	dir   string   // of version 2
	enter []string // files that take the pid of a process that enters
}

// newGroup makes a group of limit bytes. If the memory controller is still of version 1, a
// second group has the limit; version 2 still measures the stalls.
func newGroup(t *testing.T, limit int) *group {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	g := &group{}
	name := fmt.Sprintf("vix-test-%d", os.Getpid())
	make := func(parent string) string {
		dir := filepath.Join(parent, name)
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Skipf("no control group can be made here: %v", err)
		}
		t.Cleanup(func() {
			if err := os.Remove(dir); err != nil {
				t.Error(err)
			}
		})
		g.enter = append(g.enter, filepath.Join(dir, "cgroup.procs"))
		return dir
	}
	v2, v1 := "", ""
	for line := range strings.Lines(string(mounts)) {
		f := strings.Fields(line)
		switch {
		case f[2] == "cgroup2" && v2 == "":
			v2 = f[1]
		case f[2] == "cgroup" && slices.Contains(strings.Split(f[3], ","), "memory") && v1 == "":
			v1 = f[1]
		}
	}
	if v2 == "" {
		t.Skip("no control groups of version 2 here")
	}
	g.dir = make(v2)
	file := filepath.Join(g.dir, "memory.high")
	if _, err := os.Stat(file); err != nil && v1 != "" {
		file = filepath.Join(make(v1), "memory.limit_in_bytes")
	}
	if err := os.WriteFile(file, []byte(fmt.Sprint(limit)), 0); err != nil {
		t.Skipf("no control group with a limit of memory can be made here: %v", err)
	}
	return g
}

// thrash makes a process of the group read a file of size bytes until the test ends.
func (g *group) thrash(t *testing.T, size int) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Pages that stay in memory would not be charged to the group, and reading them costs nothing.
	if _, err = f.Write(bytes.Repeat([]byte("memory"), size/6)); err == nil {
		err = errors.Join(f.Sync(), unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED))
	}
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || fs.Type == unix.TMPFS_MAGIC {
		t.Skipf("a temporary file is memory itself here (%v)", err)
	}
	// The process enters the group before it reads.
	cmd := exec.Command("sh", "-c", `read go; while :; do cat "$0" "$0" >/dev/null & cat "$0" >/dev/null; wait; done`, path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Kill(-cmd.Process.Pid, unix.SIGKILL)
		_ = cmd.Wait()
		g.wait(t)
	})
	for _, file := range g.enter {
		if err := os.WriteFile(file, []byte(fmt.Sprint(cmd.Process.Pid)), 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := in.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
}

// wait waits until the group is empty: there is no event for the end of a child's child.
func (g *group) wait(t *testing.T) {
	t.Helper()
	for limit := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		empty := true
		for _, file := range g.enter {
			b, err := os.ReadFile(file)
			empty = empty && err == nil && len(b) == 0
		}
		if empty || time.Now().After(limit) {
			return
		}
	}
}
