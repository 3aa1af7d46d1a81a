package usb

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"vix/config"
)

func descriptor(class byte, vendor, product uint16) []byte {
	b := []byte{descriptorSize, 1, 0, 2, class, 0, 0, 64}
	b = binary.NativeEndian.AppendUint16(b, vendor)
	b = binary.NativeEndian.AppendUint16(b, product)
	return append(b, 0, 1, 1, 2, 3, 1)
}

func TestIdentify(t *testing.T) {
	d, err := Identify(bytes.NewReader(append(descriptor(0, 0x046d, 0xc52b), "a configuration"...)))
	if err != nil || d.ID != "046d:c52b" || d.Hub {
		t.Errorf("%+v, %v", d, err)
	}
	if d, err := Identify(bytes.NewReader(descriptor(classHub, 0x5e3, 0x610))); err != nil || d.ID != "05e3:0610" || !d.Hub {
		t.Errorf("%+v, %v", d, err)
	}
	for _, bad := range []string{"", "short", strings.Repeat("\x12", descriptorSize), strings.Repeat("\x00", descriptorSize)} {
		if d, err := Identify(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is %+v", bad, d)
		}
	}
}

// FuzzIdentify: an accepted device has an ID that a rule can name.
func FuzzIdentify(f *testing.F) {
	f.Add(descriptor(0, 0x046d, 0xc52b))
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Identify(bytes.NewReader(b))
		if err != nil {
			return
		}
		if want, err := config.ParseUSB(d.ID); err != nil || want.ID != d.ID {
			t.Errorf("%q: %v", d.ID, err)
		}
	})
}
