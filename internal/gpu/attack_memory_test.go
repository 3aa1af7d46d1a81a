package gpu_test

import (
	"math/rand/v2"
	"testing"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
)

// TestAttackBlobSizes: blobs of every size, also beyond the limits. All of them
// together take no more than the limit, touched or not.
func TestAttackBlobSizes(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		var sizes []uint64
		for shift := range 64 {
			sizes = append(sizes, 1<<shift-1, 1<<shift, 1<<shift+1, 1<<shift+4096)
		}
		var have []uint32
		for _, size := range append(sizes, 0, 4095, 2<<30, 1<<64-1, 1<<64-4096) {
			for _, id := range []uint64{1<<31 | size/4096, 1 << 31, 0, 1, size} {
				res := a.NewRes()
				if a.do(t, gputest.CreateBlob, c.Ctx, gputest.BlobBody(res, 2, id, size)) == gputest.OK {
					have = append(have, res)
				}
				a.do(t, gputest.CreateBlob, c.Ctx, gputest.BlobBody(a.NewRes(), 1, 0, size)) // without any memory
			}
		}
		for _, r := range have {
			must(t, a.unref(r))
		}
		have = have[:0]
		for _, size := range []uint64{1 << 30, 64 << 20, 1 << 20, 4096} {
			total := uint64(0)
			for {
				res := a.NewRes()
				typ := a.do(t, gputest.CreateBlob, c.Ctx, gputest.BlobBody(res, 2, 1<<31|size/4096, size))
				if typ != gputest.OK {
					if typ != gputest.ErrMemory {
						t.Errorf("answer %#x", typ)
					}
					break
				}
				have = append(have, res)
				if total += size; total > 1<<30 || len(have) > 1024 {
					t.Fatalf("%d blobs of %d bytes", len(have), size)
				}
			}
			a.settle(t)
			for _, r := range have {
				must(t, a.unref(r))
			}
			have = have[:0]
		}
		a.wantLog(t, "blob-bytes", 1<<30)
		a.wantLog(t, "blobs", 1024)
		must(t, c.Close())
	})
}

func (a *attackRig) unref(res uint32) error {
	_, err := a.Expect(gputest.OK, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
	return err
}

// TestAttackWindow: mappings that overlap, overflow, or lie beyond the window.
func TestAttackWindow(t *testing.T) {
	attack(t, gpu.Config{Limits: gpu.Limits{Window: 1 << 30}}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		res, _, err := c.Blob(1 << 20)
		must(t, err)
		other := a.NewRes()
		_, err = a.Expect(gputest.OK, gputest.CreateBlob, c.Ctx, gputest.BlobBody(other, 2, 1<<31|256, 1<<20))
		must(t, err)
		for _, off := range []uint64{0, 4096, 1<<20 - 4096, 1, 4095, 1 << 30, 1<<30 - 4096, 1<<30 - 1<<20 + 4096, 1 << 40, 1<<64 - 4096, 1<<64 - 1<<20, 1<<64 - 1} {
			if typ := a.do(t, gputest.MapBlob, 0, mapBody(other, off)); typ != gputest.ErrParameter {
				t.Errorf("offset %#x: answer %#x", off, typ)
			}
		}
		if typ := a.do(t, gputest.MapBlob, 0, mapBody(other, 1<<30-1<<20)); typ != gputest.OKMapInfo {
			t.Errorf("the window's end: answer %#x", typ)
		}
		must(t, a.Drop(res))
		must(t, a.Drop(other))
		must(t, c.Close())
	})
}

// TestAttackMapStorm: 500 blobs are mapped, unmapped and freed in any order, faster
// than the front end works, without a wait for the answers.
func TestAttackMapStorm(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		const base, n = 10000, 500
		for i := range uint32(n) {
			_, err := a.Expect(gputest.OK, gputest.CreateBlob, c.Ctx, gputest.BlobBody(base+i, 2, 1<<31|1, 4096))
			must(t, err)
		}
		most := 0
		for i := range uint32(n) { // more than allowed
			a.do(t, gputest.MapBlob, 0, mapBody(base+i, uint64(1+i)<<20))
			most = max(most, a.fe.Mappings())
		}
		if most > 480 {
			t.Errorf("%d mappings: QEMU does not survive 512", most)
		}
		a.wantLog(t, "mappings", 480)
		rnd := rand.New(rand.NewPCG(9, 10))
		var pending []*vhosttest.Request
		flush := func() {
			for _, q := range pending {
				_, err := await(q)
				must(t, err)
			}
			pending = pending[:0]
		}
		for i := range 4000 {
			res := base + rnd.Uint32N(n)
			var cmd []byte
			switch rnd.IntN(6) {
			case 0, 1:
				cmd = append(gputest.Header(gputest.MapBlob, 0, 0, -1), mapBody(res, uint64(1+rnd.Uint32N(600))<<20)...)
			case 2, 3:
				cmd = append(gputest.Header(gputest.UnmapBlob, 0, 0, -1), gputest.U32s(res, 0)...)
			case 4:
				cmd = append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(res, 0)...)
			case 5:
				cmd = append(gputest.Header(gputest.CreateBlob, c.Ctx, 0, -1), gputest.BlobBody(res, 2, 1<<31|1, 4096)...)
			}
			pending = append(pending, a.Control.Submit(cmd, gputest.AnswerSize))
			if len(pending) == 100 {
				flush()
				if n := a.fe.Mappings(); n > 480 {
					t.Fatalf("%d mappings after %d commands", n, i)
				}
			}
		}
		flush()
		for i := range uint32(n) {
			a.do(t, gputest.ResourceUnref, 0, gputest.U32s(base+i, 0))
		}
		if n := a.fe.Mappings(); n != 0 {
			t.Errorf("%d mappings are left", n)
		}
		must(t, c.Close())
	})
}

// TestAttackNumberAgain: a resource is freed while requests for its number wait, and
// another resource gets the number.
func TestAttackNumberAgain(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		c, err := a.Connect(nil)
		must(t, err)
		const res = 7000
		for range 300 {
			for _, cmd := range [][]byte{
				append(gputest.Header(gputest.CreateBlob, c.Ctx, 0, -1), gputest.BlobBody(res, 2, 1<<31|1, 4096)...),
				append(gputest.Header(gputest.MapBlob, 0, 0, -1), mapBody(res, 1<<20)...),
				append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(res, 0)...),
				append(gputest.Header(gputest.MapBlob, 0, 0, -1), mapBody(res, 2<<20)...),
				append(gputest.Header(gputest.UnmapBlob, 0, 0, -1), gputest.U32s(res, 0)...),
				append(gputest.Header(gputest.CreateBlob, c.Ctx, 0, -1), gputest.BlobBody(res, 2, 1<<31|2, 8192)...),
				append(gputest.Header(gputest.ResourceUnref, 0, 0, -1), gputest.U32s(res, 0)...),
			} {
				a.Control.Submit(cmd, gputest.AnswerSize).Forget()
			}
			a.do(t, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
			a.do(t, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
			if n := a.fe.Mappings(); n != 0 {
				t.Fatalf("%d mappings are left", n)
			}
		}
		must(t, c.Close())
	})
}

// TestAttackAttach: 500 resources are attached to contexts and detached, in any
// order, freed in between, and used.
func TestAttackAttach(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		const base, n = 20000, 500
		var cs []*gputest.Conn
		for range 8 {
			c, err := a.Connect(nil)
			must(t, err)
			cs = append(cs, c)
		}
		for i := range uint32(n) {
			_, err := a.Expect(gputest.OK, gputest.CreateBlob, cs[0].Ctx, gputest.BlobBody(base+i, 2, 1<<31|1, 4096))
			must(t, err)
		}
		has := make(map[[2]uint32]bool)
		rnd := rand.New(rand.NewPCG(11, 12))
		for i := range 4000 {
			k, res := rnd.IntN(len(cs)), base+rnd.Uint32N(n)
			c := cs[k]
			key := [2]uint32{uint32(k), res}
			switch rnd.IntN(5) {
			case 0, 1:
				has[key] = a.do(t, gputest.CtxAttach, c.Ctx, gputest.U32s(res, 0)) == gputest.OK
			case 2:
				a.do(t, gputest.CtxDetach, c.Ctx, gputest.U32s(res, 0))
				delete(has, key)
			case 3:
				if i%4 == 0 {
					a.do(t, gputest.ResourceUnref, 0, gputest.U32s(res, 0))
					for k := range cs {
						delete(has, [2]uint32{uint32(k), res})
					}
				}
			case 4:
				ok := a.submit(t, c, gputest.SendCmd(request('B', 4096), virtwl.Identifier{ID: res, Type: virtwl.IDMemory})) == gputest.OK
				if ok != has[key] {
					t.Fatalf("step %d: sent %v, attached %v", i, ok, has[key])
				}
				if ok {
					recv(t, c, 4)
					continue
				}
				must(t, c.Close()) // its stream is broken
				for r := range uint32(n) {
					delete(has, [2]uint32{uint32(k), base + r})
				}
				var err error
				cs[k], err = a.Connect(c)
				must(t, err)
			}
		}
		for i := range uint32(n) {
			a.do(t, gputest.ResourceUnref, 0, gputest.U32s(base+i, 0))
		}
		for _, c := range cs {
			must(t, c.Close())
		}
	})
}

// TestAttackResources: more resources than allowed, attached to every context.
func TestAttackResources(t *testing.T) {
	attack(t, gpu.Config{}, func(a *attackRig) {
		page, _ := a.fe.Alloc(4096)
		var cs []*gputest.Conn
		for range 40 {
			c, err := a.Context(nil)
			must(t, err)
			cs = append(cs, c)
		}
		var have []uint32
		for {
			res := a.NewRes()
			if a.do(t, gputest.CreateBlob, 0, gputest.BlobBody(res, 1, 0, 4096, vhost.Segment{Addr: page, Len: 4096})) != gputest.OK {
				break
			}
			if have = append(have, res); len(have) > 5000 {
				t.Fatal("resources have no bound")
			}
		}
		a.wantLog(t, "resources", 4096)
		for _, c := range cs {
			for _, res := range have[:1000] {
				a.Control.Submit(append(gputest.Header(gputest.CtxAttach, c.Ctx, 0, -1), gputest.U32s(res, 0)...), gputest.HeaderSize).Forget()
			}
		}
		for _, res := range have {
			must(t, a.unref(res))
		}
		for _, c := range cs {
			must(t, c.Close())
		}
	})
}
