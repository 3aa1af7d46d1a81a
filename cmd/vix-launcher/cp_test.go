package main

import (
	"strings"
	"testing"
	"time"

	"vix/internal/transfer"
)

func TestParseLocation(t *testing.T) {
	for arg, want := range map[string]location{
		"f": {"", "f"}, "./web:f": {"", "./web:f"}, "/a:b": {"", "/a:b"}, "web:": {"web", "."},
		"web:f": {"web", "f"}, "web:/a:b": {"web", "/a:b"}, "w-1:-rf": {"w-1", "-rf"}, "d/x:y": {"", "d/x:y"},
	} {
		if got, err := parseLocation(arg); got != want || err != nil {
			t.Errorf("%q: %+v, %v", arg, got, err)
		}
	}
	for _, arg := range []string{"", ":f", "Web:f", "..:f", "a b:f", strings.Repeat("n", 300) + ":f"} {
		if got, err := parseLocation(arg); err == nil {
			t.Errorf("%q: %+v", arg, got)
		}
	}
}

func TestMeterLine(t *testing.T) {
	for want, p := range map[string]transfer.Progress{
		"copying: 0 B, 0 B/s":                                             {},
		"copying: 3.0 MiB, 1.5 MiB/s":                                     {Bytes: 3 << 20},
		"copying: 1.0 KiB, 512 B/s: a?[2J 50 %":                           {Entries: 1, Bytes: 1 << 10, Name: "a\x1b[2J", Size: 2048, Taken: 1024},
		"copying: 20000 files, 300 GiB, 150 GiB/s: ????" + "???????":      {Entries: 20000, Bytes: 300 << 30, Name: "\u202e\u202e\u202e\u202e\u200b\u200b\u200b\u200b\u200b\u200b\u200b"},
		"copying: 4 B, 2 B/s: " + strings.Repeat("n", maxShownName) + "…": {Entries: 1, Bytes: 4, Name: strings.Repeat("n", 255), Size: 1, Taken: 4},
	} {
		if got := meterLine(p, 2*time.Second); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestGuestNotes(t *testing.T) {
	n := &guestNotes{}
	for range 100 {
		if k, err := n.Write([]byte("\x1b]52;c;x\x07 evil\n" + strings.Repeat("x", 100))); k != 115 || err != nil {
			t.Fatal(k, err)
		}
	}
	text := strings.Join(n.lines(), "\n")
	if len(text) > maxNotes || strings.ContainsAny(text, "\x1b\x07") || !strings.HasPrefix(text, "?]52;c;x? evil\n") {
		t.Errorf("%q", text)
	}
}
