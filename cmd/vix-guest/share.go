package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
)

// mountDevice mounts a share whose device may not have appeared yet.
func mountDevice(m agent.Mount) error {
	plugged, err := listenUevents()
	if err != nil {
		return err
	}
	defer unix.Close(plugged)
	for {
		err := mountShare(m)
		if !errors.Is(err, unix.EINVAL) { // EINVAL: no device has the tag yet
			return err
		}
		if err := awaitUevent(plugged); err != nil {
			return fmt.Errorf("%s: the device does not come: %w", m.Tag, err)
		}
	}
}

func unmount(m agent.Unmount) error {
	flags := unix.UMOUNT_NOFOLLOW
	if m.Force {
		flags |= unix.MNT_DETACH
	}
	err := unix.Unmount(m.Path, flags)
	if errors.Is(err, unix.EBUSY) {
		return errors.New("in use")
	}
	return err
}

// mountShare mounts one share, and makes missing parts of its path.
func mountShare(m agent.Mount) error {
	if err := makeMountPoint(m.Path); err != nil {
		return err
	}
	var flags uintptr = unix.MS_NOSUID | unix.MS_NODEV
	if m.ReadOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount(m.Tag, m.Path, "virtiofs", flags, ""); err != nil {
		return fmt.Errorf("share at %s: %w", m.Path, err)
	}
	return nil
}

// makeMountPoint makes a directory. The user owns the parts in his home.
func makeMountPoint(dir string) error {
	st, err := os.Lstat(dir)
	switch {
	case err == nil && st.IsDir():
		return nil
	case err == nil:
		return fmt.Errorf("%s: is there, and not a directory", dir)
	case !os.IsNotExist(err):
		return err
	}
	parent := path.Dir(dir)
	if err := makeMountPoint(parent); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o755); err != nil && !os.IsExist(err) {
		return err
	}
	if strings.HasPrefix(dir, "/home/") {
		var above unix.Stat_t
		if unix.Lstat(parent, &above) == nil {
			_ = os.Lchown(dir, int(above.Uid), int(above.Gid))
		}
	}
	return nil
}

// ueventLimit is the time that a new device may take to appear, on a slow machine without KVM.
var ueventLimit = unix.Timeval{Sec: 20}

// listenUevents opens the kernel's channel of device events (netlink(7)): an event there means
// that a driver has found its device.
func listenUevents() (int, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return -1, os.NewSyscallError("uevent socket", err)
	}
	err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1})
	if err == nil {
		err = unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &ueventLimit)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("uevent socket", err)
	}
	return fd, nil
}

// awaitUevent waits for the next event, of any kind.
func awaitUevent(fd int) error {
	buf := make([]byte, 8<<10)
	for {
		_, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ENOBUFS): // events were lost, so there were some
			return nil
		case errors.Is(err, unix.EAGAIN):
			return fmt.Errorf("no event for %d s", ueventLimit.Sec)
		default:
			return err
		}
	}
}
