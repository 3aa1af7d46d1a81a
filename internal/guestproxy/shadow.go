package guestproxy

import (
	"errors"
	"fmt"
	"math/bits"
	"os"
	"slices"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// A Blob is memory that the server can see: in a guest, a mapped host-visible
// virtio-gpu blob. It is an alias, so that blobs for tests (waylandtest.Memfds) need
// nothing of this package.
type Blob = interface {
	Mem() []byte
	// Desc returns the descriptor of the memory for the server. The caller owns it.
	Desc() (wayland.Desc, error)
	Close() error
}

// Blobs makes blobs.
type Blobs interface {
	// NewBlob returns size bytes of zeros; size is a multiple of the page size.
	NewBlob(size int) (Blob, error)
}

// Slabs: every mapped blob costs QEMU a memory region, of which there are few, and
// a map takes milliseconds; pages that are never touched cost nothing. So buffers share
// few large blobs, whatever pools the client has them in. The other way, a blob for
// each pool, was measured (BenchmarkShadow; a window of 1920×1080 resized once):
//
//	             blobs made for a resize    mapped at once    MiB of the VM's window
//	             slabs      by pool         slabs   by pool   slabs   by pool
//	GTK, Qt      0          3               2       4         32      24
//	foot         0          1               1       2         16      512
//	cursors      0          61              1       62        16      4
//
// where a buffer in a slab takes 9 ms to make and destroy in a VM without KVM, on a busy
// machine, of which 9 ms are the round trips, and one with a blob of its own 48 ms
// (wlbench vm).
const (
	minSlab = 16 << 20
	maxSlab = 1 << 30
	// maxSpare is the largest slab that is kept empty while others are in use: a
	// window that is resized makes its new buffers before it destroys the old ones.
	maxSpare = 64 << 20
)

var pageSize = os.Getpagesize()

// A shadow hands out ranges of slabs for one connection's buffers.
type shadow struct {
	blobs Blobs
	slabs []*slab
}

// A slab is one blob, known to the server as one wl_shm_pool of ours.
type slab struct {
	blob   Blob
	pool   *relay.Object // the owned wl_shm_pool, created at its first use
	free   []span        // sorted by offset, never adjacent
	ranges int           // the number of ranges in use
}

// A span is a range of a slab, in bytes.
type span struct{ off, size int }

// An extent is a span that is in use.
type extent struct {
	slab *slab
	span
}

func (e *extent) mem() []byte { return e.slab.blob.Mem()[e.off : e.off+e.size] }

// alloc returns at least size bytes, page-aligned.
func (s *shadow) alloc(size int) (*extent, error) {
	size = (size + pageSize - 1) &^ (pageSize - 1)
	if size <= 0 || size > maxSlab {
		return nil, fmt.Errorf("a buffer of %d bytes is too large", size)
	}
	for _, sl := range s.slabs {
		if e := sl.take(size); e != nil {
			return e, nil
		}
	}
	n := minSlab
	if 2*size > n {
		n = 1 << bits.Len(uint(2*size-1))
	}
	blob, err := s.blobs.NewBlob(min(n, maxSlab))
	if err != nil { // the VM may have little left
		if blob, err = s.blobs.NewBlob(size); err != nil {
			return nil, err
		}
	}
	sl := &slab{blob: blob, free: []span{{0, len(blob.Mem())}}}
	s.slabs = append(s.slabs, sl)
	return sl.take(size), nil
}

func (sl *slab) take(size int) *extent {
	for k, f := range sl.free {
		if f.size < size {
			continue
		}
		if f.size == size {
			sl.free = slices.Delete(sl.free, k, k+1)
		} else {
			sl.free[k] = span{f.off + size, f.size - size}
		}
		sl.ranges++
		return &extent{sl, span{f.off, size}}
	}
	return nil
}

// release frees e. While buffers are left, one empty slab stays for the next
// ones; after the last of them, a small one.
func (s *shadow) release(c *relay.Conn, e *extent) error {
	e.slab.ranges--
	e.slab.put(e.span)
	if e.slab.ranges > 0 {
		return nil
	}
	most := maxSpare
	if !slices.ContainsFunc(s.slabs, func(x *slab) bool { return x.ranges > 0 }) {
		most = minSlab
	}
	kept := false
	var errs []error
	s.slabs = slices.DeleteFunc(s.slabs, func(x *slab) bool {
		if x.ranges > 0 {
			return false
		}
		if !kept && len(x.blob.Mem()) <= most {
			kept = true
			return false
		}
		if x.pool != nil {
			c.ToServer().Msg(x.pool.Server, wayland.WlShmPoolReqDestroy)
		}
		errs = append(errs, x.blob.Close())
		return true
	})
	return errors.Join(errs...)
}

// put merges f into the free list.
func (sl *slab) put(f span) {
	k, _ := slices.BinarySearchFunc(sl.free, f, func(a, b span) int { return a.off - b.off })
	sl.free = slices.Insert(sl.free, k, f)
	if k+1 < len(sl.free) && f.off+f.size == sl.free[k+1].off {
		sl.free[k].size += sl.free[k+1].size
		sl.free = slices.Delete(sl.free, k+1, k+2)
	}
	if k > 0 && sl.free[k-1].off+sl.free[k-1].size == sl.free[k].off {
		sl.free[k-1].size += sl.free[k].size
		sl.free = slices.Delete(sl.free, k, k+1)
	}
}

// close ends all slabs, at the end of the connection.
func (s *shadow) close() error {
	var errs []error
	for _, sl := range s.slabs {
		errs = append(errs, sl.blob.Close())
	}
	s.slabs = nil
	return errors.Join(errs...)
}
