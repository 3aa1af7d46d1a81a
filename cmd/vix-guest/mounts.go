package main

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mount is one mount(2).
type mount struct {
	source, target, fstype string
	flags                  uintptr
	data                   string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return err
	}
	if err := unix.Mount(m.source, m.target, m.fstype, m.flags, m.data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", m.fstype, m.target, err)
	}
	return nil
}

func mountAll(list []mount) error {
	for _, m := range list {
		if err := m.do(); err != nil {
			return err
		}
	}
	return nil
}

const secure = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// mountEarly mounts what PID 1 itself needs, in the initramfs. These stay, and
// the new root gets the same ones again (one /run, one /dev): what runs beside
// switchRoot finds them under the same names before and after, and the proxy,
// which may start before, keeps them.
func mountEarly() error {
	return mountAll([]mount{
		{"proc", "/proc", "proc", secure, ""},
		{"sysfs", "/sys", "sysfs", secure, ""},
		{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"run", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	})
}

const newRoot = "/root"

// switchRoot mounts the shared root under an overlay in memory and makes it
// this process's root. The initramfs stays below, unreachable.
func switchRoot(modules *os.Root) error {
	tag, err := rootTag()
	if err != nil {
		return err
	}
	if err := loadModules(modules, groupRoot); err != nil {
		return err
	}
	if strings.HasPrefix(tag, "/dev/") {
		err = mountDisk(modules, tag)
	} else if err = (mount{tag, "/lower", "virtiofs", unix.MS_RDONLY | unix.MS_NODEV, ""}).do(); err != nil {
		err = fmt.Errorf("root share %q: %w", tag, err)
	}
	if err != nil {
		return err
	}
	if err := (mount{"rw", "/rw", "tmpfs", 0, "mode=0755"}).do(); err != nil {
		return err
	}
	for _, dir := range []string{"/rw/upper", "/rw/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	err = mountAll([]mount{
		{"overlay", newRoot, "overlay", unix.MS_NODEV, "lowerdir=/lower,upperdir=/rw/upper,workdir=/rw/work"},
		{"proc", newRoot + "/proc", "proc", secure, ""},
		{"sysfs", newRoot + "/sys", "sysfs", secure, ""},
		{"cgroup2", newRoot + "/sys/fs/cgroup", "cgroup2", secure, ""},
		{"dev", newRoot + "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", newRoot + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
		{"shm", newRoot + "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmp", newRoot + "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"/run", newRoot + "/run", "", unix.MS_BIND, ""},
	})
	if err != nil {
		return err
	}
	if err := linkDevices(newRoot + "/dev"); err != nil {
		return err
	}
	if err := os.Chdir(newRoot); err != nil {
		return err
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	return os.Chdir("/")
}

// linkDevices makes the links that programs expect and udev would make.
func linkDevices(dev string) error {
	for _, l := range [][2]string{
		{"fd", "/proc/self/fd"}, {"stdin", "fd/0"}, {"stdout", "fd/1"}, {"stderr", "fd/2"},
	} {
		if err := os.Symlink(l[1], dev+"/"+l[0]); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}
