package supervise

import (
	"context"
	"path/filepath"
	"time"

	"vix/internal/vm"
)

// awaitWindow shows the user that a program starts, until the VM opens its next window or
// the program has ended. Its result ends that, and waits for it.
func (s *supervisor) awaitWindow(req vm.Request, asked time.Time) (end func()) {
	await := s.guest.desktop.Await
	if !req.Await || await == nil || len(req.Argv) == 0 || s.launch.VM.NoGUI {
		return func() {}
	}
	ctx, cancel := context.WithCancel(s.ctx)
	done, opened := make(chan struct{}), make(chan struct{})
	windows := s.windowsOpened()
	go func() { // ends with ctx
		for {
			_, changed := s.watchState()
			if s.windowsOpened() != windows {
				close(opened)
				return
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	}()
	l := s.launch
	if now, _ := s.broker.now(); now.Sway != "" {
		l.Sway = now.Sway
	}
	go func() {
		defer close(done)
		name := filepath.Base(vm.ShownArgv(req.Argv[:1])[0])
		if err := await(ctx, l, name, s.machine.boot.accel != "kvm", asked, opened); err != nil {
			s.log.Printf("vix", "notification: %v", err)
		}
	}()
	return func() { // may be called twice
		cancel()
		<-done
	}
}
