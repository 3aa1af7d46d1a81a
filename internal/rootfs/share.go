package rootfs

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// MountShare binds the folder host on the existing directory dir, for the calling
// process and its children alone: the process was started with ViewAttr. What is
// mounted below host is covered by nothing: a share is one folder's own files, and
// not a disk that happens to be mounted in it. From then on the share is that folder,
// wherever its name leads.
func MountShare(host, dir string, write bool) error {
	if err := bindShare(host, dir, write); err != nil {
		return fmt.Errorf("share %s: %w", host, err)
	}
	return nil
}

func bindShare(host, dir string, write bool) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mount namespace: %w", err)
	}
	// Recursive: a user namespace may not uncover what lies below another mount. So
	// each mount is covered instead.
	if err := unix.Mount(host, dir, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
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
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV}
	if !write {
		attr.Attr_set |= unix.MOUNT_ATTR_RDONLY
	}
	return unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &attr)
}

// cover puts an empty file system over a directory, or an empty file over a file.
func cover(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return unix.Mount("covered", path, "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "mode=0555,size=4k")
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
