package qemu

import (
	"fmt"
	"os"
	"strings"

	"vix/config"
	"vix/internal/proc"
)

// A Machine has everything that QEMU's command line depends on. It owns the files of its
// devices until Command has returned them.
type Machine struct {
	Name   string
	Accel  string // "kvm" or "tcg"
	Memory config.Size
	CPUs   int
	Kernel string // an uncompressed vmlinux with a PVH note: it boots a second sooner than a bzImage
	Initrd string

	QMP     *os.File // a connected socket
	Devices []Device // in the order of the bus
}

// firstFile is the number of the first descriptor that a child gets (os/exec).
const firstFile = 3

// Command returns QEMU's arguments, and the files that QEMU needs as descriptors 3, 4, …,
// which the caller owns. The arguments have no path and no network address that QEMU would
// listen on: every channel is a connected descriptor.
func (m Machine) Command() (args []string, files []*os.File) {
	files = []*os.File{m.QMP}
	var devices, words []string
	for _, d := range m.Devices {
		devices = append(devices, d.args(firstFile+len(files))...)
		words = append(words, d.words...)
		files = append(files, d.files...)
	}
	mem := m.Memory.String()
	args = []string{
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
		"-append", m.cmdline(words),
		// The guest's console is QEMU's standard output, and only that.
		"-chardev", "stdio,id=console,signal=off",
		"-serial", "chardev:console",
		"-chardev", fmt.Sprintf("socket,id=qmp,fd=%d", firstFile),
		"-qmp", "chardev:qmp",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
		"-msg", "guest-name=off",
	)
	return append(args, devices...), files
}

// Close closes the files of a machine that is not started.
func (m Machine) Close() {
	proc.CloseFiles([]*os.File{m.QMP})
	for _, d := range m.Devices {
		d.Close()
	}
}

func (m Machine) accel() []string {
	if m.Accel == "kvm" {
		return []string{"-accel", "kvm", "-cpu", "host"}
	}
	// Without the fast string instructions the guest's kernel copies and clears by
	// words: TCG takes as long for a byte. Measured: half the time of a pipe, a third
	// of that of a copy in memory.
	return []string{"-accel", "tcg,thread=multi", "-cpu", "max,erms=off,fsrm=off,fzrm=off,fsrs=off"}
}

// cmdline returns the kernel's command line, with the words of the devices. It skips only
// what a VM of this shape does not have, except under TCG: an emulated processor has no
// speculation to mitigate, and is slow enough to feel each mitigation.
func (m Machine) cmdline(devices []string) string {
	words := []string{"console=ttyS0", "panic=-1", "quiet", "audit=0", "cryptomgr.notests", "8250.nr_uarts=1"}
	words = append(words, devices...)
	if m.Accel == "tcg" {
		words = append(words, "no_timer_check", "tsc=reliable", "mitigations=off", "nokaslr")
	}
	return strings.Join(words, " ")
}
