package qemu

import (
	"fmt"
	"strings"

	"vix/config"
)

// A Machine is what QEMU's command line depends on. The descriptors are their
// numbers in QEMU's process.
type Machine struct {
	Name   string
	Accel  string // "kvm" or "tcg"
	Memory config.Size
	CPUs   int
	Kernel string // an uncompressed vmlinux with a PVH note: it boots a second sooner than a bzImage
	Initrd string

	QMPFD     int // connected sockets, all of them
	DisplayFD int // vhost-user, to vix-waylandproxy host; 0: there is no display
	RootFD    int // vhost-user, to virtiofsd; or the disk's image
	AgentFD   int // a socket behind a virtio-serial port; 0: there is none

	// VsockFD is the agent's channel where that is vsock: the kernel's vhost-vsock, of
	// which the guest is VsockCID; or, where that is 0, vhost-user to vhost-device-vsock.
	// The guest connects to the host's VsockPort.
	VsockFD             int
	VsockCID, VsockPort uint32

	DiskFormat string // of the image, "raw" or "qcow2"; "": the root is virtiofsd's

	// Netdev is what the network card leads to, a value of -netdev without the id; "":
	// there is no card.
	Netdev string

	USBPort bool // hot-pluggable, for a controller

	Ports  int      // hot-pluggable, for shares; at most 8
	Shares []Folder // from the start
}

// A Folder is one share's device.
type Folder struct {
	Tag  string // of virtiofs
	Port int    // on which it sits; -1: on the bus itself, for ever
	FD   int    // vhost-user, to its virtiofsd
}

// RootTag is the virtiofs tag of the root file system; the guest learns it
// from its command line.
const RootTag = "root"

// RootDisk stands there instead for a root on a disk: its first, or a partition of it.
const RootDisk = "/dev/vda"

// AgentPort is the name of the virtio-serial port of the agent.
const AgentPort = "dev.vix.agent"

// Args returns QEMU's arguments. No path and no network address is among them
// that QEMU would listen on: every channel is a connected descriptor.
func (m Machine) Args() []string {
	mem := m.Memory.String()
	args := []string{
		"-name", "vix-" + m.Name,
		"-nodefaults", "-no-user-config", "-no-reboot",
		"-display", "none",
		"-machine", "q35,memory-backend=mem,usb=off,sata=off,smbus=off,vmport=off,i8042=off",
	}
	args = append(args, m.accel()...)
	args = append(args,
		"-smp", fmt.Sprint(m.CPUs),
		"-m", mem,
		// Shared, because the two vhost-user processes read the guest's rings.
		"-object", "memory-backend-memfd,id=mem,size="+mem+",share=on",
		"-kernel", m.Kernel,
		"-initrd", m.Initrd,
		"-append", m.cmdline(),
		// The guest's console is QEMU's standard output, and only that.
		"-chardev", "stdio,id=console,signal=off",
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", m.QMPFD),
		"-qmp", "chardev:qmp",
	)
	if m.DisplayFD != 0 {
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=display,fd=%d", m.DisplayFD),
			// virtio-id 16 is a GPU. The sizes are those of the device's own queues
			// and configuration space: a queue of 64 hangs after 60 contexts.
			"-device", "vhost-user-test-device-pci,chardev=display,virtio-id=16,num_vqs=2,vq_size=1024,config_size=16")
	}
	args = append(args, m.root()...)
	args = append(args, m.card()...)
	args = append(args, m.agent()...)
	args = append(args,
		// What the guest frees goes back to the host by itself; what it could free, when
		// the supervisor asks (memory.go). A guest that is asked for too much takes it back.
		"-device", "virtio-balloon-pci,id="+balloonID+",deflate-on-oom=on,free-page-reporting=on",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-msg", "guest-name=off",
	)
	return append(args, m.shares()...)
}

// root describes the root's device. A disk is never written to, and of files QEMU is
// given the one descriptor.
func (m Machine) root() []string {
	if m.DiskFormat == "" {
		return []string{
			"-chardev", fmt.Sprintf("socket,id=root,fd=%d", m.RootFD),
			"-device", "vhost-user-fs-pci,chardev=root,tag=" + RootTag,
		}
	}
	return []string{
		"-add-fd", fmt.Sprintf("fd=%d,set=1", m.RootFD),
		"-blockdev", "driver=file,node-name=image,filename=/dev/fdset/1,read-only=on",
		"-blockdev", "driver=" + m.DiskFormat + ",node-name=disk,file=image,read-only=on",
		"-device", "virtio-blk-pci,drive=disk",
	}
}

// agent describes the devices of the agent's channel.
func (m Machine) agent() []string {
	var args []string
	if m.AgentFD != 0 {
		args = append(args,
			"-device", "virtio-serial-pci",
			"-chardev", fmt.Sprintf("socket,id=agent,fd=%d", m.AgentFD),
			"-device", "virtserialport,chardev=agent,name="+AgentPort)
	}
	switch {
	case m.VsockFD == 0:
	case m.VsockCID == 0:
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=vsock,fd=%d", m.VsockFD),
			"-device", "vhost-user-vsock-pci,chardev=vsock")
	default:
		args = append(args, "-device", fmt.Sprintf("vhost-vsock-pci,guest-cid=%d,vhostfd=%d", m.VsockCID, m.VsockFD))
	}
	return args
}

// cardID is the id of the network card.
const CardID = "card"

// card describes the network card. It has no ROM to boot from: nothing does.
func (m Machine) card() []string {
	if m.Netdev == "" {
		return nil
	}
	return []string{"-netdev", m.Netdev + ",id=net", "-device", "virtio-net-pci,id=" + CardID + ",netdev=net,romfile="}
}

// shares describes the ports, all functions of one slot, and what sits on them.
func (m Machine) shares() []string {
	var args []string
	if m.USBPort {
		args = append(args, "-device", "pcie-root-port,id="+UsbPort+",addr=1d.0,chassis=64")
	}
	for i := range m.Ports {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=%s,addr=1e.%d,multifunction=on,chassis=%d", PortName(i), i, i+1))
	}
	for _, f := range m.Shares {
		bus := ""
		if f.Port >= 0 {
			bus = ",bus=" + PortName(f.Port)
		}
		args = append(args,
			"-chardev", fmt.Sprintf("socket,id=%s,fd=%d", f.Tag, f.FD),
			"-device", fmt.Sprintf("vhost-user-fs-pci,id=dev-%s,chardev=%s,tag=%s%s", f.Tag, f.Tag, f.Tag, bus))
	}
	return args
}

func PortName(i int) string { return fmt.Sprintf("port%d", i) }

func (m Machine) accel() []string {
	if m.Accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Without the fast string instructions the guest's kernel copies and clears by
	// words: TCG takes as long for a byte. Measured: half the time of a pipe, a third
	// of that of a copy in memory.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off,fzrm=off,fsrs=off"}
}

// cmdline is the kernel's command line. What it skips is only what a VM of
// this shape does not have, except under TCG: an emulated processor has no
// speculation to mitigate, and is slow enough to feel each of them.
func (m Machine) cmdline() string {
	words := []string{
		"console=ttyS0", "panic=-1", "quiet", "audit=0", "cryptomgr.notests", "8250.nr_uarts=1",
		"vix.root=" + RootTag,
	}
	if m.DiskFormat != "" {
		words[len(words)-1] = "vix.root=" + RootDisk
	}
	if m.VsockFD != 0 {
		words = append(words, fmt.Sprintf("vix.agent=vsock:%d", m.VsockPort))
	}
	if m.Accel == "tcg" {
		words = append(words, "no_timer_check", "tsc=reliable", "mitigations=off", "nokaslr")
	}
	return strings.Join(words, " ")
}

const (
	UsbPort       = "usbport" // where the controller goes
	UsbController = "usb"
)

// The balloon, and where QEMU shows it.
const (
	balloonID   = "balloon"
	BalloonPath = "/machine/peripheral/" + balloonID
)
