package supervise

import (
	"context"

	"vix/internal/qemu"
)

// A part is one of the things that make up a VM. A supervisor starts its parts in their
// order, and stops them in the reverse order (supervisor.go has the list):
//
//	start ─► devices ─► run, while the VM runs ─► stop
//
// A part reaches other parts by named fields, and everything else by host.
type part interface {
	// start returns when the next part can start. When it fails, stop ends what it has
	// begun.
	start() error
	// devices returns the part's QEMU devices, once the part has started. The caller owns
	// their files.
	devices() []qemu.Device
	// run is called when the guest is ready. ctx ends when the VM is to end.
	run(ctx context.Context)
	// stop ends what start has begun, also after start has failed. graceful says that
	// whatever the part's processes served has ended, so that they will end by themselves.
	stop(graceful bool) error
}

// passive gives a part methods that do nothing.
type passive struct{}

func (passive) start() error           { return nil }
func (passive) devices() []qemu.Device { return nil }
func (passive) run(context.Context)    {}
func (passive) stop(bool) error        { return nil }
