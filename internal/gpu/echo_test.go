package gpu_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
)

// An echo host answers requests of 8 bytes (operation, 3 × 0, u32 number) on a
// wayland.Transport, until the end:
//
//	E n  n bytes follow: they are sent back
//	H n  n bytes follow: their hash (u32) is sent back; reading pauses now and then
//	B n  with memory of n bytes: its hash is sent back, after all of it was inverted
//	K n  memory of n bytes (read-only, sealed) is sent, with 4 bytes
//	R n  with a pipe: n bytes are written to it, and it is closed
//	W n  a pipe is sent with 4 bytes; what comes through it is read slowly, then its hash is sent
//	S    a pipe without a reader is sent
//	N    the count of this request is sent back (u32)
//	X    the connection is closed
type echo struct {
	t   wayland.Transport
	in  []byte
	ds  []wayland.Desc
	end []func()

	boots *atomic.Int64 // number of N requests
}

func serveEcho(t wayland.Transport) error { return (&echo{t: t}).serve() }

func (e *echo) serve() error {
	defer func() {
		for _, f := range e.end {
			f()
		}
		wayland.CloseAll(e.ds)
		_ = e.t.Close()
	}()
	for {
		req, err := e.next(8)
		if errors.Is(err, io.EOF) && len(req) == 0 {
			return nil
		}
		if err != nil {
			return err
		}
		if req[0] == 'X' {
			return nil
		}
		if err := e.answer(req[0], int(binary.LittleEndian.Uint32(req[4:]))); err != nil {
			return fmt.Errorf("%c: %w", req[0], err)
		}
	}
}

// maxEcho bounds n of a request.
const maxEcho = 64 << 20

// next receives exactly n bytes.
func (e *echo) next(n int) ([]byte, error) {
	for len(e.in) < n {
		buf := make([]byte, 64<<10)
		k, ds, err := e.t.Recv(buf, e.ds)
		e.ds, e.in = ds, append(e.in, buf[:k]...)
		if err != nil {
			return nil, err
		}
	}
	p := e.in[:n:n]
	e.in = e.in[n:]
	return p, nil
}

func (e *echo) desc(k wayland.Kind) (int, error) {
	if len(e.ds) == 0 || e.ds[0].Kind != k {
		return -1, fmt.Errorf("descriptors %v, want a %s first", e.ds, k)
	}
	fd := e.ds[0].FD
	e.ds = e.ds[1:]
	return fd, nil
}

func testPattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) + byte(i>>8) + seed
	}
	return p
}

func sum(p []byte) []byte {
	h := fnv.New32a()
	_, _ = h.Write(p)
	return binary.LittleEndian.AppendUint32(nil, h.Sum32())
}

func (e *echo) answer(op byte, n int) error {
	if n > maxEcho {
		return fmt.Errorf("%d bytes", n)
	}
	switch op {
	case 'E':
		p, err := e.next(n)
		if err != nil {
			return err
		}
		return e.t.Send(p, nil)
	case 'H':
		return e.hash(n)
	case 'B':
		return e.blob(n)
	case 'K':
		fd, err := sealed(testPattern(n, 5))
		if err != nil {
			return err
		}
		return e.t.Send([]byte("keys"), []wayland.Desc{wayland.FileDesc(wayland.KindMemory, fd)})
	case 'R':
		fd, err := e.desc(wayland.KindWritePipe)
		if err != nil {
			return err
		}
		go func() {
			f := os.NewFile(uintptr(fd), "pipe")
			_, _ = f.Write(testPattern(n, 1))
			_ = f.Close()
		}()
		return nil
	case 'N':
		if e.boots == nil {
			return errors.New("no counter")
		}
		return e.t.Send(binary.LittleEndian.AppendUint32(nil, uint32(e.boots.Add(1))), nil)
	case 'W', 'S':
		return e.pipe(op == 'S')
	}
	return fmt.Errorf("unknown operation %q", op)
}

func (e *echo) hash(n int) error {
	h := fnv.New32a()
	for i := 0; n > 0; i++ {
		p, err := e.next(min(n, 256<<10))
		if err != nil {
			return err
		}
		if i%8 == 7 {
			time.Sleep(20 * time.Millisecond) // a slow compositor, so that the guest runs into the bound
		}
		_, _ = h.Write(p)
		n -= len(p)
	}
	return e.t.Send(binary.LittleEndian.AppendUint32(nil, h.Sum32()), nil)
}

func (e *echo) blob(n int) error {
	fd, err := e.desc(wayland.KindMemory)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Size < int64(n) {
		return fmt.Errorf("%d bytes of memory, want %d", st.Size, n)
	}
	m, err := unix.Mmap(fd, 0, n, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	s := sum(m)
	for i := range m {
		m[i] ^= 0xff
	}
	return e.t.Send(s, nil)
}

func (e *echo) pipe(stuck bool) error {
	r, w, err := os.Pipe()
	if err != nil {
		return err
	}
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = w.Close()
	if err != nil {
		_ = r.Close()
		return err
	}
	if err := e.t.Send([]byte("pipe"), []wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, fd)}); err != nil {
		_ = r.Close()
		return err
	}
	if stuck {
		e.end = append(e.end, func() { _ = r.Close() })
		return nil
	}
	defer r.Close()
	h := fnv.New32a()
	for buf := make([]byte, 128<<10); ; {
		n, err := r.Read(buf)
		_, _ = h.Write(buf[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		time.Sleep(time.Millisecond)
	}
	return e.t.Send(binary.LittleEndian.AppendUint32(nil, h.Sum32()), nil)
}

// sealed returns a read-only descriptor of sealed memory, as compositors send keymaps.
func sealed(p []byte) (int, error) {
	fd, err := unix.MemfdCreate("keymap", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return -1, err
	}
	defer unix.Close(fd)
	if _, err := unix.Write(fd, p); err != nil {
		return -1, err
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE); err != nil {
		return -1, err
	}
	return unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
}
