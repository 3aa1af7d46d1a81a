package scope

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The bound grows with each part of a VM's budget, by at least that much, and exceeds
// everything that was ever measured.
func TestBudget(t *testing.T) {
	base := Budget{Guest: 512 << 20, Blobs: 1 << 30, Queued: 64 << 20, Shares: 9}
	most := base.Max()
	if all := base.Guest + base.Blobs + base.Queued; most < all+2<<30 || most > all+4<<30 {
		t.Errorf("%d MiB for %d MiB", most>>20, all>>20)
	}
	const more = 1 << 30
	for name, b := range map[string]Budget{
		"guest":      {Guest: base.Guest + more, Blobs: base.Blobs, Queued: base.Queued, Shares: base.Shares},
		"blobs":      {Guest: base.Guest, Blobs: base.Blobs + more, Queued: base.Queued, Shares: base.Shares},
		"queued":     {Guest: base.Guest, Blobs: base.Blobs, Queued: base.Queued + more, Shares: base.Shares},
		"files":      {Guest: base.Guest, Blobs: base.Blobs, Queued: base.Queued, Shares: base.Shares, Files: more},
		"translated": {Guest: base.Guest, Blobs: base.Blobs, Queued: base.Queued, Shares: base.Shares, Emulated: true},
		"shares":     {Guest: base.Guest, Blobs: base.Blobs, Queued: base.Queued, Shares: base.Shares + 8},
	} {
		if n := b.Max(); n < most+more {
			t.Errorf("%s: %d MiB more", name, (n-most)>>20)
		}
	}
	if n := (Budget{Guest: 512 << 20}).Max(); n >= most-base.Blobs || n < 1<<30 {
		t.Errorf("without a display: %d MiB", n>>20)
	}
	for _, b := range []Budget{{Guest: math.MaxInt64, Files: math.MaxInt64}, {Guest: 1 << 40, Blobs: 64 << 30, Files: 1 << 61}} {
		if n := b.Max(); n < 1<<40 || n > 1<<60 {
			t.Errorf("%+v: %d", b, n)
		}
	}
	if n := (Budget{Guest: -1 << 62, Blobs: -1 << 62}).Max(); n < 0 {
		t.Errorf("%d", n)
	}
}

// A group without the memory controller has no such file.
func TestBoundOfGroup(t *testing.T) {
	dir := t.TempDir()
	s := Scope{Kind: KindGroup, Name: filepath.Join(dir, "vix-t-1")}
	if err := os.Mkdir(s.Name, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := s.Bound(t.Context(), 1<<30); err == nil || !strings.Contains(err.Error(), "the memory controller is not given to "+dir) {
		t.Error(err)
	}
	file := filepath.Join(s.Name, "memory.max")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.Bound(t.Context(), 1<<30); err != nil {
		t.Error(err)
	}
	if b, _ := os.ReadFile(file); string(b) != "1073741824" {
		t.Errorf("%q", b)
	}
	if err := (Scope{Kind: KindNone}).Bound(t.Context(), 1); err != nil {
		t.Error(err)
	}
}
