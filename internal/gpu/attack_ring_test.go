package gpu_test

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
	"time"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

const (
	descNext     = 1
	descWrite    = 2
	descIndirect = 4
	// lie is the first descriptor that honest requests do not use.
	lie = vhosttest.QueueSize - vhosttest.Spare
)

// TestAttackDescriptors: loops, addresses out of range, overlaps, and overflowing
// lengths, in the ring's table and in an indirect one.
func TestAttackDescriptors(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		at, page := a.fe.Alloc(8192)
		cmd := append(gputest.Header(gputest.CtxCreate, 4000, 0, -1), append(gputest.U32s(0, virtwl.CapsetID), make([]byte, 64)...)...)
		copy(page[4096:], cmd)
		n := uint32(len(cmd))
		ring := a.Control
		for name, lay := range map[string]func(){
			"loop":             func() { ring.SetDesc(lie, at, 8, descNext, lie) },
			"loop of nothing":  func() { ring.SetDesc(lie, at, 0, descNext, lie) },
			"loop of two":      func() { ring.SetDesc(lie, at, 8, descNext, lie+1); ring.SetDesc(lie+1, at, 8, descNext, lie) },
			"next out of ring": func() { ring.SetDesc(lie, at, 8, descNext, vhosttest.QueueSize) },
			"no memory":        func() { ring.SetDesc(lie, 1<<50, 4096, 0, 0) },
			"end of memory":    func() { ring.SetDesc(lie, vhosttest.RAMSize-8, 4096, 0, 0) },
			"address overflow": func() { ring.SetDesc(lie, 1<<64-8, 4096, 0, 0) },
			"length overflow":  func() { ring.SetDesc(lie, 0, 1<<32-1, 0, 0) },
			"lengths overflow": func() {
				ring.SetDesc(lie, 0, 1<<32-1, descNext, lie+1)
				ring.SetDesc(lie+1, 0, 1<<32-1, descNext, lie+2)
				ring.SetDesc(lie+2, 0, 1<<32-1, descWrite, 0)
			},
			"answer over the request": func() {
				ring.SetDesc(lie, at+4096, n, descNext, lie+1)
				ring.SetDesc(lie+1, at+4096, n, descWrite, 0)
			},
			"answer over the ring": func() {
				ring.SetDesc(lie, at+4096, n, descNext, lie+1)
				ring.SetDesc(lie+1, at, 512, descWrite, 0) // and the table below, when indirect
			},
			"answer nowhere": func() {
				ring.SetDesc(lie, at+4096, n, descNext, lie+1)
				ring.SetDesc(lie+1, 1<<50, 512, descWrite, 0)
			},
			"no answer":          func() { ring.SetDesc(lie, at+4096, n, 0, 0) },
			"answer of one byte": func() { ring.SetDesc(lie, at+4096, n, descNext, lie+1); ring.SetDesc(lie+1, at, 1, descWrite, 0) },
			"readable after":     func() { ring.SetDesc(lie, at, 64, descWrite|descNext, lie+1); ring.SetDesc(lie+1, at+4096, n, 0, 0) },
			"indirect too long":  func() { ring.SetDesc(lie, at, 16*1025, descIndirect, 0) },
			"indirect odd":       func() { ring.SetDesc(lie, at, 17, descIndirect, 0) },
			"indirect nested": func() {
				vhosttest.PutDesc(page, at, 16, descIndirect, 0)
				ring.SetDesc(lie, at, 16, descIndirect, 0)
			},
			"indirect in its own answer": func() {
				vhosttest.PutDesc(page, at+4096, n, descNext, 1)
				vhosttest.PutDesc(page[16:], at, 512, descWrite, 0)
				ring.SetDesc(lie, at, 32, descIndirect, 0)
			},
			"thousand empty ones": func() {
				page := page[:4096]
				for i := range 256 {
					vhosttest.PutDesc(page[16*i:], at, 0, descNext, uint16(i+1)%256)
				}
				ring.SetDesc(lie, at, 4096, descIndirect, 0)
			},
		} {
			used := binary.LittleEndian.Uint16(ring.Used[2:])
			lay()
			for range 50 {
				ring.Offer(lie)
				ring.Kick()
				_ = a.CtxGone(4000)
			}
			a.settle(t)
			if got := binary.LittleEndian.Uint16(ring.Used[2:]); got-used < 50 {
				t.Errorf("%s: %d chains were given back of 50", name, got-used)
			}
		}
	})
}

// TestAttackRingBroken: an invalid index or head ends the device, and
// nothing stays. (Only this VM loses its display.)
func TestAttackRingBroken(t *testing.T) {
	for name, lie := range map[string]func(r *vhosttest.Ring){
		"head":  func(r *vhosttest.Ring) { r.Offer(vhosttest.QueueSize); r.Kick() },
		"index": func(r *vhosttest.Ring) { binary.LittleEndian.PutUint16(r.Avail[2:], 40000); r.Kick() },
	} {
		t.Run(name, func(t *testing.T) {
			checkLeaks(t)
			r := newRig(t, gpu.Config{}, gputest.Features)
			c, err := r.Connect(nil)
			must(t, err)
			_, _, err = c.Blob(1 << 20)
			must(t, err)
			c.Poll()
			lie(r.Control)
			select {
			case err := <-r.served:
				r.served <- err
				if err == nil {
					t.Error("serve ended without a reason")
				}
			case <-time.After(patience):
				t.Error("the device goes on")
			}
		})
	}
}

// TestAttackEndlessMalformed: another processor of the guest offers malformed
// chains faster than they come back. The front end still gets its answers:
// QEMU holds its own lock meanwhile.
func TestAttackEndlessMalformed(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	r.Control.SetDesc(lie, 0, 0, descNext, lie) // as many steps as allowed
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-stop:
				return
			default:
			}
			for behind(r.Control) < vhosttest.QueueSize/2 {
				r.Control.Offer(lie)
			}
			r.Control.Kick()
		}
	}()
	answered := make(chan error, 1)
	go func() {
		for range 20 {
			if _, err := r.fe.Call(vhosttest.GetFeatures, nil); err != nil {
				answered <- err
				return
			}
		}
		_, err := r.fe.Call(vhosttest.GetVringBase, vhosttest.State(0, 0))
		answered <- err
	}()
	select {
	case err := <-answered:
		must(t, err)
	case <-time.After(2 * patience):
		t.Error("the front end waits")
	}
	close(stop)
	<-done
}

// TestAttackRaces: another processor of the guest changes requests, descriptors and
// pages between any two reads by the device.
func TestAttackRaces(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		res, _, err := c.Blob(8192)
		must(t, err)
		at, page := a.fe.Alloc(4096)
		cmds := [][]byte{
			c.Command(gputest.SendCmd(request('E', 8, make([]byte, 8)...), virtwl.Identifier{ID: res, Type: virtwl.IDMemory}), -1),
			append(gputest.Header(gputest.CreateBlob, c.Ctx, 0, -1), gputest.BlobBody(900, 2, 1<<31|2, 8192)...),
			append(gputest.Header(gputest.MapBlob, 0, 0, -1), append(gputest.U32s(900, 0), 0, 0, 1, 0, 0, 0, 0, 0)...),
			append(gputest.Header(gputest.UnmapBlob, 0, 0, -1), gputest.U32s(900, 0)...),
			append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(900, 0)...),
			c.Command(virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: 64, Height: 64, Fourcc: gputest.R8}), virtwl.RingQuery),
		}
		stop, done := make(chan struct{}), make(chan struct{})
		go func() { // the other processor
			defer close(done)
			rnd := rand.New(rand.NewPCG(1, 2))
			for {
				select {
				case <-stop:
					return
				default:
					page[rnd.IntN(512)] = byte(rnd.Uint32())
					binary.LittleEndian.PutUint32(a.Control.Desc[16*lie+8:], rnd.Uint32N(1024))
				}
			}
		}()
		for i := range 3000 {
			copy(page, cmds[i%len(cmds)])
			a.Control.SetDesc(lie, at, 512, descNext, lie+1)
			a.Control.SetDesc(lie+1, at+2048, 1024, descWrite, 0)
			a.Control.Offer(lie)
			a.Control.Kick()
			if i%64 == 0 {
				a.settle(t)
			}
		}
		close(stop)
		<-done
	})
}

// TestAttackUnknownCommands: every number of a command, with random bodies.
func TestAttackUnknownCommands(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		rnd := rand.New(rand.NewPCG(3, 4))
		body := make([]byte, 512)
		for cmd := range uint32(0x400) {
			for range 3 {
				for i := range body {
					body[i] = byte(rnd.Uint32())
				}
				if cmd == gputest.Submit3D { // with a size that fits
					binary.LittleEndian.PutUint32(body, 400)
				}
				typ, _, err := a.Do(cmd, 1000+rnd.Uint32N(4), body[:rnd.IntN(len(body))])
				must(t, err)
				if typ < gputest.OK {
					t.Errorf("command %#x: answer %#x", cmd, typ)
				}
			}
		}
	})
}

// TestAttackLongSubmission: one submission with a million commands would delay
// every other program of the guest.
func TestAttackLongSubmission(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		const size = 25 << 17 // whole commands
		at, mem := a.fe.Alloc(size + 8192)
		copy(mem, append(gputest.Header(gputest.Submit3D, c.Ctx, 0, -1), gputest.U32s(size, 0)...))
		query := virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: 1, Height: 1, Fourcc: gputest.R8})
		query[2]++ // so that another command follows
		query = append(query, 0)
		for i := 0; i < size; i += len(query) {
			copy(mem[gputest.HeaderSize+8+i:], query)
		}
		answer := mem[size+4096:]
		for range 20 {
			a.Control.SetDesc(lie, at, gputest.HeaderSize+8+size, descNext, lie+1)
			a.Control.SetDesc(lie+1, at+size+4096, gputest.HeaderSize, descWrite, 0)
			a.Control.Offer(lie)
			a.Control.Kick()
		}
		a.settle(t)
		if typ := binary.LittleEndian.Uint32(answer); typ != gputest.ErrParameter {
			t.Errorf("answer %#x", typ)
		}
	})
}

// TestAttackResets: the guest resets its device while commands run. The
// next guest finds nothing of them.
func TestAttackResets(t *testing.T) {
	checkLeaks(t)
	before := measure(t)
	r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) { _ = serveEcho(tr) }}, gputest.Features)
	for i := range 100 {
		for k := range uint32(20) { // without a wait for the answers
			r.Control.Submit(append(gputest.Header(gputest.CtxCreate, 1+k, 0, -1), append(gputest.U32s(0, virtwl.CapsetID), make([]byte, 64)...)...), gputest.AnswerSize)
			r.Control.Submit(append(gputest.Header(gputest.CreateBlob, 1+k, 0, -1), gputest.BlobBody(1+k, 2, 1<<31|1, 4096)...), gputest.AnswerSize)
			r.Control.Submit(append(gputest.Header(gputest.MapBlob, 0, 0, -1), binary.LittleEndian.AppendUint64(gputest.U32s(1+k, 0), uint64(k)<<20)...), gputest.AnswerSize)
		}
		resetRig(t, r)
		for k := range uint32(20) { // all numbers are free again
			if typ, _, err := r.Do(gputest.CtxCreate, 1+k, append(gputest.U32s(0, virtwl.CapsetID), make([]byte, 64)...)); err != nil || typ != gputest.OK {
				t.Fatalf("life %d: context %d: answer %#x, %v", i, 1+k, typ, err)
			}
		}
		resetRig(t, r)
	}
	must(t, r.close())
	if left := waitMeasure(t, before); left != "" {
		t.Error(left)
	}
}
