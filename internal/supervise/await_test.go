package supervise

import (
	"context"
	"errors"
	"testing"
	"time"

	"vix/internal/vm"
)

// Whoever waits for a program's window is served until the VM opens one, or the program ends.
func TestAwaitWindow(t *testing.T) {
	b := newBench(t)
	if err := b.reg.Root.Mkdir("t", 0o700); err != nil {
		t.Fatal(err)
	}
	told := make(chan string, 1)
	await := func(ctx context.Context, l vm.Launch, program string, slow bool, asked time.Time, opened <-chan struct{}) error {
		if l.VM.Name != "t" || program != "firefox" || !slow {
			t.Errorf("%s, %s, %v", l.VM.Name, program, slow)
		}
		select {
		case <-opened:
			told <- "opened"
		case <-ctx.Done():
			told <- "ended"
		}
		return nil
	}
	sup, err := newSupervisor(b.launch("t"), Desktop{Await: await})
	if err != nil {
		t.Fatal(err)
	}
	sup.ctx = t.Context()
	defer func() {
		_ = errors.Join(sup.log.Close(), b.reg.Root.RemoveAll("t"), sup.dir.Close(), sup.reg.Close())
	}()
	req := vm.Request{Argv: []string{"/usr/bin/firefox"}, Await: true}
	sup.display.windowEvent("window", vm.Window{ID: 1, Title: "an old one"})

	end := sup.awaitWindow(req, time.Now())
	sup.display.windowEvent("window", vm.Window{ID: 1, Title: "the old one by another title"})
	sup.display.windowEvent("window", vm.Window{ID: 2})
	if got := <-told; got != "opened" {
		t.Error(got)
	}
	end()
	end()

	end = sup.awaitWindow(req, time.Now())
	sup.display.windowEvent("closed", vm.Window{ID: 2})
	end()
	if got := <-told; got != "ended" {
		t.Error(got)
	}

	req.Await = false
	sup.awaitWindow(req, time.Now())()
	sup.launch.VM.NoGUI, req.Await = true, true
	sup.awaitWindow(req, time.Now())()
	select {
	case got := <-told:
		t.Error("without a wait: ", got)
	default:
	}
}
