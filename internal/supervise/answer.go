package supervise

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/digitalocean/go-qemu/qmp"

	"vix/internal/plain"
	"vix/internal/vm"
)

// A VM may stand still, in two ways:
//
//	QEMU stops it (STOP)          an error inside of KVM, an I/O error, a guest's panic: it
//	                              will never run again, and is ended, with QEMU's reason
//	it does not answer a ping     QEMU is stopped by a signal, the guest hangs, the host is
//	                              overloaded: it may go on, and list and whoever waits say so
//
// Vix itself never stops a VM's processors.

const (
	// guestLimit is when a guest is said not to answer: a busy one, emulated, answers within a second.
	guestLimit = 5 * time.Second
	// pingPace is how often a guest is asked that gives no other reason to.
	pingPace = 5 * time.Second
)

// keepAnswer asks the guest for signs of life until ctx ends, and notes when it gives none.
func (s *supervisor) keepAnswer(ctx context.Context) {
	t := time.NewTimer(pingPace)
	defer t.Stop()
	for {
		limit, cancel := context.WithTimeout(ctx, guestLimit)
		err := s.guest.Ping(limit)
		cancel()
		if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			s.setSilent(true)
			err = s.guest.Ping(ctx)
			s.setSilent(false)
		}
		if err != nil {
			return
		}
		t.Reset(pingPace)
		select {
		case <-t.C:
		case <-s.probes:
		case <-ctx.Done():
			return
		}
	}
}

// probe has the guest asked now: somebody is about to wait for it.
func (s *supervisor) probe() {
	select {
	case s.probes <- struct{}{}:
	default:
	}
}

func (s *supervisor) setSilent(silent bool) {
	if s.ctx.Err() == nil {
		s.log.Add("vix", map[bool]string{true: "the guest does not answer", false: "the guest answers again"}[silent])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
	s.changedLocked()
}

// onQEMUEvent takes an event of QEMU's.
func (s *supervisor) onQEMUEvent(e qmp.Event) {
	s.log.Printf("qmp", "%s %v", e.Event, e.Data)
	switch e.Event {
	case "DEVICE_DELETED":
		s.onDeviceDeleted(e.Data["device"])
	case "BLOCK_IO_ERROR":
		reason, _ := e.Data["reason"].(string)
		s.stopReason = "I/O error: " + plain.Text(reason, vm.MaxTitle, plain.OneLine)
	case "STOP":
		if s.ctx.Err() == nil {
			s.report(trouble{rankStopped, s.stopped()})
		}
	}
}

// stopped is why QEMU has stopped the machine: the state that it says to be in, and what it
// wrote of it.
func (s *supervisor) stopped() *vm.Failure {
	state, err := s.monitor.Status()
	if err != nil {
		state = "paused"
	}
	text := fmt.Sprintf("VM %s: QEMU has stopped it: %s", s.launch.VM.Name, plain.Text(state, vm.MaxTitle, plain.OneLine))
	for _, why := range []string{s.stopReason, s.qemu.Last.Trouble()} {
		if why != "" {
			text += ": " + why
			break
		}
	}
	return &vm.Failure{Code: vm.CodeVix, Text: text + `; run it again, and "vix-launcher doctor" if it persists`}
}
