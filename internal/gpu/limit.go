package gpu

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"vix/internal/ledger"
)

// limitNames are those of Limits.Set, in its order.
var limitNames = []string{
	"contexts", "resources", ledger.NameFiles, ledger.NameBytes, "mappings", ledger.NameDescriptors, ledger.NameQueued,
}

// LimitNames returns the names of the limits that a configuration may set.
func LimitNames() []string { return slices.Clone(limitNames) }

// Set gives a limit by name a value of its own. Mappings cannot go beyond what
// QEMU survives, nor contexts beyond what the control queue has room for.
func (l *Limits) Set(name string, n int64) error {
	most := int64(1 << 20)
	switch name {
	case "contexts":
		most = 1000
	case "mappings":
		most = defaultMappings
	case ledger.NameBytes, ledger.NameQueued:
		most = defaultWindow
	}
	if n <= 0 || n > most {
		return fmt.Errorf("limit %s: want a number from 1 to %d, not %d", name, most, n)
	}
	switch name {
	case "contexts":
		l.Contexts = int(n)
	case "resources":
		l.Resources = int(n)
	case ledger.NameFiles:
		l.Blobs = int(n)
	case ledger.NameBytes:
		l.BlobBytes = uint64(n)
	case "mappings":
		l.Mappings = int(n)
	case ledger.NameDescriptors:
		l.Descriptors = int(n)
	case ledger.NameQueued:
		l.QueuedBytes = n
	default:
		return fmt.Errorf("unknown limit %q; the device has %s", name, strings.Join(limitNames, ", "))
	}
	return nil
}

// maxLimitLines bounds what a hostile guest can make us log of each limit.
const maxLimitLines = 10

// limitLines counts the lines that were logged, by limit.
type limitLines struct {
	mu sync.Mutex
	n  map[string]int
}

// tell says whether one more is to be logged.
func (l *limitLines) tell(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = make(map[string]int)
	}
	l.n[name]++
	return l.n[name] <= maxLimitLines
}
