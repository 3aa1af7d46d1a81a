package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The module groups in the initramfs' list; see package rootfs, which this binary does not
// import, in order to stay small.
const (
	groupBase    = "base"
	groupRoot    = "root"
	groupGPU     = "gpu"
	groupMemory  = "memory"
	groupEntropy = "entropy"
	groupDisk    = "disk"
	groupNet     = "net"
	groupVsock   = "vsock"
	moduleDir    = "/modules"
	moduleList   = "list"

	signatureExt = ".sig"
)

// uptime is the time since the kernel started.
func uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// setClock sets the wall clock to ns since 1970.
func setClock(ns int64) {
	if ns > 0 {
		ts := unix.NsecToTimespec(ns)
		_ = unix.ClockSettime(unix.CLOCK_REALTIME, &ts) // on failure, the emulated RTC is near enough
	}
}

// loadModules loads a group of the initramfs' modules in the listed order. The groups root
// and gpu share nothing, and may be loaded at the same time. modules is an open directory,
// because its path ends when the root is switched.
func loadModules(modules *os.Root, group string) error {
	list, err := modules.ReadFile(moduleList)
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(list)) {
		of, file, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok || of != group {
			continue
		}
		if err := loadModule(modules, file); err != nil {
			return fmt.Errorf("module %s: %w", file, err)
		}
	}
	return nil
}

// loadModule loads a module. Its signature is in a file beside it, because checking one takes
// an emulated processor longer than the rest of the loading, and the host itself chose the
// content of the initramfs; a kernel that insists gets both.
func loadModule(modules *os.Root, file string) error {
	f, err := modules.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if errors.Is(err, unix.EKEYREJECTED) || errors.Is(err, unix.EPERM) {
		err = loadSigned(modules, file)
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

func loadSigned(modules *os.Root, file string) error {
	image, err := modules.ReadFile(file)
	if err != nil {
		return err
	}
	signature, err := modules.ReadFile(file + signatureExt)
	if err != nil {
		return err
	}
	return unix.InitModule(append(image, signature...), "")
}

// findGPU loads the display's modules and returns the render node, or "" if the machine has
// no GPU. The drivers probe before their loading returns, so there is nothing to wait for.
func findGPU(modules *os.Root) (string, error) {
	if !hasVirtio(virtioGPU) {
		return "", nil
	}
	if err := loadModules(modules, groupGPU); err != nil {
		return "", err
	}
	nodes, err := filepath.Glob("/dev/dri/renderD*")
	if err != nil || len(nodes) == 0 {
		return "", err
	}
	return nodes[0], nil
}

// The ids of a console (the bus of virtio-serial ports) and a GPU (virtio specification, 5).
const (
	virtioConsole = 3
	virtioGPU     = 16
)

// hasVirtio reports whether there is a virtio device of this kind. It needs the bus's driver.
func hasVirtio(id uint64) bool {
	files, _ := filepath.Glob("/sys/bus/virtio/devices/*/device")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if n, perr := strconv.ParseUint(strings.TrimSpace(string(b)), 0, 32); err == nil && perr == nil && n == id {
			return true
		}
	}
	return false
}

// powerOff ends every process and switches the machine off. It does not return.
func powerOff() {
	_ = unix.Kill(-1, unix.SIGKILL)
	unix.Sync()
	err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	// The end of PID 1 makes the kernel panic, and panic=-1 then ends the machine.
	fmt.Fprintln(os.Stderr, "vix-guest: power off:", err)
	os.Exit(1)
}
