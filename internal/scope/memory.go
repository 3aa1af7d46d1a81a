package scope

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strconv"

	"github.com/godbus/dbus/v5"
)

// A Budget is the host memory that a VM may use, in bytes. Limits elsewhere keep a VM within
// it; its control group has a bound above the total, in case one of them fails: then the
// kernel kills the VM, and nothing else.
type Budget struct {
	Guest    int64 // the guest's memory
	Emulated bool  // without KVM: QEMU stores its translations
	Blobs    int64 // memory that the display makes for the guest (ledger); 0 without a display
	Queued   int64 // buffers of the display's queues (ledger)
	Shares   int   // most folders shared at one time, including the home
	Files    int64 // sizes of file systems in memory (tmpfs) that the guest can fill
}

// Memory that a VM's processes need for themselves. Each was measured with the windows of ten
// programs, as noted; the rest is reserve. A healthy process comes near none of the limits.
const (
	// supervisorOwn is for the supervisor, passt, the clipboard's flow with 64 MiB of data, and
	// the kernel's socket and pipe buffers for all of them.
	supervisorOwn = 512 << 20 // measured: 15 MiB
	// qemuOwn is QEMU's own memory: 58 MiB with KVM, and 205 without, including the translations
	// so far and the pages of its program; each mapped blob and share takes some.
	qemuOwn = 512 << 20
	// translations is QEMU's buffer of translated code, at most 1 GiB by default, with its
	// bookkeeping.
	translations = 2 << 30
	// displayOwn is the display process without the memory that is charged to the ledger:
	// objects, windows, frames, and buffers of each connection. RLIMIT_DATA bounds its data at
	// 2 GiB; measured: 12 MiB.
	displayOwn = 1 << 30
	// serverOwn is one virtiofsd. The data that it reads from disk is in the page cache, which the
	// kernel reclaims before it kills anything.
	serverOwn = 128 << 20 // measured: 16 MiB
	// tableShare is the part of the guest's memory and blobs that page tables take, in all
	// processes that map them: 1/512 for each of a dozen processes, and KVM's.
	tableShare = 16
)

// Max is the bound for the whole budget and the processes that manage it.
func (b Budget) Max() int64 {
	own := int64(supervisorOwn + qemuOwn + serverOwn) // the root's server
	if b.Emulated {
		own += translations
	}
	if b.Blobs > 0 {
		own += displayOwn
	}
	own += int64(b.Shares) * serverOwn
	return sum(own, b.Guest, b.Guest/tableShare, b.Blobs, b.Blobs/tableShare, b.Queued, b.Files)
}

// unbounded is more than any machine has, and calculations with it do not overflow.
const unbounded = 1 << 60

// sum saturates at unbounded.
func sum(ns ...int64) int64 {
	total := int64(0)
	for _, n := range ns {
		total = min(total+min(max(n, 0), unbounded), unbounded)
	}
	return total
}

// Bound sets the limit of the memory of the group's processes, in bytes. Without a group it
// does nothing.
func (s Scope) Bound(ctx context.Context, most int64) error {
	switch s.Kind {
	case KindScope:
		conn, err := connect(ctx, s.bus)
		if err != nil {
			return err
		}
		defer conn.Close()
		call := conn.Object(systemd, systemdPath).CallWithContext(ctx, manager+".SetUnitProperties", dbus.FlagNoAutoStart, s.Name, true, []property{memoryMax(most)})
		if call.Err != nil {
			return fmt.Errorf("systemd of the session: %w", call.Err)
		}
		return nil
	case KindGroup:
		return boundGroup(s.Name, most)
	}
	return nil
}

func memoryMax(most int64) property { return property{"MemoryMax", dbus.MakeVariant(uint64(most))} }

// boundGroup writes the memory bound of a group, or says why there is none.
func boundGroup(dir string, most int64) error {
	err := writeGroup(dir, "memory.max", strconv.FormatInt(most, 10))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return errors.New("no bound of its memory: the memory controller is not given to " + filepath.Dir(dir))
	case err != nil:
		return fmt.Errorf("no bound of its memory: %w", err)
	}
	return nil
}
