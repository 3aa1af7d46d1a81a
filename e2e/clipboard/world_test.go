package clipboard

import (
	"bytes"
	"strings"
	"testing"
)

// TestWorlds holds that wl-copy and wl-paste work among the connections of one VM, for
// the clipboard and the primary selection and every kind and size, and that neither
// the host nor another VM sees any of it.
func TestWorlds(t *testing.T) {
	d := newDesk(t)
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<16) // 1 MiB, many pipes full
	for _, primary := range []bool{false, true} {
		var flags []string
		if primary {
			flags = []string{"--primary"}
		}
		d.copies("", []byte("the host's secret"), flags...)
		for _, c := range []struct {
			name, kind string
			content    []byte
		}{
			{"text", "text/plain", []byte("plain text")},
			{"utf-8", "text/plain;charset=utf-8", []byte("grüße, 世界 \U0001f980")},
			{"html", "text/html", []byte("<b>bold</b>")},
			{"image", "image/png", []byte("\x89PNG\r\n\x1a\n\x00\x00")},
			{"a megabyte", "application/octet-stream", big},
		} {
			d.copies("red", c.content, append([]string{"--type", c.kind}, flags...)...)
			got, complaint := d.pastes("red", append([]string{"--type", c.kind}, flags...)...)
			if !bytes.Equal(got, c.content) {
				t.Errorf("%s, primary %v: %d bytes came, not %d: %s", c.name, primary, len(got), len(c.content), complaint)
			}
		}
		if got, complaint := d.pastes("blue", flags...); len(got) > 0 || !strings.Contains(complaint, "o selection") && !strings.Contains(complaint, "Nothing is copied") {
			t.Errorf("another VM pasted %d bytes: %s", len(got), complaint)
		}
		if got, _ := d.pastes("", flags...); string(got) != "the host's secret" {
			t.Errorf("the host pasted %q", got)
		}
	}
}
