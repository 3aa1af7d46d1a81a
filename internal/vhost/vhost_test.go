package vhost_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
)

var le = binary.LittleEndian

// reverser is a device that answers a request with its bytes in reverse order, at
// once; it keeps a request that begins with "park" until Unpark.
type reverser struct {
	mu     sync.Mutex
	be     *vhost.Backend
	parked []vhost.Token
	queue  *vhost.Queue
	resets int
	closed int
	errs   []error
	chain  [2]vhost.Chain
	buf    [2][1 << 16]byte
}

func (d *reverser) Features() uint64        { return vhost.FeatureIndirectDesc | vhost.FeatureEventIdx | 1 }
func (d *reverser) Queues() int             { return 2 }
func (d *reverser) Config() []byte          { return []byte("config") }
func (d *reverser) SharedMemory() []uint64  { return []uint64{0, 1 << 20} }
func (d *reverser) Start(be *vhost.Backend) { d.be = be }
func (d *reverser) Close()                  { d.closed++ }

func (d *reverser) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.resets++
}

func (d *reverser) Process(q *vhost.Queue) {
	c := &d.chain[q.Index]
	for q.Next(c) {
		p := d.buf[q.Index][:min(c.Remaining(), c.Room())]
		err := c.Read(p)
		if err == nil && bytes.HasPrefix(p, []byte("park")) {
			d.mu.Lock()
			d.parked, d.queue = append(d.parked, c.Token()), q
			d.mu.Unlock()
			continue
		}
		for i, j := 0, len(p)-1; i < j; i, j = i+1, j-1 {
			p[i], p[j] = p[j], p[i]
		}
		if err == nil {
			err = c.Write(p)
		}
		if err != nil {
			d.mu.Lock()
			d.errs = append(d.errs, err)
			d.mu.Unlock()
		}
		q.Push(c.Token())
	}
}

// unpark pushes the parked requests, last first.
func (d *reverser) unpark() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.parked)
	for i := range d.parked {
		d.queue.Push(d.parked[n-1-i])
		d.queue.Notify()
	}
	d.parked = nil
	return n
}

func (d *reverser) failures() []error {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.errs
}

type rig struct {
	*vhosttest.FrontEnd
	dev    *reverser
	cancel context.CancelFunc
	served chan error
	once   sync.Once
	err    error
}

// newRig serves a reverser, and negotiates if start is set.
func newRig(t testing.TB, start bool, features uint64) *rig {
	t.Helper()
	fe, conn, err := vhosttest.New()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	r := &rig{FrontEnd: fe, dev: &reverser{}, cancel: cancel, served: make(chan error, 1)}
	go func() {
		err := vhost.Serve(ctx, conn, r.dev)
		fe.Gone()
		r.served <- err
	}()
	t.Cleanup(func() { r.close(); cancel() })
	if start {
		if err := fe.Start(features); err != nil {
			t.Fatal(err)
		}
	}
	return r
}

func (r *rig) close() error {
	r.once.Do(func() {
		_ = r.Close()
		r.err = <-r.served
	})
	return r.err
}

// ended waits for Serve to end by itself.
func (r *rig) ended(t *testing.T) error {
	t.Helper()
	select {
	case err := <-r.served:
		r.once.Do(func() { r.err = err; _ = r.Close() })
		return err
	case <-time.After(10 * time.Second):
		t.Fatal("still serving")
		return nil
	}
}

func checkLeaks(t *testing.T) {
	t.Helper()
	g, f := runtime.NumGoroutine(), countFDs(t)
	t.Cleanup(func() {
		for range 200 {
			if runtime.NumGoroutine() <= g && countFDs(t) <= f {
				return
			}
			time.Sleep(5 * time.Millisecond) // goroutines disappear shortly after their end
		}
		buf := make([]byte, 64<<10)
		t.Errorf("left behind: %d goroutines, %d descriptors\n%s", runtime.NumGoroutine()-g, countFDs(t)-f, buf[:runtime.Stack(buf, true)])
	})
}

func countFDs(t *testing.T) int {
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("lacks: /proc/self/fd")
	}
	return len(es)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ask(t testing.TB, r *rig, q int, s string) {
	t.Helper()
	p, err := r.Rings[q].Do([]byte(s), len(s))
	must(t, err)
	want := []byte(s)
	for i, j := 0, len(want)-1; i < j; i, j = i+1, j-1 {
		want[i], want[j] = want[j], want[i]
	}
	if !bytes.Equal(p, want) {
		t.Fatalf("answer %q, want %q", p, want)
	}
}

var ringKinds = map[string]uint64{
	"direct": 1, "indirect": vhost.FeatureIndirectDesc, "event index": vhost.FeatureEventIdx,
	"both": vhost.FeatureIndirectDesc | vhost.FeatureEventIdx,
}

func TestRequests(t *testing.T) {
	checkLeaks(t)
	for name, features := range ringKinds {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true, features)
			for i := range 1000 { // beyond the ring's end, more than once
				ask(t, r, i&1, "request"+strings.Repeat("x", i%100))
			}
			var wg sync.WaitGroup
			for w := range 8 {
				wg.Go(func() {
					for range 200 {
						if p, err := r.Rings[w&1].Do([]byte("ab"), 2); err != nil || string(p) != "ba" {
							t.Errorf("%q, %v", p, err)
							return
						}
					}
				})
			}
			wg.Wait()
			if err := r.close(); err != nil {
				t.Errorf("serve: %v", err)
			}
			if errs := r.dev.failures(); len(errs) > 0 || r.dev.closed != 1 {
				t.Errorf("device: errors %v, closed %d times", errs, r.dev.closed)
			}
		})
	}
}

// TestParked: chains are completed later, in any order, by another goroutine.
func TestParked(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	var qs []*vhosttest.Request
	for range 20 {
		qs = append(qs, r.Rings[0].Submit([]byte("park"), 4))
	}
	ask(t, r, 0, "overtakes")
	if n := r.dev.unpark(); n != len(qs) {
		t.Fatalf("%d parked", n)
	}
	for _, q := range qs {
		if _, err := q.Wait(); err != nil {
			t.Error(err)
		}
	}
}

func TestBadChains(t *testing.T) {
	checkLeaks(t)
	const next, write, indirect = 1, 2, 4
	const room = vhosttest.RAMSize - 4096
	for _, c := range []struct {
		name string
		lay  func(r *vhosttest.Ring, table []byte, at uint64)
	}{
		{"loop of one", func(r *vhosttest.Ring, _ []byte, _ uint64) { r.SetDesc(200, room, 8, next, 200) }},
		{"loop of two", func(r *vhosttest.Ring, _ []byte, _ uint64) {
			r.SetDesc(200, room, 8, next, 201)
			r.SetDesc(201, room, 8, next, 200)
		}},
		{"next beyond the table", func(r *vhosttest.Ring, _ []byte, _ uint64) { r.SetDesc(200, room, 8, next, vhosttest.QueueSize) }},
		{"readable after writable", func(r *vhosttest.Ring, _ []byte, _ uint64) {
			r.SetDesc(200, room, 8, write|next, 201)
			r.SetDesc(201, room, 8, 0, 0)
		}},
		{"address overflow", func(r *vhosttest.Ring, _ []byte, _ uint64) { r.SetDesc(200, 1<<64-4, 8, 0, 0) }},
		{"endless bytes", func(r *vhosttest.Ring, _ []byte, _ uint64) { r.SetDesc(200, 0, 1<<32-1, 0, 0) }},
		{"indirect of nothing", func(r *vhosttest.Ring, _ []byte, at uint64) { r.SetDesc(200, at, 0, indirect, 0) }},
		{"indirect of half a descriptor", func(r *vhosttest.Ring, _ []byte, at uint64) { r.SetDesc(200, at, 24, indirect, 0) }},
		{"indirect too long", func(r *vhosttest.Ring, _ []byte, at uint64) { r.SetDesc(200, at, 16*1025, indirect, 0) }},
		{"indirect outside memory", func(r *vhosttest.Ring, _ []byte, _ uint64) { r.SetDesc(200, 1<<50, 16, indirect, 0) }},
		{"indirect and next", func(r *vhosttest.Ring, _ []byte, at uint64) { r.SetDesc(200, at, 16, indirect|next, 201) }},
		{"indirect in indirect", func(r *vhosttest.Ring, p []byte, at uint64) {
			vhosttest.PutDesc(p, at, 16, indirect, 0)
			r.SetDesc(200, at, 16, indirect, 0)
		}},
		{"indirect loop", func(r *vhosttest.Ring, p []byte, at uint64) {
			vhosttest.PutDesc(p, room, 8, next, 1)
			vhosttest.PutDesc(p[16:], room, 8, next, 0)
			r.SetDesc(200, at, 32, indirect, 0)
		}},
		{"indirect next beyond its table", func(r *vhosttest.Ring, p []byte, at uint64) {
			vhosttest.PutDesc(p, room, 8, next, 2)
			r.SetDesc(200, at, 32, indirect, 0)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, true, vhost.FeatureIndirectDesc)
			at, table := r.Alloc(4096)
			ring := r.Rings[0]
			c.lay(ring, table, at)
			used := le.Uint16(ring.Used[2:])
			ring.Offer(200)
			ring.Kick()
			ask(t, r, 0, "alive")
			e := ring.Used[4+8*int(used%vhosttest.QueueSize):]
			if head, n := le.Uint32(e), le.Uint32(e[4:]); head != 200 || n != 0 {
				t.Errorf("given back as %d with %d bytes", head, n)
			}
			if errs := r.dev.failures(); len(errs) > 0 {
				t.Errorf("the device saw it: %v", errs)
			}
		})
	}
}

// TestNoMemoryThere: a well-formed chain with an address outside memory
// gives the device an error at the copy.
func TestNoMemoryThere(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	ring := r.Rings[0]
	for _, addr := range []uint64{1 << 50, vhosttest.RAMSize, vhosttest.RAMSize - 4} {
		ring.SetDesc(200, addr, 8, 1, 201)
		ring.SetDesc(201, 4096, 8, 2, 0)
		ring.Offer(200)
		ring.Kick()
		ask(t, r, 0, "alive")
	}
	errs := r.dev.failures()
	if len(errs) != 3 {
		t.Fatalf("errors %v", errs)
	}
	for _, err := range errs {
		if !errors.Is(err, vhost.ErrAddress) {
			t.Error(err)
		}
	}
}

func TestBrokenRings(t *testing.T) {
	checkLeaks(t)
	for name, breakIt := range map[string]func(r *vhosttest.Ring){
		"head out of range": func(r *vhosttest.Ring) { r.Offer(vhosttest.QueueSize) },
		"index runs ahead":  func(r *vhosttest.Ring) { le.PutUint16(r.Avail[2:], le.Uint16(r.Avail[2:])+vhosttest.QueueSize+1) },
		"index runs back":   func(r *vhosttest.Ring) { le.PutUint16(r.Avail[2:], le.Uint16(r.Avail[2:])-1) },
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, true, 0)
			ask(t, r, 0, "fine so far")
			breakIt(r.Rings[0])
			r.Rings[0].Kick()
			if err := r.ended(t); err == nil || !strings.Contains(err.Error(), "broken virtqueue 0") {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

// TestStop: after GET_VRING_BASE nothing is written to the rings, even for a held
// chain; and the ring can start again.
func TestStop(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	ring := r.Rings[0]
	ask(t, r, 0, "one")
	parked := ring.Submit([]byte("park"), 4)
	ask(t, r, 0, "two")
	base, err := r.Call(vhosttest.GetVringBase, vhosttest.State(0, 0))
	must(t, err)
	if got := le.Uint32(base[4:]); got != 3 {
		t.Errorf("base %d, want 3", got)
	}
	if r.dev.resets != 1 {
		t.Errorf("%d resets", r.dev.resets)
	}
	used := bytes.Clone(ring.Used)
	if r.dev.unpark() != 1 {
		t.Error("nothing was parked")
	}
	if !bytes.Equal(used, ring.Used) {
		t.Error("the ring was written after it was stopped")
	}
	ring.Forget()
	if _, err := parked.Wait(); err == nil {
		t.Error("answered")
	}
	must(t, ring.Run())
	ask(t, r, 0, "three")
}

// TestMemoryChanges: the memory of running rings is replaced.
func TestMemoryChanges(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	ask(t, r, 0, "before")
	for i := range uint64(100) {
		fd, err := unix.MemfdCreate("more", unix.MFD_CLOEXEC)
		must(t, err)
		must(t, unix.Ftruncate(fd, 8192))
		must(t, r.Set(vhosttest.AddMemReg, vhosttest.Region(1<<32+i<<16, 4096, 1<<33+i<<16, 4096), fd))
		_ = unix.Close(fd)
		ask(t, r, 0, "between")
	}
	for i := range uint64(100) {
		must(t, r.Set(vhosttest.RemMemReg, vhosttest.Region(1<<32+i<<16, 4096, 1<<33+i<<16, 4096)))
		ask(t, r, 1, "between")
	}
}

// TestRingsVanish: REM_MEM_REG takes the memory that holds the rings.
func TestRingsVanish(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	must(t, r.Set(vhosttest.RemMemReg, r.RAMRegion()))
	r.Rings[0].Kick()
	if err := r.ended(t); err == nil || !strings.Contains(err.Error(), "outside guest memory") {
		t.Errorf("serve: %v", err)
	}
}

// TestBadMessages: each ends Serve with an error, and leaves nothing.
func TestBadMessages(t *testing.T) {
	checkLeaks(t)
	msg := vhosttest.Message
	st := vhosttest.State
	for _, c := range []struct {
		name string
		raw  []byte
		fds  int
	}{
		{"version", append(le.AppendUint32(le.AppendUint32(nil, 1), 2), 0, 0, 0, 0), 0},
		{"too long", append(le.AppendUint32(le.AppendUint32(nil, 1), 1), 0xff, 0xff, 0, 0), 0},
		{"unknown", msg(99, 0, nil), 0},
		{"too short", msg(vhosttest.SetFeatures, 0, []byte{1, 2}), 0},
		{"features not offered", msg(vhosttest.SetFeatures, 0, vhosttest.U64(1<<63)), 0},
		{"vring 2", msg(vhosttest.SetVringNum, 0, st(2, 8)), 0},
		{"vring -1", msg(vhosttest.SetVringNum, 0, st(1<<32-1, 8)), 0},
		{"size 0", msg(vhosttest.SetVringNum, 0, st(0, 0)), 0},
		{"size 3", msg(vhosttest.SetVringNum, 0, st(0, 3)), 0},
		{"size 65536", msg(vhosttest.SetVringNum, 0, st(0, 1<<16)), 0},
		{"kick without a descriptor", msg(vhosttest.SetVringKick, 0, vhosttest.U64(0)), 0},
		{"kick by polling", msg(vhosttest.SetVringKick, 0, vhosttest.U64(1<<8)), 0},
		{"kick with two descriptors", msg(vhosttest.SetVringKick, 0, vhosttest.U64(0)), 2},
		{"call without a descriptor", msg(vhosttest.SetVringCall, 0, vhosttest.U64(0)), 0},
		{"channel without a descriptor", msg(vhosttest.SetBackendReqFD, 0, nil), 0},
		{"channel that is no socket", msg(vhosttest.SetBackendReqFD, 0, nil), 1},
		{"memory without a descriptor", msg(vhosttest.AddMemReg, 0, vhosttest.Region(0, 4096, 0, 0)), 0},
		{"memory of no file", msg(vhosttest.AddMemReg, 0, vhosttest.Region(0, 4096, 0, 0)), 1},
		{"memory of no size", msg(vhosttest.AddMemReg, 0, vhosttest.Region(0, 0, 0, 0)), 1},
		{"memory that wraps", msg(vhosttest.AddMemReg, 0, vhosttest.Region(1<<64-4096, 8192, 0, 0)), 1},
		{"memory table too long", msg(vhosttest.SetMemTable, 0, st(9, 0)), 0},
		{"memory table cut short", msg(vhosttest.SetMemTable, 0, st(1, 0)), 1},
		{"no such memory", msg(vhosttest.RemMemReg, 0, vhosttest.Region(0, 4096, 0, 0)), 0},
		{"config beyond its end", msg(vhosttest.GetConfig, 0, append(st(250, 100), make([]byte, 104)...)), 0},
		{"config without its head", msg(vhosttest.GetConfig, 0, []byte{1}), 0},
		{"enabled before its address", append(msg(vhosttest.SetVringNum, 0, st(0, 8)), msg(vhosttest.SetVringEnable, 0, st(0, 1))...), 0},
		{"nine descriptors", msg(vhosttest.SetOwner, 0, nil), 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, false, 0)
			var fds []int
			for range c.fds {
				fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
				must(t, err)
				defer unix.Close(fd)
				fds = append(fds, fd)
			}
			if c.name == "enabled before its address" {
				kick := vhosttest.Message(vhosttest.SetVringKick, 0, vhosttest.U64(0))
				fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
				must(t, err)
				defer unix.Close(fd)
				must(t, r.Write(kick, fd))
			}
			_ = r.Write(c.raw, fds...) // the device may have ended already
			if err := r.ended(t); err == nil {
				t.Error("serve ended without an error")
			}
			if r.dev.closed != 1 {
				t.Error("the device was not closed")
			}
		})
	}
}

// TestCutOff: the front end leaves in the middle of a message, or ctx is cancelled.
func TestCutOff(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	must(t, r.Write(vhosttest.Message(vhosttest.SetFeatures, 0, vhosttest.U64(0))[:15]))
	if err := r.close(); err == nil {
		t.Error("half a message is no error")
	}
	r = newRig(t, true, 0)
	r.cancel()
	if err := r.ended(t); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestManySessions: 200 front ends come and go.
func TestManySessions(t *testing.T) {
	checkLeaks(t)
	for range 200 {
		r := newRig(t, true, 0)
		ask(t, r, 0, "hello")
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestMap(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	fd, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Ftruncate(fd, 8192))
	m := vhost.Mapping{Region: 1, Offset: 4096, Len: 8192}
	gone := 0
	for k := range 20 {
		must(t, r.dev.be.Map(fd, m, func() { gone++ }))
		if gone != k {
			t.Fatalf("%d of %d mappings are gone, and one is there", gone, k)
		}
		copy(r.Window(4096), "hello")
		var got [5]byte
		if _, err := unix.Pread(fd, got[:], 0); err != nil || string(got[:]) != "hello" {
			t.Fatalf("%q, %v", got, err)
		}
		// The mapping is a memory region now, as with QEMU.
		must(t, r.dev.be.Memory.ReadAt(vhosttest.WindowBase+4096, got[:]))
		must(t, r.dev.be.Unmap(m))
	}
	if err := r.dev.be.Unmap(m); err == nil {
		t.Error("unmapped twice")
	}
	r.Refuse(func(_, _ uint64) error { return errors.New("no") })
	if err := r.dev.be.Map(fd, m, func() { gone++ }); !errors.Is(err, vhost.ErrRefused) || gone != 21 {
		t.Errorf("refused: %v, %d gone", err, gone)
	}
}

// TestStopWhileMapping: QEMU stops the rings while it has not answered SHMEM_MAP.
// Neither waits for the other.
func TestStopWhileMapping(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	fd, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Ftruncate(fd, 4096))
	asked, answer := make(chan struct{}), make(chan struct{})
	var once sync.Once
	r.Refuse(func(_, _ uint64) error {
		once.Do(func() { close(asked); <-answer })
		return nil
	})
	mapped := make(chan error, 1)
	var first, second atomic.Bool
	go func() {
		mapped <- r.dev.be.Map(fd, vhost.Mapping{Region: 1, Len: 4096}, func() { first.Store(true) })
	}()
	<-asked
	for i := range r.Rings {
		_, err := r.Call(vhosttest.GetVringBase, vhosttest.State(uint32(i), 0))
		must(t, err)
	}
	close(answer)
	if err := <-mapped; !errors.Is(err, vhost.ErrReset) {
		t.Errorf("map: %v", err)
	}
	if first.Load() {
		t.Error("told that it is gone while the front end has it")
	}
	// The mappings of the former life go before the next mapping.
	must(t, r.dev.be.Map(fd, vhost.Mapping{Region: 1, Len: 4096}, func() { second.Store(true) }))
	if n := r.Mappings(); n != 1 || !first.Load() || second.Load() {
		t.Errorf("%d mappings; gone: %v, %v", n, first.Load(), second.Load())
	}
	// They also go if the memory is needed, and at last with the front end.
	for i := range r.Rings {
		_, err := r.Call(vhosttest.GetVringBase, vhosttest.State(uint32(i), 0))
		must(t, err)
	}
	for _, ring := range r.Rings {
		must(t, ring.Run())
	}
	for i := range r.Rings {
		_, err := r.Call(vhosttest.GetVringBase, vhosttest.State(uint32(i), 0))
		must(t, err)
	}
	r.dev.be.Sweep()
	if n := r.Mappings(); n != 0 || !second.Load() {
		t.Errorf("%d mappings are left; gone: %v", n, second.Load())
	}
	var third atomic.Bool
	must(t, r.dev.be.Map(fd, vhost.Mapping{Region: 1, Len: 4096}, func() { third.Store(true) }))
	must(t, r.close())
	if !third.Load() {
		t.Error("a mapping outlives the front end")
	}
}

// TestCloseWhileMapping: the front end leaves while a map waits for it.
func TestCloseWhileMapping(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, true, 0)
	r.Silence()
	fd, err := unix.MemfdCreate("shared", unix.MFD_CLOEXEC)
	must(t, err)
	defer unix.Close(fd)
	must(t, unix.Ftruncate(fd, 4096))
	mapped := make(chan error, 1)
	start := time.Now()
	go func() { mapped <- r.dev.be.Map(fd, vhost.Mapping{Region: 1, Len: 4096}, func() {}) }()
	for r.Mappings() == 0 {
		runtime.Gosched()
	}
	if err := r.close(); err != nil {
		t.Error(err)
	}
	if err := <-mapped; err == nil {
		t.Error("mapped after the end")
	}
	if d := time.Since(start); d > time.Second {
		t.Errorf("took %v", d)
	}
}

func BenchmarkRequest(b *testing.B) {
	for name, features := range ringKinds {
		b.Run(name, func(b *testing.B) {
			r := newRig(b, true, features)
			req := bytes.Repeat([]byte("r"), 400)
			q := r.Rings[0].Submit(req, 24)
			_, err := q.Wait()
			must(b, err)
			b.ReportAllocs()
			b.SetBytes(int64(len(req)))
			for b.Loop() {
				q.Again()
				if _, err := q.Wait(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
