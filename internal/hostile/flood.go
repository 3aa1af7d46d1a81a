package hostile

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync/atomic"
	"time"

	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// flood makes more and more of one thing until it may have no more, or the count
// given is reached, says how it ended, and holds what it has.
//
//	flood THING COUNT
func flood(r *Run) error {
	if len(r.Args) < 2 {
		return errors.New("flood: want THING COUNT")
	}
	most, err := strconv.Atoi(r.Args[1])
	if err != nil {
		return err
	}
	more := map[string]func(*Run, int) (func(int) error, error){
		"objects": floodObjects, "surfaces": floodSurfaces, "toplevels": floodToplevels, "pools": floodPools,
		"memory": floodMemory, "blobs": floodBlobs, "connections": floodConnections, "commits": floodCommits,
		"bytes": floodBytes, "popups": floodPopups, "textures": floodTextures, "keyboards": floodKeyboards, "callbacks": floodCallbacks,
	}[r.Args[0]]
	if more == nil {
		return fmt.Errorf("flood: no %q", r.Args[0])
	}
	step, err := more(r, most)
	if err != nil {
		return err
	}
	var n atomic.Int64
	begin, done := time.Now(), make(chan error, 1)
	go func() {
		for k := range most {
			if err := step(k); err != nil {
				done <- err
				return
			}
			n.Add(1)
		}
		done <- nil
	}()
	err = await(&n, done)
	r.say("flood %s: %d in %d ms: %v", r.Args[0], n.Load(), time.Since(begin).Milliseconds(), err)
	r.Hold()
	return nil
}

// await waits until a flood has ended, or stands still: the host takes no more of it.
func await(n *atomic.Int64, done <-chan error) error {
	const still = 10 * time.Second
	for last := int64(-1); ; {
		select {
		case err := <-done:
			return err
		case <-time.After(still):
			if now := n.Load(); now == last {
				return errors.New("limit reached: the host takes no more, and holds the sender up")
			} else {
				last = now
			}
		}
	}
}

// batch is how many requests go between two looks at the answer.
const batch = 256

func (c *Client) every(n, k int) error {
	switch {
	case n%k == k-1:
		return c.Sync()
	case n%16 == 15:
		return c.Flush()
	}
	return nil
}

func (r *Run) ready() (*Client, error) {
	c, err := r.client()
	if err == nil {
		err = c.setUp()
	}
	return c, err
}

func floodObjects(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	return func(n int) error {
		c.Req(c.comp, wayland.WlCompositorReqCreateRegion, c.ID(nil))
		return c.every(n, batch)
	}, err
}

func floodCallbacks(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	s := c.ID(nil)
	c.Req(c.comp, wayland.WlCompositorReqCreateSurface, s)
	return func(n int) error {
		c.Req(s, wayland.WlSurfaceReqFrame, c.ID(nil))
		return c.every(n, batch)
	}, nil
}

func floodSurfaces(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	return func(n int) error {
		c.Req(c.comp, wayland.WlCompositorReqCreateSurface, c.ID(nil))
		return c.every(n, batch)
	}, err
}

func floodToplevels(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	return func(int) error {
		_, err := c.NewWindow("one of many", "flood")
		return err
	}, err
}

func floodPopups(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	w, err := c.NewWindow("popups", "flood")
	if err != nil {
		return nil, err
	}
	return func(int) error {
		pos, s, x, p := c.ID(nil), c.ID(nil), c.ID(nil), c.ID(nil)
		c.Req(c.wm, wayland.XdgWmBaseReqCreatePositioner, pos)
		c.Req(pos, wayland.XdgPositionerReqSetSize, 10, 10)
		c.Req(pos, wayland.XdgPositionerReqSetAnchorRect, 0, 0, 1, 1)
		c.Req(c.comp, wayland.WlCompositorReqCreateSurface, s)
		c.Req(c.wm, wayland.XdgWmBaseReqGetXdgSurface, x, s)
		c.Req(x, wayland.XdgSurfaceReqGetPopup, p, w.XdgSurface, pos)
		return c.Sync()
	}, nil
}

func floodKeyboards(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	seat := c.Bind("wl_seat", 5, nil)
	return func(int) error {
		c.Req(seat, wayland.WlSeatReqGetKeyboard, c.ID(nil))
		return c.Sync()
	}, nil
}

// floodPools makes pools of one piece of memory.
func floodPools(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	_, m, err := c.Pool(4096, 4096)
	return func(n int) error {
		if _, err := c.PoolOf(m, 4096); err != nil {
			return c.last(err)
		}
		return c.every(n, 16)
	}, err
}

// chunk is what floodMemory takes at a time.
const chunk = 64 << 20

// floodMemory fills memory, gives it to the compositor as a pool with a buffer,
// destroys the pool, and lets go of its own end: the buffer keeps it.
func floodMemory(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	return func(int) error {
		pool, m, err := c.Pool(chunk, chunk)
		if err != nil {
			return c.last(err)
		}
		for i := 0; i < chunk; i += 4096 {
			m.Mem[i] = 1
		}
		c.Req(pool, wayland.WlShmPoolReqCreateBuffer, c.ID(nil), 0, 1024, chunk/4096, 4096, uint32(1))
		c.Req(pool, wayland.WlShmPoolReqDestroy)
		if err := c.Sync(); err != nil {
			return err
		}
		if m.Free != nil {
			return m.Free()
		}
		return nil
	}, err
}

// floodTextures shows one large buffer on many surfaces: a compositor with a GPU makes
// a texture of each.
func floodTextures(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	b, err := c.Buffer(2048, 2048, 0x808080)
	return func(int) error {
		w, err := c.NewWindow("one of many", "flood") // what nobody shows is no picture
		if err != nil {
			return err
		}
		w.Attach(b)
		return c.Sync()
	}, err
}

// floodBlobs fills blobs that nobody else ever hears of.
func floodBlobs(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	return func(int) error {
		m, err := c.memory(chunk)
		if err != nil {
			return err
		}
		for i := 0; i < chunk; i += 4096 {
			m.Mem[i] = 1
		}
		return nil
	}, err
}

// floodConnections keeps connections open.
func floodConnections(r *Run, _ int) (func(int) error, error) {
	return func(int) error {
		c, err := r.Open()
		if err != nil {
			return err
		}
		return c.Registry()
	}, nil
}

// floodCommits commits as fast as it is let.
func floodCommits(r *Run, _ int) (func(int) error, error) {
	c, err := r.ready()
	if err != nil {
		return nil, err
	}
	w, err := c.NewWindow("commits", "flood")
	if err != nil {
		return nil, err
	}
	if err := w.Show(300, 200, 0xffff00); err != nil {
		return nil, err
	}
	b, err := c.Buffer(300, 200, 0xffff00)
	return func(n int) error {
		w.Attach(b)
		return c.every(n, batch)
	}, err
}

// floodBytes sends requests whose events it does not read, until the end.
func floodBytes(r *Run, most int) (func(int) error, error) {
	c, err := r.ready()
	return func(n int) error {
		c.Req(1, wayland.WlDisplayReqSync, c.ID(nil))
		if n == most-1 {
			return c.Sync()
		}
		return c.every(n, most)
	}, err
}

// Scramble sends random messages, some of them nearly right, and returns what the
// other side objects to.
func Scramble(c *Client, seed uint64) error {
	rnd := rand.New(rand.NewPCG(seed, 99))
	if err := c.setUp(); err != nil {
		return err
	}
	for range 1 + rnd.IntN(40) {
		switch rnd.IntN(5) {
		case 0: // any message of any object, of any size
			var b []byte
			for range 2 + rnd.IntN(6) {
				b = append(b, byte(rnd.Uint32()), byte(rnd.Uint32N(3)), 0, 0)
			}
			wayland.PutWord(b, 4, uint32(len(b))<<16|rnd.Uint32N(12))
			if rnd.IntN(10) == 0 {
				wayland.PutWord(b, 4, rnd.Uint32())
			}
			c.B = append(c.B, b...)
		case 1: // an id that is in use, or out of any order
			id := c.ID(nil)
			c.Req(c.comp, wayland.WlCompositorReqCreateSurface, id)
			c.Req(c.comp, wayland.WlCompositorReqCreateSurface, rnd.Uint32N(2*id))
		case 2: // a string that is none
			w, s := c.ID(nil), c.ID(nil)
			c.Req(c.comp, wayland.WlCompositorReqCreateSurface, s)
			c.Req(c.wm, wayland.XdgWmBaseReqGetXdgSurface, w, s)
			t := c.ID(nil)
			c.Req(w, wayland.XdgSurfaceReqGetToplevel, t)
			c.Req(t, wayland.XdgToplevelReqSetTitle, rnd.Uint32N(64), rnd.Uint32())
		case 3: // a request that wants a descriptor, without
			c.Req(c.shm, wayland.WlShmReqCreatePool, c.ID(nil), rnd.Int()>>rnd.IntN(63))
		case 4: // a sync, which may still be answered
			c.Req(1, wayland.WlDisplayReqSync, c.ID(nil))
		}
		if err := c.Flush(); err != nil {
			return c.last(err)
		}
	}
	return c.Sync()
}

// raw submits cross-domain commands that no proxy would, by contexts of its own.
func raw(r *Run) error {
	count, err := strconv.Atoi(r.Args[0])
	if err != nil {
		return err
	}
	rnd := rand.New(rand.NewPCG(1, uint64(count)))
	ok, refused := 0, 0
	for range count {
		n, err := r.Node()
		if err != nil {
			return err
		}
		res, err := n.Blob(1, virtwl.PageSize, 0)
		if err != nil {
			return err
		}
		cmds := [][]byte{
			virtwl.AppendInit(nil, virtwl.Init{QueryRing: res, ChannelRing: res, Channel: virtwl.ChannelWayland}),
			virtwl.AppendInit(nil, virtwl.Init{QueryRing: rnd.Uint32N(64), ChannelRing: rnd.Uint32N(64), Channel: 1}),
			virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: rnd.Uint32(), Height: rnd.Uint32(), Fourcc: rnd.Uint32()}),
			virtwl.AppendHeader(nil, virtwl.Header{Cmd: byte(rnd.Uint32()), Size: uint16(rnd.Uint32())}),
		}
		ids := virtwl.SendReceive{DataSize: 16, Count: 1 + rnd.IntN(28)}
		for i := range ids.IDs[:ids.Count] {
			ids.IDs[i] = virtwl.Identifier{ID: rnd.Uint32N(200), Type: rnd.Uint32N(5), Size: rnd.Uint32()}
		}
		send := make([]byte, virtwl.SendReceiveSize+16)
		virtwl.PutSendReceive(send, virtwl.CmdSend, &ids)
		cmds = append(cmds, send, send[:rnd.IntN(len(send)-8)+8])
		for range 20 {
			cmd := cmds[rnd.IntN(len(cmds))]
			if rnd.IntN(3) == 0 {
				cmd = append([]byte(nil), cmd...)
				cmd[rnd.IntN(len(cmd))] = byte(rnd.Uint32())
			}
			if n.Exec(cmd, rnd.IntN(70)-5) == nil {
				ok++
			} else {
				refused++
			}
		}
		for range 3 { // blobs by wrong ids, of wrong sizes
			if _, err := n.Blob(2, uint64(1+rnd.IntN(1000))*4096, uint64(rnd.Uint32())); err == nil {
				ok++
			}
		}
		n.Close()
	}
	r.say("raw: %d submitted, %d refused by the guest's own kernel", ok, refused)
	return nil
}
