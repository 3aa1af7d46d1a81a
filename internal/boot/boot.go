// Package boot finds a VM's kernel, and makes its first file system.
//
//	FindKernel ─► Kernel ─┬─ vmlinux.go    bzImage → vmlinux with a PVH entry
//	                      ├─ modules.go    names → closure, in load order
//	                      └─ initramfs.go  modules + vix-guest → newc archive
//	Prepare: both, cached by content ─► Files ─► QEMU's -kernel and -initrd
//	Drivers: the modules of a device that comes later
//
// The initramfs:
//
//	/init                 vix-guest, PID 1
//	/modules/list         "GROUP FILE" a line, in load order
//	/modules/NAME.ko      uncompressed, its signature beside it in NAME.ko.sig
//	/dev/console, /proc, /sys, /run, /lower, /scratch, /root
//
// The groups may be loaded side by side once "base" is in: "root" is for mounting the root,
// "gpu" for the display; "entropy" for random numbers; "disk" comes after "root", and one of "disk-ext4",
// "disk-squashfs", "disk-erofs" and "disk-xfs" after that; "net" is the network card's.
//
// The caller gives the package every path that it reads (a root directory, normally "/"). It
// starts no process. Package rootfs makes the guest's root.
package boot

import "errors"

// ErrNoVirtioGPU: the kernel is one for servers without a display (a "cloud"
// kernel), and cannot be a guest's.
var ErrNoVirtioGPU = errors.New("this kernel has no virtio-gpu driver; install a full one (Debian: linux-image-amd64, not the cloud image)")

// ErrNoKernel: no kernel image was found at all.
var ErrNoKernel = errors.New("no kernel image found, there or in /usr/lib/modules; install one (Debian: linux-image-amd64; Fedora: kernel-core; Arch: linux)")

// The groups of modules, in the initramfs' list.
const (
	GroupBase    = "base"    // the bus and the agent's port
	GroupRoot    = "root"    // virtiofs and overlay
	GroupGPU     = "gpu"     // virtio-gpu
	GroupMemory  = "memory"  // virtio-balloon, if the kernel has it
	GroupEntropy = "entropy" // virtio-rng, if the kernel has it
	GroupDisk    = "disk"    // virtio-blk, where the root is on a disk; "disk-TYPE": a file system
	GroupNet     = "net"     // virtio-net, where there is a network
	GroupVsock   = "vsock"   // virtio-vsock, where that carries the agent's channel
)

// ListFile is where the initramfs lists its modules.
const ListFile = "modules/list"
