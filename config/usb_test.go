package config

import (
	"slices"
	"testing"
)

func TestParseUSB(t *testing.T) {
	for text, want := range map[string]USBDevice{
		"046D:c52B": {ID: "046d:c52b"},
		"1-2":       {Port: "1-2"},
		"1.2":       {Port: "1-2"},
		"3-1.4.2":   {Port: "3-1.4.2"},
		"3.1.4.2":   {Port: "3-1.4.2"},
	} {
		if d, err := ParseUSB(text); err != nil || d != want {
			t.Errorf("%q: got %v, %v", text, d, err)
		} else if again, err := ParseUSB(d.String()); err != nil || again != d {
			t.Errorf("%q: read again: %v, %v", text, again, err)
		}
	}
	for _, text := range []string{"", "1", "1-", "46d:c52b", "046d:c52b:", "1-2-3", "../1-2", "1-2/..", "usb1", "1-2.1.1.1.1.1.1.1", "046g:0000"} {
		if d, err := ParseUSB(text); err == nil {
			t.Errorf("%q: read as %v", text, d)
		}
	}
	c, err := Parse("f", []byte(`vm.a.usb = ["046d:c52b", "1.2"]`))
	if err != nil || !slices.Equal(c.VMs["a"].USB, []USBDevice{{ID: "046d:c52b"}, {Port: "1-2"}}) {
		t.Errorf("%v, %v", c, err)
	}
}
