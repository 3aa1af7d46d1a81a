package guestproxy

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/relay"
	"vix/internal/wayland"
)

// countedBlobs are blobs that are address space only, counted.
type countedBlobs struct {
	made, live, most int
	bytes, mostBytes int
	full             int // the largest that can be made, 0 for any
}

type countedBlob struct {
	m   *countedBlobs
	mem []byte
}

func (m *countedBlobs) NewBlob(size int) (Blob, error) {
	if m.full > 0 && size > m.full {
		return nil, errors.New("full")
	}
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		return nil, err
	}
	m.made++
	m.live++
	m.bytes += size
	m.most, m.mostBytes = max(m.most, m.live), max(m.mostBytes, m.bytes)
	return &countedBlob{m, mem}, nil
}

func (b *countedBlob) Mem() []byte                 { return b.mem }
func (b *countedBlob) Desc() (wayland.Desc, error) { return wayland.ResDesc(1), nil }
func (b *countedBlob) Close() error {
	b.m.live--
	b.m.bytes -= len(b.mem)
	return unix.Munmap(b.mem)
}

// TestSpare holds what is kept when buffers go: one empty slab while others are in
// use, unless it is huge; a small one in the end.
func TestSpare(t *testing.T) {
	m := &countedBlobs{}
	s := shadow{blobs: m}
	c := relay.New(nil, nil, relay.Config{})
	alloc := func(size int) *extent {
		t.Helper()
		e, err := s.alloc(size)
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	release := func(e *extent, want int) {
		t.Helper()
		if err := s.release(c, e); err != nil {
			t.Fatal(err)
		}
		if m.live != want {
			t.Errorf("%d blobs are left, not %d", m.live, want)
		}
	}
	small, window, next, huge := alloc(4096), alloc(20<<20), alloc(50<<20), alloc(100<<20)
	release(huge, 3)   // larger than a spare may be
	release(window, 3) // the spare
	release(next, 2)   // its slab is too large
	was := m.made
	release(alloc(30<<20), 2)
	if m.made != was {
		t.Error("the spare slab was not used")
	}
	release(small, 1)
	m.full = minSlab // the host has little left
	tight := alloc(minSlab - pageSize + 1)
	if len(tight.slab.blob.Mem()) != minSlab {
		t.Errorf("a slab of %d bytes", len(tight.slab.blob.Mem()))
	}
	m.full = 1
	if _, err := s.alloc(minSlab); err == nil {
		t.Error("a blob where there is no room")
	}
	release(tight, 1)
	if err := s.close(); err != nil || m.live != 0 {
		t.Errorf("%d blobs are left, %v", m.live, err)
	}
}

// shadowLoads are what programs do with pools, as WAYLAND_DEBUG shows it: a window
// of 1920×1080 that is resized once in each op.
var shadowLoads = []struct {
	name       string
	pool       int // bytes; 0: one for each buffer
	buffers    int
	size, grow int // of a buffer; by how much the pool grows for each
	pools      int // of the window
}{
	{name: "gtk", buffers: 3, size: 1920 * 1080 * 4, pools: 3},
	{name: "foot", pool: 512 << 20, buffers: 2, size: 1920 * 1080 * 4, pools: 1},
	{name: "cursors", pool: 4096, buffers: 60, size: 24 * 24 * 4, grow: 24 * 24 * 4, pools: 1},
}

// BenchmarkShadow is the measurement behind the choice of slabs (shadow.go): how
// many blobs are made in an op, how many are mapped at once, and what address space
// they take of the VM's window.
func BenchmarkShadow(b *testing.B) {
	for _, l := range shadowLoads {
		report := func(b *testing.B, m *countedBlobs) {
			b.ReportMetric(float64(m.made)/float64(b.N), "blobs/op")
			b.ReportMetric(float64(m.most), "mapped")
			b.ReportMetric(float64(m.mostBytes)/(1<<20), "MiB")
		}
		b.Run(l.name+"/slabs", func(b *testing.B) {
			m := &countedBlobs{}
			s := shadow{blobs: m}
			c := relay.New(nil, nil, relay.Config{})
			other, err := s.alloc(4096) // a cursor
			if err != nil {
				b.Fatal(err)
			}
			es := make([]*extent, l.buffers)
			for b.Loop() {
				for k := range es {
					if es[k], err = s.alloc(l.size); err != nil {
						b.Fatal(err)
					}
				}
				for _, e := range es {
					if err := s.release(c, e); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b, m)
			if err := s.release(c, other); err != nil {
				b.Fatal(err)
			}
			if err := s.close(); err != nil {
				b.Fatal(err)
			}
		})
		b.Run(l.name+"/a blob for each pool", func(b *testing.B) {
			m := &countedBlobs{}
			other, err := m.NewBlob(4096)
			if err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				size := max(l.pool, l.size)
				var blobs []Blob
				make1 := func() {
					x, err := m.NewBlob((size + pageSize - 1) &^ (pageSize - 1))
					if err != nil {
						b.Fatal(err)
					}
					blobs = append(blobs, x)
				}
				for range l.pools {
					make1()
				}
				for range l.buffers {
					if l.grow > 0 { // the old blob lives as long as its buffers
						size += l.grow
						make1()
					}
				}
				for _, x := range blobs {
					if err := x.Close(); err != nil {
						b.Fatal(err)
					}
				}
			}
			report(b, m)
			if err := other.Close(); err != nil {
				b.Fatal(err)
			}
		})
	}
}
