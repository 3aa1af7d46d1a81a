// Package rootfs finds and makes the trees of files that a guest sees: its root, and the
// folders of the host that are shared with it.
//
//	FindRoot ─► Root: a view of the host, a directory, or a disk
//	Debian.Build: packages ─► a directory in the cache
//	MountShare: one folder of the host's ─► virtiofsd ─► the guest
//
//	MountView: allow-listed, read-only tree of the host's programs, in the
//	caller's own mount namespace ─► virtiofsd ─► the guest's lower directory
//
// Another source of roots (a Nix closure, say) is another way to a Root.Dir or a
// Root.Disk: nothing else changes.
//
// The caller gives the package every path that it reads (a root directory, normally "/").
// The package starts no process: whoever builds a root provides Debian.Run.
package rootfs
