package desktop

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/e2e"
	"vix/internal/desktop"
	"vix/internal/desktoptest"
)

// manager is a shell's part that becomes a user's systemd, at the top of a control
// group of its own: $1 is an empty directory, $2 the group's name. It insists on a
// machine that systemd has booted.
const manager = `
mkdir -p /run/systemd
mount -t tmpfs none /run/systemd
mkdir /run/systemd/system
mount -t cgroup2 none "$1"
mkdir "$1/$2"
echo $$ >"$1/$2/cgroup.procs"
exec unshare --cgroup --mount sh -ec 'umount "$1"; mount -t cgroup2 none /sys/fs/cgroup; exec /usr/lib/systemd/systemd --user --unit=basic.target' sh "$1"`

// A managed is a session of sway's with a user's systemd, which starts the bus and its
// services, and knows our units.
type managed struct {
	*e2e.Rig
	t    *testing.T
	data string // XDG_DATA_HOME
	env  []string
}

func newManaged(t *testing.T) *managed {
	t.Helper()
	if l := e2e.Lacks() + desktoptest.LacksBus(); l != "" {
		t.Skip("lacks: " + l)
	}
	if os.Getuid() != 0 {
		t.Skip("a systemd beside the user's own needs a control group, which only root can give it here")
	}
	for _, path := range []string{"/usr/lib/systemd/systemd", "/usr/lib/systemd/user/dbus.socket"} {
		if _, err := os.Stat(path); err != nil {
			t.Skip("lacks: " + path)
		}
	}
	top := desktoptest.Start(t, desktoptest.Config{})
	data := t.TempDir()
	m := &managed{t: t, data: data, Rig: e2e.New(t, e2e.Config{Attach: top, Bin: "../../build/bin", TOML: conf})}
	m.env = []string{
		"SWAYSOCK=" + top.IPC, "XDG_DATA_HOME=" + data, "DBUS_SESSION_BUS_ADDRESS=unix:path=" + filepath.Join(top.Dir, "bus"),
		"PATH=" + filepath.Dir(m.Launcher()) + ":" + os.Getenv("PATH"),
	}
	m.install()
	m.startManager(fmt.Sprintf("vix-e2e-%d", os.Getpid()))
	// What our snippet has sway do: the manager began before there was a compositor.
	snippet, err := os.ReadFile("../../packaging/sway/vix.conf")
	if err != nil {
		t.Fatal(err)
	}
	_, update, _ := strings.Cut(string(snippet), "\nexec dbus-update-activation-environment ")
	update, _, _ = strings.Cut(update, "\n")
	m.must(append([]string{"dbus-update-activation-environment"}, strings.Fields(update)...)...)
	return m
}

// startManager returns when systemd is up.
func (m *managed) startManager(group string) {
	m.t.Helper()
	groups := m.t.TempDir()
	try := exec.Command("unshare", "--mount", "sh", "-ec", `mount -t cgroup2 none "$1"; mkdir "$1/$2"; rmdir "$1/$2"`, "sh", groups, group)
	if out, err := try.CombinedOutput(); err != nil {
		m.t.Skipf("no control group can be made here: %v: %s", err, out)
	}
	m.t.Cleanup(func() {
		out, err := exec.Command("unshare", "--mount", "sh", "-ec", `mount -t cgroup2 none "$1"; find "$1/$2" -depth -type d -exec rmdir {} +`, "sh", groups, group).CombinedOutput()
		if err != nil {
			m.t.Errorf("the control group: %v: %s", err, out)
		}
	})
	notify := filepath.Join(m.Desktop.Dir, "notify")
	ready, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: notify, Net: "unixgram"})
	if err != nil {
		m.t.Fatal(err)
	}
	defer ready.Close()
	cmd := m.command("unshare", "--mount", "sh", "-ec", manager, "sh", groups, group)
	cmd.Env = slices.DeleteFunc(cmd.Env, func(kv string) bool {
		return strings.HasPrefix(kv, "WAYLAND_DISPLAY=") || strings.HasPrefix(kv, "SWAYSOCK=")
	})
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+notify, "SYSTEMD_LOG_TARGET=console", "SYSTEMD_LOG_LEVEL=warning")
	p, err := desktoptest.Command(m.t, cmd, nil)
	if err != nil {
		m.t.Fatal(err)
	}
	if err := ready.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		m.t.Fatal(err)
	}
	for b := make([]byte, 4096); ; {
		n, err := ready.Read(b)
		if err != nil {
			m.t.Fatalf("systemd --user: %v: %s", err, p.Output())
		}
		switch text := "\n" + string(b[:n]); {
		case strings.Contains(text, "\nREADY=1"):
			return
		case strings.Contains(text, "\nEXIT_STATUS="):
			m.t.Fatalf("systemd --user: %s: %s", text, p.Output())
		}
	}
}

// install lays down our units and the bus's service, as make install does.
func (m *managed) install() {
	m.t.Helper()
	units, services := filepath.Join(m.data, "systemd/user"), filepath.Join(m.data, "dbus-1/services")
	if err := errors.Join(os.MkdirAll(units, 0o755), os.MkdirAll(services, 0o755)); err != nil {
		m.t.Fatal(err)
	}
	files, err := filepath.Glob("../../packaging/systemd/*")
	if err != nil || len(files) == 0 {
		m.t.Fatal(files, err)
	}
	for _, f := range append(files, "../../packaging/dbus/dev.vix.Launcher.service") {
		b, err := os.ReadFile(f)
		if err != nil {
			m.t.Fatal(err)
		}
		to := filepath.Join(units, filepath.Base(f))
		if strings.Contains(f, "/dbus/") {
			to = filepath.Join(services, filepath.Base(f))
		}
		if err := os.WriteFile(to, []byte(strings.ReplaceAll(string(b), "@bindir@", filepath.Dir(m.Launcher()))), 0o644); err != nil {
			m.t.Fatal(err)
		}
	}
}

func (m *managed) command(argv ...string) *exec.Cmd {
	cmd := m.Command(argv...)
	cmd.Env = append(cmd.Env, m.env...)
	return cmd
}

func (m *managed) must(argv ...string) string {
	m.t.Helper()
	res := m.Run(m.command(argv...))
	if res.Code != 0 {
		m.t.Fatalf("%q: %v", argv, res)
	}
	return strings.TrimSpace(res.Stdout)
}

func (m *managed) show(unit, property string) string {
	m.t.Helper()
	return m.must("systemctl", "--user", "show", "--value", "--property", property, unit)
}

// removed returns what waits until a file of a directory is removed.
func (m *managed) removed(dir, name string) (wait func()) {
	m.t.Helper()
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		m.t.Fatal(err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	m.t.Cleanup(func() { events.Close() })
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_DELETE); err != nil {
		m.t.Fatal(err)
	}
	return func() {
		m.t.Helper()
		if err := events.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
			m.t.Fatal(err)
		}
		for b := make([]byte, 4096); ; {
			n, err := events.Read(b)
			if err != nil {
				m.t.Fatalf("%s is not removed: %v", name, err)
			}
			if bytes.Contains(b[:n], []byte(name)) {
				return
			}
		}
	}
}

// waitProgram waits until a VM runs a program.
func (m *managed) waitProgram(name string) {
	m.t.Helper()
	cmd := m.command(m.Launcher(), "status", "--watch", "--json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	watch := m.StartCommand(cmd)
	defer watch.Stop()
	limit := time.AfterFunc(time.Minute, func() { watch.Signal(syscall.SIGTERM) })
	defer limit.Stop()
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if strings.Contains(lines.Text(), `"`+name+`"`) {
			return
		}
	}
	m.t.Fatalf("no VM runs %s", name)
}

// TestUserManager: with systemd the bus has it start our service, VMs are in scopes of
// their own and outlive the service, and the units do what they say.
func TestUserManager(t *testing.T) {
	m := newManaged(t)
	m.must(m.Launcher(), "desktop", "sync")
	m.must("gdbus", "call", "--session", "--dest", "dev.vix.placed.foot", "--object-path", "/dev/vix/placed/foot", "--method", "org.freedesktop.Application.Activate", "{}")
	if state := m.show("vix-dbus.service", "ActiveState"); state != "active" {
		t.Errorf("the bus had not systemd start the service, which is %s", state)
	}
	m.WaitWindow(t, desktoptest.ByAppID("vix.placed.foot"))
	group, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.VM("placed").PIDs.Supervisor))
	if err != nil || !strings.Contains(string(group), "/app.slice/app-graphical.slice/app-vix-placed-") {
		t.Errorf("the VM's control group: %v: %s", err, group)
	}
	pid := m.show("vix-dbus.service", "MainPID")
	if out := m.must("gdbus", "call", "--session", "--dest", "org.freedesktop.DBus", "--object-path", "/", "--method", "org.freedesktop.DBus.GetConnectionUnixProcessID", desktop.BusName); !strings.Contains(out, " "+pid+",") {
		t.Errorf("%s owns the name, and the unit's process is %s", out, pid)
	}
	m.must("systemctl", "--user", "stop", "vix-dbus.service")
	if vms := m.List(); len(vms) != 1 || vms[0].State != "running" {
		t.Errorf("after the end of the service: %+v", vms)
	}

	// Entries follow config.toml.
	m.must("systemctl", "--user", "start", "vix-desktop-sync.path")
	gone := m.removed(filepath.Join(m.data, "applications"), "dev.vix.free.org.gtk.Demo4.desktop")
	if err := m.SetConfig(strings.Replace(conf, `, "org.gtk.Demo4"`, "", 1)); err != nil {
		t.Fatal(err)
	}
	gone()

	// A unit keeps the VM that runs, and ends it.
	m.must("systemctl", "--user", "start", "vix@placed.service")
	m.waitProgram("sleep")
	m.must("systemctl", "--user", "stop", "vix@placed.service")
	if vms := m.List(); len(vms) != 0 {
		t.Errorf("after the unit's end: %+v", vms)
	}
	if result := m.show("vix@placed.service", "Result"); result != "success" {
		t.Errorf("the unit's result: %s, status %s, %s", result, m.show("vix@placed.service", "ExecMainStatus"), m.show("vix@placed.service", "ExecMainCode"))
	}
}
