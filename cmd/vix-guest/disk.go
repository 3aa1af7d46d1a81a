package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// diskTypes are the file systems that a root disk may have: the mark in their superblocks,
// and the mount option that prevents all writing: an unclean journal is not replayed.
var diskTypes = []struct {
	name    string
	at      int64
	mark    string
	options string
}{
	{"squashfs", 0, "hsqs", ""},
	{"erofs", 1024, "\xe2\xe1\xf5\xe0", ""},
	{"ext4", 0x438, "\x53\xef", "noload"},
	{"xfs", 0, "XFSB", "norecovery"},
}

// mountDisk mounts a Linux system on /lower: the file system on the disk, or on one of its
// partitions.
func mountDisk(modules *os.Root, disk string) error {
	plugged, err := listenUevents()
	if err != nil {
		return err
	}
	defer unix.Close(plugged)
	if err := loadModules(modules, groupDisk); err != nil {
		return err
	}
	for {
		_, err := os.Stat(disk)
		if err == nil {
			break
		}
		if err := awaitUevent(plugged); err != nil {
			return fmt.Errorf("root %s: the disk does not come: %w", disk, err)
		}
	}
	parts, err := filepath.Glob(disk + "[0-9]*")
	if err != nil {
		return err
	}
	slices.Sort(parts)
	var errs []error
	for _, device := range append([]string{disk}, parts...) {
		err := mountType(modules, device)
		if err == nil && isSystem("/lower") {
			return nil
		}
		if err == nil {
			err = errors.Join(errors.New(device+" holds no Linux system (/etc and /usr or /bin)"), unix.Unmount("/lower", 0))
		}
		errs = append(errs, err)
	}
	return fmt.Errorf("root: %w", errors.Join(errs...))
}

// mountType mounts a device on /lower, as the file system that its superblock names.
func mountType(modules *os.Root, device string) error {
	f, err := os.Open(device)
	if err != nil {
		return err
	}
	defer f.Close()
	for _, t := range diskTypes {
		mark := make([]byte, len(t.mark))
		if _, err := f.ReadAt(mark, t.at); err != nil || string(mark) != t.mark {
			continue
		}
		if err := loadModules(modules, groupDisk+"-"+t.name); err != nil {
			return err
		}
		return mount{device, "/lower", t.name, unix.MS_RDONLY | unix.MS_NODEV, t.options}.do()
	}
	return fmt.Errorf("%s holds no file system of a kind that can be mounted (ext4, squashfs, erofs or xfs)", device)
}

// isSystem reports whether a tree looks like a Linux system, and not just like its boot
// partition.
func isSystem(dir string) bool {
	return isDir(dir+"/etc") && (isDir(dir+"/usr") || isDir(dir+"/bin"))
}
