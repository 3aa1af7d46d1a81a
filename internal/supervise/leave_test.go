package supervise

import (
	"testing"
	"time"

	"vix/internal/vm"
)

// Whoever has heard that the VM's last program has ended asks for the next one in vain: the
// VM that it was in ends. It does not slip in.
func TestLastProgramEndsTheVM(t *testing.T) {
	b := newBench(t)
	for range 20 {
		if s := b.runNow("t", "true"); s.fail != nil {
			t.Fatal(s.fail)
		}
		s := b.exec(vm.How{}, "true")
		b.goRun(s)
		select {
		case <-s.done:
		case <-time.After(time.Minute):
			t.Fatal("no answer")
		}
		if s.fail == nil {
			t.Fatal("a program was started in a VM whose last one had ended")
		}
	}
}
