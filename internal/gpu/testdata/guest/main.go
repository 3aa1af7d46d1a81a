// Command guest is /init of the VM that TestVM boots: it loads the GPU's modules
// and drives internal/virtwl's guest end against the echoing host of that test. It
// prints one line for each check, and powers the VM off.
package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/virtwl"
	"vix/internal/wayland"
)

func main() {
	if err := setUp(); err != nil {
		fmt.Println("VMTEST FAIL setup:", err)
	} else if cmdline, _ := os.ReadFile("/proc/cmdline"); strings.Contains(string(cmdline), "vix.test=reboot") {
		reboots()
	} else {
		runAll()
	}
	fmt.Println("VMTEST DONE")
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	select {}
}

func setUp() error {
	for _, m := range [][3]string{{"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"}} {
		_ = os.MkdirAll(m[1], 0o755)
		if err := unix.Mount(m[0], m[1], m[2], 0, ""); err != nil && !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("mount %s: %w", m[1], err)
		}
	}
	order, err := os.ReadFile("/modules/order")
	if err != nil {
		return err
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open("/modules/" + name)
		if err != nil {
			return err
		}
		err = unix.FinitModule(int(f.Fd()), "", 0)
		_ = f.Close()
		if err != nil && !errors.Is(err, unix.EEXIST) {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

func runAll() {
	dev, err := virtwl.OpenDevice("/dev/dri/renderD128")
	if err != nil {
		fmt.Println("VMTEST FAIL open:", err)
		return
	}
	for _, t := range []struct {
		name string
		fn   func(*virtwl.Device) error
	}{
		{"echo", echo}, {"bulk", bulk}, {"blob", blob}, {"blobs", blobs}, {"received", received},
		{"readpipe", readPipe}, {"writepipe", writePipe}, {"twopipes", twoPipes}, {"hostclose", hostClose},
		{"refused", refused}, {"contexts", contexts}, {"parallel", parallel}, {"too many", tooMany}, {"latency", latency},
	} {
		start := time.Now()
		done := make(chan error, 1)
		go func() { done <- t.fn(dev) }()
		select {
		case err = <-done:
		case <-time.After(60 * time.Second):
			err = errors.New("timed out")
			buf := make([]byte, 64<<10)
			fmt.Printf("%s\n", buf[:runtime.Stack(buf, true)])
		}
		if err != nil {
			fmt.Printf("VMTEST FAIL %s: %v\n", t.name, err)
			continue
		}
		fmt.Printf("VMTEST PASS %s %.3fs\n", t.name, time.Since(start).Seconds())
	}
	if n := openFDs(); n > 16 {
		fmt.Printf("VMTEST FAIL leak: %d descriptors open at the end\n", n)
	}
}

// reboots leaves connections open at the first boot, and checks the device at the
// second. Nothing may be mapped at the reboot: QEMU 11.1 would crash.
func reboots() {
	err := func() error {
		dev, err := virtwl.OpenDevice("/dev/dri/renderD128")
		if err != nil {
			return err
		}
		var last *virtwl.GuestConn
		for range 5 {
			c, err := connect(dev)
			if err != nil {
				return err
			}
			if err := oneBlob(c, 1<<20); err != nil {
				return err
			}
			go func() { _, _, _ = c.Recv(make([]byte, 1), nil) }()
			if last, err = connect(dev); err != nil {
				return err
			}
		}
		if err := last.Send(request('N', 0), nil); err != nil {
			return err
		}
		n, _, err := recvN(last, 4)
		if err != nil {
			return err
		}
		fmt.Println("VMTEST INFO boot", n[0])
		if n[0] == 1 {
			return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
		}
		return oneBlob(last, 1<<20)
	}()
	if err != nil {
		fmt.Println("VMTEST FAIL reboot:", err)
	}
}

func openFDs() int {
	es, _ := os.ReadDir("/proc/self/fd")
	return len(es)
}

func connect(dev *virtwl.Device) (*virtwl.GuestConn, error) { return dev.Connect(context.Background()) }

// request is the host's command: an operation and a number.
func request(op byte, arg uint32) []byte {
	return binary.LittleEndian.AppendUint32([]byte{op, 0, 0, 0}, arg)
}

func recvN(c *virtwl.GuestConn, n int) ([]byte, []wayland.Desc, error) {
	out := make([]byte, 0, n)
	var ds []wayland.Desc
	for len(out) < n {
		buf := make([]byte, n-len(out))
		k, d, err := c.Recv(buf, ds)
		ds = d
		out = append(out, buf[:k]...)
		if err != nil {
			return out, ds, err
		}
	}
	return out, ds, nil
}

func pattern(n int, seed byte) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) + byte(i>>8) + seed
	}
	return p
}

func hash(p []byte) uint32 {
	h := fnv.New32a()
	_, _ = h.Write(p)
	return h.Sum32()
}

func echo(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range []int{1, 8, 100, 3744, 3745, 4096, 20000} {
		p := pattern(n, byte(n))
		if err := c.Send(append(request('E', uint32(n)), p...), nil); err != nil {
			return err
		}
		got, _, err := recvN(c, n)
		if err != nil || !bytes.Equal(got, p) {
			return fmt.Errorf("%d bytes: got %d, %v", n, len(got), err)
		}
	}
	return nil
}

// bulk sends far more than the host's queue holds, while the host is slow to read.
func bulk(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	p := pattern(8<<20, 3)
	if err := c.Send(request('H', uint32(len(p))), nil); err != nil {
		return err
	}
	for q := p; len(q) > 0; q = q[4096:] {
		if err := c.Send(q[:4096], nil); err != nil {
			return err
		}
	}
	got, _, err := recvN(c, 4)
	if err != nil || binary.LittleEndian.Uint32(got) != hash(p) {
		return fmt.Errorf("hash differs: %v", err)
	}
	return nil
}

func blob(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	return oneBlob(c, 1<<20)
}

// oneBlob fills a blob, makes the host check and invert it, and checks the result.
func oneBlob(c *virtwl.GuestConn, size int) error {
	b, err := c.NewBlob(size)
	if err != nil {
		return err
	}
	defer b.Close()
	if len(b.Mem) != size {
		return fmt.Errorf("blob of %d, want %d", len(b.Mem), size)
	}
	if slices.ContainsFunc(b.Mem[:4096], func(v byte) bool { return v != 0 }) {
		return errors.New("blob is not zeroed")
	}
	p := pattern(size, 9)
	copy(b.Mem, p)
	if err := c.Send(request('B', uint32(size)), []wayland.Desc{wayland.ResDesc(b.Res)}); err != nil {
		return err
	}
	got, _, err := recvN(c, 4)
	if err != nil || binary.LittleEndian.Uint32(got) != hash(p) {
		return fmt.Errorf("host saw other bytes: %v", err)
	}
	for i := range p {
		p[i] ^= 0xff
	}
	if !bytes.Equal(b.Mem, p) {
		return errors.New("guest does not see the host's writes")
	}
	return nil
}

func blobs(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	for range 40 {
		if err := oneBlob(c, 64<<10); err != nil {
			return err
		}
	}
	big, err := c.NewBlob(512 << 20)
	if err != nil {
		return fmt.Errorf("512 MiB: %w", err)
	}
	big.Mem[len(big.Mem)-1] = 1
	return big.Close()
}

func received(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	const n = 23205 // sway's keymap
	if err := c.Send(request('K', n), nil); err != nil {
		return err
	}
	_, ds, err := recvN(c, 4)
	if err != nil {
		return err
	}
	defer wayland.CloseAll(ds)
	if len(ds) != 1 || ds[0].Kind != wayland.KindMemory {
		return fmt.Errorf("descriptors %v", ds)
	}
	m, err := unix.Mmap(ds[0].FD, 0, n, unix.PROT_READ, unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	defer unix.Munmap(m)
	if !bytes.Equal(m, pattern(n, 5)) {
		return errors.New("other bytes")
	}
	return nil
}

func readPipe(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range []int{0, 1, 5000, 3 << 20} {
		if err := oneReadPipe(c, n); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
	}
	return nil
}

func oneReadPipe(c *virtwl.GuestConn, n int) error {
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		return err
	}
	r := os.NewFile(uintptr(p[0]), "r")
	defer r.Close()
	if err := c.Send(request('R', uint32(n)), []wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, p[1])}); err != nil {
		return err
	}
	// READ arrives only while the guest receives; the host reports the end of its writes.
	rerr := make(chan error, 1)
	go func() {
		_, _, err := recvN(c, 4)
		rerr <- err
	}()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, pattern(n, 1)) {
		return fmt.Errorf("got %d: %v", len(got), err)
	}
	if err := c.Send(request('E', 4), nil); err != nil {
		return err
	}
	if err := c.Send([]byte("done"), nil); err != nil {
		return err
	}
	return <-rerr
}

func writePipe(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, n := range []int{0, 1, 5000, 3 << 20} {
		if err := oneWritePipe(c, n); err != nil {
			return fmt.Errorf("%d bytes: %w", n, err)
		}
	}
	return nil
}

func oneWritePipe(c *virtwl.GuestConn, n int) error {
	f, err := askPipe(c, n)
	if err != nil {
		return err
	}
	p := pattern(n, 2)
	if _, err := f.Write(p); err != nil {
		return err
	}
	_ = f.Close()
	got, _, err := recvN(c, 4)
	if err != nil || binary.LittleEndian.Uint32(got) != hash(p) {
		return fmt.Errorf("hash differs: %v", err)
	}
	return nil
}

// askPipe makes the host send a pipe that it reads slowly.
func askPipe(c *virtwl.GuestConn, n int) (*os.File, error) {
	if err := c.Send(request('W', uint32(n)), nil); err != nil {
		return nil, err
	}
	_, ds, err := recvN(c, 4)
	if err != nil {
		return nil, err
	}
	if len(ds) != 1 || ds[0].Kind != wayland.KindWritePipe {
		return nil, fmt.Errorf("descriptors %v", ds)
	}
	return os.NewFile(uintptr(ds[0].FD), "w"), nil
}

// twoPipes leaves one pipe blocked at the host and uses another beside it.
func twoPipes(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(request('S', 0), nil); err != nil { // a pipe without a reader
		return err
	}
	_, ds, err := recvN(c, 4)
	if err != nil || len(ds) != 1 {
		return fmt.Errorf("descriptors %v: %w", ds, err)
	}
	stuck := os.NewFile(uintptr(ds[0].FD), "stuck")
	go func() {
		_, _ = stuck.Write(pattern(4<<20, 0))
		_ = stuck.Close()
	}()
	return oneWritePipe(c, 1<<20)
}

func hostClose(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.Send(request('X', 0), nil); err != nil {
		return err
	}
	if _, _, err := recvN(c, 1); !errors.Is(err, io.EOF) {
		return fmt.Errorf("want end of file, got %v", err)
	}
	return nil
}

// refused sends requests that the host refuses: each gets an error, and the device lives.
func refused(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	var bs []*virtwl.Blob
	defer func() {
		for _, b := range bs {
			_ = b.Close()
		}
	}()
	for len(bs) < 1000 {
		b, err := c.NewBlob(4096)
		if err != nil {
			fmt.Printf("VMTEST INFO mappings until refused: %d (%v)\n", len(bs), err)
			return nil
		}
		bs = append(bs, b)
	}
	return errors.New("a thousand mappings were granted")
}

func contexts(dev *virtwl.Device) error {
	for i := range 200 {
		c, err := connect(dev)
		if err != nil {
			return fmt.Errorf("context %d: %w", i, err)
		}
		if err := ping(c); err != nil {
			return fmt.Errorf("context %d: %w", i, err)
		}
		_ = c.Close()
	}
	return nil
}

func ping(c *virtwl.GuestConn) error {
	if err := c.Send(append(request('E', 4), "ping"...), nil); err != nil {
		return err
	}
	got, _, err := recvN(c, 4)
	if err != nil || string(got) != "ping" {
		return fmt.Errorf("%q: %w", got, err)
	}
	return nil
}

// parallel holds a hundred connections open at once.
func parallel(dev *virtwl.Device) error {
	var cs []*virtwl.GuestConn
	defer func() {
		for _, c := range cs {
			_ = c.Close()
		}
	}()
	errs := make(chan error, 100)
	for range 100 {
		c, err := connect(dev)
		if err != nil {
			return err
		}
		cs = append(cs, c)
	}
	for _, c := range cs {
		go func() {
			for range 5 {
				if err := ping(c); err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range cs {
		if err := <-errs; err != nil {
			return err
		}
	}
	return nil
}

// tooMany opens more connections than the host allows: the last ones fail, the first
// go on, and afterwards there is room again.
func tooMany(dev *virtwl.Device) error {
	var cs []*virtwl.GuestConn
	defer func() {
		for _, c := range cs {
			_ = c.Close()
		}
	}()
	for range 300 {
		c, err := connect(dev)
		if err != nil {
			return err
		}
		cs = append(cs, c)
	}
	err := ping(cs[len(cs)-1])
	if err == nil {
		return errors.New("300 connections were granted")
	}
	fmt.Println("VMTEST INFO 300th connection:", err)
	if err := ping(cs[0]); err != nil {
		return err
	}
	for _, c := range cs[1:] {
		_ = c.Close()
	}
	cs = cs[:1]
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	return ping(c)
}

func latency(dev *virtwl.Device) error {
	c, err := connect(dev)
	if err != nil {
		return err
	}
	defer c.Close()
	var ts []time.Duration
	for range 500 {
		start := time.Now()
		if err := ping(c); err != nil {
			return err
		}
		ts = append(ts, time.Since(start))
	}
	slices.Sort(ts)
	fmt.Printf("VMTEST INFO round trip: best %v, median %v, p99 %v\n", ts[0], ts[len(ts)/2], ts[len(ts)*99/100])
	start := time.Now()
	n := 0
	for b := pattern(4096, 0); time.Since(start) < time.Second; n++ {
		if err := c.Send(append(request('H', uint32(len(b))), b...), nil); err != nil {
			return err
		}
		if _, _, err := recvN(c, 4); err != nil {
			return err
		}
	}
	fmt.Printf("VMTEST INFO 4 KiB request and answer: %d/s\n", n)
	return nil
}
