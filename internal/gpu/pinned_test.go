package gpu_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/filter"
	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/ledger"
	"vix/internal/virtwl"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// The tests TestPinned… play a guest that gives back its own handle of memory as soon
// as something else holds it: the limit counts the memory, whoever holds it.

const (
	pinLimit = 4 << 20 // blob-bytes
	pinSize  = 1 << 20 // of each blob
	pinTries = 5 * pinLimit / pinSize
)

// alive returns the memory of distinct files of that name that this process holds as a
// descriptor or a mapping. The process is the device, the relay, the compositor and the
// guest in one.
func alive(t *testing.T, name string) (bytes int64) {
	t.Helper()
	files := map[uint64]int64{}
	ds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("lacks: /proc/self/fd")
	}
	for _, d := range ds {
		path := "/proc/self/fd/" + d.Name()
		if l, _ := os.Readlink(path); !strings.Contains(l, "memfd:"+name) {
			continue
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil {
			files[st.Ino] = st.Size
		}
	}
	maps, err := os.Open("/proc/self/maps")
	must(t, err)
	defer maps.Close()
	for s := bufio.NewScanner(maps); s.Scan(); {
		var from, to, off, ino uint64
		var mode, dev string
		if !strings.Contains(s.Text(), "memfd:"+name) {
			continue
		}
		if _, err := fmt.Sscanf(s.Text(), "%x-%x %s %x %s %d", &from, &to, &mode, &off, &dev, &ino); err != nil {
			t.Fatal(err)
		}
		files[ino] = max(files[ino], int64(to-from+off))
	}
	for _, n := range files {
		bytes += n
	}
	return bytes
}

// pinRig is a guest before a filter and a compositor.
type pinRig struct {
	*rig
	led  *ledger.Ledger
	comp *compositor
	c    *gputest.Conn
	next uint32 // object id

	listens sync.WaitGroup
	mu      sync.Mutex
	data    []byte
}

// eachPinned runs f twice: with one ledger for device and filter, and with separate
// ledgers, where only the holds of descriptors connect the two.
func eachPinned(t *testing.T, limits display.Limits, f func(t *testing.T, r *pinRig)) {
	for _, one := range []bool{true, false} {
		t.Run(map[bool]string{true: "one ledger", false: "two ledgers"}[one], func(t *testing.T) {
			checkLeaks(t)
			l := gpu.Limits{BlobBytes: pinLimit}
			r := &pinRig{led: ledger.New(l.Ledger()), next: 2}
			near, far := waylandtest.Pair(t)
			r.comp = newCompositor(t, near)
			cfg := filter.Config{VM: "a", Tag: "a", Log: slog.New(slog.DiscardHandler), Limits: limits,
				Dial: func() (wayland.Transport, error) { return far, nil }}
			if one {
				cfg.Ledger = r.led
			}
			flt := filter.New(cfg)
			r.rig = newRig(t, gpu.Config{Limits: l, Ledger: r.led, Accept: func(tr wayland.Transport) { _ = flt.Serve(context.Background(), tr) }}, gputest.Features)
			t.Cleanup(r.comp.close) // before the device, which waits for the filter
			var err error
			r.c, err = r.Connect(nil)
			must(t, err)
			f(t, r)
			must(t, r.c.Close())
			r.listens.Wait() // it reads the guest's memory, which close takes away
			r.comp.close()
			r.drained(t)
			_ = r.close()
			flt.Wait()
			if n := alive(t, "vix-blob"); n != 0 {
				t.Errorf("%d bytes of memory are left", n)
			}
		})
	}
}

// until waits for a state that has no event.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(deadline) {
			t.Fatal("in vain: " + what)
		}
		time.Sleep(time.Millisecond)
	}
}

func (r *pinRig) drained(t *testing.T) {
	t.Helper()
	until(t, "nothing stands in the ledger", func() bool {
		u := r.led.Use()
		return u.Bytes == 0 && u.Files == 0 && u.Shown == 0 && u.Queued == 0 && u.Descriptors == 0
	})
}

// blob makes a blob and touches it, or reports that there is no more memory.
func (r *pinRig) blob(t *testing.T) (res uint32, ok bool) {
	t.Helper()
	res, mem, err := r.c.Blob(pinSize)
	if err != nil {
		if !strings.Contains(err.Error(), fmt.Sprintf("answer %#x", gputest.ErrMemory)) {
			t.Fatal(err)
		}
		return 0, false
	}
	for off := 0; off < len(mem); off += virtwl.PageSize {
		mem[off] = 1
	}
	return res, true
}

// pin pins as much memory as the guest can get, one blob at a time, and checks
// that it is no more than the limit.
func (r *pinRig) pin(t *testing.T, how func(res uint32, k int)) {
	t.Helper()
	n := 0
	for ; n < pinTries; n++ {
		res, ok := r.blob(t)
		if !ok {
			break
		}
		how(res, n)
		if m := alive(t, "vix-blob"); m > pinLimit {
			t.Fatalf("%d bytes of memory with a limit of %d", m, pinLimit)
		}
	}
	if n != pinLimit/pinSize {
		t.Errorf("%d blobs of %d bytes with a limit of %d", n, pinSize, pinLimit)
	}
	if u := r.led.Use(); u.Bytes != pinLimit {
		t.Errorf("%+v stands in the ledger", u)
	}
}

// maxSend is the room for one request in the front end of these tests.
const maxSend = 3000

// send submits the data in as many SENDs as necessary.
func (r *pinRig) send(t *testing.T, b []byte, res ...uint32) {
	t.Helper()
	var ids []virtwl.Identifier
	for _, id := range res {
		ids = append(ids, virtwl.Identifier{ID: id, Type: virtwl.IDMemory})
	}
	for len(b) > maxSend {
		must(t, r.c.Submit(gputest.SendCmd(b[:maxSend], ids...)))
		b, ids = b[maxSend:], nil
	}
	must(t, r.c.Submit(gputest.SendCmd(b, ids...)))
}

func (r *pinRig) id() uint32 { r.next++; return r.next - 1 }

// listen reads the host's data, until the context is closed.
func (r *pinRig) listen() {
	r.listens.Go(func() {
		for {
			e, err := r.c.Next()
			if err != nil || e.Cmd == virtwl.CmdReceive && len(e.Data) == 0 {
				return
			}
			r.mu.Lock()
			if len(r.data) < 4096 {
				r.data = append(r.data, e.Data...)
			}
			r.mu.Unlock()
		}
	})
}

// heard is the beginning of the received data.
func (r *pinRig) heard() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return string(r.data)
}

// bind gets the compositor's globals.
func (r *pinRig) bind(t *testing.T) (comp, shm uint32) {
	t.Helper()
	r.listen()
	reg := r.id()
	comp, shm = r.id(), r.id()
	var e wayland.Encoder
	e.Msg(1, wayland.WlDisplayReqGetRegistry, reg)
	for _, g := range []struct {
		name, id uint32
		iface    string
		version  uint32
	}{{1, comp, "wl_compositor", 1}, {2, shm, "wl_shm", 1}} {
		must(t, e.Put(reg, wayland.WlRegistryReqBind, g.name, g.iface, g.version, g.id))
	}
	r.send(t, e.B[:12])
	until(t, "globals", func() bool {
		return strings.Contains(r.heard(), "wl_shm") && strings.Contains(r.heard(), "wl_compositor")
	})
	r.send(t, e.B[12:])
	return comp, shm
}

// TestPinnedByMessage: descriptors ahead of a message that never ends.
func TestPinnedByMessage(t *testing.T) {
	eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
		// get_registry has 12 bytes; the header announces 252
		head := []byte{1, 0, 0, 0, 1, 0, 252, 0}
		r.pin(t, func(res uint32, k int) {
			b := []byte{0}
			if k < len(head) {
				b[0] = head[k]
			}
			r.send(t, b, res)
			must(t, r.Drop(res))
		})
	})
}

// TestPinnedByStopped: descriptors on a connection whose compositor does not read.
func TestPinnedByStopped(t *testing.T) {
	eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
		r.comp.stop()
		for range 8 {
			var e wayland.Encoder
			for range 5000 {
				e.Msg(1, wayland.WlDisplayReqSync, r.id())
			}
			r.send(t, e.B)
		}
		r.pin(t, func(res uint32, _ int) {
			r.send(t, []byte{0}, res)
			must(t, r.Drop(res))
		})
	})
}

// TestPinnedByDelay: descriptors on a throttled connection.
func TestPinnedByDelay(t *testing.T) {
	var l display.Limits
	l[display.Requests] = 1
	eachPinned(t, l, func(t *testing.T, r *pinRig) {
		var e wayland.Encoder
		for range 1000 {
			e.Msg(1, wayland.WlDisplayReqSync, r.id())
		}
		r.send(t, e.B)
		r.pin(t, func(res uint32, _ int) {
			r.send(t, []byte{0}, res)
			must(t, r.Drop(res))
		})
	})
}

// TestPinnedByCompositor: the guest destroys all but one of its pools, buffers and
// surfaces; after the last one there is room again.
func TestPinnedByCompositor(t *testing.T) {
	for name, keep := range map[string]string{"pool": "pool", "buffer": "buffer", "attached": "attached", "committed": "committed"} {
		t.Run(name, func(t *testing.T) {
			eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
				comp, shm := r.bind(t)
				var undo []func(e *wayland.Encoder)
				pin := func(res uint32, _ int) {
					pool, buf, surface := r.id(), r.id(), r.id()
					var e wayland.Encoder
					e.Msg(shm, wayland.WlShmReqCreatePool, pool, pinSize)
					e.Msg(pool, wayland.WlShmPoolReqCreateBuffer, buf, 0, 64, 64, 256, 0)
					e.Msg(comp, wayland.WlCompositorReqCreateSurface, surface)
					switch keep {
					case "pool":
						e.Msg(buf, wayland.WlBufferReqDestroy)
						undo = append(undo, func(e *wayland.Encoder) { e.Msg(pool, wayland.WlShmPoolReqDestroy) })
					case "buffer":
						e.Msg(pool, wayland.WlShmPoolReqDestroy)
						undo = append(undo, func(e *wayland.Encoder) { e.Msg(buf, wayland.WlBufferReqDestroy) })
					default:
						e.Msg(surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
						if keep == "committed" {
							e.Msg(surface, wayland.WlSurfaceReqCommit)
						}
						e.Msg(buf, wayland.WlBufferReqDestroy)
						e.Msg(pool, wayland.WlShmPoolReqDestroy)
						undo = append(undo, func(e *wayland.Encoder) {
							for range 2 {
								e.Msg(surface, wayland.WlSurfaceReqAttach, 0, 0, 0)
								e.Msg(surface, wayland.WlSurfaceReqCommit)
							}
						})
					}
					r.send(t, e.B, res)
					must(t, r.Drop(res))
				}
				r.pin(t, pin)
				for _, f := range undo {
					var e wayland.Encoder
					f(&e)
					r.send(t, e.B)
				}
				until(t, "what is destroyed is given back", func() bool { return r.led.Use().Bytes == 0 })
				r.pin(t, pin)
			})
		})
	}
}

// TestPinnedByResources: each resource of one blob id has memory of its own.
func TestPinnedByResources(t *testing.T) {
	eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
		var have []uint32
		for {
			res := r.NewRes()
			typ, _, err := r.Do(gputest.CreateBlob, r.c.Ctx, gputest.BlobBody(res, 2, 1<<31|pinSize/virtwl.PageSize, pinSize))
			must(t, err)
			if typ != gputest.OK {
				if typ != gputest.ErrMemory {
					t.Fatalf("answer %#x", typ)
				}
				break
			}
			have = append(have, res)
		}
		if n := alive(t, "vix-blob"); n != pinLimit || len(have) != pinLimit/pinSize {
			t.Errorf("%d resources, %d bytes", len(have), n)
		}
		for _, res := range have {
			_, err := r.Expect(gputest.OK, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
			must(t, err)
		}
	})
}

// TestPinnedByMapping: resources freed while mapped, with a front end
// that unmaps them slowly or never; and mappings that a reset leaves.
func TestPinnedByMapping(t *testing.T) {
	unref := func(t *testing.T, r *pinRig, res uint32) {
		_, err := r.Expect(gputest.OK, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
		must(t, err)
	}
	t.Run("kept", func(t *testing.T) {
		eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
			var have []uint32
			r.pin(t, func(res uint32, _ int) { have = append(have, res) })
			for _, res := range have {
				unref(t, r, res)
			}
			if n := r.led.Use().Bytes; n != 0 || r.fe.Mappings() != 0 {
				t.Errorf("%d bytes stand in the ledger, %d mappings", n, r.fe.Mappings())
			}
		})
	})
	t.Run("slow", func(t *testing.T) {
		eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
			var have []uint32
			r.pin(t, func(res uint32, _ int) { have = append(have, res) })
			asked, answer := make(chan struct{}, len(have)), make(chan struct{})
			r.fe.Refuse(func(_, _ uint64) error { asked <- struct{}{}; <-answer; return nil })
			for _, res := range have {
				r.Control.Submit(append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(res, 0)...), gputest.AnswerSize).Forget()
			}
			<-asked
			if n := r.led.Use().Bytes; n != pinLimit {
				t.Errorf("%d bytes stand in the ledger while nothing is unmapped", n)
			}
			if _, ok := r.blob(t); ok {
				t.Error("there is memory for another blob")
			}
			close(answer)
			until(t, "unmapped memory is given back", func() bool { return r.led.Use().Bytes == 0 })
		})
	})
	t.Run("refused", func(t *testing.T) {
		eachPinned(t, display.Limits{}, func(t *testing.T, r *pinRig) {
			res, ok := r.blob(t)
			r.fe.Refuse(func(_, _ uint64) error { return errors.New("no") })
			unref(t, r, res)
			if n := r.led.Use().Bytes; !ok || n != pinSize {
				t.Errorf("%d bytes stand in the ledger, and the front end has it mapped", n)
			}
			r.fe.Refuse(nil)
			res, _ = r.blob(t)
			unref(t, r, res)
			if n := r.led.Use().Bytes; n != 0 || r.fe.Mappings() != 0 {
				t.Errorf("%d bytes stand in the ledger, %d mappings", n, r.fe.Mappings())
			}
		})
	})
}

// TestPinnedByKeymaps: copies of the compositor's memory, taken by the guest or not.
func TestPinnedByKeymaps(t *testing.T) {
	for _, take := range []bool{false, true} {
		t.Run(fmt.Sprintf("taken %v", take), func(t *testing.T) {
			checkLeaks(t)
			led := ledger.New(gpu.Limits{BlobBytes: pinLimit}.Ledger())
			r := newRig(t, gpu.Config{Ledger: led}, gputest.Features)
			for range 3 { // a connection ends with its memory
				c, err := r.Connect(nil)
				must(t, err)
				most := 0
				for n := range pinTries {
					must(t, c.Submit(gputest.SendCmd(request('K', pinSize))))
					e, err := c.Next()
					must(t, err)
					if len(e.Data) == 0 {
						break // refused: the connection is over
					}
					most = n + 1
					if take {
						id := e.Msg.IDs[0]
						res := r.NewRes()
						_, err := r.Expect(gputest.OK, gputest.CreateBlob, c.Ctx, gputest.BlobBody(res, 2, uint64(id.ID), uint64(id.Size)))
						must(t, err)
						defer func() { _, _ = r.Expect(gputest.OK, gputest.ResourceUnref, 0, gputest.U32s(res, 0)) }()
					}
					if m := alive(t, "vix-received"); m > pinLimit {
						t.Fatalf("%d bytes of memory with a limit of %d", m, pinLimit)
					}
				}
				if want := pinLimit / pinSize; most > want {
					t.Errorf("%d copies", most)
				}
				must(t, c.Close())
			}
		})
	}
}

// TestPinnedByPipes: data that the guest writes to pipes without a reader, and pipes
// that the host reads for a guest that does not fetch the data.
func TestPinnedByPipes(t *testing.T) {
	checkLeaks(t)
	const queued, files = 1 << 20, 40
	var mu sync.Mutex
	var near []*os.File
	host := func(tr wayland.Transport) {
		defer tr.Close()
		var ds []wayland.Desc
		for buf := make([]byte, 64); ; {
			n, more, err := tr.Recv(buf, nil)
			ds = append(ds, more...)
			if err != nil {
				break
			}
			if n > 0 && buf[0] == 'P' {
				r, w, err := os.Pipe()
				if err != nil {
					t.Error(err)
					break
				}
				mu.Lock()
				near = append(near, r)
				mu.Unlock()
				fd, _ := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
				_ = w.Close()
				if tr.Send([]byte("pipe"), []wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, fd)}) != nil {
					break
				}
			}
		}
		for _, d := range ds {
			_, _ = unix.Write(d.FD, make([]byte, 4096))
		}
		wayland.CloseAll(ds)
	}
	led := ledger.New(gpu.Limits{QueuedBytes: queued, Descriptors: files}.Ledger())
	r := newRig(t, gpu.Config{Ledger: led, Accept: host}, gputest.Features)
	check := func() {
		t.Helper()
		if u := led.Use(); u.Queued > queued || u.Descriptors > files {
			t.Errorf("%+v", u)
		}
	}
	var cs []*gputest.Conn
	for range 20 { // WRITE
		c, err := r.Connect(nil)
		must(t, err)
		cs = append(cs, c)
		if c.Submit(gputest.SendCmd(request('P', 0))) != nil {
			break // the queues of all are full
		}
		_, ids := recv(t, c, 4)
		for range 100 {
			if c.Submit(gputest.WriteCmd(ids[0].ID, make([]byte, maxSend), false)) != nil {
				break
			}
			check()
		}
	}
	if u := led.Use(); u.Queued < queued/2 {
		t.Errorf("%+v: the limit was not reached", u)
	}
	for range 20 { // READ
		c, err := r.Connect(nil)
		must(t, err)
		cs = append(cs, c)
		for id := uint32(virtwl.PipeReadStart + 1); ; id++ {
			if c.Submit(gputest.SendCmd(request('R', 1000), virtwl.Identifier{ID: id, Type: virtwl.IDReadPipe})) != nil {
				break
			}
			check()
		}
	}
	for _, c := range cs {
		must(t, c.Close())
	}
	mu.Lock()
	for _, f := range near {
		_ = f.Close()
	}
	mu.Unlock()
	until(t, "pipes are given back", func() bool { return led.Use() == ledger.Use{} })
}

// A compositor for one connection, which keeps a pool's descriptor as long as a
// real one would keep the mapping.
type compositor struct {
	peer   *waylandtest.Peer
	done   chan struct{}
	gate   sync.Mutex // held: it has stopped
	halted bool

	mu      sync.Mutex
	objects map[uint32]any
}

type compPool struct{ fd, refs int }

type compBuffer struct{ pool *compPool }

type compSurface struct {
	pending, current *compPool
	attached         bool
}

func (p *compPool) drop() {
	if p == nil {
		return
	}
	if p.refs--; p.refs == 0 {
		_ = unix.Close(p.fd)
	}
}

func newCompositor(t *testing.T, tr *wayland.UnixConn) *compositor {
	c := &compositor{peer: &waylandtest.Peer{T: t, Tr: tr}, done: make(chan struct{}), objects: map[uint32]any{1: "wl_display"}}
	go func() {
		defer close(c.done)
		for {
			m, err := c.peer.Next()
			c.gate.Lock()
			c.gate.Unlock() //nolint:staticcheck // waits while it has stopped
			if err != nil {
				return
			}
			c.handle(m)
		}
	}()
	t.Cleanup(c.close)
	return c
}

// stop makes it stop after the current message.
func (c *compositor) stop() {
	c.gate.Lock()
	c.halted = true
}

func (c *compositor) close() {
	_ = c.peer.Tr.Close()
	if c.halted {
		c.halted = false
		c.gate.Unlock()
	}
	<-c.done
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, o := range c.objects {
		c.drop(o)
		delete(c.objects, id)
	}
	wayland.CloseAll(c.peer.Descs)
	c.peer.Descs = nil
}

func (c *compositor) drop(o any) {
	switch o := o.(type) {
	case *compPool:
		o.drop()
	case *compBuffer:
		o.pool.drop()
	case *compSurface:
		o.pending.drop()
		o.current.drop()
	}
}

func (c *compositor) handle(m waylandtest.Msg) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var e wayland.Encoder
	gone := func(id uint32) {
		c.drop(c.objects[id])
		delete(c.objects, id)
		e.Msg(1, wayland.WlDisplayEvtDeleteId, id)
	}
	switch o := c.objects[m.ID].(type) {
	case string:
		switch {
		case o == "wl_display" && m.Op == wayland.WlDisplayReqSync:
			e.Msg(m.Word(0), wayland.WlCallbackEvtDone, 0)
			gone(m.Word(0))
		case o == "wl_display":
			c.objects[m.Word(0)] = "wl_registry"
			for name, iface := range map[uint32]string{1: "wl_compositor", 2: "wl_shm"} {
				_ = e.Put(m.Word(0), wayland.WlRegistryEvtGlobal, name, iface, 1)
			}
		case o == "wl_registry":
			d := wayland.NewDecoder(m.Body)
			_ = d.Uint()
			iface := string(d.String())
			_ = d.Uint()
			c.objects[d.Uint()] = iface
		case o == "wl_shm":
			c.objects[m.Word(0)] = &compPool{c.peer.Descs[0].FD, 1}
			c.peer.Descs = c.peer.Descs[1:]
		case o == "wl_compositor":
			c.objects[m.Word(0)] = &compSurface{}
		}
	case *compPool:
		if m.Op == wayland.WlShmPoolReqCreateBuffer {
			o.refs++
			c.objects[m.Word(0)] = &compBuffer{o}
		} else {
			gone(m.ID)
		}
	case *compBuffer:
		gone(m.ID)
	case *compSurface:
		switch m.Op {
		case wayland.WlSurfaceReqAttach:
			o.pending.drop()
			o.pending, o.attached = nil, true
			if b, ok := c.objects[m.Word(0)].(*compBuffer); ok {
				b.pool.refs++
				o.pending = b.pool
			}
		case wayland.WlSurfaceReqCommit:
			if o.attached {
				o.current.drop()
				o.current, o.pending, o.attached = o.pending, nil, false
			}
		case wayland.WlSurfaceReqDestroy:
			gone(m.ID)
		}
	}
	if len(e.B) > 0 {
		_ = c.peer.Tr.Send(e.B, nil) // a closed peer needs no event
	}
}
