// Package gpu is a virtio-gpu device (virtio id 16) without a GPU: blob resources
// and contexts of exactly one capability set, cross-domain, which internal/virtwl
// implements. It is the Device behind vhost.Serve.
//
// Control queue, little-endian; the answer to a request has a header of the same form:
//
//	 0      4      8         16     20    21   24
//	+------+------+---------+------+-----+----+--------------------
//	| type | flags| fence   | ctx  | ring| 0  | body
//	+------+------+---------+------+-----+----+--------------------
//	flags: 1 fenced (the answer repeats flags, fence, ctx and ring), 2 ring is valid
//
//	RESOURCE_CREATE_BLOB  resource, memory, flags, entries; u64 blob id, size; entries × {u64 address, u32 length, u32 0}
//	RESOURCE_MAP_BLOB     resource, 0; u64 offset in shared memory region 1   → map info
//	CTX_CREATE            name length, capset id, name[64]
//	SUBMIT_3D             size, 0; a cross-domain command (package virtwl)
//
// A guest's kernel does this for one Wayland connection (drivers/gpu/drm/virtio):
//
//	CTX_CREATE(5)
//	CREATE_BLOB(guest memory, 1 page) ×2, CTX_ATTACH ×2      the «rings»
//	SUBMIT_3D(INIT)                                          → Config.Accept
//	SUBMIT_3D(POLL), fenced on ring 1                        answered at the next event
//	SUBMIT_3D(SEND …) …
//	CREATE_BLOB(host memory), MAP_BLOB, CTX_ATTACH           per blob: memory of this
//	UNMAP_BLOB, RESOURCE_UNREF                               process, mapped into the guest
//	CTX_DESTROY
//
// The device writes guest memory only for a context's two rings. The guest sees no
// host memory except memfds that the device made, of fixed size, so
// that no reader can meet a shortened file.
//
// The limits in resource.go bound every request of the guest; a request beyond them
// gets an error and has no other effect. There are no scanouts,
// 2D resources or cursors: their commands get an error too.
package gpu

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"vix/internal/ledger"
	"vix/internal/vhost"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// Config configures a device.
type Config struct {
	// Accept is called in its own goroutine for each Wayland connection that the
	// guest opens. It owns t, and must Close it.
	Accept func(t wayland.Transport)
	Log    *slog.Logger // nil: discard
	Limits Limits       // zero values: the defaults
	// Ledger is the VM's, which the filter shares; nil: a separate one with the limits of
	// Limits.Ledger.
	Ledger *ledger.Ledger
}

// Queues of a GPU.
const (
	controlQueue = 0
	numQueues    = 2 // and the cursor queue
)

// Device is the GPU. Locks are taken in this order: a context's, mu, a queue's, the memory's.
type Device struct {
	cfg  Config
	host *virtwl.Host
	be   *vhost.Backend

	mu        sync.Mutex
	epoch     uint64 // counts resets
	queue     *vhost.Queue
	contexts  map[uint32]*wlContext
	resources map[uint32]*resource
	use       Limits // the usage that the ledger does not count
	limited   limitLines

	// Of the control queue's goroutine.
	chain vhost.Chain
	in    [headerSize + maxBody]byte
	out   [displayInfoSize]byte
	sub   submission
	life  uint32 // of the control queue: see Process

	cursor vhost.Chain // of the cursor queue's goroutine

	jobs       chan job      // closed by Close
	sweep      chan struct{} // requests the mapper to unmap the mappings of an earlier life
	mapperDone chan struct{} // closed by the mapper
}

// wlContext is a rendering context of the guest: one Wayland connection.
type wlContext struct {
	id  uint32
	d   *Device
	wl  *virtwl.HostContext
	res map[uint32]struct{} // attached resources
}

// New returns a device for vhost.Serve, which closes it. A device serves once.
func New(cfg Config) (*Device, error) {
	cfg.Limits = cfg.Limits.withDefaults()
	switch w := cfg.Limits.Window; {
	case cfg.Accept == nil:
		return nil, errors.New("gpu: no Accept for connections")
	case w < virtwl.PageSize || w&(w-1) != 0:
		return nil, fmt.Errorf("gpu: a window of %d bytes; it must be a power of two", w)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Ledger == nil {
		cfg.Ledger = ledger.New(cfg.Limits.Ledger())
	}
	return &Device{
		cfg:       cfg,
		host:      virtwl.NewHost(virtwl.HostConfig{Accept: cfg.Accept, Ledger: cfg.Ledger, Log: cfg.Log}),
		contexts:  make(map[uint32]*wlContext),
		resources: make(map[uint32]*resource),
		jobs:      make(chan job, maxJobs), sweep: make(chan struct{}, 1), mapperDone: make(chan struct{}),
	}, nil
}

// Features implements vhost.Device. With indirect descriptors each request takes one
// entry of the ring; every open connection parks one.
func (d *Device) Features() uint64 {
	return featureVirgl | featureResourceBlob | featureContextInit | vhost.FeatureIndirectDesc | vhost.FeatureEventIdx
}

// Queues implements vhost.Device.
func (d *Device) Queues() int { return numQueues }

// Config implements vhost.Device: no events, no scanouts, one capability set.
func (d *Device) Config() []byte {
	var c [16]byte
	le.PutUint32(c[12:], 1)
	return c[:]
}

// SharedMemory implements vhost.Device.
func (d *Device) SharedMemory() []uint64 {
	s := make([]uint64, shmHostVisible+1)
	s[shmHostVisible] = d.cfg.Limits.Window
	return s
}

// Start implements vhost.Device.
func (d *Device) Start(be *vhost.Backend) {
	d.be = be
	go d.runMapper()
}

// Process implements vhost.Device.
func (d *Device) Process(q *vhost.Queue) {
	if q.Index != controlQueue {
		for q.Next(&d.cursor) {
			q.Push(d.cursor.Token()) // no scanout, no cursor; the driver wants no answer
		}
		return
	}
	d.mu.Lock()
	if d.queue == nil {
		d.queue = q
	}
	d.mu.Unlock()
	for q.Next(&d.chain) {
		// A command that ran during a reset may have changed the next guest's
		// device.
		if life := d.chain.Token().Life(); life != d.life {
			d.life = life
			d.drop()
		}
		d.control(q, &d.chain)
	}
}

// Reset implements vhost.Device.
func (d *Device) Reset() {
	d.drop()
}

// drop forgets all contexts and resources.
func (d *Device) drop() {
	d.mu.Lock()
	d.epoch++
	ctxs, res := d.contexts, d.resources
	d.contexts, d.resources = make(map[uint32]*wlContext), make(map[uint32]*resource)
	d.use = Limits{}
	d.mu.Unlock()
	for _, c := range ctxs {
		c.wl.Destroy()
	}
	for _, r := range res {
		r.free()
	}
}

// Close implements vhost.Device.
func (d *Device) Close() {
	d.Reset()
	close(d.jobs)
	<-d.mapperDone
	d.host.Wait()
}

// WriteRing implements virtwl.Port.
func (c *wlContext) WriteRing(res uint32, head, data []byte) error {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	r, err := c.attachedLocked(res)
	if err != nil {
		return err
	}
	return r.writeLocked(c.d.be.Memory, head, data)
}

// RingSize implements virtwl.Port.
func (c *wlContext) RingSize(res uint32) (int, error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	r, err := c.attachedLocked(res)
	if err != nil {
		return 0, err
	}
	if r.fd >= 0 {
		return 0, fmt.Errorf("%w: a ring is guest memory", errParameter)
	}
	return int(r.size), nil
}

// Dup implements virtwl.Port.
func (c *wlContext) Dup(res uint32) (fd int, mem *ledger.Memory, err error) {
	c.d.mu.Lock()
	defer c.d.mu.Unlock()
	r, err := c.attachedLocked(res)
	if err != nil {
		return -1, nil, err
	}
	return r.dupLocked()
}

// attachedLocked finds a resource that is attached to the context. Others do
// not exist for it.
func (c *wlContext) attachedLocked(res uint32) (*resource, error) {
	if _, ok := c.res[res]; !ok {
		return nil, errNoResource
	}
	r := c.d.resources[res]
	if r == nil {
		return nil, errNoResource
	}
	return r, nil
}

// Signal implements virtwl.Port.
func (c *wlContext) Signal(f virtwl.Fence) {
	q := c.d.queue // set before the first command, never changed
	q.Push(vhost.UnpackToken(f.Cookie))
	q.Notify()
}
