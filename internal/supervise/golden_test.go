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
	}
	with := func(name string, devices ...qemu.Device) {
		t.Helper()
		m.Devices = append(devices, qemu.Entropy()) // every machine has it
		args, _ := m.Command()
		golden(t, name, args)
	}
	serial, screen, root, balloon := qemu.Serial(nil), qemu.Display(nil), qemu.RootFS(nil), qemu.Balloon()
	with("qemu-tcg.golden", serial, screen, root, balloon)
	with("qemu-shares.golden", serial, screen, root, balloon, qemu.USB(), qemu.Ports(2), qemu.Share("home", -1, nil), qemu.Share("share1", 1, nil))
	p := &passt{publish: []config.Publish{
		{Addr: netip.MustParseAddr("127.0.0.1"), Host: 8080, Guest: 80}, {Addr: netip.MustParseAddr("0.0.0.0"), Host: 53, Guest: 5353, UDP: true}}}
	golden(t, "passt.golden", p.args(3))
	with("qemu-passt.golden", serial, screen, root, p.card(), balloon)
	with("qemu-usernet.golden", serial, screen, root, (&userNet{publish: p.publish}).card(), balloon)
	with("qemu-disk.golden", serial, screen, qemu.Disk(nil, "qcow2"), balloon)
	with("qemu-no-gui.golden", serial, root, balloon)
	m.Accel, m.Memory, m.CPUs = "kvm", 2<<30, 4
	with("qemu-kvm.golden", serial, screen, root, balloon)
	with("qemu-vsock.golden", qemu.Vsock(nil, 4242, 70000), serial, screen, root, balloon)
	golden(t, "virtiofsd-share.golden", shareArgs("/run/vix/web/share0", false))
	golden(t, "display.golden", display.Spec{VM: "web", VhostFD: 3, EventsFD: 4, ControlFD: 5, BrokerFD: 6}.Args())
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
