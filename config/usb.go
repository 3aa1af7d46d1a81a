package config

import (
	"fmt"
	"regexp"
	"strings"
)

// MaxUSB bounds the USB devices of one VM: the ports of its controller.
const MaxUSB = 8

// A USBDevice names host devices: all of one vendor and product, or any device at a port.
type USBDevice struct {
	ID   string `json:"id,omitempty"`   // "046d:c52b", four hexadecimal digits each; or
	Port string `json:"port,omitempty"` // "1-2.3", as in /sys/bus/usb/devices
}

// String returns the form that ParseUSB reads.
func (d USBDevice) String() string {
	if d.ID != "" {
		return d.ID
	}
	return d.Port
}

var (
	usbID   = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{4}$`)
	usbPort = regexp.MustCompile(`^[0-9]{1,3}[-.][0-9]{1,3}(\.[0-9]{1,3}){0,6}$`)
)

// ParseUSB reads VENDOR:PRODUCT, as lsusb(8) shows it, or BUS.PORT (or BUS-PORT), where
// PORT is a path through hubs, such as 1-2.3.
func ParseUSB(text string) (USBDevice, error) {
	id := strings.ToLower(text)
	switch {
	case usbID.MatchString(id):
		return USBDevice{ID: id}, nil
	case usbPort.MatchString(text):
		i := strings.IndexAny(text, "-.")
		return USBDevice{Port: text[:i] + "-" + text[i+1:]}, nil
	}
	return USBDevice{}, fmt.Errorf("want VENDOR:PRODUCT such as 046d:c52b, or BUS.PORT such as 1.2, not %q", clip(text))
}

func usbDevices(x any) ([]USBDevice, error) {
	var out []USBDevice
	_, err := list(x, func(s string) error {
		d, err := ParseUSB(s)
		out = append(out, d)
		return err
	})
	if err == nil && len(out) > MaxUSB {
		err = fmt.Errorf("%d devices; at most %d", len(out), MaxUSB)
	}
	return out, err
}
