package gpu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/ledger"
	"vix/internal/vhost"
	"vix/internal/virtwl"
)

// Limits bounds the resources of one guest. Zero in a field means its default.
type Limits struct {
	// Window is the length of the shared memory region, a power of two. It costs
	// address space only.
	Window uint64
	// Contexts: each parks one of the control queue's 1024 descriptors.
	Contexts int
	// Resources: two rings per context, and blobs.
	Resources int
	// Blobs of the host: each is a descriptor of this process. As with BlobBytes, the
	// memory counts until its last holder is gone.
	Blobs int
	// Mappings: QEMU makes each a separate memory region, and aborts on an
	// assertion beyond 512; the machine itself uses some of them.
	Mappings int
	// BlobBytes is the sum of the sizes of host blobs: resources, and blobs that only
	// the host still holds, in transit to the compositor or there. They are sparse, but
	// no event shows that a guest touches their pages: so this also bounds the
	// memory that a guest's blobs take.
	BlobBytes uint64
	// Entries is the number of pieces in the guest's memory blobs.
	Entries int
	// Descriptors is the number of files in transit between guest and compositor, and pipes.
	Descriptors int
	// QueuedBytes is the memory of buffers for data that its receiver has not read yet.
	QueuedBytes int64
}

// Ledger returns the limits for a VM's ledger.
func (l Limits) Ledger() ledger.Limits {
	l = l.withDefaults()
	return ledger.Limits{
		Bytes: int64(l.BlobBytes), Files: int64(l.Blobs), Descriptors: int64(l.Descriptors), Queued: l.QueuedBytes,
	}
}

// Defaults of the limits that are not the ledger's.
const (
	defaultWindow    = display.MaxDeviceBytes
	defaultContexts  = 256
	defaultResources = 4096
	defaultMappings  = display.MaxMappings
	defaultEntries   = 64 << 10
	// maxBlobEntries bounds one resource's page list: rings have one entry.
	maxBlobEntries = 1024
)

func (l Limits) withDefaults() Limits {
	return Limits{
		Window:    or(l.Window, defaultWindow),
		Contexts:  or(l.Contexts, defaultContexts),
		Resources: or(l.Resources, defaultResources),
		Blobs:     or(l.Blobs, ledger.DefaultFiles),
		Mappings:  min(or(l.Mappings, defaultMappings), defaultMappings),
		BlobBytes: or(l.BlobBytes, ledger.DefaultBytes),
		Entries:   or(l.Entries, defaultEntries),

		Descriptors: or(l.Descriptors, ledger.DefaultDescriptors),
		QueuedBytes: or(l.QueuedBytes, ledger.DefaultQueued),
	}
}

func or[T comparable](v, def T) T {
	var zero T
	if v == zero {
		return def
	}
	return v
}

var (
	errNoResource = errors.New("no such resource")
	errNoContext  = errors.New("no such context")
	errParameter  = errors.New("invalid parameter")
	errUnknown    = errors.New("unknown command")
)

// resource is a blob: guest memory (fd −1) or a memfd of ours.
type resource struct {
	size     uint64
	mappable bool
	entries  []vhost.Segment
	fd       int
	mem      *ledger.Memory // charges fd until free
	mapped   bool           // mapped into the guest's window, or about to be
	mapping  vhost.Mapping
	jobs     int // the number of the mapper's unfinished jobs
}

// free releases the memory of a resource that has no number any more. The caller holds
// no lock: a gigabyte takes a tenth of a second.
func (r *resource) free() {
	if r.fd >= 0 {
		_ = unix.Close(r.fd)
		r.mem.Release()
	}
}

// writeLocked copies head and data to the start of guest memory.
func (r *resource) writeLocked(mem *vhost.Memory, head, data []byte) error {
	if r.fd >= 0 {
		return fmt.Errorf("%w: a ring is guest memory", errParameter)
	}
	if uint64(len(head)+len(data)) > r.size {
		return fmt.Errorf("%w: %d bytes for a ring of %d", errParameter, len(head)+len(data), r.size)
	}
	for _, e := range r.entries {
		for _, p := range [...]*[]byte{&head, &data} {
			n := min(uint32(len(*p)), e.Len)
			if n == 0 {
				continue
			}
			if err := mem.WriteAt(e.Addr, (*p)[:n]); err != nil {
				return err
			}
			*p = (*p)[n:]
			e.Addr, e.Len = e.Addr+uint64(n), e.Len-n
		}
		if len(head)+len(data) == 0 {
			return nil
		}
	}
	if len(head)+len(data) > 0 {
		return fmt.Errorf("%w: ring shorter than its size", errParameter)
	}
	return nil
}

// dupLocked returns a duplicate descriptor of a host blob, and a hold on its memory.
func (r *resource) dupLocked() (int, *ledger.Memory, error) {
	if r.fd < 0 {
		return -1, nil, fmt.Errorf("%w: not memory of the host", errParameter)
	}
	fd, err := unix.FcntlInt(uintptr(r.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return -1, nil, err
	}
	r.mem.Hold()
	return fd, r.mem, nil
}

// createBlob carries out RESOURCE_CREATE_BLOB; it reads the entries from c.
func (d *Device) createBlob(h header, b createBlob, c *vhost.Chain) error {
	r, err := d.newResource(h, b, c)
	if err != nil {
		return err
	}
	d.mu.Lock()
	err = d.admitLocked(b.res, r)
	d.mu.Unlock()
	if err != nil {
		r.free()
	}
	return err
}

func (d *Device) newResource(h header, b createBlob, c *vhost.Chain) (*resource, error) {
	if b.res == 0 || b.size == 0 || b.size > virtwl.MaxBlob || b.size%virtwl.PageSize != 0 {
		return nil, fmt.Errorf("%w: blob of %d bytes", errParameter, b.size)
	}
	switch b.mem {
	case blobMemGuest:
		entries, err := readEntries(b, c)
		return &resource{size: b.size, entries: entries, fd: -1}, err
	case blobMemHost3D:
		ctx := d.context(h.ctx)
		if ctx == nil {
			return nil, errNoContext
		}
		fd, mem, err := ctx.wl.CreateBlob(b.blobID, b.size)
		if err != nil {
			d.sweepIfFull(err)
			return nil, fmt.Errorf("%w: %w", errParameter, err)
		}
		return &resource{size: b.size, fd: fd, mem: mem, mappable: b.flags&blobUseMappable != 0}, nil
	}
	return nil, fmt.Errorf("%w: blob memory %d", errParameter, b.mem)
}

// readEntries reads a page list. The pieces together must be as long as the blob.
func readEntries(b createBlob, c *vhost.Chain) ([]vhost.Segment, error) {
	if b.entries == 0 || b.entries > maxBlobEntries || c.Remaining() < int(b.entries)*memEntrySize {
		return nil, fmt.Errorf("%w: %d pieces in %d bytes", errParameter, b.entries, c.Remaining())
	}
	var sum uint64
	es := make([]vhost.Segment, b.entries)
	for i := range es {
		var p [memEntrySize]byte
		if err := c.Read(p[:]); err != nil {
			return nil, err
		}
		es[i] = vhost.Segment{Addr: le.Uint64(p[:]), Len: le.Uint32(p[8:])}
		if es[i].Addr+uint64(es[i].Len) < es[i].Addr {
			return nil, vhost.ErrAddress
		}
		sum += uint64(es[i].Len)
	}
	if sum < b.size {
		return nil, fmt.Errorf("%w: pieces of %d bytes for a blob of %d", errParameter, sum, b.size)
	}
	return es, nil
}

// admitLocked adds a new resource, within the limits.
func (d *Device) admitLocked(id uint32, r *resource) error {
	lim := &d.cfg.Limits
	switch {
	case d.resources[id] != nil:
		return fmt.Errorf("%w: resource %d exists", errParameter, id)
	case len(d.resources) >= lim.Resources:
		return ledger.Full{Name: "resources", Value: int64(lim.Resources)}
	case d.use.Entries+len(r.entries) > lim.Entries:
		return ledger.Full{Name: "entries", Value: int64(lim.Entries)}
	}
	d.resources[id] = r
	d.use.Entries += len(r.entries)
	return nil
}

// unrefNow carries out RESOURCE_UNREF of an unmapped resource without jobs.
func (d *Device) unrefNow(id uint32) error {
	d.mu.Lock()
	r := d.resources[id]
	if r != nil {
		d.removeLocked(id)
	}
	d.mu.Unlock()
	if r == nil {
		return errNoResource
	}
	r.free()
	return nil
}

// removeLocked removes a resource, which the caller frees.
func (d *Device) removeLocked(id uint32) {
	r := d.resources[id]
	delete(d.resources, id)
	d.use.Entries -= len(r.entries)
	for _, c := range d.contexts {
		delete(c.res, id)
	}
}
