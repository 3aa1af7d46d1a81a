package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// portLimit bounds the wait for the agent's port: the device sends its name in a message
// after the driver has loaded.
const portLimit = 30 * time.Second

// A port is a virtio-serial port. Until a message tells the driver that the host's end is open,
// a write blocks but a read returns end of file: so Read waits for the first Write.
type port struct {
	*os.File
	once sync.Once
	open chan struct{}
}

func (p *port) Write(b []byte) (int, error) {
	n, err := p.File.Write(b)
	p.once.Do(func() { close(p.open) })
	return n, err
}

func (p *port) Read(b []byte) (int, error) {
	<-p.open
	return p.File.Read(b)
}

func (p *port) Close() error {
	err := p.File.Close()
	p.once.Do(func() { close(p.open) })
	return err
}

// openPort opens the virtio-serial port called name, and waits for it to appear.
func openPort(name string) (*port, error) {
	// Listening comes first, so that a port that appears after the check is not missed.
	events, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, fmt.Errorf("kernel events: %w", err)
	}
	defer unix.Close(events)
	if err := unix.Bind(events, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		return nil, fmt.Errorf("kernel events: %w", err)
	}
	deadline := uptime() + portLimit
	buf := make([]byte, 8<<10)
	for {
		if dev := findPort(name); dev != "" {
			f, err := os.OpenFile(dev, os.O_RDWR, 0)
			if err != nil {
				return nil, fmt.Errorf("agent port: %w", err)
			}
			return &port{File: f, open: make(chan struct{})}, nil
		}
		left := deadline - uptime()
		if left <= 0 {
			return nil, fmt.Errorf("no virtio-serial port is named %q", name)
		}
		tv := unix.NsecToTimeval(left.Nanoseconds())
		if err := unix.SetsockoptTimeval(events, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv); err != nil {
			return nil, err
		}
		if _, _, err := unix.Recvfrom(events, buf, 0); err != nil && !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.ENOBUFS) {
			return nil, fmt.Errorf("kernel events: %w", err)
		}
	}
}

func findPort(name string) string {
	files, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(b)) == name {
			return "/dev/" + filepath.Base(filepath.Dir(f))
		}
	}
	return ""
}
