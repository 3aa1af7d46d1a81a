package usb

import (
	"bytes"
	"strings"
	"testing"
	"testing/fstest"

	"vix/config"
)

// recordings is a part of a laptop's /sys/bus/usb/devices, and a device with hostile texts.
func recordings() fstest.MapFS {
	tree := fstest.MapFS{}
	add := func(dir string, files map[string]string) {
		for name, text := range files {
			tree[dir+"/"+name] = &fstest.MapFile{Data: []byte(text + "\n")}
		}
	}
	add("usb1", map[string]string{"idVendor": "1d6b", "idProduct": "0002", "busnum": "1", "devnum": "1", "bDeviceClass": "09"})
	add("1-0:1.0", map[string]string{"modalias": "usb:v1D6Bp0002d0612dc09dsc00dp01ic09isc00ip00in00"})
	add("1-2", map[string]string{"idVendor": "046d", "idProduct": "c52b", "busnum": "1", "devnum": "4", "bDeviceClass": "00", "manufacturer": "Logitech", "product": "USB Receiver"})
	add("1-2:1.0", map[string]string{"modalias": "usb:v046DpC52Bd1203dc00dsc00dp00ic03isc01ip01in00"})
	add("1-2:1.1", map[string]string{"modalias": "usb:v046DpC52Bd1203dc00dsc00dp00ic03isc01ip02in01"})
	add("1-3", map[string]string{"idVendor": "05e3", "idProduct": "0610", "busnum": "1", "devnum": "5", "bDeviceClass": "09", "product": "USB2.1 Hub"})
	add("1-3.4", map[string]string{"idVendor": "0781", "idProduct": "5581", "busnum": "1", "devnum": "17", "bDeviceClass": "00", "product": "\x1b[31mred\u202e" + strings.Repeat("x", 500)})
	add("1-9", map[string]string{"idVendor": "zzzz", "busnum": "1", "devnum": "9"})
	return tree
}

func TestList(t *testing.T) {
	list, err := List(recordings())
	if err != nil || len(list) != 3 {
		t.Fatalf("%+v, %v", list, err)
	}
	d := list[0]
	if d.Port != "1-2" || d.ID != "046d:c52b" || d.Name != "Logitech USB Receiver" || d.Node != "001/004" || d.Hub || len(d.Aliases) != 2 {
		t.Errorf("%+v", d)
	}
	if !list[1].Hub || list[2].Node != "001/017" {
		t.Errorf("%+v", list)
	}
	if name := list[2].Name; len(name) > maxText || strings.ContainsAny(name, "\x1b\u202e") {
		t.Errorf("%q", name)
	}
	for want, ports := range map[string]int{"046d:c52b": 1, "1-3.4": 1, "1-3": 0, "1-7": 0} {
		w, err := config.ParseUSB(want)
		if err != nil {
			t.Fatal(err)
		}
		if got := Matching(list, w); len(got) != ports {
			t.Errorf("%s: %+v", want, got)
		}
	}
	if _, err := List(fstest.MapFS{}); err != nil {
		t.Error(err)
	}
	if _, rule := Rule(d); rule != `SUBSYSTEM=="usb", ATTR{idVendor}=="046d", ATTR{idProduct}=="c52b", TAG+="uaccess"` {
		t.Error(rule)
	}
}

func TestParseEvent(t *testing.T) {
	event := func(s string) []byte { return []byte(strings.ReplaceAll(s, " ", "\x00")) }
	e, ok := ParseEvent(event("add@/devices/pci0/usb1/1-2 ACTION=add DEVPATH=/devices/pci0/usb1/1-2 SUBSYSTEM=usb DEVTYPE=usb_device "))
	if !ok || e != (Event{"add", "1-2"}) {
		t.Errorf("%+v %v", e, ok)
	}
	text := event("ACTION=remove DEVPATH=/devices/usb1/1-3.4 SUBSYSTEM=usb DEVTYPE=usb_device ")
	head := append([]byte("libudev\x00\xfe\xed\xca\xfe"), 40, 0, 0, 0, 40, 0, 0, 0, byte(len(text)), 0, 0, 0)
	udev := append(append(head, bytes.Repeat([]byte{0xff}, 16)...), text...)
	if e, ok := ParseEvent(udev); !ok || e != (Event{"remove", "1-3.4"}) {
		t.Errorf("udev's: %+v %v", e, ok)
	}
	if e, ok := ParseEvent(udev[:60]); ok {
		t.Errorf("udev's, cut: %+v", e)
	}
	for _, other := range []string{
		"", "add@/x", "libudev ",
		"add@/a ACTION=add DEVPATH=/a/1-2:1.0 SUBSYSTEM=usb DEVTYPE=usb_interface",
		"add@/a ACTION=add DEVPATH=/a/1-2 SUBSYSTEM=block DEVTYPE=disk",
		"add@/a ACTION=add DEVPATH=/a/usb1 SUBSYSTEM=usb DEVTYPE=usb_device",
	} {
		if e, ok := ParseEvent(event(other)); ok {
			t.Errorf("%q: %+v", other, e)
		}
	}
}
