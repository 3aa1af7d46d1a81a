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

// A Budget is what of the host's memory a VM may have, in bytes. Limits elsewhere keep
// a VM within it; its control group is given a bound above all of it, for the case
// that one of them does not hold: then the kernel ends the VM, and nothing else.
type Budget struct {
	Guest    int64 // the guest's own
	Emulated bool  // without KVM: QEMU keeps its translations
	Blobs    int64 // memory that the display makes for the guest (ledger); 0 without a display
	Queued   int64 // buffers of the display's queues (ledger)
	Shares   int   // folders that may be shared at a time, the home among them
	Files    int64 // sizes of file systems in memory (tmpfs) that the guest may fill
}

// What a VM's processes need for themselves. Measured, with ten programs' windows: see
// each; the rest is room. None is a limit that something healthy comes near.
const (
	// supervisorOwn is the supervisor, passt, the clipboard's flow with 64 MiB of data,
	// and what the kernel keeps for all of them: sockets' and pipes' buffers.
	supervisorOwn = 512 << 20 // measured: 15 MiB
	// qemuOwn is QEMU's own memory: 58 MiB with KVM, and 205 without, with the
	// translations so far and its program's pages; each mapped blob and share takes some.
	qemuOwn = 512 << 20
	// translations is QEMU's buffer of translated code, 1 GiB at most by its default,
	// and what describes it.
	translations = 2 << 30
	// displayOwn is the display process without what is charged to the ledger:
	// objects, windows, frames, and buffers of each connection. Its data ends at 2 GiB
	// (RLIMIT_DATA); measured: 12 MiB.
	displayOwn = 1 << 30
	// serverOwn is a virtiofsd. What it reads from disk is the page cache's, which
	// the kernel takes back before it ends anybody.
	serverOwn = 128 << 20 // measured: 16 MiB
	// tableShare is the part of the guest's memory and blobs that the page tables of
	// all who map them take: 1/512 for each of a dozen processes, and KVM's.
	tableShare = 16
)

// Max is the bound of all that the budget has, and of the processes that manage it.
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

// unbounded is more than any machine has, and no overflow of what is made of it.
const unbounded = 1 << 60

// sum saturates at unbounded.
func sum(ns ...int64) int64 {
	total := int64(0)
	for _, n := range ns {
		total = min(total+min(max(n, 0), unbounded), unbounded)
	}
	return total
}

// Bound sets the memory that the group's processes may have, in bytes. Without a group
// it does nothing.
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

// boundGroup writes the bound of a group's memory, or says why it has none.
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
