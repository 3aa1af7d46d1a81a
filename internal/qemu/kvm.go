package qemu

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// From include/uapi/linux/kvm.h.
const (
	kvmGetAPIVersion = 0xae00
	kvmCreateVM      = 0xae01
	kvmAPIVersion    = 12 // "the only one that will ever be"
)

// CheckKVM says why KVM would not work, or returns nil. device is /dev/kvm, cpuinfo
// /proc/cpuinfo. A device that opens, and even makes VMs, is not enough: inside some virtual
// machines it does that while the processor has neither VMX nor SVM, and a guest's kernel
// dies in instruction emulation.
func CheckKVM(device, cpuinfo string) error {
	if _, err := os.Stat(device); err != nil {
		return fmt.Errorf("%s does not exist; load the module kvm_intel or kvm_amd, or switch virtualisation on in the firmware", device)
	}
	if runtime.GOARCH == "amd64" {
		if err := checkCPU(cpuinfo); err != nil {
			return err
		}
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%s: permission denied; join the group kvm", device)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	v, err := unix.IoctlRetInt(int(f.Fd()), kvmGetAPIVersion)
	if err != nil {
		return fmt.Errorf("%s: not KVM: %w", device, err)
	}
	if v != kvmAPIVersion {
		return fmt.Errorf("%s: KVM's interface has version %d, not %d", device, v, kvmAPIVersion)
	}
	vm, err := unix.IoctlRetInt(int(f.Fd()), kvmCreateVM)
	if err != nil {
		return fmt.Errorf("%s: cannot create a VM: %w", device, err)
	}
	return unix.Close(vm)
}

func checkCPU(cpuinfo string) error {
	f, err := os.Open(cpuinfo)
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		name, flags, _ := strings.Cut(s.Text(), ":")
		if strings.TrimSpace(name) != "flags" {
			continue
		}
		if list := strings.Fields(flags); slices.Contains(list, "vmx") || slices.Contains(list, "svm") {
			return nil
		}
		break
	}
	return errors.New("the processor shows neither vmx nor svm; this machine may itself be a VM without nested virtualisation")
}
