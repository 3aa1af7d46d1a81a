package main

import (
	"io"
	"strings"
	"testing"
)

// This machine need not have USB: devices that QEMU emulates are attached and detached in the
// same way as the host's, except for the descriptor (TestUSBDescriptor in internal/supervise
// tests that).
func TestVMUSB(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	stdin, keep := io.Pipe()
	first := r.start(stdin, "run", "--vm", "t", "sh", "-c", "ls /sys/bus/usb/devices /sys/bus/pci/drivers/xhci_hcd 2>&1; echo up; read x")
	first.says("up\n")
	if text := first.out.String(); strings.Contains(text, "usb1") {
		t.Errorf("a VM without a device has a controller: %s", text)
	}
	p := r.vix(0, "usb", "attach", "t", "qemu:usb-tablet")
	if p.out.String() != "qemu:usb-tablet 0627:0001 QEMU USB Tablet\n" {
		t.Errorf("%q", p.out.String())
	}
	r.vix(0, "usb", "attach", "t", "qemu:usb-kbd")
	r.vix(1, "usb", "attach", "t", "qemu:usb-kbd")
	// The guest has the devices, a driver for each, and nodes that the ordinary user may use.
	seen := r.start(nil, "exec", "t", "--", "sh", "-c", `
		until [ $(cat /sys/bus/usb/devices/*/idVendor | grep -c 0627) = 2 ]; do sleep 0.1; done; cat /sys/bus/usb/devices/*/product
		until [ $(ls /sys/bus/usb/drivers/usbhid | grep -c :1.0) = 2 ]; do sleep 0.1; done; echo driven
		until [ $(find /dev/bus/usb /dev/input -type c -user user -name '[0e]*' | wc -l) -ge 4 ]; do sleep 0.1; done; echo mine`)
	seen.says("mine\n")
	if text := seen.out.String(); !strings.Contains(text, "QEMU USB Tablet") || !strings.Contains(text, "QEMU USB Keyboard") || !strings.Contains(text, "driven") {
		t.Errorf("in the guest: %s", text)
	}
	if st := r.list()[0]; len(st.USB) != 2 || st.USB[0].Port != "qemu:usb-tablet" || st.USB[0].Rule {
		t.Errorf("%+v", st.USB)
	}
	r.vix(0, "usb", "detach", "t", "qemu:usb-tablet")
	gone := r.start(nil, "exec", "t", "--", "sh", "-c", "until [ $(cat /sys/bus/usb/devices/*/idVendor | grep -c 0627) = 1 ]; do sleep 0.1; done; echo gone")
	gone.says("gone\n")
	r.vix(1, "usb", "detach", "t", "qemu:usb-tablet")
	checkConfined(t, r, r.list()[0])
	keep.Close()
	first.code()
}
