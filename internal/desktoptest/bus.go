package desktoptest

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// busConfig is a session bus that starts the services of one directory alone: not
// those of the machine, which would depend on what is installed.
const busConfig = `<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>%s</listen>
  <auth>EXTERNAL</auth>
  <servicedir>%s</servicedir>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
`

// StartBus starts a session bus for this desktop, at the place where programs look
// for one, and returns its address. It starts the services whose files are in
// services; "" is none. env is put over the desktop's own for them.
func (d *Desktop) StartBus(t T, services string, env ...string) string {
	t.Helper()
	address := "unix:path=" + filepath.Join(d.Dir, "bus")
	if services == "" {
		services = filepath.Join(d.Dir, "no-services")
	}
	conf := filepath.Join(d.Dir, "bus.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, busConfig, address, services), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatalf("%v", err)
	}
	defer r.Close()
	cmd := exec.Command("dbus-daemon", "--config-file="+conf, "--nofork", "--nosyslog", "--print-address=3")
	cmd.ExtraFiles = []*os.File{w}
	d.bus = address
	cmd.Env = append(d.Env(), env...)
	p, err := Command(t, cmd, d.cred)
	w.Close()
	if err != nil {
		t.Fatalf("starting a session bus: %v", err)
	}
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		<-p.Done()
		t.Fatalf("the session bus ended at its start: %s", p.Output())
	}
	return address
}

// WaitName waits until somebody owns a name on the desktop's session bus.
func (d *Desktop) WaitName(t T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "gdbus", "wait", "--session", name)
	cmd.Env = d.Env()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("waiting for %s on the bus: %v: %s", name, err, strings.TrimSpace(string(out)))
	}
}

// Mako starts the notification server and waits until it can be asked. lines are
// of its configuration.
func (d *Desktop) Mako(t T, lines ...string) *Proc {
	t.Helper()
	if d.bus == "" {
		t.Fatalf("mako needs StartBus")
	}
	conf := filepath.Join(d.Dir, "mako.conf")
	if err := os.WriteFile(conf, []byte(strings.Join(lines, "\n")+"\n"), 0o644); err != nil {
		t.Fatalf("%v", err)
	}
	p := d.Client(t, "mako", "-c", conf)
	d.WaitName(t, "org.freedesktop.Notifications")
	return p
}

// LacksBus says which programs StartBus, WaitName and Mako need that are not on
// PATH, or "".
func LacksBus() string {
	var missing []string
	for _, name := range []string{"dbus-daemon", "gdbus", "mako"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return strings.Join(missing, ", ")
}

func (d *Desktop) busEnv() []string {
	if d.bus == "" {
		return nil
	}
	return []string{"DBUS_SESSION_BUS_ADDRESS=" + d.bus}
}
