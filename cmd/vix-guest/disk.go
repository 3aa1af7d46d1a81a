package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
)

// diskTypes are the file systems that a root on a disk may have, with what a mount
// needs that must not write: a journal that was left unclean stays as it is.
var diskTypes = []struct{ name, options string }{
	{"squashfs", ""}, {"erofs", ""}, {"ext4", "noload"}, {"xfs", "norecovery"},
}

// mountDisk mounts the file system that is on the disk, or on one of its partitions,
// and holds a Linux system, on /lower.
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
	found := false
	for _, device := range append([]string{disk}, parts...) {
		for _, t := range diskTypes {
			m := mount{device, "/lower", t.name, unix.MS_RDONLY | unix.MS_NODEV, t.options}
			if m.do() != nil {
				continue
			}
			found = true
			if isSystem("/lower") {
				return nil
			}
			if err := unix.Unmount("/lower", 0); err != nil {
				return err
			}
		}
	}
	if found {
		return errors.New("root: no file system of the image holds a Linux system (/etc and /usr or /bin)")
	}
	return errors.New("root: the image holds no file system that this kernel can mount (squashfs, erofs, ext4 or xfs)")
}

// isSystem reports whether a tree looks like a Linux system, and not like the boot
// partition of one.
func isSystem(dir string) bool {
	return isDir(dir+"/etc") && (isDir(dir+"/usr") || isDir(dir+"/bin"))
}
