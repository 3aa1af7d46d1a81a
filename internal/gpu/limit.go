package gpu

import (
	"fmt"
	"sync"

	"vix/internal/display"
	"vix/internal/ledger"
)

// Set sets the limit of that name.
func (l *Limits) Set(name string, n int64) error {
	if err := display.CheckLimit(name, n); err != nil {
		return fmt.Errorf("limit %s: %w", name, err)
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
		return fmt.Errorf("limit %s: is not the device's", name)
	}
	return nil
}

// maxLimitLines bounds the lines that a hostile guest can make us log about each limit.
const maxLimitLines = 10

// limitLines counts the logged lines, by limit.
type limitLines struct {
	mu sync.Mutex
	n  map[string]int
}

// tell reports whether to log one more line.
func (l *limitLines) tell(name string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == nil {
		l.n = make(map[string]int)
	}
	l.n[name]++
	return l.n[name] <= maxLimitLines
}
