package waylandtest

import (
	"errors"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// Memfds makes blobs that are files of this machine, for a server on the other
// end of a socket: the twin of a VM's blobs (guestproxy.Blobs).
type Memfds struct {
	Live atomic.Int64 // number of open blobs
}

// A Blob has the same type literal as guestproxy's, whose tests import this package.
type Blob = interface {
	Mem() []byte
	Desc() (wayland.Desc, error)
	Close() error
}

// NewBlob returns size bytes of zeros.
func (m *Memfds) NewBlob(size int) (Blob, error) {
	fd, err := unix.MemfdCreate("vix-shadow", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, err
	}
	b := &memfd{m: m, fd: fd}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		b.mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	m.Live.Add(1)
	return b, nil
}

type memfd struct {
	m   *Memfds
	fd  int
	mem []byte
}

func (b *memfd) Mem() []byte { return b.mem }

func (b *memfd) Desc() (wayland.Desc, error) {
	fd, err := unix.FcntlInt(uintptr(b.fd), unix.F_DUPFD_CLOEXEC, 0)
	return wayland.FileDesc(wayland.KindMemory, fd), err
}

func (b *memfd) Close() error {
	b.m.Live.Add(-1)
	return errors.Join(unix.Munmap(b.mem), unix.Close(b.fd))
}
