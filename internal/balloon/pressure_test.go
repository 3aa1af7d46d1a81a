package balloon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestHostRead(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	meminfo := write("meminfo", "MemTotal:       24683980 kB\nMemFree:         2180000 kB\nMemAvailable:   22000000 kB\n")
	low := write("low", "MemTotal:       24683980 kB\nMemAvailable:   1000000 kB\n")
	calm := write("calm", "some avg10=0.12 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	hard := write("hard", "some avg10=31.07 avg60=12.00 avg300=0.00 total=923\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	for _, tt := range []struct {
		pressure, meminfo string
		short             bool
		err               string
	}{
		{calm, meminfo, false, ""},
		{hard, meminfo, true, ""},
		{filepath.Join(dir, "none"), meminfo, false, ""},
		{calm, low, true, ""},
		{filepath.Join(dir, "none"), low, true, ""},
		{write("odd", "full avg10=1"), meminfo, false, "not as PSI writes it"},
		{calm, write("empty", ""), false, "no MemTotal"},
		{calm, filepath.Join(dir, "none"), false, "no such file"},
	} {
		h := OpenHost(tt.pressure, tt.meminfo)
		m, err := h.Read()
		if err == nil && tt.err != "" || err != nil && (tt.err == "" || !strings.Contains(err.Error(), tt.err)) {
			t.Errorf("%v: %v", tt, err)
		}
		if m.Short() != tt.short || h.Triggered() {
			t.Errorf("%v: %+v", tt, m)
		}
		if err := h.Close(); err != nil {
			t.Error(err)
		}
	}
	if b, err := os.ReadFile(calm); err != nil || !strings.HasPrefix(string(b), "some avg10=0.12") {
		t.Errorf("a file that is not the kernel's was written to: %q, %v", b, err)
	}
}

// The kernel takes the trigger, and Watch ends with its context.
func TestHostWatch(t *testing.T) {
	h := OpenHost("/proc/pressure/memory", "/proc/meminfo")
	if !h.Triggered() {
		t.Skip("lacks: PSI, or the right to set a trigger (CONFIG_PSI, Linux 6.4)")
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- h.Watch(ctx, func() {}) }()
	if m, err := h.Read(); err != nil || m.Available == 0 || m.Total < m.Available {
		t.Errorf("%+v, %v", m, err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
}
