package gpu

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vix/internal/ledger"
	"vix/internal/vhost"
	"vix/internal/virtwl"
)

// Mapping a blob into the guest's window needs the front end, which takes one
// to tens of milliseconds. Meanwhile the control queue goes on: a separate
// goroutine, the mapper, carries out these requests in order and answers each at its
// end. The mapper also frees a resource that has requests there, which keeps the order
// of the resource's requests:
//
//	control queue ── MAP_BLOB, UNMAP_BLOB, UNREF ─► jobs ─► mapper ─► vhost.Backend
//	      │                                                  │
//	      └─ everything else                                 └─► Queue.Answer

// maxJobs bounds the pending requests; more make the control queue wait. The
// guest's driver waits for each of its own.
const maxJobs = 256

type job struct {
	epoch  uint64
	head   header
	reply  vhost.Deferred
	queue  *vhost.Queue
	id     uint32
	res    *resource // the resource of id at enqueue time: the number may have another later
	offset uint64
}

// enqueue passes a request to the mapper. It returns false for an UNREF that need
// not wait and can be carried out at once.
func (d *Device) enqueue(q *vhost.Queue, c *vhost.Chain, h header, res uint32, offset uint64) (queued bool, err error) {
	room := uint32(headerSize)
	if h.typ == cmdResourceMapBlob {
		room = mapInfoSize
	}
	reply, ok := c.Defer(room)
	if !ok {
		return false, fmt.Errorf("%w: no room for the answer in one piece", errParameter)
	}
	d.mu.Lock()
	r := d.resources[res]
	switch {
	case r == nil:
		d.mu.Unlock()
		return false, errNoResource
	case h.typ == cmdResourceUnref && !r.mapped && r.jobs == 0:
		d.mu.Unlock()
		return false, nil
	}
	r.jobs++
	epoch := d.epoch
	d.mu.Unlock()
	d.jobs <- job{epoch, h, reply, q, res, r, offset}
	return true, nil
}

// runMapper carries out jobs until the channel is closed.
func (d *Device) runMapper() {
	defer close(d.mapperDone)
	var out [mapInfoSize]byte
	for {
		var j job
		var ok bool
		select {
		case j, ok = <-d.jobs:
		case <-d.sweep:
			d.be.Sweep()
			continue
		}
		if !ok {
			return
		}
		var err error
		typ, n := uint32(respOKNoData), headerSize
		switch j.head.typ {
		case cmdResourceMapBlob:
			typ, n = respOKMapInfo, mapInfoSize
			err = d.mapBlob(j)
		case cmdResourceUnmapBlob:
			err = d.unmap(j)
		default:
			err = d.unref(j)
		}
		if err != nil {
			d.refused(j.head, err)
			typ, n = errorCode(err), headerSize
		}
		d.mu.Lock()
		j.res.jobs--
		d.mu.Unlock()
		clear(out[:])
		j.head.respond(typ).put(out[:])
		le.PutUint32(out[headerSize:], mapInfoCached)
		j.queue.Answer(j.reply, out[:n])
	}
}

// mapBlob carries out RESOURCE_MAP_BLOB. It holds no lock while the front end works;
// Reset may run in between.
func (d *Device) mapBlob(j job) error {
	d.mu.Lock()
	r := j.res
	err := d.mappableLocked(j)
	if err != nil {
		d.mu.Unlock()
		return err
	}
	// A duplicate descriptor: Reset may close the resource's.
	fd, mem, err := r.dupLocked()
	if err != nil {
		d.mu.Unlock()
		return err
	}
	r.mapped = true
	r.mapping = vhost.Mapping{Region: shmHostVisible, Offset: j.offset, Len: r.size}
	d.use.Mappings++
	d.mu.Unlock()
	err = d.be.Map(fd, r.mapping, mem.Release)
	_ = unix.Close(fd)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch != j.epoch {
		return vhost.ErrReset
	}
	if err != nil {
		r.mapped = false
		d.use.Mappings--
	}
	return err
}

// jobLocked checks that a job's resource still exists, and belongs to this guest.
func (d *Device) jobLocked(j job) error {
	if d.epoch != j.epoch {
		return vhost.ErrReset
	}
	if d.resources[j.id] != j.res {
		return errNoResource
	}
	return nil
}

func (d *Device) mappableLocked(j job) error {
	if err := d.jobLocked(j); err != nil {
		return err
	}
	r, id, offset := j.res, j.id, j.offset
	switch {
	case r.fd < 0 || !r.mappable:
		return fmt.Errorf("%w: resource %d cannot be mapped", errParameter, id)
	case r.mapped:
		return fmt.Errorf("%w: resource %d is mapped", errParameter, id)
	case offset%virtwl.PageSize != 0, offset > d.cfg.Limits.Window, r.size > d.cfg.Limits.Window-offset:
		return fmt.Errorf("%w: offset %#x", errParameter, offset)
	case d.use.Mappings >= d.cfg.Limits.Mappings:
		return ledger.Full{Name: "mappings", Value: int64(d.cfg.Limits.Mappings)}
	}
	for _, o := range d.resources {
		if o.mapped && offset < o.mapping.Offset+o.mapping.Len && o.mapping.Offset < offset+r.size {
			return fmt.Errorf("%w: offset %#x is in use", errParameter, offset)
		}
	}
	return nil
}

// unmap carries out RESOURCE_UNMAP_BLOB.
func (d *Device) unmap(j job) error {
	d.mu.Lock()
	r := j.res
	err := d.jobLocked(j)
	if err == nil && !r.mapped {
		err = fmt.Errorf("%w: resource %d is not mapped", errParameter, j.id)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	err = d.be.Unmap(r.mapping)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.epoch != j.epoch {
		return vhost.ErrReset
	}
	r.mapped = false
	d.use.Mappings--
	return err
}

// unref carries out RESOURCE_UNREF of a resource that is, or may be, mapped. The guest
// has given it up even if the front end refuses to unmap it.
func (d *Device) unref(j job) error {
	if err := d.unmap(j); errors.Is(err, vhost.ErrReset) {
		return err
	}
	d.mu.Lock()
	err := d.jobLocked(j)
	if err == nil {
		d.removeLocked(j.id)
	}
	d.mu.Unlock()
	if err == nil {
		j.res.free()
	}
	return err
}

// sweepIfFull drops mappings that the front end has left from an earlier life of
// the guest, if the VM is at its memory limit.
func (d *Device) sweepIfFull(err error) {
	var full ledger.Full
	if !errors.As(err, &full) {
		return
	}
	select {
	case d.sweep <- struct{}{}:
	default: // already requested
	}
}
