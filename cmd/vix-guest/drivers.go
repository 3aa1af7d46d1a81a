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

	"vix/internal/agent"
)

// A guest has no modules of its own, whatever its root: when a device needs modules, the host
// sends those of the kernel that it booted.

// loadDrivers loads the modules from in, where they follow each other.
func loadDrivers(d agent.Drivers, in io.Reader) error {
	var errs []error
	for _, m := range d.Modules {
		b := make([]byte, m.Image+m.Signature)
		if _, err := io.ReadFull(in, b); err != nil {
			return fmt.Errorf("drivers: %w", err)
		}
		errs = append(errs, initModule(b, m.Image))
	}
	if err := errors.Join(errs...); err != nil {
		return errors.New(strings.ReplaceAll(err.Error(), "\n", "; "))
	}
	return nil
}

// initModule loads a module like loadModule: without its signature, if the kernel accepts that.
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

// ownDevices gives the nodes of USB devices to the guest's user, as udev does for the user
// at a machine. It runs as long as the machine.
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
			_ = os.Chown(filepath.Join("/dev", node), g.user.UID, g.user.GID) // the device may have gone already
		}
	}
}

// usbNode returns the node below /dev of a device that appeared behind a USB controller; ""
// for any other event.
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
