package gpu_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
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

// rig is a device with a front end and a guest.
type rig struct {
	*gputest.Guest
	fe     *vhosttest.FrontEnd
	served chan error
	err    error
	once   sync.Once
	spare  *gputest.Conn // a closed connection, whose pages may be reused
}

func newRig(t testing.TB, cfg gpu.Config, features uint64) *rig {
	t.Helper()
	if cfg.Accept == nil {
		cfg.Accept = func(tr wayland.Transport) {
			if err := serveEcho(tr); err != nil && !errors.Is(err, virtwl.ErrProtocol) {
				t.Logf("echo: %v", err)
			}
		}
	}
	dev, err := gpu.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fe, conn, err := vhosttest.New()
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{fe: fe, served: make(chan error, 1)}
	go func() {
		err := vhost.Serve(context.Background(), conn, dev)
		fe.Gone()
		r.served <- err
	}()
	t.Cleanup(func() { _ = r.close() })
	if err := fe.Start(features); err != nil {
		t.Fatal(err)
	}
	r.Guest = gputest.NewGuest(fe)
	return r
}

// close ends the front end and returns Serve's error.
func (r *rig) close() error {
	r.once.Do(func() {
		_ = r.fe.Close()
		r.err = <-r.served
	})
	return r.err
}

// checkLeaks fails the test if goroutines or descriptors are left at its end that
// were not there before.
func checkLeaks(t *testing.T) {
	t.Helper()
	g, f := runtime.NumGoroutine(), countFDs(t)
	t.Cleanup(func() {
		for range 200 {
			if runtime.NumGoroutine() <= g && countFDs(t) <= f {
				return
			}
			runtime.Gosched()
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

func request(op byte, arg int, data ...byte) []byte {
	return append(binary.LittleEndian.AppendUint32([]byte{op, 0, 0, 0}, uint32(arg)), data...)
}

// recv collects n bytes from RECEIVEs.
func recv(t testing.TB, c *gputest.Conn, n int) (data []byte, ids []virtwl.Identifier) {
	t.Helper()
	for len(data) < n {
		e, err := c.Next()
		must(t, err)
		if e.Cmd != virtwl.CmdReceive || len(e.Data) == 0 {
			t.Fatalf("event %d with %d bytes after %d of %d", e.Cmd, len(e.Data), len(data), n)
		}
		data = append(data, e.Data...)
		ids = append(ids, e.Msg.IDs[:e.Msg.Count]...)
	}
	return data, ids
}

func TestProbe(t *testing.T) {
	checkLeaks(t)
	for name, features := range map[string]uint64{"indirect": gputest.Features, "direct": 0, "event index": gputest.Features | vhost.FeatureEventIdx} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, gpu.Config{}, features)
			cfg, err := r.fe.Call(vhosttest.GetConfig, append(gputest.U32s(0, 16, 0), make([]byte, 16)...))
			must(t, err)
			if want := gputest.U32s(0, 16, 0, 0, 0, 0, 1); !bytes.Equal(cfg, want) {
				t.Errorf("config %x, want %x", cfg, want)
			}
			p, err := r.Expect(gputest.OKCapsetInfo, gputest.GetCapsetInfo, 0, gputest.U32s(0, 0))
			must(t, err)
			if want := gputest.U32s(5, 1, 16, 0); !bytes.Equal(p, want) {
				t.Errorf("capset info %x, want %x", p, want)
			}
			p, err = r.Expect(gputest.OKCapset, gputest.GetCapset, 0, gputest.U32s(5, 1))
			must(t, err)
			caps, err := virtwl.ParseCapabilities(p)
			if err != nil || caps.Version != 1 || caps.Channels != 1<<virtwl.ChannelWayland|virtwl.FlowControl {
				t.Errorf("capabilities %+v, %v", caps, err)
			}
			p, err = r.Expect(gputest.OKDisplay, gputest.GetDisplayInfo, 0, nil)
			if err != nil || len(p) != 16*24 || bytes.ContainsFunc(p, func(r rune) bool { return r != 0 }) {
				t.Errorf("display info %d bytes, %v", len(p), err)
			}
			shm, err := r.fe.Call(vhosttest.GetShmemConfig, nil)
			if err != nil || len(shm) != 2056 || binary.LittleEndian.Uint64(shm[16:]) != 64<<30 {
				t.Errorf("shmem config of %d bytes, %v", len(shm), err)
			}
			if err := r.close(); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
	}
}

// onePage is the data of a RECEIVE in a ring of one page.
const onePage = virtwl.PageSize - virtwl.SendReceiveSize

func TestEcho(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features|vhost.FeatureEventIdx)
	c, err := r.Connect(nil)
	must(t, err)
	for _, n := range []int{1, 100, onePage, onePage + 1, 4096, 7000} {
		p := testPattern(n, byte(n))
		must(t, c.Submit(gputest.SendCmd(request('E', n, p...))))
		if got, _ := recv(t, c, n); !bytes.Equal(got, p) {
			t.Errorf("%d bytes: other bytes came back", n)
		}
	}
	must(t, c.Close())
	if err := r.close(); err != nil {
		t.Errorf("serve: %v", err)
	}
}

// TestLongRing: the device uses a channel ring of several pages, scattered in the guest's
// memory, up to MaxRingSize.
func TestLongRing(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Context(nil)
	must(t, err)
	const pages = virtwl.MaxRingSize/virtwl.PageSize + 1
	base, mem := r.fe.Alloc(pages * virtwl.PageSize)
	var es []vhost.Segment
	for i := range uint64(pages) { // the last page first
		es = append(es, vhost.Segment{Addr: base + (pages-1-i)*virtwl.PageSize, Len: virtwl.PageSize})
	}
	c.ChannelRes = r.NewRes()
	_, err = r.Expect(gputest.OK, gputest.CreateBlob, c.Ctx, gputest.BlobBody(c.ChannelRes, 1, 0, pages*virtwl.PageSize, es...))
	must(t, err)
	_, err = r.Expect(gputest.OK, gputest.CtxAttach, c.Ctx, gputest.U32s(c.ChannelRes, 0))
	must(t, err)
	must(t, c.Init())
	const n = 40000
	p := testPattern(n, 3)
	must(t, c.Submit(gputest.SendCmd(request('E', n))))
	for q := p; len(q) > 0; q = q[min(len(q), 4000):] {
		must(t, c.Submit(gputest.SendCmd(q[:min(len(q), 4000)])))
	}
	var got []byte
	for _, want := range []int{virtwl.MaxReceiveData, n - virtwl.MaxReceiveData} {
		q := c.Poll()
		_, err := q.Wait()
		must(t, err)
		q.Free()
		var ring []byte
		for i := range pages {
			ring = append(ring, mem[(pages-1-i)*virtwl.PageSize:][:virtwl.PageSize]...)
		}
		e, err := gputest.ParseEvent(ring)
		if err != nil || len(e.Data) != want {
			t.Fatalf("%d bytes, want %d: %v", len(e.Data), want, err)
		}
		got = append(got, e.Data...)
	}
	if !bytes.Equal(got, p) {
		t.Error("other bytes came back")
	}
}

func TestBlob(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	const n = 3 << 20
	res, mem, err := c.Blob(n)
	must(t, err)
	if len(mem) != n {
		t.Fatalf("mapped %d bytes, want %d", len(mem), n)
	}
	p := testPattern(n, 1)
	copy(mem, p)
	must(t, c.Submit(gputest.SendCmd(request('B', n), virtwl.Identifier{ID: res, Type: virtwl.IDMemory})))
	if got, _ := recv(t, c, 4); !bytes.Equal(got, sum(p)) {
		t.Error("the host saw other bytes")
	}
	for i := range p {
		p[i] ^= 0xff
	}
	if !bytes.Equal(mem, p) {
		t.Error("the guest does not see the host's bytes")
	}
	must(t, r.Drop(res))
	if r.fe.Mappings() != 0 {
		t.Error("still mapped")
	}
	must(t, c.Close())
}

// TestReceivedMemory: the compositor's memory is copied to whole pages, once.
func TestReceivedMemory(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	const n = 23205
	must(t, c.Submit(gputest.SendCmd(request('K', n))))
	_, ids := recv(t, c, 4)
	if len(ids) != 1 || ids[0].Type != virtwl.IDMemory || ids[0].Size != 24576 {
		t.Fatalf("identifiers %+v", ids)
	}
	res, mem, err := c.Take(uint64(ids[0].ID), uint64(ids[0].Size))
	must(t, err)
	if !bytes.Equal(mem[:n], testPattern(n, 5)) || !bytes.Equal(mem[n:], make([]byte, len(mem)-n)) {
		t.Error("other bytes")
	}
	if _, _, err := c.Take(uint64(ids[0].ID), uint64(ids[0].Size)); err == nil {
		t.Error("the same id was given twice")
	}
	must(t, r.Drop(res))
	must(t, c.Close())
}

func TestReadPipe(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	for i, n := range []int{0, 1, virtwl.PageSize - virtwl.ReadWriteSize, 100000} {
		id := uint32(virtwl.PipeReadStart + 1 + i)
		must(t, c.Submit(gputest.SendCmd(request('R', n), virtwl.Identifier{ID: id, Type: virtwl.IDReadPipe})))
		var got []byte
		for {
			e, err := c.Next()
			must(t, err)
			if e.Cmd != virtwl.CmdRead || e.Read.ID != id {
				t.Fatalf("event %+v", e)
			}
			got = append(got, e.Data...)
			if e.Read.HangUp {
				if len(e.Data) != 0 {
					t.Error("hang-up with data")
				}
				break
			}
		}
		if !bytes.Equal(got, testPattern(n, 1)) {
			t.Errorf("%d bytes: got %d others", n, len(got))
		}
	}
	must(t, c.Close())
}

func TestWritePipe(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	for _, n := range []int{0, 1, 4096, 500000} {
		must(t, c.Submit(gputest.SendCmd(request('W', n))))
		_, ids := recv(t, c, 4)
		if len(ids) != 1 || ids[0].Type != virtwl.IDWritePipe {
			t.Fatalf("identifiers %+v", ids)
		}
		p := testPattern(n, 2)
		for q := p; len(q) > 0; {
			k := min(len(q), 4000)
			must(t, c.Submit(gputest.WriteCmd(ids[0].ID, q[:k], false)))
			q = q[k:]
		}
		must(t, c.Submit(gputest.WriteCmd(ids[0].ID, nil, true)))
		if got, _ := recv(t, c, 4); !bytes.Equal(got, sum(p)) {
			t.Errorf("%d bytes: other bytes arrived", n)
		}
		if c.Submit(gputest.WriteCmd(ids[0].ID, nil, true)) == nil {
			t.Error("a pipe that was hung up can be written")
		}
	}
	must(t, c.Close())
}

// TestWriteFlow: a fence of WRITE is held while the host's reader is behind, and
// that of another pipe is not.
func TestWriteFlow(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	must(t, c.Submit(gputest.SendCmd(request('S', 0))))
	_, ids := recv(t, c, 4)
	var held *vhosttest.Request
	for i := 0; held == nil; i++ {
		if i > 200 {
			t.Fatal("never held")
		}
		q := c.Start(gputest.WriteCmd(ids[0].ID, testPattern(4000, 0), false), virtwl.RingFirstPipe)
		select {
		case <-q.Done():
			q.Free()
		case <-time.After(100 * time.Millisecond):
			held = q
		}
	}
	must(t, c.Submit(gputest.SendCmd(request('W', 0))))
	_, other := recv(t, c, 4)
	must(t, c.Submit(gputest.WriteCmd(other[0].ID, []byte("free"), false)))
	must(t, c.Submit(gputest.WriteCmd(other[0].ID, nil, true)))
	if got, _ := recv(t, c, 4); !bytes.Equal(got, sum([]byte("free"))) {
		t.Error("another pipe was held up")
	}
	must(t, c.Submit(gputest.SendCmd(request('X', 0)))) // closes the reader, too
	if _, err := held.Wait(); err != nil {
		t.Errorf("held fence: %v", err)
	}
	must(t, c.Close())
}

// TestSendFlow: fences of SEND are held at half of the bound; beyond the bound the
// context fails, and only it.
func TestSendFlow(t *testing.T) {
	checkLeaks(t)
	release := make(chan struct{})
	failed := make(chan error, 1)
	first := true
	r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) {
		if !first {
			_ = serveEcho(tr)
			return
		}
		first = false
		defer tr.Close()
		<-release
		buf, n := make([]byte, 1<<16), 0
		for n < 600<<10 {
			k, _, err := tr.Recv(buf, nil)
			if n += k; err != nil {
				failed <- err
				return
			}
		}
		<-release
		for {
			if _, _, err := tr.Recv(buf, nil); err != nil {
				failed <- err
				return
			}
		}
	}}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	data := make([]byte, 7000)
	var held *vhosttest.Request
	sent := 0
	for held == nil {
		q := c.Start(gputest.SendCmd(data), virtwl.RingSend)
		sent += len(data)
		select {
		case <-q.Done():
			q.Free()
		case <-time.After(200 * time.Millisecond):
			held = q
		}
		if sent > 1<<20 {
			t.Fatal("never held")
		}
	}
	if sent <= 512<<10 {
		t.Errorf("held after %d bytes already", sent)
	}
	release <- struct{}{}
	if _, err := held.Wait(); err != nil {
		t.Fatal(err)
	}
	for range 1 << 20 / len(data) * 2 {
		if err = c.Submit(gputest.SendCmd(data)); err != nil {
			break
		}
	}
	if err == nil {
		t.Error("the queue has no bound")
	}
	other, err := r.Connect(nil)
	must(t, err)
	must(t, other.Submit(gputest.SendCmd(request('E', 2, 'o', 'k'))))
	if got, _ := recv(t, other, 2); string(got) != "ok" {
		t.Error("another context suffers")
	}
	release <- struct{}{}
	if err := <-failed; !errors.Is(err, virtwl.ErrProtocol) {
		t.Errorf("the relay saw %v", err)
	}
	if e, err := c.Next(); err != nil || e.Cmd != virtwl.CmdReceive || len(e.Data) != 0 {
		t.Errorf("the guest is not told: %+v, %v", e, err)
	}
}

func TestHostCloses(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	poll := c.Poll() // parked before the end
	must(t, c.Submit(gputest.SendCmd(request('X', 0))))
	_, err = poll.Wait()
	must(t, err)
	poll.Free()
	for range 3 {
		if e, err := gputest.ParseEvent(c.Channel); err != nil || e.Cmd != virtwl.CmdReceive || e.Msg.Count != 0 || len(e.Data) != 0 {
			t.Fatalf("event %+v, %v", e, err)
		}
		must(t, c.Submit(gputest.SendCmd([]byte("swallowed"))))
		if _, err := c.Next(); err != nil {
			t.Fatal(err)
		}
	}
	must(t, c.Close())
}

// TestGuestLeaves: earlier data arrives, then the end.
func TestGuestLeaves(t *testing.T) {
	checkLeaks(t)
	got := make(chan string, 1)
	start := make(chan struct{})
	r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) {
		defer tr.Close()
		<-start
		var all []byte
		for buf := make([]byte, 3); ; {
			n, _, err := tr.Recv(buf, nil)
			all = append(all, buf[:n]...)
			if err != nil {
				if !errors.Is(err, io.EOF) {
					t.Errorf("recv: %v", err)
				}
				break
			}
		}
		if err := tr.Send([]byte("x"), nil); err == nil {
			t.Error("send to a guest that has gone")
		}
		got <- string(all)
	}}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	poll := c.Poll()
	must(t, c.Submit(gputest.SendCmd([]byte("last words"))))
	must(t, c.Close())
	if _, err := poll.Wait(); err != nil {
		t.Errorf("parked POLL: %v", err)
	}
	close(start)
	if s := <-got; s != "last words" {
		t.Errorf("got %q", s)
	}
}

// TestContexts opens and closes 200 connections, each with everything in use, and
// counts what remains.
func TestContexts(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	var again *gputest.Conn
	settle := func() (int, int) { runtime.GC(); return runtime.NumGoroutine(), countFDs(t) }
	var g0, f0 int
	for i := range 201 {
		c, err := r.Connect(again)
		must(t, err)
		res, _, err := c.Blob(8192)
		must(t, err)
		must(t, c.Submit(gputest.SendCmd(request('W', 0))))
		recv(t, c, 4)
		must(t, c.Submit(gputest.SendCmd(request('R', 100000), virtwl.Identifier{ID: virtwl.PipeReadStart + 1, Type: virtwl.IDReadPipe})))
		must(t, c.Submit(gputest.SendCmd(request('K', 4096), virtwl.Identifier{ID: res, Type: virtwl.IDMemory})))
		must(t, r.Drop(res))
		must(t, c.Close())
		again = c
		if i == 0 {
			time.Sleep(100 * time.Millisecond) // the first one's goroutines end
			g0, f0 = settle()
		}
	}
	var g, f int
	for range 100 {
		if g, f = settle(); g <= g0 && f <= f0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	if g > g0 || f > f0 {
		t.Errorf("after 200 contexts: %d goroutines and %d descriptors more", g-g0, f-f0)
	}
}

// TestReset: a restarted guest finds a fresh device, its old connections
// end, and its old mappings are gone before new ones appear.
func TestReset(t *testing.T) {
	checkLeaks(t)
	ended := make(chan error, 8)
	r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) { ended <- serveEcho(tr) }}, gputest.Features)
	for range 3 {
		c, err := r.Connect(nil)
		must(t, err)
		_, _, err = c.Blob(1 << 20)
		must(t, err)
		poll := c.Poll()
		for i, ring := range r.fe.Rings {
			must(t, r.fe.Set(vhosttest.SetVringEnable, vhosttest.State(uint32(i), 0)))
			_, err := r.fe.Call(vhosttest.GetVringBase, vhosttest.State(uint32(i), 0))
			must(t, err)
			ring.Forget()
		}
		if err := <-ended; err != nil {
			t.Errorf("connection ended with %v", err)
		}
		if _, err := poll.Wait(); err == nil {
			t.Error("a POLL of the former life was answered")
		}
		channel := bytes.Clone(c.Channel)
		for _, ring := range r.fe.Rings {
			must(t, ring.Run())
		}
		if !bytes.Equal(channel, c.Channel) {
			t.Error("memory of the former life was written")
		}
		r.Guest = gputest.NewGuest(r.fe) // counts its ids and its window from the start
	}
	c, err := r.Connect(nil)
	must(t, err)
	_, _, err = c.Blob(4096)
	must(t, err)
	if n := r.fe.Mappings(); n != 1 {
		t.Errorf("%d mappings, want 1", n)
	}
}

// TestFrontEndSilent: no ADD_MEM_REG comes after a map, because the guest has
// switched the window off. The map is still answered after a while, and nothing
// else waits for it.
func TestFrontEndSilent(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	r.fe.Silence()
	c, err := r.Connect(nil)
	must(t, err)
	mapped := make(chan error, 1)
	go func() {
		_, _, err := c.Blob(4096)
		mapped <- err
	}()
	other, err := r.Connect(nil)
	must(t, err)
	must(t, other.Submit(gputest.SendCmd(request('E', 1, 'x'))))
	recv(t, other, 1)
	select {
	case err := <-mapped:
		t.Errorf("the map did not wait: %v", err)
	default:
	}
	must(t, <-mapped)
}

func TestFrontEndRefuses(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	r.fe.Refuse(func(off, n uint64) error {
		if n > 1<<20 {
			return errors.New("no")
		}
		return nil
	})
	c, err := r.Connect(nil)
	must(t, err)
	if _, _, err := c.Blob(2 << 20); err == nil || !strings.Contains(err.Error(), "0x1200") {
		t.Errorf("got %v", err)
	}
	res, _, err := c.Blob(1 << 20)
	must(t, err)
	must(t, r.Drop(res))
}

func TestLimits(t *testing.T) {
	checkLeaks(t)
	lim := gpu.Limits{Contexts: 3, Resources: 8, Mappings: 2, BlobBytes: 1 << 20, Entries: 10}
	r := newRig(t, gpu.Config{Limits: lim}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	var res []uint32
	for range 2 {
		b, _, err := c.Blob(4096)
		must(t, err)
		res = append(res, b)
	}
	want := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "0x1201") {
			t.Errorf("%s: %v, want out of memory", what, err)
		}
	}
	_, _, err = c.Blob(4096)
	want("third mapping", err)
	must(t, r.Drop(res[0]))
	_, _, err = c.Blob(1 << 20)
	want("bytes", err)
	var es []vhost.Segment
	for range 9 {
		es = append(es, vhost.Segment{Addr: 4096, Len: 4096})
	}
	_, err = r.Expect(gputest.OK, gputest.CreateBlob, 0, gputest.BlobBody(77, 1, 0, 4096, es...))
	want("entries", err)
	for _, err = r.Context(nil); err == nil; _, err = r.Context(nil) {
	}
	want("contexts or resources", err)
}

func TestNobodyElsesResources(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	a, err := r.Connect(nil)
	must(t, err)
	b, err := r.Connect(nil)
	must(t, err)
	res, _, err := a.Blob(4096)
	must(t, err)
	if b.Submit(gputest.SendCmd(request('B', 4096), virtwl.Identifier{ID: res, Type: virtwl.IDMemory})) == nil {
		t.Error("a context sent a resource that it does not have")
	}
	if e, err := b.Next(); err != nil || len(e.Data) != 0 {
		t.Errorf("its connection goes on: %+v, %v", e, err)
	}
	must(t, a.Submit(gputest.SendCmd(request('E', 1, 'x'))))
	recv(t, a, 1)
}

// TestMistakes: each gets an error, and the device goes on.
func TestMistakes(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	res, _, err := c.Blob(8192)
	must(t, err)
	page, _ := r.fe.Alloc(4096)
	seg := func(n uint32) vhost.Segment { return vhost.Segment{Addr: page, Len: n} }
	le := binary.LittleEndian
	for _, m := range []struct {
		name     string
		want     uint32
		cmd, ctx uint32
		body     []byte
	}{
		{"unknown command", gputest.ErrUnspec, 0x999, 0, nil},
		{"2D resource", gputest.ErrUnspec, 0x101, 0, make([]byte, 64)},
		{"scanout", gputest.ErrUnspec, 0x103, 0, make([]byte, 64)},
		{"EDID", gputest.ErrUnspec, 0x10a, 0, make([]byte, 8)},
		{"3D resource", gputest.ErrUnspec, 0x204, 0, make([]byte, 64)},
		{"short body", gputest.ErrParameter, gputest.CtxCreate, 9, make([]byte, 10)},
		{"capability set index", gputest.ErrParameter, gputest.GetCapsetInfo, 0, gputest.U32s(1, 0)},
		{"capability set", gputest.ErrParameter, gputest.GetCapset, 0, gputest.U32s(4, 0)},
		{"context 0", gputest.ErrContext, gputest.CtxCreate, 0, append(gputest.U32s(0, 5), make([]byte, 64)...)},
		{"context twice", gputest.ErrContext, gputest.CtxCreate, c.Ctx, append(gputest.U32s(0, 5), make([]byte, 64)...)},
		{"context of Venus", gputest.ErrParameter, gputest.CtxCreate, 99, append(gputest.U32s(0, 4), make([]byte, 64)...)},
		{"destroy no context", gputest.ErrContext, gputest.CtxDestroy, 98, nil},
		{"attach no resource", gputest.ErrResource, gputest.CtxAttach, c.Ctx, gputest.U32s(12345, 0)},
		{"attach to no context", gputest.ErrContext, gputest.CtxAttach, 97, gputest.U32s(res, 0)},
		{"resource 0", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(0, 1, 0, 4096, seg(4096))},
		{"resource twice", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(res, 1, 0, 4096, seg(4096))},
		{"empty blob", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(500, 1, 0, 0, seg(4096))},
		{"odd blob", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(500, 1, 0, 4095, seg(4096))},
		{"huge blob", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(500, 1, 0, 1<<62, seg(4096))},
		{"blob of both memories", gputest.ErrParameter, gputest.CreateBlob, c.Ctx, gputest.BlobBody(500, 3, 0, 4096, seg(4096))},
		{"too short pieces", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.BlobBody(500, 1, 0, 8192, seg(4096))},
		{"entries that are not there", gputest.ErrParameter, gputest.CreateBlob, 0, gputest.U32s(500, 1, 1, 1<<31, 0, 0, 4096, 0)},
		{"address overflow", gputest.ErrUnspec, gputest.CreateBlob, 0, gputest.BlobBody(500, 1, 0, 4096, vhost.Segment{Addr: 1<<64 - 1, Len: 4096})},
		{"host blob without a context", gputest.ErrContext, gputest.CreateBlob, 0, gputest.BlobBody(500, 2, 1<<31|1, 4096)},
		{"host blob of another size", gputest.ErrParameter, gputest.CreateBlob, c.Ctx, gputest.BlobBody(500, 2, 1<<31|1, 8192)},
		{"host blob by no id", gputest.ErrParameter, gputest.CreateBlob, c.Ctx, gputest.BlobBody(500, 2, 7, 4096)},
		{"map twice", gputest.ErrParameter, gputest.MapBlob, 0, le.AppendUint64(gputest.U32s(res, 0), 1<<20)},
		{"map the guest's own", gputest.ErrParameter, gputest.MapBlob, 0, le.AppendUint64(gputest.U32s(c.QueryRes, 0), 1<<20)},
		{"map nothing", gputest.ErrResource, gputest.MapBlob, 0, le.AppendUint64(gputest.U32s(501, 0), 1<<20)},
		{"unmap nothing", gputest.ErrResource, gputest.UnmapBlob, 0, gputest.U32s(501, 0)},
		{"unmap unmapped", gputest.ErrParameter, gputest.UnmapBlob, 0, gputest.U32s(c.QueryRes, 0)},
		{"unref nothing", gputest.ErrResource, gputest.ResourceUnref, 0, gputest.U32s(501, 0)},
		{"submit to no context", gputest.ErrContext, gputest.Submit3D, 96, gputest.U32s(0, 0)},
		{"submit longer than the chain", gputest.ErrParameter, gputest.Submit3D, c.Ctx, gputest.U32s(1<<31, 0)},
		{"submit half a header", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(4, 0), 1, 2, 3, 4)},
		{"unknown cross-domain command", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(8, 0), 99, 0, 8, 0, 0, 0, 0, 0)},
		{"INIT twice", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(20, 0), virtwl.AppendInit(nil, virtwl.Init{QueryRing: c.QueryRes, ChannelRing: c.ChannelRes, Channel: 1})...)},
		{"WRITE to no pipe", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(24, 0), gputest.WriteCmd(1, nil, false)...)},
		{"image of no format", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(24, 0), virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: 1, Height: 1})...)},
		{"image that overflows", gputest.ErrParameter, gputest.Submit3D, c.Ctx, append(gputest.U32s(24, 0), virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: 1<<32 - 1, Height: 1<<32 - 1, Fourcc: gputest.R8})...)},
	} {
		t.Run(m.name, func(t *testing.T) {
			if _, err := r.Expect(m.want, m.cmd, m.ctx, m.body); err != nil {
				t.Error(err)
			}
		})
	}
	must(t, c.Submit(gputest.SendCmd(request('E', 5, []byte("alive")...))))
	if got, _ := recv(t, c, 5); string(got) != "alive" {
		t.Error("the connection suffered")
	}
}

// TestBrokenStream: any failed SEND ends its connection, for both
// ends.
func TestBrokenStream(t *testing.T) {
	checkLeaks(t)
	many := virtwl.SendReceive{Count: 0, DataSize: 4}
	tooMany := make([]byte, virtwl.SendReceiveSize+4)
	virtwl.PutSendReceive(tooMany, virtwl.CmdSend, &many)
	binary.LittleEndian.PutUint32(tooMany[8:], 29)
	long := gputest.SendCmd([]byte("1234"))
	binary.LittleEndian.PutUint32(long[12:], 1<<31)
	for name, cmd := range map[string][]byte{
		"too many ids": tooMany,
		"data missing": long,
		"cut short":    gputest.SendCmd(nil)[:100],
		"ids only":     gputest.SendCmd(nil, virtwl.Identifier{ID: virtwl.PipeReadStart + 1, Type: virtwl.IDReadPipe}),
		"no resource":  gputest.SendCmd([]byte("x"), virtwl.Identifier{ID: 4242, Type: virtwl.IDMemory}),
		"ring as blob": gputest.SendCmd([]byte("x"), virtwl.Identifier{ID: 1, Type: virtwl.IDMemory}),
		"wrong pipe":   gputest.SendCmd([]byte("x"), virtwl.Identifier{ID: virtwl.PipeReadStart + 2, Type: virtwl.IDReadPipe}),
		"sync":         gputest.SendCmd([]byte("x"), virtwl.Identifier{ID: 1, Type: virtwl.IDSync}),
		"write pipe":   gputest.SendCmd([]byte("x"), virtwl.Identifier{ID: 1, Type: virtwl.IDWritePipe}),
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) {
				defer tr.Close()
				_, _, err := tr.Recv(make([]byte, 100), nil)
				ended <- err
			}}, gputest.Features)
			c, err := r.Connect(nil)
			must(t, err)
			if c.Submit(cmd) == nil {
				t.Error("accepted")
			}
			if err := <-ended; err == nil {
				t.Error("the relay is not told")
			}
			if e, err := c.Next(); err != nil || len(e.Data) != 0 {
				t.Errorf("the guest is not told: %+v, %v", e, err)
			}
		})
	}
}

// TestRingVanishes: the guest frees the page that the host is about to write.
func TestRingVanishes(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	poll := c.Poll()
	_, err = r.Expect(gputest.OK, gputest.ResourceUnref, 0, gputest.U32s(c.ChannelRes, 0))
	must(t, err)
	must(t, c.Submit(gputest.SendCmd(request('E', 1, 'x'))))
	if _, err := poll.Wait(); err != nil {
		t.Error(err)
	}
	_, err = r.Expect(gputest.OK, gputest.CtxDestroy, c.Ctx, nil)
	must(t, err)
}

// TestDevNull: a keymap event without a keymap carries /dev/null; the guest gets a
// descriptor all the same.
func TestDevNull(t *testing.T) {
	checkLeaks(t)
	r := newRig(t, gpu.Config{Accept: func(tr wayland.Transport) {
		defer tr.Close()
		fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Error(err)
			return
		}
		if err := tr.Send([]byte("keymap"), []wayland.Desc{wayland.FileDesc(wayland.KindMemory, fd)}); err != nil {
			t.Error(err)
		}
		_ = serveEcho(tr)
	}}, gputest.Features)
	c, err := r.Connect(nil)
	must(t, err)
	if _, ids := recv(t, c, 6); len(ids) != 1 || ids[0].Type != virtwl.IDWritePipe {
		t.Errorf("identifiers %+v", ids)
	}
	must(t, c.Submit(gputest.SendCmd(request('E', 1, 'x'))))
	recv(t, c, 1)
}
