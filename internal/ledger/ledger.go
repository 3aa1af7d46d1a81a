// Package ledger counts what the host holds for one VM: memory by the file, not by the
// guest's handles of it, and the descriptors and bytes that wait on their way. It knows
// no device and no protocol.
//
//	charge at creation                             given back when the last has gone
//	      │                                                   ▲
//	      ▼                                                   │
//	   Memory ◄── a resource of the device ───────────────────┤
//	      ▲  ◄── a mapping into the guest ────────────────────┤
//	      │  ◄── a Descriptor: queued for, or in, the relay ──┤
//	      │  ◄── Show: a pool, and buffers and surfaces ──────┘
//	      │           of it, that the compositor may have
//	   its file's device and inode number
//
// A guest may give its handles back at any time; memory that is still held elsewhere
// counts on. All holders of a VM share one Ledger. Any goroutine may call its methods,
// with any lock held.
package ledger

import (
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Limits bound what one VM can have at a time. A field that is 0 means no bound.
type Limits struct {
	// Bytes is the sum of the sizes of memory files. They are sparse, but nothing tells
	// of a guest that touches their pages: so it bounds the memory that they take.
	Bytes int64
	// Files is the number of memory files: each takes at least one descriptor.
	Files int64
	// Shown is the part of Bytes that the compositor can hold.
	Shown int64
	// Descriptors are the files on their way, and the ends of pipes.
	Descriptors int64
	// Queued is the memory, in bytes, of buffers for data that a reader has not taken yet.
	Queued int64
}

// Defaults of a VM's limits. The other two have none of their own.
const (
	// DefaultBytes: a relay of ours shadows what buffers use, and three buffers of each
	// of ten windows on a 4K screen are 1 GiB; a browser takes some hundred MiB. A
	// foreign proxy that mirrors whole pools and frees them late needs more: foot's
	// pools alone are 512 MiB.
	DefaultBytes = 1 << 30
	// DefaultFiles: our relay has a slab for many buffers.
	DefaultFiles = 1024
	// DefaultDescriptors keeps one guest from using up a process's table (1024 on a
	// machine with old limits). Each may be a pipe, with 64 KiB in the kernel and a
	// buffer as long as a ring here.
	DefaultDescriptors = 512
	// DefaultQueued: a busy connection has some 100 KiB.
	DefaultQueued = 64 << 20
)

// Names of the limits in configurations and logs.
const (
	NameBytes       = "blob-bytes"
	NameFiles       = "blobs"
	NameShown       = "memory"
	NameDescriptors = "descriptors"
	NameQueued      = "queued-bytes"
)

// Full says that the VM may have no more of something.
type Full struct {
	Name  string
	Value int64 // the limit
}

func (e Full) Error() string { return fmt.Sprintf("limit reached: %d %s", e.Value, e.Name) }

// A Ledger holds the charges of one VM.
type Ledger struct {
	limits      Limits
	descriptors atomic.Int64
	queued      atomic.Int64

	mu         sync.Mutex
	bytes      int64
	shownBytes int64
	count      int64
	byFile     map[file]*Memory
}

// file identifies the memory of a descriptor.
type file struct{ dev, ino uint64 }

// New returns an empty ledger.
func New(l Limits) *Ledger { return &Ledger{limits: l, byFile: make(map[file]*Memory)} }

// Use holds the charges of a ledger at one moment.
type Use struct{ Bytes, Files, Shown, Descriptors, Queued int64 }

// Use returns the present charges.
func (l *Ledger) Use() Use {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Use{l.bytes, l.count, l.shownBytes, l.descriptors.Load(), l.queued.Load()}
}

// A Memory is one memory file. It is charged while it has holders, and shown while the
// compositor may hold it, which makes the compositor a holder too.
type Memory struct {
	l *Ledger
	// Guarded by l.mu.
	size    int64
	file    file
	known   bool // file is set
	holders int
	shows   int
}

// Charge charges for size bytes of memory before it is made, with the caller as its
// holder. The error is a Full.
func (l *Ledger) Charge(size int64) (*Memory, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.chargeLocked(size)
}

func (l *Ledger) chargeLocked(size int64) (*Memory, error) {
	switch {
	case over(l.count, 1, l.limits.Files):
		return nil, Full{NameFiles, l.limits.Files}
	case over(l.bytes, size, l.limits.Bytes):
		return nil, Full{NameBytes, l.limits.Bytes}
	}
	l.count++
	l.bytes += size
	return &Memory{l: l, size: size, holders: 1}, nil
}

// over tells whether n more than used is beyond a limit.
func over(used, n, limit int64) bool { return n < 0 || limit > 0 && n > limit-used }

// Is sets the file of the memory, so that Of finds it.
func (m *Memory) Is(fd int) error {
	f, _, err := identify(fd)
	if err != nil {
		return err
	}
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	m.file, m.known = f, true
	m.l.byFile[f] = m
	return nil
}

func identify(fd int) (file, int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return file{}, 0, fmt.Errorf("memory: %w", err)
	}
	return file{st.Dev, st.Ino}, st.Size, nil
}

// Of returns the memory that a descriptor stands for, with the caller as one more
// holder. A file that nobody has charged is charged now, and one that grew since (no
// guest's can) with the difference.
func (l *Ledger) Of(fd int) (*Memory, error) {
	f, size, err := identify(fd)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.byFile[f]
	if m == nil {
		if m, err = l.chargeLocked(size); err != nil {
			return nil, err
		}
		m.file, m.known = f, true
		l.byFile[f] = m
		return m, nil
	}
	if more := size - m.size; more > 0 {
		if err := l.growLocked(m, more); err != nil {
			return nil, err
		}
	}
	m.holders++
	return m, nil
}

func (l *Ledger) growLocked(m *Memory, more int64) error {
	switch {
	case over(l.bytes, more, l.limits.Bytes):
		return Full{NameBytes, l.limits.Bytes}
	case m.shows > 0 && over(l.shownBytes, more, l.limits.Shown):
		return Full{NameShown, l.limits.Shown}
	}
	l.bytes += more
	m.size += more
	if m.shows > 0 {
		l.shownBytes += more
	}
	return nil
}

// Size is the memory's, in bytes.
func (m *Memory) Size() int64 {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	return m.size
}

// Hold adds a holder. Only a holder, or a caller that keeps one alive, may call it.
func (m *Memory) Hold() {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	m.holders++
}

// Release removes a holder. The last one ends the charge.
func (m *Memory) Release() {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	m.releaseLocked()
}

func (m *Memory) releaseLocked() {
	if m.holders--; m.holders > 0 {
		return
	}
	l := m.l
	l.count--
	l.bytes -= m.size
	if m.known && l.byFile[m.file] == m {
		delete(l.byFile, m.file)
	}
}

// Show adds a holder by which the compositor can have the memory. The error is a
// Full. As for Hold, the caller is a holder.
func (m *Memory) Show() error {
	l := m.l
	l.mu.Lock()
	defer l.mu.Unlock()
	if m.shows == 0 {
		if over(l.shownBytes, m.size, l.limits.Shown) {
			return Full{NameShown, l.limits.Shown}
		}
		l.shownBytes += m.size
	}
	m.shows++
	m.holders++
	return nil
}

// Hide undoes Show.
func (m *Memory) Hide() {
	m.l.mu.Lock()
	defer m.l.mu.Unlock()
	if m.shows--; m.shows == 0 {
		m.l.shownBytes -= m.size
	}
	m.releaseLocked()
}

// A Descriptor is one file that this process keeps open for the VM, on its way
// from one to another.
type Descriptor struct {
	l    *Ledger
	mem  *Memory
	gone atomic.Bool
}

// Descriptor charges for one file. It takes the caller's hold of mem over, which is
// nil where the file is no memory; with an error, a Full, the hold stays.
func (l *Ledger) Descriptor(mem *Memory) (*Descriptor, error) {
	if !take(&l.descriptors, 1, l.limits.Descriptors) {
		return nil, Full{NameDescriptors, l.limits.Descriptors}
	}
	return &Descriptor{l: l, mem: mem}, nil
}

// Memory returns the file's memory, nil when it is no memory.
func (d *Descriptor) Memory() *Memory { return d.mem }

// Release ends the charge when the file is closed. It may be called more than once.
func (d *Descriptor) Release() {
	if d.gone.Swap(true) {
		return
	}
	d.l.descriptors.Add(-1)
	if d.mem != nil {
		d.mem.Release()
	}
}

// Queue charges for n more bytes of a buffer. The error is a Full.
func (l *Ledger) Queue(n int) error {
	if !take(&l.queued, int64(n), l.limits.Queued) {
		return Full{NameQueued, l.limits.Queued}
	}
	return nil
}

// Unqueue gives n bytes back.
func (l *Ledger) Unqueue(n int) { l.queued.Add(-int64(n)) }

func take(c *atomic.Int64, n, limit int64) bool {
	if c.Add(n) > limit && limit > 0 {
		c.Add(-n)
		return false
	}
	return true
}
