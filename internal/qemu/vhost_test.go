package qemu

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// Numbers are random, above what is reserved, and tried anew while they are taken.
func TestClaim(t *testing.T) {
	seen := map[uint32]bool{}
	n, err := Claim(func(n uint32) error {
		if seen[n] || n <= MaxPrivileged || n == unix.VMADDR_PORT_ANY {
			t.Errorf("number %d", n)
		}
		seen[n] = true
		if len(seen) < maxClaims {
			return fmt.Errorf("taken: %w", unix.EADDRINUSE)
		}
		return nil
	})
	if err != nil || len(seen) != maxClaims || !seen[n] {
		t.Errorf("%d, %v after %d", n, err, len(seen))
	}
	for want, times := range map[error]int{unix.EADDRINUSE: maxClaims, unix.EACCES: 1} {
		tries := 0
		if _, err := Claim(func(uint32) error { tries++; return want }); !errors.Is(err, want) || tries != times {
			t.Errorf("%v after %d", err, tries)
		}
	}
}
