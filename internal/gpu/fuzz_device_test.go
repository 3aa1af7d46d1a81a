package gpu_test

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost"
	"vix/internal/vhost/vhosttest"
	"vix/internal/virtwl"
	"vix/internal/wayland"
)

// FuzzDevice is a guest that knows the device well and follows no rule: the input is a
// program of steps, each an operation and its arguments, on the whole device, from
// descriptors to the content of a Wayland connection:
//
//	0 CTX_CREATE     ctx                        8 INIT        ctx, query, channel, type
//	1 CTX_DESTROY    ctx                        9 SEND        ctx, ring, n × (id, type), data
//	2 guest memory   res, ctx, pages           10 POLL        ctx
//	3 host memory    res, ctx, pages, id       11 image query ctx, width, height, format
//	4 MAP_BLOB       res, offset               12 WRITE       ctx, ring, id, hang-up, data
//	5 UNMAP_BLOB     res                       13 any request u16 length, bytes
//	6 UNREF          res                       14 any command ctx, ring, length, bytes
//	7 attach, detach ctx, res, on              15 descriptor  where, length, flags, next
//	                                           16 reset
//
// Every request gets an answer, unless the device may hold it; there are never more
// mappings than the limit; after a reset every request has come back, and a new
// connection works. The corpus has the steps of TestAttack… and Linux 6.12's commands.
func FuzzDevice(f *testing.F) {
	r := newRig(f, gpu.Config{
		Accept: func(tr wayland.Transport) { _ = serveEcho(tr) },
		Limits: gpu.Limits{Window: 1 << 30, Mappings: 16, Contexts: 8, Resources: 64, Blobs: 32, BlobBytes: 1 << 28},
	}, gputest.Features)
	scratch, _ := r.fe.Alloc(64 << 10)
	runs := 0
	f.Fuzz(func(t *testing.T, in []byte) {
		p := &program{r: r, in: in, scratch: scratch}
		for n := 0; len(p.in) > 0 && n < 200; n++ {
			p.step(t)
			if n := r.fe.Mappings(); n > 16 {
				t.Fatalf("%d mappings", n)
			}
		}
		p.end(t)
		if runs++; runs%200 == 0 {
			waitFDs(t)
		}
	})
}

// program is a running input.
type program struct {
	r       *rig
	in      []byte
	scratch uint64 // guest memory for anything
	parked  []*vhosttest.Request
}

// u8 takes an argument; at the end there are zeros.
func (p *program) u8() byte {
	if len(p.in) == 0 {
		return 0
	}
	b := p.in[0]
	p.in = p.in[1:]
	return b
}

func (p *program) bytes(n int) []byte {
	n = min(n, len(p.in))
	b := p.in[:n]
	p.in = p.in[n:]
	return b
}

func (p *program) ctx() uint32 { return uint32(p.u8() % 12) }
func (p *program) res() uint32 { return uint32(p.u8() % 80) }

// blobIDs are ids of images with as many pages, of received blobs, and of no blob.
func (p *program) blobID(pages uint64) uint64 {
	switch k := p.u8(); {
	case k < 128:
		return 1<<31 | pages
	default:
		return uint64(k & 31)
	}
}

func (p *program) step(t *testing.T) {
	h := func(cmd, ctx uint32, body []byte) { p.submit(t, append(gputest.Header(cmd, ctx, 0, -1), body...)) }
	switch op := p.u8() % 17; op {
	case 0:
		h(gputest.CtxCreate, p.ctx(), append(gputest.U32s(0, virtwl.CapsetID), make([]byte, 64)...))
	case 1:
		h(gputest.CtxDestroy, p.ctx(), nil)
	case 2:
		res, ctx, pages := p.res(), p.ctx(), uint64(p.u8()%16)
		h(gputest.CreateBlob, ctx, gputest.BlobBody(res, 1, 0, pages<<12, vhost.Segment{Addr: p.scratch, Len: uint32(pages << 12)}))
		h(gputest.CtxAttach, ctx, gputest.U32s(res, 0))
	case 3:
		res, ctx, pages := p.res(), p.ctx(), uint64(p.u8())
		h(gputest.CreateBlob, ctx, gputest.BlobBody(res, 2, p.blobID(pages), pages<<12))
		h(gputest.CtxAttach, ctx, gputest.U32s(res, 0))
	case 4:
		h(gputest.MapBlob, 0, mapBody(p.res(), uint64(p.u8())<<14))
	case 5:
		h(gputest.UnmapBlob, 0, gputest.U32s(p.res(), 0))
	case 6:
		h(gputest.ResourceUnref, 0, gputest.U32s(p.res(), 0))
	case 7:
		h(gputest.CtxDetach-uint32(p.u8()&1), p.ctx(), gputest.U32s(p.res(), 0))
	case 13:
		p.submit(t, p.bytes(min(int(p.u8())|int(p.u8())<<8, vhosttest.SlotSize-gputest.AnswerSize)))
	case 15:
		p.descriptor()
	case 16:
		p.end(t)
	default:
		p.command(t, op)
	}
}

// command is SUBMIT_3D with a cross-domain command.
func (p *program) command(t *testing.T, op byte) {
	ctx, ring := p.ctx(), -1
	if op == 9 || op == 12 || op == 14 {
		ring = int(p.u8()%70) - 2
	}
	var cmd []byte
	switch op {
	case 8:
		cmd = virtwl.AppendInit(nil, virtwl.Init{QueryRing: p.res(), ChannelRing: p.res(), Channel: uint32(p.u8()%2) ^ 1})
	case 9:
		ids := make([]virtwl.Identifier, p.u8()%4)
		for i := range ids {
			ids[i] = virtwl.Identifier{ID: p.res(), Type: uint32(p.u8() % 5)}
			if ids[i].Type == virtwl.IDReadPipe {
				ids[i].ID += virtwl.PipeReadStart
			}
		}
		cmd = gputest.SendCmd(p.bytes(int(p.u8())), ids...)
	case 10:
		cmd, ring = virtwl.AppendHeader(nil, virtwl.Header{Cmd: virtwl.CmdPoll, Size: virtwl.HeaderSize}), virtwl.RingChannel
	case 11:
		fourccs := [...]uint32{gputest.R8, 'X' | 'R'<<8 | '2'<<16 | '4'<<24, 0}
		cmd, ring = virtwl.AppendImageQuery(nil, virtwl.ImageQuery{Width: uint32(p.u8()) << 8, Height: uint32(p.u8()), Fourcc: fourccs[p.u8()%3]}), virtwl.RingQuery
	case 12:
		cmd = gputest.WriteCmd(p.res(), nil, p.u8()&1 == 1)
		data := p.bytes(int(p.u8()))
		binary.LittleEndian.PutUint32(cmd[16:], uint32(len(data)))
		cmd = append(cmd, data...)
	default:
		cmd = p.bytes(int(p.u8()))
	}
	fence := uint64(0)
	if ring >= 0 {
		fence = 1
	}
	p.submit(t, append(append(gputest.Header(gputest.Submit3D, ctx, fence, ring), gputest.U32s(uint32(len(cmd)), 0)...), cmd...))
}

// descriptor offers a chain of up to two descriptors of any kind, whose memory is
// scratch, invalid, or a table of descriptors.
func (p *program) descriptor() {
	ring := p.r.Control
	for i := range uint16(2) {
		addr := [...]uint64{p.scratch, p.scratch + 64<<10 - 4, 1 << 50, 1<<64 - 8}[p.u8()%4]
		length := uint32(p.u8()) << (p.u8() % 25)
		if addr == p.scratch {
			length %= 64 << 10
		}
		next := [...]uint16{lie, lie + 1, vhosttest.QueueSize, 0xffff}[p.u8()%4]
		ring.SetDesc(int(lie+i), addr, length, uint16(p.u8()%8), next)
	}
	ring.Offer(lie)
	ring.Kick()
}

// submit offers a request, and waits for its answer unless the device may hold it.
func (p *program) submit(t *testing.T, req []byte) {
	q := p.r.Control.Submit(req, gputest.AnswerSize)
	if mayWait(req) {
		p.parked = append(p.parked, q)
		return
	}
	if _, ok, err := q.Within(10 * time.Second); !ok || err != nil {
		t.Fatalf("a request is not answered: %x (%v)", req, err)
	}
	q.Free()
}

// end resets the device, and uses it with a new connection.
func (p *program) end(t *testing.T) {
	resetRig(t, p.r)
	for _, q := range p.parked {
		select {
		case <-q.Done():
		case <-time.After(10 * time.Second):
			t.Fatal("a parked request outlived the reset")
		}
	}
	p.parked = p.parked[:0]
	a := attackRig{rig: p.r}
	c, err := a.Connect(p.r.spare)
	must(t, err)
	must(t, a.echo(c, 1))
	must(t, c.Close())
	p.r.spare = c
}

// TestFuzzDeviceSeeds keeps the part of FuzzDevice's corpus that is made from FuzzControl's,
// which came from real kernels.
func TestFuzzDeviceSeeds(t *testing.T) {
	from, err := filepath.Glob("testdata/fuzz/FuzzControl/*")
	if err != nil || len(from) == 0 {
		t.Fatalf("no corpus of FuzzControl: %v", err)
	}
	for _, path := range from {
		in := readSeed(t, path)
		var out []byte
		for len(in) > 2 {
			n := min(int(in[0])|int(in[1])<<8, len(in)-2)
			out = append(append(out, 13), in[:2+n]...)
			in = in[2+n:]
		}
		wantSeed(t, filepath.Base(path), out)
	}
	for name, steps := range deviceSeeds {
		wantSeed(t, name, steps)
	}
}

// deviceSeeds are handwritten programs.
var deviceSeeds = map[string][]byte{
	// A connection that echoes, with a blob, a keymap and both kinds of pipes.
	"everything": {
		0, 1, 2, 1, 1, 1, 2, 2, 1, 1, 8, 1, 1, 2, 0,
		9, 1, 0, 0, 9, 'E', 0, 0, 0, 1, 0, 0, 0, 'x', 10, 1,
		11, 1, 1, 1, 0, 3, 3, 1, 1, 0, 4, 3, 1, 9, 1, 0, 1, 3, 1, 8, 'B', 0, 0, 0, 0, 16, 0, 0, 10, 1,
		9, 1, 0, 0, 8, 'K', 0, 0, 0, 0, 16, 0, 0, 10, 1, 3, 4, 1, 1, 129, 4, 4, 2, 6, 4,
		9, 1, 0, 1, 1, 3, 8, 'R', 0, 0, 0, 100, 0, 0, 0, 10, 1, 10, 1,
		9, 1, 0, 0, 8, 'W', 0, 0, 0, 0, 0, 0, 0, 10, 1, 12, 1, 5, 2, 0, 3, 'a', 'b', 'c', 12, 1, 5, 2, 1, 0, 10, 1,
		5, 3, 6, 3, 1, 1,
	},
	"reset":       {0, 1, 2, 1, 1, 1, 8, 1, 1, 1, 0, 10, 1, 3, 3, 1, 9, 0, 4, 3, 2, 16, 0, 1, 3, 3, 1, 1, 0, 4, 3, 2, 1, 1},
	"descriptors": {15, 0, 8, 0, 0, 1, 0, 8, 0, 0, 1, 15, 2, 255, 24, 1, 3, 0, 32, 0, 0, 4, 15, 0, 32, 0, 2, 4, 1, 4, 4, 2, 2},
	"foreign":     {0, 1, 0, 2, 2, 1, 1, 1, 3, 3, 1, 1, 0, 7, 1, 2, 3, 8, 2, 1, 1, 0, 9, 2, 0, 1, 3, 1, 4, 1, 2, 3, 4, 7, 0, 1, 3, 6, 3, 1, 2},
	"number":      {0, 1, 3, 3, 1, 1, 0, 4, 3, 1, 6, 3, 3, 3, 1, 2, 0, 4, 3, 1, 4, 3, 2, 5, 3, 5, 3, 6, 3, 6, 3},
	"stuck-pipe":  {0, 1, 2, 1, 1, 1, 8, 1, 1, 1, 0, 9, 1, 0, 0, 8, 'S', 0, 0, 0, 0, 0, 0, 0, 10, 1, 12, 1, 3, 1, 0, 4, 1, 2, 3, 4, 12, 1, 3, 1, 1, 0, 1, 1},
}

// readSeed reads a corpus file with one []byte.
func readSeed(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	_, line, _ := strings.Cut(string(b), "\n")
	s, err := strconv.Unquote(strings.TrimSuffix(strings.TrimPrefix(strings.TrimSpace(line), "[]byte("), ")"))
	must(t, err)
	return []byte(s)
}

// wantSeed checks a corpus file of FuzzDevice; with VIX_WRITE_SEEDS it writes the file.
func wantSeed(t *testing.T, name string, in []byte) {
	t.Helper()
	path := filepath.Join("testdata", "fuzz", "FuzzDevice", name)
	want := "go test fuzz v1\n[]byte(" + strconv.Quote(string(in)) + ")\n"
	if os.Getenv("VIX_WRITE_SEEDS") != "" {
		must(t, os.MkdirAll(filepath.Dir(path), 0o755))
		must(t, os.WriteFile(path, []byte(want), 0o644))
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != want {
		t.Errorf("%s is not as made here: %v; run with VIX_WRITE_SEEDS=1", path, err)
	}
}
