//go:build linux && (amd64 || arm64 || riscv64)

package virtwl

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The ioctls of a virtio-gpu render node, from Linux include/uapi/drm/drm.h and
// virtgpu_drm.h. Pointers are pointers here, not numbers, so that the garbage
// collector knows of them: on 64-bit machines the layout is the same.

const drmCommandBase = 0x40

func iowr(nr, size uintptr) uintptr { return 3<<30 | size<<16 | 'd'<<8 | nr }
func iow(nr, size uintptr) uintptr  { return 1<<30 | size<<16 | 'd'<<8 | nr }

type drmVersion struct {
	major, minor, patch int32
	nameLen             uint64
	name                *byte
	dateLen             uint64
	date                *byte
	descLen             uint64
	desc                *byte
}

type drmGemClose struct{ handle, pad uint32 }

type virtgpuMap struct {
	offset      uint64
	handle, pad uint32
}

type virtgpuExec struct {
	flags, size uint32
	command     *byte
	boHandles   *uint32
	numHandles  uint32
	fenceFD     int32
	ring, pad   uint32
}

type virtgpuGetparam struct {
	param uint64
	value *int32
}

type virtgpuWait struct{ handle, flags uint32 }

type virtgpuGetCaps struct {
	id, version uint32
	addr        *byte
	size, pad   uint32
}

type virtgpuCreateBlob struct {
	mem, flags   uint32
	handle, res  uint32
	size         uint64
	pad, cmdSize uint32
	cmd          *byte
	blobID       uint64
}

type virtgpuParam struct{ param, value uint64 }

type virtgpuContextInit struct {
	num, pad uint32
	params   *virtgpuParam
}

const (
	execFenceOut = 2
	execRingIdx  = 4

	paramResourceBlob = 3
	paramHostVisible  = 4
	paramContextInit  = 6
	paramCapsets      = 7

	blobMemGuest    = 1
	blobMemHost3D   = 2
	blobUseMappable = 1

	ctxParamCapset   = 1
	ctxParamNumRings = 2
	ctxParamPollMask = 3

	eventFence = 0x90000000
	eventSize  = 8
)

var (
	ioctlVersion     = iowr(0x00, unsafe.Sizeof(drmVersion{}))
	ioctlGemClose    = iow(0x09, unsafe.Sizeof(drmGemClose{}))
	ioctlMap         = iowr(drmCommandBase+1, unsafe.Sizeof(virtgpuMap{}))
	ioctlExec        = iowr(drmCommandBase+2, unsafe.Sizeof(virtgpuExec{}))
	ioctlGetparam    = iowr(drmCommandBase+3, unsafe.Sizeof(virtgpuGetparam{}))
	ioctlWait        = iowr(drmCommandBase+8, unsafe.Sizeof(virtgpuWait{}))
	ioctlGetCaps     = iowr(drmCommandBase+9, unsafe.Sizeof(virtgpuGetCaps{}))
	ioctlCreateBlob  = iowr(drmCommandBase+10, unsafe.Sizeof(virtgpuCreateBlob{}))
	ioctlContextInit = iowr(drmCommandBase+11, unsafe.Sizeof(virtgpuContextInit{}))
)

// ioctl calls again when a signal (the Go runtime's own, mostly) interrupts.
func ioctl[T any](fd int, req uintptr, arg *T) error {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, uintptr(unsafe.Pointer(arg)))
		runtime.KeepAlive(arg)
		switch errno {
		case 0:
			return nil
		case unix.EINTR, unix.EAGAIN:
		default:
			return errno
		}
	}
}

// driverName returns the name of a DRM device's driver.
func driverName(fd int) (string, error) {
	var name [32]byte
	v := drmVersion{nameLen: uint64(len(name)), name: &name[0]}
	if err := ioctl(fd, ioctlVersion, &v); err != nil {
		return "", err
	}
	return string(name[:min(v.nameLen, uint64(len(name)))]), nil
}

func getparam(fd int, param uint64) (int32, error) {
	var v int32
	err := ioctl(fd, ioctlGetparam, &virtgpuGetparam{param, &v})
	return v, err
}

func getCaps(fd int) (Capabilities, error) {
	var data [CapsetSize]byte
	if err := ioctl(fd, ioctlGetCaps, &virtgpuGetCaps{id: CapsetID, addr: &data[0], size: CapsetSize}); err != nil {
		return Capabilities{}, err
	}
	return ParseCapabilities(data[:])
}

func contextInit(fd, rings int) error {
	ps := []virtgpuParam{
		{ctxParamCapset, CapsetID},
		{ctxParamNumRings, uint64(rings)},
		{ctxParamPollMask, 1 << RingChannel},
	}
	return ioctl(fd, ioctlContextInit, &virtgpuContextInit{num: uint32(len(ps)), params: &ps[0]})
}

// bo is a buffer object that is mapped here.
type bo struct {
	handle, res uint32
	mem         []byte
}

// newBO creates and maps a blob. blobID is not used for guest memory.
func newBO(fd int, mem uint32, blobID, size uint64) (bo, error) {
	c := virtgpuCreateBlob{mem: mem, flags: blobUseMappable, size: size, blobID: blobID}
	if err := ioctl(fd, ioctlCreateBlob, &c); err != nil {
		return bo{}, fmt.Errorf("create a blob of %d bytes: %w", size, err)
	}
	b := bo{handle: c.handle, res: c.res}
	m := virtgpuMap{handle: c.handle}
	err := ioctl(fd, ioctlMap, &m)
	if err == nil {
		b.mem, err = unix.Mmap(fd, int64(m.offset), int(size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		gemClose(fd, b.handle)
		return bo{}, fmt.Errorf("map a blob of %d bytes (the host has a limit): %w", size, err)
	}
	return b, nil
}

func gemClose(fd int, handle uint32) {
	_ = ioctl(fd, ioctlGemClose, &drmGemClose{handle: handle})
}
