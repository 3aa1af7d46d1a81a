package main

import "testing"

// Files always leave enough memory for a guest's own processes.
func TestScratchSize(t *testing.T) {
	const mib = 1 << 20
	for total, want := range map[uint64]uint64{
		16 * mib: 2 * mib, 64 * mib: 8 * mib, 88 * mib: 24 * mib, 128 * mib: 64 * mib, 464 * mib: 232 * mib, 1 << 40: 1 << 39,
	} {
		if got := scratchSize(total); got != want {
			t.Errorf("of %d MiB: %d MiB, want %d", total/mib, got/mib, want/mib)
		}
	}
}
