package supervise

import (
	"context"

	"vix/internal/qemu"
)

// A part is what a VM is made of. A supervisor starts its parts in their order, and
// stops them in the reverse one (supervisor.go has the list):
//
//	start ─► devices ─► run, while the VM runs ─► stop
//
// A part has what it needs of the others by their names, and the rest by host.
type part interface {
	// start returns when the next part can be started. What it has begun when it fails,
	// stop ends.
	start() error
	// devices are what QEMU makes of the part, once it has started. Their files are the
	// caller's.
	devices() []qemu.Device
	// run is called when the guest is ready. ctx ends with the wish that the VM ends.
	run(ctx context.Context)
	// stop ends what start has begun, also after start has failed. graceful: what the
	// part's processes have served has ended, so that they will end by themselves.
	stop(graceful bool) error
}

// passive is a part's methods that do nothing.
type passive struct{}

func (passive) start() error           { return nil }
func (passive) devices() []qemu.Device { return nil }
func (passive) run(context.Context)    {}
func (passive) stop(bool) error        { return nil }
