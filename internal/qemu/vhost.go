package qemu

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"vix/internal/proc"
)

// CheckVhost says why the device, normally /dev/vhost-vsock, cannot carry a VM's vsock.
func CheckVhost(device string) error {
	f, err := OpenVhost(device)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = Claim(func(cid uint32) error { return SetGuestCID(f, cid) })
	return err
}

func OpenVhost(device string) (*os.File, error) {
	// O_NONBLOCK, in case it is a pipe.
	f, err := os.OpenFile(device, os.O_RDWR|unix.O_NONBLOCK, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, fmt.Errorf("%s: there is none (the kernel's module vhost_vsock makes it)", device)
	case err != nil:
		return nil, fmt.Errorf("%s: %w", device, proc.Cause(err))
	}
	return f, nil
}

// vhostVsockSetGuestCID is VHOST_VSOCK_SET_GUEST_CID of linux/vhost.h, _IOW(0xaf, 0x60, __u64).
const vhostVsockSetGuestCID = 0x4008af60

// SetGuestCID gives the VM of a vhost-vsock device its context ID. QEMU does it again, with
// the same.
func SetGuestCID(device *os.File, cid uint32) error {
	arg := uint64(cid)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, device.Fd(), vhostVsockSetGuestCID, uintptr(unsafe.Pointer(&arg)))
	switch errno {
	case 0:
		return nil
	case unix.ENOTTY:
		return fmt.Errorf("%s: not the kernel's device for vsock", device.Name())
	}
	return fmt.Errorf("%s: %w", device.Name(), errno)
}

// maxClaims bounds the attempts to find a free number: of four thousand million, a handful
// is in use.
const maxClaims = 16

// Claim tries random numbers until one is free: context IDs (guests have 3 and more), or
// ports that need no privilege. The last number is no number: it means any.
func Claim(try func(uint32) error) (n uint32, err error) {
	for range maxClaims {
		var b [4]byte
		_, _ = rand.Read(b[:]) // never fails
		n = MaxPrivileged + 1 + binary.NativeEndian.Uint32(b[:])%(unix.VMADDR_PORT_ANY-MaxPrivileged-1)
		if err = try(n); !errors.Is(err, unix.EADDRINUSE) {
			return n, err
		}
	}
	return 0, err
}

// MaxPrivileged is the last port that a guest's kernel gives to root alone (LAST_RESERVED_PORT,
// net/vmw_vsock/af_vsock.c). The agent connects from such a port: the guest's programs cannot.
const MaxPrivileged = 1023
