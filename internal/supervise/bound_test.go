package supervise

import (
	"testing"

	"vix/config"
	"vix/internal/scope"
)

// The bound is made of what the configuration lets a VM have, whatever that is.
func TestBudgetOf(t *testing.T) {
	v := config.VM{Memory: 512 << 20}
	if got, want := budgetOf(v, true), (scope.Budget{Guest: 512 << 20, Emulated: true, Blobs: 1 << 30, Queued: 64 << 20, Shares: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	v.Limits = map[string]int64{"blob-bytes": 3 << 30, "queued-bytes": 1 << 20, "memory": 1}
	if got, want := budgetOf(v, false), (scope.Budget{Guest: 512 << 20, Blobs: 3 << 30, Queued: 1 << 20, Shares: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	v.NoGUI = true
	if got, want := budgetOf(v, false), (scope.Budget{Guest: 512 << 20, Shares: 9}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
