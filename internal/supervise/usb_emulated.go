//go:build vixtest

package supervise

import "vix/internal/usb"

func init() {
	emulatedUSB = map[string]usb.Device{}
	for driver, d := range map[string]usb.Device{ // with the alias by which its driver is found
		"usb-tablet": {ID: "0627:0001", Name: "QEMU USB Tablet", Aliases: []string{"usb:v0627p0001d0000dc00dsc00dp00ic03isc00ip00in00"}},
		"usb-kbd":    {ID: "0627:0001", Name: "QEMU USB Keyboard", Aliases: []string{"usb:v0627p0001d0000dc00dsc00dp00ic03isc01ip01in00"}},
	} {
		d.Port = "qemu:" + driver
		emulatedUSB[d.Port] = d
	}
}
