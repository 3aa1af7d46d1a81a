package main

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

// TestEntryWithoutService: an entry works while our D-Bus service does not run. Whoever calls
// its name, the bus starts the service for; and a launcher that is gone at once, as "gio launch"
// is, starts the program itself.
func TestEntryWithoutService(t *testing.T) {
	for _, tool := range []string{"dbus-daemon", "gio"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("lacks: " + tool)
		}
	}
	dir, err := os.MkdirTemp("", "vix") // short, for sockets
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	write := func(name, text string) string {
		t.Helper()
		at := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
		return at
	}
	launcher, err := exec.LookPath("vix-launcher") // this program, by a name that TestMain knows
	if err != nil {
		t.Fatal(err)
	}
	write("root/usr/bin/prog", "")
	write("root/usr/share/applications/prog.desktop", "[Desktop Entry]\nType=Application\nName=Prog\nExec=prog\n")
	write("config/vix/config.toml", fmt.Sprintf("[vm.web]\nroot = %q\n", filepath.Join(dir, "root")))
	conf := write("bus.conf", fmt.Sprintf(`<busconfig><type>session</type><listen>unix:path=%s/bus</listen><auth>EXTERNAL</auth><servicedir>%s/data/dbus-1/services</servicedir>
<policy context="default"><allow send_destination="*"/><allow receive_sender="*"/><allow own="*"/></policy></busconfig>`, dir, dir))
	env := []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "XDG_RUNTIME_DIR=" + dir, "XDG_DATA_HOME=" + dir + "/data",
		"XDG_CONFIG_HOME=" + dir + "/config", "XDG_CACHE_HOME=" + dir + "/cache", "WAYLAND_DISPLAY=wayland-9", "DBUS_SESSION_BUS_ADDRESS=unix:path=" + dir + "/bus",
	}
	must := func(name string, args ...string) {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
	}
	must(launcher, "desktop", "sync")
	// The VM cannot start any more, which the service says: no VM is needed here.
	if err := os.RemoveAll(filepath.Join(dir, "root")); err != nil {
		t.Fatal(err)
	}
	bus := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nosyslog", "--print-address")
	bus.Env = env
	ready, err := bus.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := bus.StderrPipe() // the service's too
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := bufio.NewReader(ready).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(said); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = bus.Process.Kill() // the service ends with its bus
		for range lines {
		}
		_ = bus.Wait()
	})
	launch := exec.Command("gio", "launch", filepath.Join(dir, "data/applications/dev.vix.web.prog.desktop"))
	launch.Env = env
	// What it starts has its standard error, and ends before Output returns.
	if out, err := launch.CombinedOutput(); err != nil || !strings.Contains(string(out), "VM web: ") {
		t.Errorf("gio launch: %v: %q, want why the VM does not start", err, out)
	}
	conn, err := dbus.Connect("unix:path=" + dir + "/bus")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	call := conn.Object("dev.vix.web.prog", "/dev/vix/web/prog").Call("org.freedesktop.Application.Activate", 0, map[string]dbus.Variant{})
	if call.Err != nil {
		t.Fatal(call.Err)
	}
	var all []string
	for limit := time.After(time.Minute); ; {
		select {
		case l, ok := <-lines:
			if all = append(all, l); strings.Contains(l, "not started") && strings.Contains(l, "dev.vix.web.prog") {
				return
			}
			if !ok {
				t.Fatalf("the bus has ended: %q", all)
			}
		case <-limit:
			t.Fatalf("the service got no call: %q", all)
		}
	}
}
