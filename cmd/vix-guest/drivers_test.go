package main

import "testing"

func TestUSBNode(t *testing.T) {
	for event, want := range map[string]string{
		"add@/x\x00ACTION=add\x00DEVPATH=/devices/pci0/usb1/1-1\x00DEVNAME=bus/usb/001/002\x00": "bus/usb/001/002",
		"x\x00ACTION=add\x00DEVPATH=/devices/pci0/usb1/1-1/block/sda\x00DEVNAME=sda\x00":        "sda",
		"x\x00ACTION=remove\x00DEVPATH=/devices/usb1/1-1\x00DEVNAME=sda\x00":                    "",
		"x\x00ACTION=add\x00DEVPATH=/devices/virtio1/block/vda\x00DEVNAME=vda\x00":              "",
		"x\x00ACTION=add\x00DEVPATH=/devices/usb1/1-1\x00DEVNAME=../etc/passwd\x00":             "",
		"": "",
	} {
		if got := usbNode([]byte(event)); got != want {
			t.Errorf("%q: %q", event, got)
		}
	}
}
