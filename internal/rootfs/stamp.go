package rootfs

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// stampPaths are the paths that change in a root when programs are installed, upgraded or
// removed: the databases of package managers, the links of profiles, and, for installations
// without either, the folders of programs and libraries.
var stampPaths = []string{
	"var/lib/dpkg/status", "var/lib/pacman/local", "lib/apk/db/installed",
	"var/lib/rpm/rpmdb.sqlite", "usr/lib/sysimage/rpm/rpmdb.sqlite", "var/lib/rpm/Packages",
	"nix/var/nix/profiles/system", "nix/var/nix/profiles/default", "run/current-system",
	"usr", "usr/bin", "usr/sbin", "usr/lib", "usr/lib64", "usr/local/bin", "usr/local/lib", "opt", "etc/ld.so.cache",
}

// Stamp returns a text that changes when the programs of r may have changed. It costs a few
// stats, and reads nothing. system is the tree of the root "host".
//
// A guest caches what it has seen of its root (virtiofsd's --cache=always; with
// --cache=auto, the first window of a VM came 30 % later). So of a root that changes
// meanwhile, it sees some old and some new files.
func Stamp(r Root, system string) string {
	var b strings.Builder
	switch {
	case r.Disk != "":
		stamp(&b, r.Disk)
	case r.View:
		r.Dir = system
		fallthrough
	default:
		for _, rel := range stampPaths {
			stamp(&b, filepath.Join(r.Dir, rel))
		}
	}
	return b.String()
}

func stamp(b *strings.Builder, path string) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) != nil {
		b.WriteString("-\n")
		return
	}
	fmt.Fprintf(b, "%d %d %d.%d", st.Dev, st.Ino, st.Mtim.Sec, st.Mtim.Nsec)
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFLNK: // a profile's, which is replaced, or leads to one that is
		to, _ := os.Readlink(path)
		b.WriteString(" " + to)
	case unix.S_IFREG:
		fmt.Fprintf(b, " %d", st.Size)
	}
	b.WriteString("\n")
}
