package virtwl

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"vix/internal/ledger"
)

// imageBlob marks a blob id of GET_IMAGE_REQUIREMENTS; the rest of the id is the size in
// pages. So an id serves any number of blobs (guests cache the reply), and queries cost
// the host no memory.
const imageBlob = 1 << 31

// strideAlign is the alignment of a linear image's rows for real hardware's drivers.
const strideAlign = 64

// mapCached is VIRTIO_GPU_MAP_CACHE_CACHED.
const mapCached = 1

// bytesPerPixel knows the single-plane formats of DRM (drm_fourcc.h) that shared
// memory clients use; 0 for others.
func bytesPerPixel(fourcc uint32) uint64 {
	switch string([]byte{byte(fourcc), byte(fourcc >> 8), byte(fourcc >> 16), byte(fourcc >> 24)}) {
	case "R8  ", "C8  ":
		return 1
	case "GR88", "RG88", "RG16", "BG16", "AR15", "XR15", "AR12", "XR12", "R16 ":
		return 2
	case "RG24", "BG24":
		return 3
	case "XR24", "AR24", "XB24", "AB24", "RX24", "RA24", "BX24", "BA24",
		"XR30", "AR30", "XB30", "AB30":
		return 4
	case "XR48", "AR48", "XB48", "AB48", "XR4H", "AR4H", "XB4H", "AB4H":
		return 8
	}
	return 0
}

// imageLayout answers a query with one linear plane.
func imageLayout(q ImageQuery) (ImageReply, error) {
	bpp := bytesPerPixel(q.Fourcc)
	if bpp == 0 || q.Width == 0 || q.Height == 0 {
		return ImageReply{}, protoErrorf("image of %d×%d, format %#x", q.Width, q.Height, q.Fourcc)
	}
	stride := (uint64(q.Width)*bpp + strideAlign - 1) &^ (strideAlign - 1)
	if stride > MaxBlob || uint64(q.Height) > MaxBlob/stride { // before the product, which could overflow
		return ImageReply{}, protoErrorf("image of %d×%d is larger than %d bytes", q.Width, q.Height, MaxBlob)
	}
	size := PageRound(stride * uint64(q.Height))
	return ImageReply{
		Stride: uint32(stride), Size: size, BlobID: imageBlob | uint32(size/PageSize), MapInfo: mapCached,
	}, nil
}

// imageLocked answers GET_IMAGE_REQUIREMENTS on the query ring. A query that
// cannot be met gets zeros there: the guest's kernel does not show it our error.
func (c *HostContext) imageLocked(r CommandReader) error {
	p, err := c.readFixed(r, ImageQuerySize)
	if err != nil {
		return err
	}
	q, err := ParseImageQuery(p)
	if err != nil {
		return err
	}
	if c.state != stateOpen && c.state != stateClosed {
		return protoErrorf("image query before INIT")
	}
	reply, err := imageLayout(q)
	var buf [ImageReplySize]byte
	AppendImageReply(buf[:0], reply)
	if werr := c.port.WriteRing(c.init.QueryRing, buf[:], nil); err == nil {
		err = werr
	}
	return err
}

// CreateBlob returns the memory of a new blob of the context: a fresh one for an id
// of GET_IMAGE_REQUIREMENTS, what was received for an id of RECEIVE (once). The
// caller owns the descriptor and a hold of mem, which the memory is charged to.
func (c *HostContext) CreateBlob(id, size uint64) (fd int, mem *ledger.Memory, err error) {
	if id >= imageBlob && id < 2*imageBlob {
		if size == 0 || size > MaxBlob || size != (id-imageBlob)*PageSize {
			return -1, nil, protoErrorf("blob of %d bytes for an image of %d pages", size, id-imageBlob)
		}
		return c.host.newMemory("vix-blob", size)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	it := c.items[uint32(id)]
	switch {
	case id >= imageBlob || it == nil || it.pipe != nil:
		return -1, nil, protoErrorf("no blob with id %d", id)
	case size != it.size:
		return -1, nil, protoErrorf("blob %d of %d bytes, asked for %d", id, it.size, size)
	}
	delete(c.items, uint32(id))
	mem = it.slot.Memory()
	mem.Hold()
	it.slot.Release()
	return it.fd, mem, nil
}

// newMemory charges the VM for new memory, and makes it.
func (h *Host) newMemory(name string, size uint64) (fd int, mem *ledger.Memory, err error) {
	if mem, err = h.cfg.Ledger.Charge(int64(size)); err != nil {
		return -1, nil, err
	}
	if fd, err = sealedMemory(name, size); err == nil {
		if err = mem.Is(fd); err == nil {
			return fd, mem, nil
		}
		_ = unix.Close(fd)
	}
	mem.Release()
	return -1, nil, err
}

// sealedMemory makes zeroed memory that nobody can resize: its mappings can rely on its
// size.
func sealedMemory(name string, size uint64) (fd int, err error) {
	fd, err = unix.MemfdCreate(name, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, fmt.Errorf("memfd: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		_, err = unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("memfd of %d bytes: %w", size, err)
	}
	return fd, nil
}

// offerMemory makes an item of the compositor's memory. It takes over fd if it
// succeeds. What is no memory at all (wl_keyboard.keymap with no keymap comes with
// /dev/null) becomes a pipe: the guest gets a descriptor, and nobody dies.
func (c *HostContext) offerMemory(fd int) (*item, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size == 0 {
		return c.offerPipe(fd)
	}
	it, err := c.host.copyMemory(fd, st.Size)
	if err == nil {
		_ = unix.Close(fd)
	}
	return it, err
}

// copyMemory copies a file of the compositor, which may be read-only, sealed and of
// any size, to memory that a guest can map.
func (h *Host) copyMemory(fd int, n int64) (*item, error) {
	if n <= 0 || n > maxReceiveBlob {
		return nil, fmt.Errorf("of %d bytes, at most %d can be passed", n, maxReceiveBlob)
	}
	size := PageRound(uint64(n))
	out, mem, err := h.newMemory("vix-received", size)
	if err != nil {
		return nil, err
	}
	slot, err := h.cfg.Ledger.Descriptor(mem)
	if err != nil {
		_ = unix.Close(out)
		mem.Release()
		return nil, err
	}
	it := &item{fd: out, size: size, slot: slot}
	if err := copyFile(out, fd, int(n)); err != nil {
		it.close()
		return nil, err
	}
	return it, nil
}

func copyFile(dst, src, n int) error {
	m, err := unix.Mmap(dst, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	for got := 0; got < n; {
		k, err := unix.Pread(src, m[got:], int64(got))
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case k == 0:
			return io.ErrUnexpectedEOF // shrunk meanwhile
		default:
			got += k
		}
	}
	return nil
}

func (it *item) close() {
	if it.fd >= 0 {
		_ = unix.Close(it.fd)
		it.slot.Release()
	}
	if it.pipe != nil {
		it.pipe.abandon()
	}
}
