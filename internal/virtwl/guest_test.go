//go:build linux && (amd64 || arm64 || riscv64)

package virtwl

import (
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// deafConn is a connection without a kernel behind it: every ioctl says closed.
func deafConn() *GuestConn {
	c := &GuestConn{node: &node{closed: true}, done: make(chan struct{}), wake: -1}
	c.send.lastPipe, c.send.fence = PipeReadStart, -1
	c.pipes.sinks = make(map[uint32]*sink)
	c.pipes.files = make(map[*os.File]struct{})
	c.channel.mem = make([]byte, MaxRingSize)
	return c
}

// closeDeaf is Close, for memory that was not mapped.
func closeDeaf(c *GuestConn) {
	c.channel.mem = nil
	_ = c.Close()
}

// FuzzGuest is a host that writes anything to the channel ring. The guest is told,
// or gets bytes; nothing is left of it.
func FuzzGuest(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		c := deafConn()
		defer closeDeaf(c)
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Skip(err)
		}
		defer unix.Close(p[0])
		if err := c.identify([]wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, p[1])}); err != nil {
			t.Fatal(err)
		}
		for range 3 {
			copy(c.channel.mem, in)
			in = in[min(len(in), MaxRingSize):]
			ds, err := c.take(nil)
			if err == nil && len(ds) > MaxIdentifiers || len(c.recv.rest) > MaxReceiveData {
				t.Errorf("%d descriptors, %d bytes", len(ds), len(c.recv.rest))
			}
			wayland.CloseAll(ds)
			if err != nil {
				return
			}
		}
	})
}

func TestOpenDevice(t *testing.T) {
	if _, err := OpenDevice("/dev/does/not/exist"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := OpenDevice("/dev/null"); err == nil || !strings.Contains(err.Error(), "is it a DRM device?") {
		t.Errorf("no DRM device: %v", err)
	}
}

// TestGuestRefuses: descriptors that cannot go to the host, each closed all the same.
func TestGuestRefuses(t *testing.T) {
	c := deafConn()
	defer closeDeaf(c)
	for _, k := range []wayland.Kind{wayland.KindMemory, wayland.KindReadPipe, wayland.KindOther} {
		var p [2]int
		if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		if err := c.Send([]byte("x"), []wayland.Desc{wayland.FileDesc(k, p[1])}); err == nil {
			t.Errorf("%s was taken", k)
		}
		// The read end sees the end of the pipe: nobody has the write end any more.
		if n, err := unix.Read(p[0], make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("%s was not closed: %d, %v", k, n, err)
		}
		_ = unix.Close(p[0])
	}
	if err := c.Send(make([]byte, 1), make([]wayland.Desc, MaxIdentifiers+1)); err == nil {
		t.Error("29 descriptors were taken")
	}
}

// TestSink: data for a slow reader is kept within the bound, and arrives in order.
func TestSink(t *testing.T) {
	c := deafConn()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c.addSink(1, p[1])
	const chunks = 1000
	go func() {
		buf := make([]byte, MaxReadData)
		for i := range chunks {
			buf[0], buf[1] = byte(i), byte(i>>8)
			c.feed(1, buf, false)
		}
		c.feed(1, nil, true)
		c.feed(1, buf, false) // after the end: dropped
		c.feed(2, buf, false) // to nobody
	}()
	r := os.NewFile(uintptr(p[0]), "r")
	defer r.Close()
	buf := make([]byte, MaxReadData)
	for i := range chunks {
		for n := 0; n < len(buf); {
			k, err := r.Read(buf[n:])
			if err != nil {
				t.Fatalf("chunk %d: %v", i, err)
			}
			n += k
		}
		if got := int(buf[0]) | int(buf[1])<<8; got != i {
			t.Fatalf("chunk %d is %d", i, got)
		}
	}
	if n, err := r.Read(buf); n != 0 || err == nil {
		t.Errorf("after the end: %d bytes, %v", n, err)
	}
	closeDeaf(c)
}

// TestSinkStuck: Close does not wait for a reader that never reads.
func TestSinkStuck(t *testing.T) {
	c := deafConn()
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p[0])
	c.addSink(1, p[1])
	c.feed(1, make([]byte, maxSinkQueued/2), false)
	c.feed(1, make([]byte, maxSinkQueued/2), false)
	full := make(chan struct{})
	go func() {
		c.feed(1, make([]byte, maxSinkQueued), false)
		close(full)
	}()
	closeDeaf(c)
	<-full
}
