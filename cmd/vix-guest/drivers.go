package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// driversName is what the loader of kernel modules is called: the guest's end of
// vix-launcher usb attach. A guest has no modules of its own, whatever its root: the host
// sends those of the kernel that it booted, when a device needs them.
const driversName = "vix-drivers"

// driversMain loads the modules of standard input, whose sizes are the arguments.
func driversMain(args []string) int {
	var errs []error
	for _, size := range args {
		var image, signature int64
		if _, err := fmt.Sscanf(size, "%d+%d", &image, &signature); err != nil {
			fmt.Fprintf(os.Stderr, "drivers: %q not understood\n", size)
			return 2
		}
		b, err := io.ReadAll(io.LimitReader(os.Stdin, image+signature))
		if err == nil && int64(len(b)) < image+signature {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "drivers:", err)
			return 1
		}
		errs = append(errs, initModule(b, int(image)))
	}
	if err := errors.Join(errs...); err != nil {
		fmt.Fprintln(os.Stderr, strings.ReplaceAll(err.Error(), "\n", "; "))
		return 1
	}
	return 0
}

// initModule loads a module as loadModule does: without its signature, if the kernel takes it.
func initModule(b []byte, image int) error {
	err := unix.InitModule(b[:image], "")
	if errors.Is(err, unix.EKEYREJECTED) || errors.Is(err, unix.EPERM) {
		err = unix.InitModule(b, "")
	}
	if errors.Is(err, unix.EEXIST) {
		return nil
	}
	return err
}

// ownDevices gives the nodes of USB devices to the guest's user, as udev would to whoever
// sits at a machine. It runs as long as the machine is on.
func (g *guest) ownDevices() {
	events, err := listenUevents()
	if err != nil {
		g.log.Warn("usb", "err", err)
		return
	}
	buf := make([]byte, 8<<10)
	for {
		n, _, err := unix.Recvfrom(events, buf, 0)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN), errors.Is(err, unix.ENOBUFS):
			continue
		case err != nil:
			g.log.Warn("usb", "err", err)
			return
		}
		if node := usbNode(buf[:n]); node != "" {
			_ = os.Chown(filepath.Join("/dev", node), g.user.UID, g.user.GID) // it may be gone already
		}
	}
}

// usbNode returns the node below /dev of a device that was added behind a USB
// controller; "" for any other event.
func usbNode(event []byte) string {
	var action, devpath, node string
	for field := range bytes.SplitSeq(event, []byte{0}) {
		switch key, value, _ := strings.Cut(string(field), "="); key {
		case "ACTION":
			action = value
		case "DEVPATH":
			devpath = value
		case "DEVNAME":
			node = value
		}
	}
	if action != "add" || !strings.Contains(devpath, "/usb") || !filepath.IsLocal(node) {
		return ""
	}
	return node
}
