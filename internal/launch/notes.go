package launch

import (
	"bytes"
	"strings"
	"sync"

	"vix/internal/plain"
	"vix/internal/proc"
)

// A Notes is the standard error of a guest's end: enough for its reason.
type Notes struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Bounds of the kept text, and of a shown line, in bytes.
const (
	maxNotes = 4 << 10
	maxLine  = 1 << 10
)

func (n *Notes) Write(p []byte) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.buf.Write(p[:min(len(p), maxNotes-n.buf.Len())])
	return len(p), nil
}

// Lines returns what the guest wrote, fit for a terminal. Its end is a Go program: what that
// says where its kernel makes no more threads, before a trace of all goroutines, is one line.
func (n *Notes) Lines() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	var list []string
	for line := range strings.Lines(n.buf.String()) {
		if strings.HasPrefix(line, proc.NoThread) {
			return append(list, "it has no room for another thread; end programs in the VM")
		}
		if line = plain.Text(strings.TrimSpace(line), maxLine, plain.OneLine); line != "" {
			list = append(list, line)
		}
	}
	return list
}
