package balloon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Thresholds for a host short of memory; see the package comment.
const (
	trigger     = "some 100000 2000000" // µs of stalls in µs of time; an ordinary user may ask for 2 s
	shortAvg10  = 10.0                  // % of the last ten seconds
	shortPart   = 12                    // of the host's memory
	TriggerHold = 4 * time.Second       // how long a trigger makes the host short: it fires every two seconds
)

// A Host watches the machine's memory.
type Host struct {
	pressure, meminfo string
	trigger           *os.File // nil where the kernel has none
}

// OpenHost opens the files pressure (PSI: /proc/pressure/memory, or a control group's
// memory.pressure; it may be missing) and meminfo (as /proc/meminfo).
func OpenHost(pressure, meminfo string) *Host {
	h := &Host{pressure: pressure, meminfo: meminfo}
	f, err := os.OpenFile(pressure, os.O_RDWR|unix.O_NONBLOCK, 0)
	if err != nil {
		return h
	}
	// Only the kernel's own files take a trigger.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &fs); err == nil && (fs.Type == unix.PROC_SUPER_MAGIC || fs.Type == unix.CGROUP2_SUPER_MAGIC) {
		if _, err := unix.Write(int(f.Fd()), append([]byte(trigger), 0)); err == nil {
			h.trigger = f
			return h
		}
	}
	f.Close()
	return h
}

// Triggered reports whether the kernel notifies us of a memory shortage.
func (h *Host) Triggered() bool { return h.trigger != nil }

// Close ends Wait.
func (h *Host) Close() error {
	if h.trigger == nil {
		return nil
	}
	return h.trigger.Close()
}

// Watch calls short each time the kernel reports that programs wait for memory, until ctx
// ends. If the kernel cannot report it, Watch returns at once.
func (h *Host) Watch(ctx context.Context, short func()) error {
	if h.trigger == nil {
		return nil
	}
	wake, end, err := os.Pipe()
	if err != nil {
		return err
	}
	defer wake.Close()
	defer end.Close()
	stop := context.AfterFunc(ctx, func() { end.Close() })
	defer stop()
	fds := []unix.PollFd{{Fd: int32(h.trigger.Fd()), Events: unix.POLLPRI}, {Fd: int32(wake.Fd()), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(fds, -1)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return os.NewSyscallError("poll", err)
		case ctx.Err() != nil:
			return nil
		case fds[0].Revents&(unix.POLLERR|unix.POLLNVAL) != 0:
			return fmt.Errorf("%s: the kernel has ended its trigger", h.pressure)
		case fds[0].Revents&unix.POLLPRI != 0:
			short()
		}
	}
}

// A Memory is the state of the host's memory: sizes in bytes, and the waits of its programs.
type Memory struct {
	Available, Total uint64
	Stalled          float64 // % of the last ten seconds in which a program waited
}

// Short reports whether the host is short of memory.
func (m Memory) Short() bool {
	return m.Stalled >= shortAvg10 || m.Total > 0 && m.Available < m.Total/shortPart
}

// Read returns the host's memory now.
func (h *Host) Read() (Memory, error) {
	b, err := os.ReadFile(h.meminfo)
	if err != nil {
		return Memory{}, err
	}
	m, err := parseMeminfo(string(b))
	if err != nil {
		return m, fmt.Errorf("%s: %w", h.meminfo, err)
	}
	if b, err = os.ReadFile(h.pressure); err != nil {
		return m, nil // a kernel without PSI
	}
	m.Stalled, err = parsePressure(string(b))
	if err != nil {
		return m, fmt.Errorf("%s: %w", h.pressure, err)
	}
	return m, nil
}

// parseMeminfo reads proc_meminfo(5).
func parseMeminfo(text string) (m Memory, err error) {
	for line := range strings.Lines(text) {
		var kib uint64
		if _, err := fmt.Sscanf(line, "MemTotal: %d kB", &kib); err == nil {
			m.Total = kib << 10
		} else if _, err := fmt.Sscanf(line, "MemAvailable: %d kB", &kib); err == nil {
			m.Available = kib << 10
		}
	}
	if m.Total == 0 || m.Available == 0 {
		return m, errors.New("no MemTotal and MemAvailable")
	}
	return m, nil
}

// parsePressure reads the first average of "some" (Documentation/accounting/psi.rst).
func parsePressure(text string) (avg10 float64, err error) {
	if _, err := fmt.Sscanf(text, "some avg10=%g", &avg10); err != nil {
		return 0, errors.New("not as PSI writes it")
	}
	return avg10, nil
}
