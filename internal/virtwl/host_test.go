package virtwl

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/ledger"
	"vix/internal/wayland"
)

// fakePort is a device with two ring pages, resources 1 and 2, and memory of the
// host, every other one up to 9.
type fakePort struct {
	mu     sync.Mutex
	pages  [3][MaxRingSize]byte
	signal map[uint64]int // by Cookie[0]
	wrote  chan struct{}  // a value for each Signal, if not nil
}

var errNoFake = errors.New("no such resource")

func (p *fakePort) Dup(res uint32) (int, *ledger.Memory, error) {
	if res < 3 || res > 9 {
		return -1, nil, errNoFake
	}
	fd, err := unix.MemfdCreate("fake", unix.MFD_CLOEXEC)
	return fd, nil, err
}

func (p *fakePort) RingSize(res uint32) (int, error) {
	if res < 1 || res > 2 {
		return 0, errNoFake
	}
	return len(p.pages[res]), nil
}

func (p *fakePort) WriteRing(res uint32, head, data []byte) error {
	if res < 1 || res > 2 || len(head)+len(data) > len(p.pages[0]) {
		return errNoFake
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	n := copy(p.pages[res][:], head)
	copy(p.pages[res][n:], data)
	return nil
}

func (p *fakePort) Signal(f Fence) {
	p.mu.Lock()
	if p.signal != nil {
		p.signal[f.Cookie[0]]++
	}
	p.mu.Unlock()
	if p.wrote != nil {
		p.wrote <- struct{}{}
	}
}

// reader is a CommandReader of bytes.
type reader struct{ b []byte }

func (r *reader) Remaining() int { return len(r.b) }
func (r *reader) Read(p []byte) error {
	if len(p) > len(r.b) {
		return io.ErrUnexpectedEOF
	}
	r.b = r.b[copy(p, r.b):]
	return nil
}

func initCmd() []byte { return AppendInit(nil, Init{1, 2, ChannelWayland}) }

func pollCmd() []byte { return AppendHeader(nil, Header{CmdPoll, RingChannel, HeaderSize}) }

func sendCmd(data []byte, ids ...Identifier) []byte {
	m := SendReceive{DataSize: uint32(len(data)), Count: len(ids)}
	copy(m.IDs[:], ids)
	b := make([]byte, SendReceiveSize)
	PutSendReceive(b, CmdSend, &m)
	return append(b, data...)
}

func (c *HostContext) submit(tb testing.TB, cmd []byte, f Fence) bool {
	tb.Helper()
	held, err := c.Submit(&reader{cmd}, f)
	if err != nil {
		tb.Fatal(err)
	}
	return held
}

// open returns an opened context whose transport the caller has.
func open(tb testing.TB, p *fakePort) (*Host, *HostContext, wayland.Transport) {
	tb.Helper()
	got := make(chan wayland.Transport, 1)
	h := NewHost(HostConfig{Accept: func(t wayland.Transport) { got <- t }})
	c := h.NewContext(p)
	c.submit(tb, initCmd(), Fence{})
	return h, c, <-got
}

func pollFence(n uint64) Fence { return Fence{Fenced: true, Ring: RingChannel, Cookie: [2]uint64{n}} }

// TestFenceWatch: fences that waited are told of when they are signalled.
func TestFenceWatch(t *testing.T) {
	_, c, tr := open(t, &fakePort{})
	defer c.Destroy()
	var got []string
	c.OnFence(func(what string, begin, end time.Time) {
		if end.Before(begin) {
			t.Errorf("%s from %v to %v", what, begin, end)
		}
		got = append(got, what)
	})
	c.submit(t, pollCmd(), pollFence(1))
	if err := tr.Send([]byte("x"), nil); err != nil {
		t.Fatal(err)
	}
	c.submit(t, sendCmd(make([]byte, MaxSendData)), Fence{Fenced: true, Ring: RingSend, Cookie: [2]uint64{2}}) // not held
	for range softQueued / MaxSendData {
		c.submit(t, sendCmd(make([]byte, MaxSendData)), Fence{})
	}
	if !c.submit(t, sendCmd([]byte("x")), Fence{Fenced: true, Ring: RingSend, Cookie: [2]uint64{3}}) {
		t.Fatal("a SEND beyond the soft limit was not held")
	}
	buf := make([]byte, 2*softQueued+MaxSendData)
	if _, _, err := tr.Recv(buf, nil); err != nil {
		t.Fatal(err)
	}
	c.submit(t, pollCmd(), pollFence(4))
	_ = tr.Close()
	if s := strings.Join(got, " "); s != "POLL SEND POLL" {
		t.Errorf("told of %s", s)
	}
}

// TestRecvDescriptors: a descriptor arrives with or before the last byte of its
// SEND, however small the reads are, and no more than MaxDescs at once.
func TestRecvDescriptors(t *testing.T) {
	h, c, tr := open(t, &fakePort{})
	for i := range 4 {
		var ids []Identifier
		for range 20 {
			ids = append(ids, Identifier{ID: 3, Type: IDMemory})
		}
		c.submit(t, sendCmd(bytes.Repeat([]byte{byte('a' + i)}, 10), ids...), Fence{})
	}
	var got []byte
	total := 0
	for _, size := range []int{3, 4, 100, 100, 100} {
		buf := make([]byte, size)
		n, ds, err := tr.Recv(buf, nil)
		if err != nil || len(ds) > wayland.MaxDescs {
			t.Fatalf("%d descriptors, %v", len(ds), err)
		}
		got, total = append(got, buf[:n]...), total+len(ds)
		wayland.CloseAll(ds)
		if want := (len(got) + 9) / 10 * 20; total < want {
			t.Fatalf("%d descriptors after %d bytes, want %d", total, len(got), want)
		}
		if len(got) == 40 {
			break
		}
	}
	if string(got) != "aaaaaaaaaabbbbbbbbbbccccccccccdddddddddd" || total != 80 {
		t.Errorf("%q with %d descriptors", got, total)
	}
	c.Destroy()
	_ = tr.Close()
	checkHost(t, h)
}

// checkHost waits for the host's goroutines and wants nothing left in its accounts.
func checkHost(t testing.TB, h *Host) {
	t.Helper()
	done := make(chan struct{})
	go func() { h.Wait(); close(done) }()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		panic("goroutines of a context do not end")
	}
	if u, n := h.cfg.Ledger.Use(), h.conns.Load(); u != (ledger.Use{}) || n != 0 {
		t.Errorf("accounts: %+v, %d connections left", u, n)
	}
}

// TestSharedBounds: what a VM's contexts may hold together is bounded.
func TestSharedBounds(t *testing.T) {
	h := NewHost(HostConfig{Accept: func(t wayland.Transport) {}})
	var cs []*HostContext
	full := 0
	for range 10 {
		c := h.NewContext(&fakePort{})
		c.submit(t, initCmd(), Fence{})
		cs = append(cs, c)
		for range maxAbroad {
			if _, err := c.Submit(&reader{sendCmd([]byte("x"), Identifier{ID: 3, Type: IDMemory})}, Fence{}); err != nil {
				full++
				break
			}
		}
	}
	if n := h.cfg.Ledger.Use().Descriptors; full == 0 || n > ledger.DefaultDescriptors {
		t.Errorf("%d descriptors held, %d contexts refused", n, full)
	}
	for _, c := range cs {
		c.Destroy()
		_ = c.Close()
	}
	checkHost(t, h)
}

// TestHeldThenWrong: a submission whose SEND is held and whose next command is wrong
// is completed once.
func TestHeldThenWrong(t *testing.T) {
	p := &fakePort{signal: make(map[uint64]int)}
	h, c, tr := open(t, p)
	big := make([]byte, 60000)
	for c.in.len() <= softQueued {
		c.submit(t, sendCmd(big), Fence{})
	}
	cmd := append(sendCmd(big), sendCmd(nil, Identifier{ID: 99, Type: IDMemory})...)
	held, err := c.Submit(&reader{cmd}, Fence{Fenced: true, Ring: RingSend, Cookie: [2]uint64{7}})
	if !held || err != nil {
		t.Errorf("held %v, %v", held, err)
	}
	_ = tr.Close()
	c.Destroy()
	checkHost(t, h)
	if p.signal[7] != 1 {
		t.Errorf("signalled %d times", p.signal[7])
	}
}

// TestConnectionsLinger: contexts that the relay has not closed count.
func TestConnectionsLinger(t *testing.T) {
	var mu sync.Mutex
	var open []wayland.Transport
	h := NewHost(HostConfig{Accept: func(tr wayland.Transport) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, tr)
	}})
	n := 0
	for ; n < 2*maxConnections; n++ {
		c := h.NewContext(&fakePort{})
		_, err := c.Submit(&reader{initCmd()}, Fence{})
		c.Destroy()
		if err != nil {
			break
		}
	}
	if n != maxConnections {
		t.Errorf("%d connections", n)
	}
	h.Wait()
	for _, tr := range open {
		_, _ = tr.Close(), tr.Close()
	}
	checkHost(t, h)
}

func TestSplitSend(t *testing.T) {
	p := &fakePort{wrote: make(chan struct{}, 1)}
	h, c, tr := open(t, p)
	data := make([]byte, 3*MaxReceiveData-5)
	for i := range data {
		data[i] = byte(i * 3)
	}
	fd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 100); err != nil {
		t.Fatal(err)
	}
	sent := make(chan error, 1)
	go func() { sent <- tr.Send(data, []wayland.Desc{wayland.FileDesc(wayland.KindMemory, fd)}) }()
	var got []byte
	for i := range 3 {
		if !c.submit(t, pollCmd(), pollFence(uint64(i))) {
			t.Fatal("POLL was not held")
		}
		<-p.wrote
		p.mu.Lock()
		var m SendReceive
		if err := ParseSendReceive(p.pages[2][:], &m); err != nil {
			t.Fatal(err)
		}
		got = append(got, p.pages[2][SendReceiveSize:][:m.DataSize]...)
		p.mu.Unlock()
		if want := map[int]int{0: 1}[i]; m.Count != want {
			t.Errorf("RECEIVE %d with %d identifiers", i, m.Count)
		}
	}
	if err := <-sent; err != nil || !bytes.Equal(got, data) {
		t.Errorf("%v, %d bytes", err, len(got))
	}
	if err := tr.Send([]byte("x"), []wayland.Desc{wayland.FileDesc(wayland.KindReadPipe, dupNull(t))}); err == nil {
		t.Error("a read pipe was taken")
	}
	_ = tr.Close()
	c.Destroy()
	checkHost(t, h)
}

func dupNull(t *testing.T) int {
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// FuzzHost is a guest that submits anything, in commands of [flags][u16 length]
// [bytes]; bit 7 of the flags is the fence, bits 0–5 its ring. Behind the context is a
// relay that echoes. Every fence is signalled once, and nothing is left at the end.
func FuzzHost(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		h := NewHost(HostConfig{Accept: echoRelay})
		p := &fakePort{signal: make(map[uint64]int)}
		c := h.NewContext(p)
		held := make(map[uint64]bool)
		for n := uint64(1); len(in) >= 3; n++ {
			k := min(int(in[1])|int(in[2])<<8, len(in)-3)
			fence := Fence{Fenced: in[0]&0x80 != 0, Ring: in[0] & 0x3f, Cookie: [2]uint64{n}}
			ok, err := c.Submit(&reader{in[3 : 3+k]}, fence)
			if ok && err != nil {
				t.Fatal("held, with an error")
			}
			if ok {
				held[n] = true
			}
			if fd, mem, err := c.CreateBlob(n, PageSize); err == nil {
				_ = unix.Close(fd)
				mem.Release()
			}
			in = in[3+k:]
		}
		c.Destroy()
		c.Destroy()
		checkHost(t, h)
		p.mu.Lock()
		defer p.mu.Unlock()
		for n, times := range p.signal {
			if times != 1 || !held[n] {
				t.Fatalf("command %d signalled %d times, held %v", n, times, held[n])
			}
			delete(held, n)
		}
		if len(held) > 0 {
			t.Fatalf("never signalled: %v", held)
		}
	})
}

// echoRelay sends back what it gets, with memory and a pipe for each descriptor,
// and closes at an 'X'.
func echoRelay(t wayland.Transport) {
	defer t.Close()
	buf := make([]byte, 4096)
	for {
		n, ds, err := t.Recv(buf, nil)
		var back []wayland.Desc
		for _, d := range ds {
			if d.Kind == wayland.KindWritePipe {
				_, _ = unix.Write(d.FD, buf[:n])
			}
			fd, ferr := unix.MemfdCreate("back", unix.MFD_CLOEXEC)
			var p [2]int
			perr := unix.Pipe2(p[:], unix.O_CLOEXEC)
			if ferr == nil && perr == nil && len(back) < MaxIdentifiers-1 {
				_ = unix.Ftruncate(fd, 100)
				_ = unix.Close(p[0])
				back = append(back, wayland.FileDesc(wayland.KindMemory, fd), wayland.FileDesc(wayland.KindWritePipe, p[1]))
			} else if ferr == nil && perr == nil {
				_, _, _ = unix.Close(fd), unix.Close(p[0]), unix.Close(p[1])
			}
		}
		wayland.CloseAll(ds)
		if err != nil {
			wayland.CloseAll(back)
			return
		}
		if buf[0] == 'X' || t.Send(buf[:n], back) != nil {
			if buf[0] == 'X' {
				wayland.CloseAll(back)
			}
			return
		}
	}
}

// FuzzParse: what a parser accepts, its opposite writes back the same.
func FuzzParse(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte) {
		same := func(name string, got []byte) {
			t.Helper()
			if len(got) > len(in) || !bytes.Equal(got, in[:len(got)]) {
				t.Errorf("%s: %x became %x", name, in, got)
			}
		}
		h, err := ParseHeader(in)
		if err != nil || le.Uint32(in[4:]) != 0 { // padding is dropped
			return
		}
		same("header", AppendHeader(nil, h))
		if i, err := ParseInit(in); err == nil && h == (Header{CmdInit, RingQuery, InitSize}) {
			same("INIT", AppendInit(nil, i))
		}
		if q, err := ParseImageQuery(in); err == nil && h == (Header{CmdGetImageRequirements, RingQuery, ImageQuerySize}) {
			same("image query", AppendImageQuery(nil, q))
			if r, err := imageLayout(q); err == nil {
				back, err := ParseImageReply(AppendImageReply(nil, r))
				if err != nil || back != r || r.Size > MaxBlob || r.Size%PageSize != 0 || uint64(r.Stride)*uint64(q.Height) > r.Size {
					t.Errorf("layout of %+v: %+v", q, r)
				}
			}
		}
		var m SendReceive
		if err := ParseSendReceive(in, &m); err == nil {
			got := make([]byte, SendReceiveSize)
			PutSendReceive(got, h.Cmd, &m)
			var again SendReceive
			if err := ParseSendReceive(got, &again); err != nil || again != m {
				t.Errorf("SEND %+v became %+v, %v", m, again, err)
			}
		}
		if m, err := ParseReadWrite(in); err == nil {
			got := make([]byte, ReadWriteSize)
			PutReadWrite(got, h.Cmd, m)
			if again, err := ParseReadWrite(got); err != nil || again != m {
				t.Errorf("WRITE %+v became %+v, %v", m, again, err)
			}
		}
		if c, err := ParseCapabilities(in); err == nil {
			if again, err := ParseCapabilities(AppendCapabilities(nil, c)); err != nil || again != c {
				t.Errorf("capabilities %+v became %+v", c, again)
			}
		}
	})
}

// TestCorpora: a fuzz target whose corpus has gone is no test.
func TestCorpora(t *testing.T) {
	for _, name := range []string{"FuzzHost", "FuzzParse", "FuzzGuest"} {
		if fs, _ := filepath.Glob(filepath.Join("testdata", "fuzz", name, "*")); len(fs) == 0 {
			t.Errorf("%s has no corpus", name)
		}
	}
}

// TestImageLayout: what proxies ask.
func TestImageLayout(t *testing.T) {
	fourcc := func(s string) uint32 { return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24 }
	for _, c := range []struct {
		w, h   uint32
		format string
		stride uint32
		size   uint64
	}{
		{1, 1, "XR24", 64, 4096}, {100, 10, "AR24", 448, 8192}, {1920, 1080, "XR24", 7680, 8294400},
		{512 << 20, 1, "R8  ", 512 << 20, 512 << 20}, {4097, 1, "R8  ", 4160, 8192}, {10, 10, "RG16", 64, 4096},
	} {
		r, err := imageLayout(ImageQuery{c.w, c.h, fourcc(c.format), 0x11})
		if err != nil || r.Stride != c.stride || r.Size != c.size || r.BlobID != imageBlob|uint32(c.size/PageSize) {
			t.Errorf("%+v: %+v, %v", c, r, err)
		}
	}
	for _, q := range []ImageQuery{
		{0, 1, fourcc("XR24"), 0}, {1, 0, fourcc("XR24"), 0}, {1, 1, fourcc("NV12"), 0}, {1, 1, 0, 0},
		{1 << 31, 2, fourcc("R8  "), 0}, {1<<32 - 1, 1<<32 - 1, fourcc("AB4H"), 0}, {1, 1<<32 - 1, fourcc("R8  "), 0},
	} {
		if r, err := imageLayout(q); err == nil {
			t.Errorf("%+v: %+v", q, r)
		}
	}
}

// TestHotPathAllocs: bytes through a context allocate nothing, either way.
func TestHotPathAllocs(t *testing.T) {
	p := &fakePort{}
	h, c, tr := open(t, p)
	cmd := sendCmd(make([]byte, 400))
	r := &reader{}
	buf, ds := make([]byte, 4096), make([]wayland.Desc, 0, wayland.MaxDescs)
	if n := testing.AllocsPerRun(1000, func() {
		r.b = cmd
		if _, err := c.Submit(r, Fence{}); err != nil {
			t.Fatal(err)
		}
		if n, _, err := tr.Recv(buf, ds); err != nil || n != 400 {
			t.Fatal(n, err)
		}
	}); n != 0 {
		t.Errorf("SEND to Recv: %v allocations", n)
	}
	poll := pollCmd()
	if n := testing.AllocsPerRun(1000, func() {
		r.b = poll
		if held, err := c.Submit(r, pollFence(1)); err != nil || !held {
			t.Fatal(held, err)
		}
		if err := tr.Send(buf[:400], nil); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("Send to RECEIVE: %v allocations", n)
	}
	_ = tr.Close()
	c.Destroy()
	checkHost(t, h)
}

func BenchmarkHost(b *testing.B) {
	for _, size := range []int{24, 400, 3700} {
		b.Run(fmt.Sprintf("send-%d", size), func(b *testing.B) {
			_, c, tr := open(b, &fakePort{})
			cmd, r := sendCmd(make([]byte, size)), &reader{}
			buf, ds := make([]byte, 4096), make([]wayland.Desc, 0, wayland.MaxDescs)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r.b = cmd
				if _, err := c.Submit(r, Fence{}); err != nil {
					b.Fatal(err)
				}
				if _, _, err := tr.Recv(buf, ds); err != nil {
					b.Fatal(err)
				}
			}
			c.Destroy()
		})
		b.Run(fmt.Sprintf("receive-%d", size), func(b *testing.B) {
			_, c, tr := open(b, &fakePort{})
			poll, r := pollCmd(), &reader{}
			buf := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				r.b = poll
				if _, err := c.Submit(r, pollFence(1)); err != nil {
					b.Fatal(err)
				}
				if err := tr.Send(buf, nil); err != nil {
					b.Fatal(err)
				}
			}
			c.Destroy()
		})
	}
}

// TestAbroad: what the relay has received and not closed counts as the connection's, as
// what is queued does.
func TestAbroad(t *testing.T) {
	h, c, tr := open(t, &fakePort{})
	var have []wayland.Desc
	n := 0
	for ; n < 2*maxAbroad; n++ {
		if _, err := c.Submit(&reader{sendCmd([]byte("x"), Identifier{ID: 3, Type: IDMemory})}, Fence{}); err != nil {
			break
		}
		if n%2 == 0 { // every other stays in the queue a while
			continue
		}
		var err error
		if _, have, err = tr.Recv(make([]byte, 10), have); err != nil {
			t.Fatal(err)
		}
	}
	if u := h.cfg.Ledger.Use(); n != maxAbroad || u.Descriptors > maxAbroad {
		t.Errorf("%d descriptors are on their way, %+v", n, u)
	}
	wayland.CloseAll(have)
	_ = tr.Close()
	c.Destroy()
	checkHost(t, h)
}

// TestQueuesAreCharged: a queue is charged for its buffer, however little is in it, and
// the VM's contexts share the limit.
func TestQueuesAreCharged(t *testing.T) {
	h := NewHost(HostConfig{
		Accept: func(wayland.Transport) {},
		Ledger: ledger.New(ledger.Limits{Queued: 3 << 20}),
	})
	var cs []*HostContext
	refused := 0
	for range 8 {
		c := h.NewContext(&fakePort{})
		c.submit(t, initCmd(), Fence{})
		cs = append(cs, c)
		for sent := 0; sent < maxQueued-MaxSendData; sent += 50_000 {
			if _, err := c.Submit(&reader{sendCmd(make([]byte, 50_000))}, Fence{}); err != nil {
				refused++
				break
			}
		}
		for c.in.len() > 1 { // all but a byte
			if _, _, err := c.Recv(make([]byte, min(c.in.len()-1, 60_000)), nil); err != nil {
				t.Fatal(err)
			}
		}
	}
	held := 0
	for _, c := range cs {
		held += len(c.in.buf)
	}
	if u := h.cfg.Ledger.Use(); int(u.Queued) != held || held > 3<<20 || held < 2<<20 || refused == 0 {
		t.Errorf("%d bytes of buffers, %+v, %d contexts refused", held, u, refused)
	}
	for _, c := range cs {
		c.Destroy()
		_ = c.Close()
	}
	checkHost(t, h)
}

// TestPipeOrder: what is written to a pipe comes out whole and in order while its reader
// is slow and the queue grows under the writer.
func TestPipeOrder(t *testing.T) {
	h, c, tr := open(t, &fakePort{wrote: make(chan struct{}, 100)})
	var p [2]int
	if err := unix.Pipe2(p[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	c.submit(t, pollCmd(), pollFence(1))
	if err := tr.Send([]byte("x"), []wayland.Desc{wayland.FileDesc(wayland.KindWritePipe, p[1])}); err != nil {
		t.Fatal(err)
	}
	want := make([]byte, 3<<20)
	for i := range want {
		want[i] = byte(i * 7 >> 3)
	}
	got := make(chan []byte)
	go func() {
		f := os.NewFile(uintptr(p[0]), "reader")
		defer f.Close()
		b, _ := io.ReadAll(f)
		got <- b
	}()
	for at, n := 0, 1; at < len(want); n = n*3%60_001 + 1 {
		b := want[at:min(at+n, len(want))]
		w := make([]byte, ReadWriteSize)
		PutReadWrite(w, CmdWrite, ReadWrite{ID: 1, DataSize: uint32(len(b))})
		c.submit(t, append(w, b...), Fence{})
		at += len(b)
	}
	w := make([]byte, ReadWriteSize)
	PutReadWrite(w, CmdWrite, ReadWrite{ID: 1, HangUp: true})
	c.submit(t, w, Fence{})
	if b := <-got; !bytes.Equal(b, want) {
		t.Errorf("%d bytes of %d came, or others", len(b), len(want))
	}
	_ = tr.Close()
	c.Destroy()
	checkHost(t, h)
}
