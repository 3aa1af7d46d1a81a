package gpu_test

import (
	"encoding/binary"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
)

// TestScribble: the guest changes its rings, requests and pages while the device
// reads them. The device ends or goes on; it does not panic, hang or leak.
func TestScribble(t *testing.T) {
	checkLeaks(t)
	for seed := range uint64(6) {
		r := newRig(t, gpu.Config{}, gputest.Features)
		c, err := r.Connect(nil)
		must(t, err)
		res, _, err := c.Blob(4096)
		must(t, err)
		cmds := [][]byte{
			c.Command(gputest.SendCmd(request('B', 4096), virtwl.Identifier{ID: res, Type: virtwl.IDMemory}), -1),
			c.Command(gputest.SendCmd(request('K', 4096)), virtwl.RingSend),
			c.Command(virtwl.AppendHeader(nil, virtwl.Header{Cmd: virtwl.CmdPoll, Size: virtwl.HeaderSize}), virtwl.RingChannel),
			append(gputest.Header(gputest.CreateBlob, c.Ctx, 0, -1), gputest.BlobBody(900, 2, 1<<31|1, 4096)...),
			append(gputest.Header(gputest.MapBlob, 0, 0, -1), append(gputest.U32s(900, 0), 0, 0, 1, 0, 0, 0, 0, 0)...),
			append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(900, 0)...),
		}
		base, mem := r.fe.Alloc(len(cmds) * 4096)
		rnd := rand.New(rand.NewPCG(seed, 1))
		stop := time.Now().Add(150 * time.Millisecond)
		rounds := 0
		for n := 0; time.Now().Before(stop); n++ {
			for i, cmd := range cmds {
				copy(mem[i*4096:], cmd)
				head := (n%16)*16 + i*2
				r.Control.SetDesc(head, base+uint64(i)*4096, uint32(len(cmd)), 1, uint16(head+1))
				r.Control.SetDesc(head+1, base+uint64(i)*4096+2048, 1024, 2, 0)
				r.Control.Offer(uint16(head))
			}
			r.Control.Kick()
			rounds++
			scribble(rnd, r, mem, int(seed))
			for wait := 0; wait < 1000 && behind(r.Control) > 16; wait++ {
				runtime.Gosched() // a ring that overflows is broken at once
			}
		}
		done := make(chan error, 1)
		go func() { done <- r.close() }()
		select {
		case err := <-done:
			t.Logf("seed %d, %d rounds: serve: %v", seed, rounds, err)
		case <-time.After(10 * time.Second):
			t.Fatal("hangs")
		}
	}
}

// behind returns the number of requests that the device has not given back.
func behind(r *vhosttest.Ring) uint16 {
	return binary.LittleEndian.Uint16(r.Avail[2:]) - binary.LittleEndian.Uint16(r.Used[2:])
}

// scribble overwrites the guest's memory; wilder means more of it.
func scribble(rnd *rand.Rand, r *rig, mem []byte, wild int) {
	ring := r.Control
	for range 50 {
		switch rnd.IntN(3 + wild) {
		case 0: // a request
			mem[rnd.IntN(len(mem))] = byte(rnd.Uint32())
		case 1: // a descriptor's flags or next
			ring.Desc[16*rnd.IntN(256)+12+rnd.IntN(4)] = byte(rnd.Uint32())
		case 2: // a descriptor's length
			ring.Desc[16*rnd.IntN(256)+8+rnd.IntN(2)] = byte(rnd.Uint32())
		case 3: // its address
			ring.Desc[16*rnd.IntN(256)+rnd.IntN(8)] = byte(rnd.Uint32())
		case 4: // the avail ring's entries
			ring.Avail[4+rnd.IntN(512)] = byte(rnd.Uint32())
		case 5: // the used ring, which is the device's
			ring.Used[rnd.IntN(2048)] = byte(rnd.Uint32())
		default: // the avail index
			ring.Avail[2] = byte(rnd.Uint32())
		}
	}
}
