package rootfs

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountShare binds the folder host on the existing directory dir, for the calling process
// and its children alone: the process was started with ViewAttr. host is a path, or
// /proc/self/fd/N of a descriptor that was opened and checked outside. Empty mounts cover
// what is mounted below host: a share is one folder's own files, and not a disk that
// happens to be mounted in it. From then on the share is that folder, wherever its name
// leads.
func MountShare(host, dir string, write bool) error {
	if err := bindShare(host, dir, write); err != nil {
		return fmt.Errorf("share %s: %w", host, err)
	}
	return nil
}

// MountTree does the same with a root, read-only, and keeps the mounts in it.
func MountTree(host, dir string) error {
	err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	if err == nil {
		err = bindFolder(host, dir, viewAttr|unix.MOUNT_ATTR_RDONLY)
	}
	if err != nil {
		return fmt.Errorf("root %s: %w", host, err)
	}
	return nil
}

func bindShare(host, dir string, write bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mount namespace: %w", err)
	}
	attr := uint64(unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC)
	if !write {
		attr |= unix.MOUNT_ATTR_RDONLY
	}
	if err := bindFolder(host, dir, attr); err != nil {
		return err
	}
	info, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	for _, path := range mountsBelow(info, dir) {
		if err := cover(path); err != nil {
			return fmt.Errorf("cover %s: %w", path, err)
		}
	}
	// The covers get the attributes too.
	return unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr})
}

// bindFolder puts host at dir, by descriptors. A descriptor of another mount namespace
// cannot be mounted: so bindFolder opens the folder again, and it has to be the same.
func bindFolder(host, dir string, attr uint64) error {
	fd, err := unix.Open(host, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	path, err := fdPath(fd)
	if err != nil {
		return err
	}
	found, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_NO_SYMLINKS,
	})
	if err != nil {
		return err
	}
	defer unix.Close(found)
	want, err1 := idOf(fd)
	is, err2 := idOf(found)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	if is != want {
		return errors.New("was moved or replaced meanwhile")
	}
	// Recursive: a user namespace may not uncover what lies below another mount. So
	// each mount is covered instead.
	tree, err := unix.OpenTree(found, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: attr}); err != nil {
		return err
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, dir, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// cover puts an empty file system over a directory, or an empty file over a file.
func cover(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return unix.Mount("covered", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0555,size=4k")
	}
	return unix.Mount(os.DevNull, path, "", unix.MS_BIND, "")
}

// mountsBelow lists the topmost mount points below dir, from the text of
// /proc/self/mountinfo (proc(5)): what lies below one of them goes with it.
func mountsBelow(info []byte, dir string) []string {
	var list []string
	for lines := bufio.NewScanner(bytes.NewReader(info)); lines.Scan(); {
		f := strings.Fields(lines.Text())
		if len(f) < 5 {
			continue
		}
		path := unescapeMount.Replace(f[4])
		covered := !strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
		for _, top := range list {
			covered = covered || path == top || strings.HasPrefix(path, top+"/")
		}
		if !covered {
			list = append(list, path)
		}
	}
	return list
}

var unescapeMount = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
