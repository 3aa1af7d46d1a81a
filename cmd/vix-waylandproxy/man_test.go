package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"vix/internal/display"
)

// The man page names every limit, and config.toml's refers to it.
func TestManPageHasTheLimits(t *testing.T) {
	b, err := os.ReadFile("../../packaging/man/vix-waylandproxy.1.scd")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(b), "# LIMITS")
	for _, name := range slices.Concat(display.LimitNames(), display.DeviceLimitNames()) {
		if !strings.Contains(section, "*"+name+"*") {
			t.Errorf("%s: not in the man page", name)
		}
	}
}
