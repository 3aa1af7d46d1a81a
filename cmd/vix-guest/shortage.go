package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// A killLog reads the kernel's log for programs that the kernel has killed for want of memory,
// and reports each:
//
//	/dev/kmsg ─► record ─► "…: Killed process 123 (name) total-vm:…" ─► tell(name, count)
//
// The log is read as it grows, and also when a program has ended, so that the report comes
// before that end.
type killLog struct {
	tell func(program string, count uint64)

	mu    sync.Mutex // held while reading
	file  *os.File   // nil: there is no log
	count uint64
}

// openKillLog opens the log at its end.
func openKillLog(tell func(string, uint64)) (*killLog, error) {
	k := &killLog{tell: tell}
	f, err := os.OpenFile("/dev/kmsg", os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return k, err
	}
	if _, err := f.Seek(0, io.SeekEnd); err != nil {
		return k, errors.Join(err, f.Close())
	}
	k.file = f
	return k, nil
}

// run reads the log for as long as the machine is on.
func (k *killLog) run() error {
	if k.file == nil {
		return nil
	}
	conn, err := k.file.SyscallConn()
	if err != nil {
		return err
	}
	// The runtime calls this when the log is readable.
	return conn.Read(func(fd uintptr) bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.readLocked(int(fd)) != nil
	})
}

// look reads the log's new records.
func (k *killLog) look() {
	if k.file == nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if conn, err := k.file.SyscallConn(); err == nil {
		_ = conn.Control(func(fd uintptr) { _ = k.readLocked(int(fd)) })
	}
}

// maxRecord bounds a record, as the kernel does (printk: CONSOLE_EXT_LOG_MAX).
const maxRecord = 8 << 10

// readLocked reads to the log's end, where it returns nil. One read(2) is one record.
func (k *killLog) readLocked(fd int) error {
	buf := make([]byte, maxRecord)
	for {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN):
			return nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EPIPE): // EPIPE: records were overwritten unread
			continue
		case err != nil:
			return err
		case n == 0:
			return io.EOF
		}
		if name, ok := killedIn(buf[:n]); ok {
			k.count++
			k.tell(name, k.count)
		}
	}
}

// killedIn returns the program that a record of /dev/kmsg reports as killed for want of memory:
// "PRIORITY,SEQUENCE,TIME,FLAGS;TEXT". Records that programs write there do not have the
// kernel's facility.
func killedIn(record []byte) (name string, ok bool) {
	head, text, _ := bytes.Cut(record, []byte(";"))
	prefix, _, _ := bytes.Cut(head, []byte(","))
	priority, err := strconv.ParseUint(string(prefix), 10, 16)
	if err != nil || priority>>3 != 0 {
		return "", false
	}
	text, _, _ = bytes.Cut(text, []byte("\n"))
	_, after, found := bytes.Cut(text, []byte("ut of memory"))
	_, after, killed := bytes.Cut(after, []byte("Killed process "))
	_, after, named := bytes.Cut(after, []byte(" ("))
	end := bytes.LastIndex(after, []byte(") total-vm:"))
	if !found || !killed || !named || end < 0 {
		return "", false
	}
	return string(after[:end]), true
}
