package supervise

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vix/config"
	"vix/internal/display"
	"vix/internal/qemu"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// One argument a line, and an option's value beside it, so that a change of a
// command line is a readable diff.
func golden(t *testing.T, name string, args []string) {
	t.Helper()
	var b strings.Builder
	for i, a := range args {
		sep := "\n"
		if strings.HasPrefix(a, "-") && i+1 < len(args) && !strings.HasPrefix(args[i+1], "-") {
			sep = " "
		}
		b.WriteString(a + sep)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := b.String(); got != string(want) {
		t.Errorf("%s: got\n%swant\n%s", name, got, want)
	}
}

func TestCommandLines(t *testing.T) {
	m := qemu.Machine{
		Name: "web", Accel: "tcg", Memory: 512 << 20, CPUs: 2,
		Kernel: "/cache/vmlinux", Initrd: "/cache/initrd",
		QMPFD: 3, DisplayFD: 4, RootFD: 5, AgentFD: 6,
	}
	golden(t, "qemu-tcg.golden", m.Args())
	m.USBPort, m.Ports, m.Shares = true, 2, []qemu.Folder{{Tag: "home", Port: -1, FD: 7}, {Tag: "share1", Port: 1, FD: 8}}
	golden(t, "qemu-shares.golden", m.Args())
	m.USBPort, m.Ports, m.Shares = false, 0, nil
	p := &passt{publish: []config.Publish{
		{Addr: netip.MustParseAddr("127.0.0.1"), Host: 8080, Guest: 80}, {Addr: netip.MustParseAddr("0.0.0.0"), Host: 53, Guest: 5353, UDP: true}}}
	golden(t, "passt.golden", p.args(3))
	m.Netdev = p.netdev(7)
	golden(t, "qemu-passt.golden", m.Args())
	m.Netdev = (&userNet{p.publish}).netdev(7)
	golden(t, "qemu-usernet.golden", m.Args())
	m.Netdev = ""
	m.DiskFormat = "qcow2"
	golden(t, "qemu-disk.golden", m.Args())
	m.DiskFormat = ""
	m.DisplayFD = 0
	golden(t, "qemu-no-gui.golden", m.Args())
	m.DisplayFD = 4
	m.Accel, m.Memory, m.CPUs = "kvm", 2<<30, 4
	golden(t, "qemu-kvm.golden", m.Args())
	m.AgentFD, m.VsockFD, m.VsockCID, m.VsockPort = 7, 6, 4242, 70000
	golden(t, "qemu-vsock.golden", m.Args())
	m.AgentFD, m.VsockCID = 0, 0
	golden(t, "qemu-vsock-device.golden", m.Args())
	golden(t, "vhost-device-vsock.golden", vsockArgs("/run/vix/web/vsock"))
	d := display.Display{VM: "web", Tag: "the web", Color: "#d0312d", VhostFD: 3, EventsFD: 4, ControlFD: 5, BrokerFD: 6}
	golden(t, "display.golden", d.Args())
	golden(t, "virtiofsd-share.golden", shareArgs("/run/vix/web/share0", false))
	d.Frame, d.Allow, d.Deny = "border", []string{"wl_x", "wl_y"}, []string{"wl_z"}
	d.Limits = map[string]int64{"surfaces": 5, "popups": 7}
	d.Drags = []config.DragRule{{From: "web", To: "*", Limits: map[string]int64{"text": 9}, Strip: true}, {From: "*", To: "*"}}
	golden(t, "display-policy.golden", d.Args())
}

func TestCheckKVM(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	plain := write("plain", "processor : 0\nflags\t\t: fpu sse lm\n")
	vmx := write("vmx", "processor : 0\nflags\t\t: fpu vmx lm\n")
	for _, tt := range []struct{ name, device, cpuinfo, want string }{
		{"no device", filepath.Join(dir, "none"), vmx, "does not exist"},
		{"no vmx", plain, plain, "neither vmx nor svm"},
		{"not KVM", vmx, vmx, "not KVM"},
	} {
		if err := qemu.CheckKVM(tt.device, tt.cpuinfo); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}
