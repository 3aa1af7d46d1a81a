package supervise

import (
	"io"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"vix/internal/vm"
)

// Why a VM has ended can be read when it is gone, whatever ended it.
func TestLastLogIsKept(t *testing.T) {
	b := newBench(t)
	b.reg.StateDir = filepath.Join(b.bin, "state")
	l := b.launch("t")
	l.StateDir = b.reg.StateDir
	last := func(want ...string) {
		t.Helper()
		// For a killed supervisor this is what the next verb does.
		b.waitFor("the end of t", func() bool {
			live, err := b.reg.Names(t.Context())
			return err == nil && len(live) == 0
		})
		store, err := vm.OpenStore(b.reg.StateDir)
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		f, _, err := store.LastLog("t")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		text, err := io.ReadAll(f)
		for _, w := range want {
			if err != nil || !strings.Contains(string(text), w) {
				t.Errorf("%v; the log has no %q:\n%s", err, w, text)
			}
		}
	}

	b.do("qemu", "refuse")
	s := b.goRun(b.with(l, "true"))
	<-s.done
	failure(t, s, vm.CodeVix, "no such device")
	last("[vix] stopping: VM t: QEMU ended: exit status 1", "no such device")

	b.do("qemu", "")
	s = b.goRun(b.with(l, "sleep", "60"))
	b.state(s)
	if err := syscall.Kill(b.processes()["vix-launcher"], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	<-s.done
	last("[console] console speaks", "[vix] its supervisor was killed or crashed")

	b.do("vix-launcher", "panic")
	s = b.goRun(b.with(l, "true"))
	<-s.done
	last("panic: as told")
}
