package gpu_test

import (
	"encoding/binary"
	"math/rand/v2"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

func mapBody(res uint32, offset uint64) []byte {
	return binary.LittleEndian.AppendUint64(gputest.U32s(res, 0), offset)
}

// do submits a command whose answer may be anything, and waits for it.
func (a *attackRig) do(t *testing.T, cmd, ctx uint32, body []byte) uint32 {
	t.Helper()
	q := a.Control.Submit(append(gputest.Header(cmd, ctx, 0, -1), body...), gputest.AnswerSize)
	typ, err := await(q)
	must(t, err)
	return typ
}

// submit is do for a cross-domain command.
func (a *attackRig) submit(t *testing.T, c *gputest.Conn, cmd []byte) uint32 {
	t.Helper()
	typ, err := await(c.Start(cmd, -1))
	must(t, err)
	return typ
}

// TestAttackForeignResources: a context names resources that are not attached to it, as
// memory and as rings.
func TestAttackForeignResources(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		victim, err := a.Connect(nil)
		must(t, err)
		res, mem, err := victim.Blob(4096)
		must(t, err)
		copy(mem, "secret")
		for _, id := range []uint32{res, victim.QueryRes, victim.ChannelRes, 0, 1 << 31, ^uint32(0)} {
			c, err := a.Connect(nil)
			must(t, err)
			if typ := a.submit(t, c, gputest.SendCmd(request('B', 4096), virtwl.Identifier{ID: id, Type: virtwl.IDMemory})); typ == gputest.OK {
				t.Errorf("resource %#x of another context was sent", id)
			}
			must(t, c.Close())
			d, err := a.Context(nil)
			must(t, err)
			for _, i := range []virtwl.Init{
				{QueryRing: id, ChannelRing: d.ChannelRes, Channel: virtwl.ChannelWayland},
				{QueryRing: d.QueryRes, ChannelRing: id, Channel: virtwl.ChannelWayland},
			} {
				if typ := a.submit(t, d, virtwl.AppendInit(nil, i)); typ == gputest.OK {
					t.Errorf("resource %#x of another context is a ring", id)
				}
			}
			must(t, d.Close())
		}
		if string(mem[:6]) != "secret" {
			t.Error("its memory was written")
		}
		must(t, a.Drop(res))
		must(t, victim.Close())
	})
}

// TestAttackInit: INIT twice, with invalid rings, of every length.
func TestAttackInit(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		for _, i := range []virtwl.Init{{Channel: 1}, {QueryRing: 1 << 30, ChannelRing: 1 << 30, Channel: 1}, {Channel: 0}, {Channel: 2}, {Channel: 1 << 31}} {
			c, err := a.Context(nil)
			must(t, err)
			if a.submit(t, c, gputest.SendCmd([]byte("early"))) == gputest.OK {
				t.Error("SEND before INIT")
			}
			if i.Channel != 1 {
				i.QueryRing, i.ChannelRing = c.QueryRes, c.ChannelRes
			}
			for range 3 {
				if a.submit(t, c, virtwl.AppendInit(nil, i)) == gputest.OK {
					t.Errorf("INIT %+v was accepted", i)
				}
			}
			must(t, c.Close())
		}
		c, err := a.Connect(nil)
		must(t, err)
		for size := range uint16(64) {
			cmd := virtwl.AppendInit(nil, virtwl.Init{QueryRing: c.QueryRes, ChannelRing: c.ChannelRes, Channel: 1})
			cmd = append(cmd, make([]byte, 64)...)
			binary.LittleEndian.PutUint16(cmd[2:], size)
			if a.submit(t, c, cmd[:max(size, 8)]) == gputest.OK {
				t.Errorf("a second INIT of %d bytes", size)
			}
		}
		must(t, a.echo(c, 7))
		res, _, err := c.Blob(4096) // host memory cannot be a ring
		must(t, err)
		d, err := a.Context(nil)
		must(t, err)
		a.do(t, gputest.CtxAttach, d.Ctx, gputest.U32s(res, 0))
		if a.submit(t, d, virtwl.AppendInit(nil, virtwl.Init{QueryRing: res, ChannelRing: res, Channel: 1})) == gputest.OK {
			t.Error("a host blob is a ring")
		}
		must(t, a.Drop(res))
		must(t, d.Close())
		must(t, c.Close())
	})
}

// TestAttackIdentifiers: SEND with identifiers of every type and with random numbers.
func TestAttackIdentifiers(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		rnd := rand.New(rand.NewPCG(5, 6))
		var again *gputest.Conn
		for i := range 300 {
			c, err := a.Connect(again)
			must(t, err)
			var ids []virtwl.Identifier
			for range 1 + rnd.IntN(virtwl.MaxIdentifiers) {
				id := virtwl.Identifier{ID: rnd.Uint32(), Type: rnd.Uint32N(7), Size: rnd.Uint32()}
				if i%2 == 0 {
					id.ID = virtwl.PipeReadStart + rnd.Uint32N(3)
				}
				ids = append(ids, id)
			}
			cmd := gputest.SendCmd(request('E', 1, 'x'), ids...)
			if i%10 == 0 {
				binary.LittleEndian.PutUint32(cmd[8:], rnd.Uint32()) // count
			}
			if i%10 == 1 {
				binary.LittleEndian.PutUint32(cmd[12:], rnd.Uint32()) // data size
			}
			a.submit(t, c, cmd)
			must(t, c.Close())
			again = c
		}
	})
}

// TestAttackReadPipes: ids out of order, repeated ids, and more pipes than
// allowed, without a reader.
func TestAttackReadPipes(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		for _, id := range []uint32{0, 1, virtwl.PipeReadStart, virtwl.PipeReadStart + 2, ^uint32(0)} {
			c, err := a.Connect(nil)
			must(t, err)
			if a.submit(t, c, gputest.SendCmd(request('R', 1), virtwl.Identifier{ID: id, Type: virtwl.IDReadPipe})) == gputest.OK {
				t.Errorf("id %#x is a pipe", id)
			}
			must(t, c.Close())
		}
		var cs []*gputest.Conn
		for range 20 {
			c, err := a.Connect(nil)
			must(t, err)
			cs = append(cs, c)
			for id := uint32(virtwl.PipeReadStart + 1); ; id++ {
				if a.submit(t, c, gputest.SendCmd(request('R', 100000), virtwl.Identifier{ID: id, Type: virtwl.IDReadPipe})) != gputest.OK {
					break
				}
				if id > virtwl.PipeReadStart+1000 {
					t.Fatal("pipes have no bound")
				}
			}
		}
		if n := countFDs(t); n > 1500 {
			t.Errorf("%d descriptors are open", n)
		}
		for _, c := range cs {
			must(t, c.Close())
		}
	})
}

// TestAttackWritePipe: the guest writes to a pipe that its reader, a program on the
// host, never reads, and hangs up. The pipe must not outlive the VM, nor prevent the
// device's end.
func TestAttackWritePipe(t *testing.T) {
	var readers []*os.File
	host := func(tr wayland.Transport) {
		for {
			req := make([]byte, 8)
			if n, _, err := tr.Recv(req, nil); err != nil || n < 1 || req[0] != 'P' {
				_ = tr.Close()
				return
			}
			r, w, err := os.Pipe()
			if err != nil {
				t.Error(err)
				return
			}
			readers = append(readers, r) // never read, and open for longer than the device lives
			fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
			_ = w.Close()
			if err != nil {
				t.Error(err)
				return
			}
			if err := tr.Send([]byte("pipe"), []wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, fd)}); err != nil {
				return
			}
		}
	}
	checkLeaks(t)
	r := newRig(t, gpu.Config{Accept: host}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	for range 10 {
		must(t, c.Submit(gputest.SendCmd(request('P', 0))))
		_, ids := recv(t, c, 4)
		for range 20 { // more than the kernel's pipe holds
			must(t, c.Submit(gputest.WriteCmd(ids[0].ID, make([]byte, 7000), false)))
		}
		must(t, c.Submit(gputest.WriteCmd(ids[0].ID, nil, true)))
	}
	must(t, c.Close())
	closed := make(chan error, 1)
	go func() { closed <- r.close() }()
	select {
	case err := <-closed:
		must(t, err)
	case <-time.After(2 * patience):
		t.Error("the device does not end: it still writes to pipes that nobody reads")
	}
	for _, f := range readers {
		_ = f.Close()
	}
}

// TestAttackFences: fences on every timeline without a waiter, on held commands and
// on others. Each comes back by the end of its context.
func TestAttackFences(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		var all []*vhosttest.Request
		for ring := range 130 {
			all = append(all, c.Start(gputest.SendCmd(request('E', 1, 'x')), ring))
		}
		for range 20 {
			all = append(all, c.Poll())
		}
		all = append(all, c.Start(virtwl.AppendHeader(nil, virtwl.Header{Cmd: virtwl.CmdPoll, Size: 8}), 255))
		a.settle(t)
		must(t, c.Close())
		for i, q := range all {
			if _, err := await(q); err != nil {
				t.Fatalf("fence %d: %v", i, err)
			}
		}
	})
}

// TestAttackNeverPolls: a guest that makes the host send much data and never reads it.
func TestAttackNeverPolls(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		var cs []*gputest.Conn
		for range 12 {
			c, err := a.Connect(nil)
			must(t, err)
			cs = append(cs, c)
			for i := 0; ; i++ {
				cmd := gputest.SendCmd(request('K', 60000))
				if i%2 == 1 {
					cmd = gputest.SendCmd(append(request('E', 4000), make([]byte, 4000)...))
				}
				if a.submit(t, c, cmd) != gputest.OK {
					break
				}
				if i > 10000 {
					t.Fatal("the queue has no bound")
				}
			}
		}
		a.settle(t)
		if m := measure(t); m.heap > 200<<20 {
			t.Errorf("%d bytes of heap", m.heap)
		}
		for _, c := range cs {
			must(t, c.Close())
		}
	})
}

// TestAttackContexts: more contexts than allowed, and as many connections as
// the host can be made to open, again and again.
func TestAttackContexts(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		var cs []*gputest.Conn
		for {
			c, err := a.Connect(nil)
			if err != nil {
				break
			}
			if cs = append(cs, c); len(cs) > 300 {
				t.Fatal("contexts have no bound")
			}
		}
		a.wantLog(t, "contexts", 256)
		for range 100 {
			if typ := a.do(t, gputest.CtxCreate, 9999, append(gputest.U32s(0, virtwl.CapsetID), make([]byte, 64)...)); typ != gputest.ErrMemory {
				t.Errorf("answer %#x", typ)
			}
		}
		if n := countLines(a.log.String(), "limit=contexts"); n > 10 {
			t.Errorf("%d lines in the log", n)
		}
		a.settle(t)
		for _, c := range cs {
			must(t, c.Close())
		}
		var again *gputest.Conn
		for range 500 {
			c, err := a.Connect(again)
			must(t, err)
			must(t, c.Close())
			again = c
		}
	})
}

func countLines(s, part string) (n int) {
	for i := 0; i+len(part) <= len(s); i++ {
		if s[i:i+len(part)] == part {
			n++
		}
	}
	return n
}

// TestAttackConnectionsClosing: the guest opens connections to a stuck compositor faster
// than their other ends close.
func TestAttackConnectionsClosing(t *testing.T) {
	host := &stuckHost{release: make(chan struct{})}
	attack(t, gpu.Config{Accept: host.accept}, func(a *attackRig) {
		defer close(host.release)
		var again *gputest.Conn
		refused := 0
		for range 1000 {
			c, err := a.Context(again)
			must(t, err)
			if a.submit(t, c, virtwl.AppendInit(nil, virtwl.Init{QueryRing: c.QueryRes, ChannelRing: c.ChannelRes, Channel: 1})) != gputest.OK {
				refused++
			} else {
				a.submit(t, c, gputest.SendCmd(make([]byte, 7000)))
			}
			must(t, c.Close())
			again = c
		}
		if n := host.open.Load(); n > 512 || refused == 0 {
			t.Errorf("%d connections, %d were refused", n, refused)
		}
	})
}

// TestAttackQueues: many connections whose other ends do not read: one bound holds for
// all their queues together.
func TestAttackQueues(t *testing.T) {
	host := &stuckHost{release: make(chan struct{})}
	attack(t, gpu.Config{Accept: host.accept}, func(a *attackRig) {
		defer close(host.release)
		data, total, refused := make([]byte, 7000), 0, 0
		var cs []*gputest.Conn
		for range 85 {
			c, err := a.Connect(nil)
			must(t, err)
			cs = append(cs, c)
			for range 120 { // below the bound of one connection
				if a.submit(t, c, gputest.SendCmd(data)) != gputest.OK {
					refused++
					break
				}
				total += len(data)
			}
		}
		if total > 68<<20 || refused == 0 {
			t.Errorf("%d bytes were queued, %d were refused", total, refused)
		}
		if m := measure(t); m.heap > 150<<20 {
			t.Errorf("%d bytes of heap", m.heap)
		}
		for _, c := range cs {
			must(t, c.Close())
		}
	})
}

// TestAttackImages: a flood of GET_IMAGE_REQUIREMENTS, of all sizes, costs nothing.
func TestAttackImages(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		rnd := rand.New(rand.NewPCG(7, 8))
		fourccs := []uint32{gputest.R8, 'X' | 'R'<<8 | '2'<<16 | '4'<<24, 0, 1}
		for i := range 6000 {
			q := virtwl.ImageQuery{Width: rnd.Uint32() >> rnd.IntN(32), Height: rnd.Uint32() >> rnd.IntN(32), Fourcc: fourccs[i%4], Flags: rnd.Uint32()}
			if a.submit(t, c, virtwl.AppendImageQuery(nil, q)) != gputest.OK {
				continue
			}
			r, err := virtwl.ParseImageReply(c.Query)
			must(t, err)
			if r.Size > virtwl.MaxBlob || r.Size < uint64(r.Stride) || uint64(r.Stride) < uint64(q.Width) {
				t.Fatalf("%+v: %+v", q, r)
			}
		}
		must(t, c.Close())
	})
}

// TestAttackSegments: a ring of a thousand pieces of guest memory, some of them
// nowhere, and rings whose pages the guest frees while the host writes there.
func TestAttackSegments(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Context(nil)
		must(t, err)
		page, _ := a.fe.Alloc(4096)
		for _, addr := range []uint64{page, 1 << 50, 1<<64 - 4096, vhosttest.RAMSize - 2} {
			var es []vhost.Segment
			for i := range uint64(400) {
				es = append(es, vhost.Segment{Addr: addr + i, Len: uint32(i % 12)})
			}
			es = append(es, vhost.Segment{Addr: page, Len: 4096})
			res := a.NewRes()
			typ := a.do(t, gputest.CreateBlob, c.Ctx, gputest.BlobBody(res, 1, 0, 4096, es...))
			if typ != gputest.OK {
				continue
			}
			d, err := a.Context(nil)
			must(t, err)
			a.do(t, gputest.CtxAttach, d.Ctx, gputest.U32s(res, 0))
			a.submit(t, d, virtwl.AppendInit(nil, virtwl.Init{QueryRing: res, ChannelRing: res, Channel: 1}))
			a.submit(t, d, gputest.SendCmd(request('E', 4000, make([]byte, 4000)...)))
			poll := d.Poll()
			a.do(t, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
			must(t, d.Close())
			_, err = await(poll)
			must(t, err)
		}
		must(t, c.Close())
	})
}
