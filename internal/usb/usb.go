// Package usb knows the host's USB devices: it lists them from sysfs, tells which of them a VM
// may have, and parses the kernel's events when one comes or goes.
//
//	/sys/bus/usb/devices/1-2/         a device: bus 1, port 2 (1-2.3: behind a hub)
//	    idVendor, idProduct, manufacturer, product, busnum, devnum, bDeviceClass
//	/sys/bus/usb/devices/1-2:1.0/     an interface of it, with a modalias
//	/dev/bus/usb/BBB/DDD              the node that a program opens
//
// The strings come from the devices, and so from anybody who builds one. The package opens no
// device: it is given the directories as file systems.
package usb

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"vix/config"
	"vix/internal/plain"
)

// A Device is a device that is plugged in.
type Device struct {
	Port    string   `json:"port"` // as in sysfs, "1-2.3"
	ID      string   `json:"id"`   // "046d:c52b"
	Name    string   `json:"name"` // manufacturer and product, printable
	Node    string   `json:"node"` // below /dev/bus/usb, "001/004"
	Hub     bool     `json:"hub"`  // hubs stay with the host
	Aliases []string `json:"-"`    // modalias of each interface, for its drivers
}

// maxDevices is far more than a machine has: a bus has at most 127.
const maxDevices = 1024

// List returns the devices of sys (/sys/bus/usb/devices), sorted by port.
func List(sys fs.FS) ([]Device, error) {
	entries, err := fs.ReadDir(sys, ".")
	if err != nil {
		return nil, err
	}
	var list []Device
	for _, e := range entries {
		if len(list) == maxDevices {
			break
		}
		// Other entries are root hubs ("usb1") and interfaces.
		if d, err := config.ParseUSB(e.Name()); err != nil || d.Port != e.Name() {
			continue
		}
		if d, ok := read(sys, e.Name(), entries); ok {
			list = append(list, d)
		}
	}
	return list, nil
}

// read reads one device; it may be unplugged meanwhile.
func read(sys fs.FS, port string, entries []fs.DirEntry) (d Device, ok bool) {
	word := func(name string) string {
		b, err := fs.ReadFile(sys, path.Join(port, name))
		if err != nil {
			return ""
		}
		return plain.Text(strings.TrimSpace(string(b)), maxText, plain.OneLine)
	}
	id, err := config.ParseUSB(word("idVendor") + ":" + word("idProduct"))
	bus, err1 := strconv.ParseUint(word("busnum"), 10, 16)
	dev, err2 := strconv.ParseUint(word("devnum"), 10, 16)
	if err != nil || err1 != nil || err2 != nil {
		return d, false
	}
	d = Device{
		Port: port, ID: id.ID, Node: fmt.Sprintf("%03d/%03d", bus, dev), Hub: word("bDeviceClass") == "09",
		Name: strings.TrimSpace(word("manufacturer") + " " + word("product")),
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), port+":") {
			if b, err := fs.ReadFile(sys, path.Join(e.Name(), "modalias")); err == nil {
				d.Aliases = append(d.Aliases, plain.Text(strings.TrimSpace(string(b)), maxText, plain.OneLine))
			}
		}
	}
	return d, true
}

const maxText = 128 // bytes of a device's text about itself

// Matching returns the devices that want names, except hubs.
func Matching(list []Device, want config.USBDevice) []Device {
	return slices.DeleteFunc(slices.Clone(list), func(d Device) bool {
		return d.Hub || d.Port != want.Port && d.ID != want.ID
	})
}

// Rule returns the udev rule that lets the user at the machine use devices like d, and the
// file for it (before 73-seat-late.rules, which acts on it).
func Rule(d Device) (file, rule string) {
	vendor, product, _ := strings.Cut(d.ID, ":")
	return "/etc/udev/rules.d/70-vix.rules",
		fmt.Sprintf(`SUBSYSTEM=="usb", ATTR{idVendor}=="%s", ATTR{idProduct}=="%s", TAG+="uaccess"`, vendor, product)
}

// An Event is the kernel's report about a device, from its event channel (netlink(7)).
type Event struct {
	Action string // "add", "remove", "bind", …
	Port   string
}

// properties returns the properties in a message of udev, after its header: "libudev" and a
// zero byte, magic u32, header u32, offset u32, length u32, …
func properties(b []byte) []byte {
	if !bytes.HasPrefix(b, []byte("libudev\x00")) || len(b) < 24 {
		return b
	}
	at, n := binary.NativeEndian.Uint32(b[16:]), binary.NativeEndian.Uint32(b[20:])
	if uint64(at)+uint64(n) > uint64(len(b)) {
		return nil
	}
	return b[at : at+n]
}

// ParseEvent reads a datagram of NETLINK_KOBJECT_UEVENT: "ACTION@PATH" (or udev's header), then
// KEY=VALUE, each ended by a zero byte. ok is false unless it is about a whole USB device.
func ParseEvent(b []byte) (e Event, ok bool) {
	fields := strings.Split(string(properties(b)), "\x00")
	var subsystem, devtype, devpath string
	for _, f := range fields {
		switch key, value, _ := strings.Cut(f, "="); key {
		case "ACTION":
			e.Action = value
		case "SUBSYSTEM":
			subsystem = value
		case "DEVTYPE":
			devtype = value
		case "DEVPATH":
			devpath = value
		}
	}
	e.Port = path.Base(devpath)
	d, err := config.ParseUSB(e.Port)
	return e, subsystem == "usb" && devtype == "usb_device" && err == nil && d.Port == e.Port
}
