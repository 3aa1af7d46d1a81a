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

// scratchDir holds the only file system in the guest's memory: /run, /tmp, /dev/shm and the
// overlay over the root are directories of it, so all their files together have one bound.
// Beyond it a write fails with "no space left", long before the kernel has to kill programs
// for want of memory. With a bound for each, the four could take twice the memory.
//
// The bound is half of the memory, the kernel's default for one tmpfs: everything that fits
// on a machine with a single tmpfs fits here, and programs have the other half. With little
// memory the bound is smaller: programs keep scratchSpare, of which the guest itself takes
// about 35 MiB. The number of files has the kernel's default bound, one for two pages of
// memory, each about 1 KiB. All of this counts the machine's whole memory: memory that the
// host took by the balloon comes back as files grow, and at once before the kernel would kill
// a program (deflate-on-oom).
const (
	scratchDir   = "/scratch"
	scratchSpare = 64 << 20
	devicesLimit = "mode=0755,size=4m" // the kernel's own file system for /dev: no program keeps files there
)

// scratchSize returns the bound on a machine with total bytes of memory.
func scratchSize(total uint64) uint64 {
	return max(min(total/2, total-min(total, scratchSpare)), total/8)
}

// scratchDirs are the directories in scratchDir.
var scratchDirs = []struct {
	name string
	mode uint32
}{{"run", 0o755}, {"tmp", 0o1777}, {"shm", 0o1777}, {"upper", 0o755}, {"work", 0o755}}

// mountEarly mounts what PID 1 itself needs, in the initramfs. These mounts stay, and the new
// root gets the same ones again (one /run, one /dev): processes beside switchRoot find them
// under the same names before and after, and the proxy, which may start before, keeps them.
func mountEarly() error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return fmt.Errorf("how much memory there is: %w", err)
	}
	size := scratchSize(info.Totalram * uint64(info.Unit))
	err := mountAll([]mount{
		{"proc", "/proc", "proc", secure, ""},
		{"sysfs", "/sys", "sysfs", secure, ""},
		{"dev", "/dev", "devtmpfs", unix.MS_NOSUID, devicesLimit},
		{"scratch", scratchDir, "tmpfs", 0, fmt.Sprintf("mode=0755,size=%d", size)},
	})
	if err != nil {
		return err
	}
	for _, d := range scratchDirs {
		dir := scratchDir + "/" + d.name
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
		if err := unix.Chmod(dir, d.mode); err != nil {
			return err
		}
	}
	return bindScratch("run", "/run")
}

// bindScratch mounts a directory of scratch at target, where no file confers privileges.
func bindScratch(name, target string) error {
	if err := (mount{scratchDir + "/" + name, target, "", unix.MS_BIND, ""}).do(); err != nil {
		return err
	}
	return mount{"", target, "", unix.MS_BIND | unix.MS_REMOUNT | unix.MS_NOSUID | unix.MS_NODEV, ""}.do()
}

const newRoot = "/root"

// switchRoot mounts the shared root under an overlay in memory and makes it this process's
// root. The initramfs stays below it, unreachable.
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
	err = mountAll([]mount{
		{"overlay", newRoot, "overlay", unix.MS_NODEV, "lowerdir=/lower,upperdir=" + scratchDir + "/upper,workdir=" + scratchDir + "/work"},
		{"proc", newRoot + "/proc", "proc", secure, ""},
		{"sysfs", newRoot + "/sys", "sysfs", secure, ""},
		{"cgroup2", newRoot + "/sys/fs/cgroup", "cgroup2", secure, ""},
		{"dev", newRoot + "/dev", "devtmpfs", unix.MS_NOSUID, devicesLimit},
		{"devpts", newRoot + "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=0620,ptmxmode=0666"},
	})
	if err != nil {
		return err
	}
	for name, target := range map[string]string{"run": "/run", "tmp": "/tmp", "shm": "/dev/shm"} {
		if err := bindScratch(name, newRoot+target); err != nil {
			return err
		}
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

// linkDevices makes the links that programs expect and that udev would make.
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
