package supervise

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/usb"
	"vix/internal/vm"
)

// usbTree makes a machine with a USB device at each port, all of one kind, whose nodes
// are plain files: a lock and a right to open are the same on those.
func usbTree(t *testing.T, l *vm.Launch, dir string, ports ...string) {
	t.Helper()
	l.Parts.USB, l.Parts.USBNodes = filepath.Join(dir, "sys"), filepath.Join(dir, "dev")
	for i, port := range ports {
		at := filepath.Join(l.Parts.USB, port)
		if err := os.MkdirAll(at, 0o755); err != nil {
			t.Fatal(err)
		}
		num := string(rune('1' + i))
		for name, text := range map[string]string{"idVendor": "1050", "idProduct": "0407", "busnum": "1", "devnum": num, "bDeviceClass": "00", "product": "Key"} {
			if err := os.WriteFile(filepath.Join(at, name), []byte(text+"\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		node := filepath.Join(l.Parts.USBNodes, "001", "00"+num)
		if err := os.MkdirAll(filepath.Dir(node), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(node, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A device is in one VM at a time, and free when that lets go of it, or has ended.
func TestUSBDescriptor(t *testing.T) {
	b := newBench(t)
	tree := t.TempDir()
	start := func(name string, rules ...config.USBDevice) *session {
		s := b.start(name, "sleep", "60")
		s.run.Launch = func() (vm.Launch, error) {
			l := b.launch(name)
			usbTree(t, &l, tree, "1-1", "1-2")
			l.VM.USB = rules
			return l, nil
		}
		b.goRun(s)
		b.state(s)
		return s
	}
	start("a")
	start("b")
	if _, err := b.reg.AttachUSB(t.Context(), "a", "1050:0407"); err == nil || !strings.Contains(err.Error(), "2 devices match; name one by its port, such as 1-1") {
		t.Errorf("two of a kind: %v", err)
	}
	if st, err := b.reg.AttachUSB(t.Context(), "a", "1.1"); err != nil || st != (vm.USBState{Port: "1-1", ID: "1050:0407", Name: "Key", Rule: false}) {
		t.Fatalf("%+v, %v", st, err)
	}
	for text, want := range map[string]string{"1-1": "is in another VM", "1-7": "no such device", "x": "want VENDOR:PRODUCT", "qemu:usb-kbd": "want VENDOR:PRODUCT"} {
		if _, err := b.reg.AttachUSB(t.Context(), "b", text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", text, err, want)
		}
	}
	if _, err := b.reg.AttachUSB(t.Context(), "a", "1-1"); err == nil || !strings.Contains(err.Error(), "has it already") {
		t.Errorf("twice: %v", err)
	}
	if st, err := b.reg.State(t.Context(), "a"); err != nil || len(st.USB) != 1 {
		t.Errorf("%+v, %v", st.USB, err)
	}
	if _, err := b.reg.DetachUSB(t.Context(), "a", "1050:0407"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.reg.AttachUSB(t.Context(), "b", "1-1"); err != nil {
		t.Errorf("it is not free: %v", err)
	}
	if err := b.reg.Stop(t.Context(), "b", false); err != nil {
		t.Fatal(err)
	}
	if _, err := b.reg.AttachUSB(t.Context(), "a", "1-1"); err != nil {
		t.Errorf("it is not free after its VM's end: %v", err)
	}
	// A rule takes what is free, and says what is not.
	start("c", config.USBDevice{ID: "1050:0407"})
	b.waitFor("c has 1-2", func() bool {
		st, err := b.reg.State(t.Context(), "c")
		return err == nil && len(st.USB) == 1 && st.USB[0] == vm.USBState{Port: "1-2", ID: "1050:0407", Name: "Key", Rule: true} &&
			strings.Contains(strings.Join(st.Notes, "\n"), "usb 1-1: is in another VM")
	})
	for _, name := range []string{"a", "c"} {
		if err := b.reg.Stop(t.Context(), name, false); err != nil {
			t.Error(err)
		}
	}
}

// A device that took the number, or the port, of the chosen one is not given away.
func TestUSBDeviceChanged(t *testing.T) {
	tree := t.TempDir()
	s := &usbPart{host: &host{launch: vm.Launch{VM: config.VM{Name: "t"}}}}
	usbTree(t, &s.launch, tree, "1-1", "1-2")
	all, err := s.hostUSB()
	if err != nil || len(all) != 2 {
		t.Fatal(all, err)
	}
	f, err := s.takeNode(all[0])
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	change := func(file, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(s.launch.Parts.USB, file), []byte(text+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what string) {
		t.Helper()
		if f, err := s.takeNode(all[0]); err == nil || !strings.Contains(err.Error(), "usb 1-1: is no longer the device") {
			t.Errorf("%s: %v, %v", what, f, err)
		}
	}
	change("1-1/idProduct", "0001")
	refused("another kind at the port")
	change("1-1/idProduct", "0407")
	change("1-1/devnum", "2")
	refused("another number at the port")
	change("1-1/devnum", "1")
	change("1-1/bDeviceClass", "09")
	refused("a hub")
	if err := os.RemoveAll(filepath.Join(s.launch.Parts.USB, "1-1")); err != nil {
		t.Fatal(err)
	}
	refused("nothing at the port")
}

// Whoever may not open a device is told the rule that lets him. (Root may open any, so
// the kernel's refusal is made here.)
func TestUSBPermission(t *testing.T) {
	refused := &fs.PathError{Op: "open", Path: "/dev/bus/usb/001/004", Err: unix.EACCES}
	err := openFailure("web", usb.Device{Port: "1-2", ID: "1050:0407"}, "/dev/bus/usb/001/004", refused)
	const want = `VM web: usb 1-2: you may not open /dev/bus/usb/001/004; as root, put this line into /etc/udev/rules.d/70-vix.rules, run udevadm control --reload, and plug the device in again: SUBSYSTEM=="usb", ATTR{idVendor}=="1050", ATTR{idProduct}=="0407", TAG+="uaccess"`
	if err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	err = openFailure("web", usb.Device{Port: "1-2"}, "/n", &fs.PathError{Op: "open", Path: "/n", Err: unix.ENODEV})
	if err.Error() != "VM web: usb 1-2: open /n: no such device" {
		t.Error(err)
	}
}
