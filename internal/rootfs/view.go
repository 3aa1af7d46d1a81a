package rootfs

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ViewPaths is the allow-list of the root "host": the parts of the host's tree that a guest
// can read, as patterns of path/filepath.Match below the root. Nothing else exists for a
// guest: no home directories, no mutable state, and of /etc only what programs need to start
// and show text.
var ViewPaths = []string{
	"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "opt", "nix/store",

	// The dynamic linker, names, and what the system is.
	"etc/alternatives", "etc/ld.so.cache", "etc/ld.so.conf", "etc/ld.so.conf.d",
	"etc/nsswitch.conf", "etc/host.conf", "etc/gai.conf", "etc/protocols", "etc/services",
	"etc/os-release", "etc/lsb-release", "etc/debian_version", "etc/fedora-release", "etc/arch-release",
	"etc/login.defs", "etc/shells", "etc/mtab",
	// Language and time.
	"etc/localtime", "etc/timezone", "etc/locale.conf", "etc/locale.alias", "etc/default/locale",
	// Shells and terminals.
	"etc/profile", "etc/profile.d", "etc/bash.bashrc", "etc/bashrc", "etc/inputrc", "etc/terminfo", "etc/skel",
	// Certificates that are public; never ssl/private.
	"etc/ssl/certs", "etc/ssl/openssl.cnf", "etc/ca-certificates", "etc/pki/tls/certs", "etc/pki/ca-trust/extracted",
	"var/lib/ca-certificates",
	// Desktop programs.
	"etc/fonts", "etc/xdg", "etc/gtk-2.0", "etc/gtk-3.0", "etc/gtk-4.0", "etc/mime.types", "etc/mailcap", "etc/magic",
	"etc/glvnd", "etc/vulkan", "etc/egl", "etc/drirc", "etc/OpenCL", "etc/alsa", "etc/asound.conf", "etc/pulse",
	"etc/dconf", "etc/dictionaries-common", "etc/ImageMagick-*", "etc/libreoffice", "etc/firefox", "etc/firefox-esr",
	"etc/chromium", "etc/chromium.d", "etc/gimp", "etc/emacs", "etc/vim", "etc/nanorc",
	"etc/java-*", "etc/python3*", "etc/perl",
	// Without it a program scans every font at its start.
	"var/cache/fontconfig", "var/lib/aspell", "var/lib/ispell", "var/lib/hunspell",
}

// viewDirs are empty in the view: what the guest mounts on or fills.
var viewDirs = []string{
	"dev", "etc", "home", "media", "mnt", "proc", "root", "run", "srv", "sys", "tmp",
	"var/cache", "var/lib", "var/log", "var/tmp",
}

// ViewAttr returns the attributes of a process that calls MountView: it has a mount
// namespace of its own, and, for an ordinary user, a user namespace in which that user is
// root. There the host root's files belong to 65534, so virtiofsd needs
// --translate-uid host:65534:0:1 and the same for gid.
//
// It is the first process of a process namespace of its own: virtiofsd serves from a
// child, which it can only ask to end, and which may hang; so the child ends with it.
func ViewAttr(uid, gid int) *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID}
	if uid != 0 {
		a.Cloneflags |= unix.CLONE_NEWUSER
		a.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		a.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: gid, Size: 1}}
	}
	return a
}

// MountView mounts the view of the tree root (normally "/") on the existing
// directory dir, for the calling process and its children alone: the process
// was started with ViewAttr, and the view ends with it.
func MountView(root, dir string) error {
	if err := buildView(root, dir); err != nil {
		return fmt.Errorf("view of %s: %w", root, err)
	}
	return nil
}

func buildView(root, dir string) error {
	// Without this the mounts below could appear in the host's namespace. It
	// also makes the call fail where we have no namespace of our own to use.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("own mount namespace: %w", err)
	}
	if err := unix.Mount("view", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755,size=4m"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	for _, d := range viewDirs {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return err
		}
	}
	shown := Shown(root)
	hidden, err := hiddenOf(root, shown)
	if err != nil {
		return err
	}
	v := viewBuilder{root, dir, hidden}
	for _, rel := range shown {
		if err := v.show(rel); err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
	}
	if err := v.cover(); err != nil {
		return err
	}
	for _, name := range []string{"etc/passwd", "etc/group"} {
		if err := writeSystemUsers(filepath.Join(root, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return unix.MountSetattr(unix.AT_FDCWD, dir, unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: viewAttr | unix.MOUNT_ATTR_RDONLY})
}

// viewAttr are the attributes of every mount of a view: on the host, nothing in it can be
// executed, act as a device, or give anybody rights.
const viewAttr = unix.MOUNT_ATTR_NOSUID | unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC

// A viewBuilder puts a view together at dir.
type viewBuilder struct {
	root, dir string
	hidden    []string // sorted; below the root
}

// show puts a path into the view: a link as the link that it is (what it names
// is there only if it is allowed itself), all else as a bind mount. What is shown is what was
// looks at: by a descriptor.
func (v viewBuilder) show(rel string) error {
	if slices.Contains(v.hidden, rel) {
		return nil
	}
	fd, err := unix.Open(filepath.Join(v.root, rel), unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	target := filepath.Join(v.dir, rel)
	if err := os.MkdirAll(filepath.Dir(target), 0o755); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(fd, "", b)
		if err != nil {
			return err
		}
		return os.Symlink(string(b[:n]), target)
	case unix.S_IFDIR:
		if err := os.MkdirAll(target, 0o755); err != nil {
			return err
		}
		if isRebuilt(rel) && v.hides(rel) {
			return v.showRest(rel)
		}
	case unix.S_IFREG:
		if err := os.WriteFile(target, nil, 0o644); err != nil {
			return err
		}
	default:
		return nil // nobody needs a socket or a device
	}
	return bind(fd, target)
}

// bind puts a copy of what fd is at target. Recursive: in a user namespace a bind mount may
// not uncover what lies below another mount.
func bind(fd int, target string) error {
	tree, err := unix.OpenTree(fd, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_RECURSIVE|unix.AT_EMPTY_PATH)
	if err != nil {
		return fmt.Errorf("open_tree: %w", err)
	}
	defer unix.Close(tree)
	if err := unix.MountSetattr(tree, "", unix.AT_EMPTY_PATH|unix.AT_RECURSIVE, &unix.MountAttr{Attr_set: viewAttr}); err != nil {
		return fmt.Errorf("mount_setattr: %w", err)
	}
	return unix.MoveMount(tree, "", unix.AT_FDCWD, target, unix.MOVE_MOUNT_F_EMPTY_PATH)
}

// isRebuilt tells of which trees a directory with something hidden in it is made anew, with
// its other entries bound one by one, so that what is hidden has no name there either.
// Elsewhere what is hidden is covered.
func isRebuilt(rel string) bool {
	return strings.HasPrefix(rel, "etc/") || strings.HasPrefix(rel, "var/")
}

// hides reports whether something below rel is hidden.
func (v viewBuilder) hides(rel string) bool {
	return slices.ContainsFunc(v.hidden, func(h string) bool { return strings.HasPrefix(h, rel+"/") })
}

func (v viewBuilder) showRest(rel string) error {
	entries, err := os.ReadDir(filepath.Join(v.root, rel))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := v.show(rel + "/" + e.Name()); err != nil {
			return err
		}
	}
	return nil
}

// cover puts something empty over what is hidden in trees that are bound whole.
func (v viewBuilder) cover() error {
	for _, rel := range v.hidden {
		if isRebuilt(rel) {
			continue
		}
		top, err := unix.Open(v.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		fd, err := unix.Openat2(top, rel, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS})
		unix.Close(top)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ELOOP) {
			continue // it is not in the view
		}
		if err != nil {
			return fmt.Errorf("%s: %w", rel, err)
		}
		err = cover(fmt.Sprintf("/proc/self/fd/%d", fd))
		unix.Close(fd)
		if err != nil {
			return fmt.Errorf("cover %s: %w", rel, err)
		}
	}
	return nil
}

// People's ids begin at 1000 (login.defs); nobody is 65534.
const (
	firstPerson = 1000
	nobody      = 65534
)

// maxUsers bounds passwd and group, which are a few KiB.
const maxUsers = 16 << 20

func readUsers(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxUsers+1))
	if err == nil && len(b) > maxUsers {
		err = fmt.Errorf("%s: larger than %d bytes", path, maxUsers)
	}
	return b, err
}

// writeSystemUsers copies passwd or group without people: a guest does not learn who uses
// the host.
func writeSystemUsers(source, target string) error {
	in, err := readUsers(source)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	var out strings.Builder
	for line := range strings.Lines(string(in)) {
		f := strings.Split(strings.TrimSpace(line), ":")
		if len(f) < 4 {
			continue
		}
		id, err := strconv.Atoi(f[2])
		if err != nil || id < 0 || id >= firstPerson && id != nobody {
			continue
		}
		if filepath.Base(source) == "group" {
			f[3] = "" // who is in it
		}
		f[1] = "x"
		out.WriteString(strings.Join(f, ":") + "\n")
	}
	return os.WriteFile(target, []byte(out.String()), 0o644)
}

// Hidden returns, for doctor, the parts of the Shown paths that a guest does not see, sorted,
// relative to root.
func Hidden(root string) ([]string, error) { return hiddenOf(root, Shown(root)) }

// Shown returns those of ViewPaths that exist under root, sorted, relative to it.
func Shown(root string) []string {
	var list []string
	for _, p := range ViewPaths {
		matches, _ := filepath.Glob(filepath.Join(root, p))
		for _, m := range matches {
			if rel, err := filepath.Rel(root, m); err == nil {
				list = append(list, rel)
			}
		}
	}
	slices.Sort(list)
	return list
}
