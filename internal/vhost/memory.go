package vhost

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrAddress means that the guest named an address outside its memory.
var ErrAddress = errors.New("address outside guest memory")

// A Segment is a run of guest physical memory, in bytes.
type Segment struct {
	Addr uint64
	Len  uint32
}

// Memory is the guest's memory. It is safe for use by many goroutines. The guest may
// change it at any time, so a caller reads only the copy.
type Memory struct {
	mu      sync.RWMutex
	regions []mapping // by guest address, not overlapping
	gen     uint64    // number of changes; rings look up their pointers again after a change
}

type mapping struct {
	region
	mem []byte // size bytes of the mapped file from offset
	raw []byte // the whole mapping, for munmap
}

// ReadAt copies len(p) bytes at the guest physical address addr. The run may
// cross from one region into the next.
func (m *Memory) ReadAt(addr uint64, p []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.copyLocked(addr, p, false)
}

// WriteAt copies p to the guest physical address addr.
func (m *Memory) WriteAt(addr uint64, p []byte) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.copyLocked(addr, p, true)
}

func (m *Memory) copyLocked(addr uint64, p []byte, write bool) error {
	for len(p) > 0 {
		s := m.guestLocked(addr)
		if len(s) == 0 {
			return fmt.Errorf("%w: %#x", ErrAddress, addr)
		}
		var n int
		if write {
			n = copy(s, p)
		} else {
			n = copy(p, s)
		}
		p, addr = p[n:], addr+uint64(n)
	}
	return nil
}

// Has reports whether the whole run is guest memory.
func (m *Memory) Has(s Segment) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	addr, left := s.Addr, uint64(s.Len)
	for left > 0 {
		n := uint64(len(m.guestLocked(addr)))
		if n == 0 || addr+n < addr {
			return false
		}
		n = min(n, left)
		addr, left = addr+n, left-n
	}
	return true
}

// guestLocked returns the memory from a guest physical address to the end of
// its region, or nil.
func (m *Memory) guestLocked(addr uint64) []byte {
	i, found := slices.BinarySearchFunc(m.regions, addr, func(r mapping, a uint64) int {
		switch {
		case a < r.guest:
			return 1
		case a-r.guest >= r.size:
			return -1
		}
		return 0
	})
	if !found {
		return nil
	}
	return m.regions[i].mem[addr-m.regions[i].guest:]
}

// userLocked returns n bytes at an address of the front end's own address space
// (as in SET_VRING_ADDR), or nil. A ring lies in one region.
func (m *Memory) userLocked(addr, n uint64) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if addr >= r.user && addr-r.user < r.size && r.size-(addr-r.user) >= n {
			return r.mem[addr-r.user:][:n:n]
		}
	}
	return nil
}

// add maps a region. It takes ownership of fd, which the mapping does not need.
func (m *Memory) add(r region, fd int) error {
	defer unix.Close(fd)
	mp, err := mapRegion(r, fd)
	if err != nil {
		return err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.insertLocked(mp); err != nil {
		_ = unix.Munmap(mp.raw)
		return err
	}
	return nil
}

func (m *Memory) insertLocked(mp mapping) error {
	if len(m.regions) >= maxMemSlots {
		return protoErrorf("more than %d memory regions", maxMemSlots)
	}
	i, _ := slices.BinarySearchFunc(m.regions, mp.guest, func(r mapping, a uint64) int {
		if r.guest < a {
			return -1
		}
		return 1
	})
	if i > 0 && m.regions[i-1].guest+m.regions[i-1].size > mp.guest ||
		i < len(m.regions) && mp.guest+mp.size > m.regions[i].guest {
		return protoErrorf("memory region at %#x overlaps another", mp.guest)
	}
	m.regions = slices.Insert(m.regions, i, mp)
	m.gen++
	return nil
}

// remove unmaps the region that was added with the same addresses.
func (m *Memory) remove(r region) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	i := slices.IndexFunc(m.regions, func(o mapping) bool {
		return o.guest == r.guest && o.size == r.size && o.user == r.user
	})
	if i < 0 {
		return protoErrorf("no memory region of %#x bytes at %#x to remove", r.size, r.guest)
	}
	raw := m.regions[i].raw
	m.regions = slices.Delete(m.regions, i, i+1)
	m.gen++
	return unix.Munmap(raw)
}

// replace installs a whole table. It owns fds, which correspond to rs.
func (m *Memory) replace(rs []region, fds []int) error {
	m.clear()
	for i, r := range rs {
		if err := m.add(r, fds[i]); err != nil {
			for _, fd := range fds[i+1:] {
				_ = unix.Close(fd)
			}
			return err
		}
	}
	return nil
}

// clear unmaps everything.
func (m *Memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.regions {
		_ = unix.Munmap(r.raw)
	}
	m.regions = nil
	m.gen++
}

// mapRegion maps a region's piece of a file. The file must be long
// enough: access to a mapping beyond the file's end is a fatal signal.
func mapRegion(r region, fd int) (mapping, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return mapping{}, fmt.Errorf("memory region: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size < 0 || uint64(st.Size) < r.offset+r.size {
		return mapping{}, protoErrorf("memory region of %#x bytes at offset %#x of a file of %#x", r.size, r.offset, st.Size)
	}
	page := uint64(unix.Getpagesize())
	skew := r.offset % page
	raw, err := unix.Mmap(fd, int64(r.offset-skew), int(r.size+skew), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_NORESERVE)
	if err != nil {
		return mapping{}, fmt.Errorf("map memory region of %#x bytes: %w", r.size, err)
	}
	return mapping{region: r, mem: raw[skew:], raw: raw}, nil
}
