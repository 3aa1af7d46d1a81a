package vhost_test

import (
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
)

// FuzzMessages plays a front end that sends anything. The input is a sequence of
// messages, each after one byte: bits 0–3 the number of descriptors, bits 4–5
// their kind (by the request, memory, event, socket). For every input, Serve ends
// once the socket is closed, and leaves nothing. The corpus has QEMU 11's messages.
func FuzzMessages(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		fe, conn, err := vhosttest.New()
		if err != nil {
			t.Skip(err)
		}
		dev := &reverser{}
		served := make(chan error, 1)
		go func() { served <- vhost.Serve(context.Background(), conn, dev) }()
		go fe.Drain()
		for len(in) > 13 {
			kind := in[0]
			n := min(len(in)-1, 12+int(min(binary.LittleEndian.Uint32(in[9:]), 1<<16)))
			fds := makeFDs(int(kind&15), kind>>4&3, in[1])
			err := fe.Write(in[1:1+n], fds...)
			for _, fd := range fds {
				_ = unix.Close(fd)
			}
			if in = in[1+n:]; err != nil {
				break
			}
		}
		_ = fe.Close()
		select {
		case err := <-served:
			t.Logf("serve: %v", err)
		case <-time.After(2 * time.Second):
			panic("still serving")
		}
		if dev.closed != 1 {
			t.Error("the device was not closed")
		}
	})
}

func makeFDs(n int, kind, req byte) (fds []int) {
	if kind == 0 {
		switch uint32(req) {
		case vhosttest.AddMemReg, vhosttest.SetMemTable:
			kind = 1
		case vhosttest.SetBackendReqFD:
			kind = 3
		default:
			kind = 2
		}
	}
	for range n {
		fd, err := -1, error(nil)
		switch kind {
		case 1:
			if fd, err = unix.MemfdCreate("fuzz", unix.MFD_CLOEXEC); err == nil {
				err = unix.Ftruncate(fd, 1<<30)
			}
		case 2:
			fd, err = unix.Eventfd(1, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		case 3:
			var p [2]int
			if p, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err == nil {
				_ = unix.Close(p[1])
				fd = p[0]
			}
		}
		if err == nil {
			fds = append(fds, fd)
		}
	}
	return fds
}

// TestCorpora: a fuzz target without a corpus tests nothing.
func TestCorpora(t *testing.T) {
	for _, name := range []string{"FuzzMessages", "FuzzChain"} {
		if fs, _ := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*")); len(fs) == 0 {
			t.Errorf("%s has no corpus", name)
		}
	}
}
