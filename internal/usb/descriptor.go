package usb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// The device descriptor (USB 2.0, 9.6.1), which the kernel returns to a reader of an open
// node, with numbers in the machine's byte order (drivers/usb/core/devio.c):
//
//	0 bLength=18  1 bDescriptorType=1  2 bcdUSB  4 bDeviceClass  5 …SubClass  6 …Protocol
//	7 bMaxPacketSize0  8 idVendor u16  10 idProduct u16  12 … 17
const descriptorSize = 18

const classHub = 9

// Identify returns the ID of the device behind an open node, and whether it is a hub. sysfs
// describes a name; this describes the open descriptor.
func Identify(node io.Reader) (Device, error) {
	b := make([]byte, descriptorSize)
	if _, err := io.ReadFull(node, b); err != nil {
		return Device{}, fmt.Errorf("its descriptor: %w", err)
	}
	return parseDescriptor(b)
}

func parseDescriptor(b []byte) (Device, error) {
	if len(b) != descriptorSize || b[0] != descriptorSize || b[1] != 1 {
		return Device{}, errors.New("not a device descriptor")
	}
	return Device{
		ID:  fmt.Sprintf("%04x:%04x", binary.NativeEndian.Uint16(b[8:]), binary.NativeEndian.Uint16(b[10:])),
		Hub: b[4] == classHub,
	}, nil
}
