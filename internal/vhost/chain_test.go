package vhost

import (
	"bytes"
	"testing"
)

// A fuzzed ring lies in 64 KiB of guest memory at address 0: 16 descriptors, the
// avail ring at 0x100, the used ring at 0x200, and anything behind.
const (
	fuzzRingSize  = 16
	fuzzAvail     = 0x100
	fuzzUsed      = 0x200
	fuzzMemory    = 64 << 10
	fuzzFreeSpace = 0x400
)

func fuzzQueue(tb testing.TB, mem []byte, features uint64) *Queue {
	m := &Memory{}
	m.regions = []mapping{{region: region{guest: 0, size: uint64(len(mem)), user: 1 << 40}, mem: mem}}
	q := newQueue(0, m)
	q.size, q.haveAdr = fuzzRingSize, true
	q.addr = vringAddr{desc: 1 << 40, avail: 1<<40 + fuzzAvail, used: 1<<40 + fuzzUsed}
	if err := q.start(features); err != nil {
		tb.Fatal(err)
	}
	return q
}

// FuzzChain makes the device take, read and answer arbitrary chains of a ring: it ends,
// stays in bounds, and gives every chain back exactly once.
func FuzzChain(f *testing.F) {
	f.Fuzz(func(t *testing.T, in []byte, features byte) {
		mem := make([]byte, fuzzMemory)
		copy(mem, in)
		q := fuzzQueue(t, mem, uint64(features&3)<<28)
		used := q.usedIdx
		heads := make([]uint16, fuzzRingSize)
		for i := range heads {
			heads[i] = le.Uint16(mem[fuzzAvail+4+2*i:])
		}
		var c Chain
		buf := make([]byte, 4096)
		n := 0
		for q.Next(&c) {
			n++
			for c.Remaining() > 0 && c.Read(buf[:min(len(buf), c.Remaining())]) == nil {
			}
			if left := c.Remaining(); left < len(buf) && c.Read(buf[:left+1]) == nil {
				t.Fatal("read beyond the readable part")
			}
			for c.Room() > 0 && c.Write(buf[:min(len(buf), c.Room(), 512)]) == nil {
			}
			d, ok := c.Defer(8)
			if ok {
				q.Answer(d, buf[:8])
			} else {
				q.Push(c.Token())
			}
		}
		q.Notify()
		if took := int(q.usedIdx - used); took < n || took > fuzzRingSize {
			t.Fatalf("%d chains, %d given back", n, took)
		}
	})
}

// chainSeeds are shapes that real drivers make, and some that no driver makes.
func chainSeeds() map[string][]byte {
	ring := func(heads []uint16, lay func(mem []byte)) []byte {
		mem := make([]byte, 0x800)
		for i, h := range heads {
			le.PutUint16(mem[fuzzAvail+4+2*i:], h)
		}
		le.PutUint16(mem[fuzzAvail+2:], uint16(len(heads)))
		lay(mem)
		return mem
	}
	put := func(mem []byte, addr uint64, n uint32, flags, next uint16) {
		le.PutUint64(mem, addr)
		le.PutUint32(mem[8:], n)
		le.PutUint16(mem[12:], flags)
		le.PutUint16(mem[14:], next)
	}
	pair := func(mem []byte) { // a request and its answer
		put(mem, fuzzFreeSpace, 32, descNext, 1)
		put(mem[16:], fuzzFreeSpace+32, 24, descWrite, 0)
	}
	return map[string][]byte{
		"empty":  ring(nil, func([]byte) {}),
		"direct": ring([]uint16{0}, pair),
		"command-with-data": ring([]uint16{0}, func(mem []byte) {
			put(mem, fuzzFreeSpace, 32, descNext, 1)
			put(mem[16:], 0x1000, 4096, descNext, 2)
			put(mem[32:], fuzzFreeSpace+32, 24, descWrite, 0)
		}),
		"indirect": ring([]uint16{3}, func(mem []byte) {
			put(mem[48:], fuzzFreeSpace, 32, descIndirect, 0)
			put(mem[fuzzFreeSpace:], 0x600, 32, descNext, 1)
			put(mem[fuzzFreeSpace+16:], 0x700, 24, descWrite, 0)
		}),
		"loop":      ring([]uint16{0}, func(mem []byte) { put(mem, 0, 1, descNext, 0) }),
		"overflow":  ring([]uint16{0}, func(mem []byte) { put(mem, ^uint64(0), 2, 0, 0) }),
		"self":      ring([]uint16{0, 0, 0}, func(mem []byte) { put(mem, 0, 0x300, descWrite, 0) }), // writes over the ring itself
		"bad-head":  ring([]uint16{16}, pair),
		"nested":    ring([]uint16{0}, func(mem []byte) { put(mem, 0, 16, descIndirect, 0) }),
		"all-heads": ring([]uint16{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, pair),
	}
}

func TestChainSeeds(t *testing.T) {
	for name, mem := range chainSeeds() {
		full := make([]byte, fuzzMemory)
		copy(full, mem)
		q := fuzzQueue(t, full, FeatureIndirectDesc)
		var c Chain
		n := 0
		for q.Next(&c) {
			n++
			q.Push(c.Token())
		}
		t.Logf("%s: %d chains, ring error %v", name, n, q.broken)
	}
}

func TestMessageRoundTrip(t *testing.T) {
	a := vringAddr{1, 2, 3, 4, 5, 6}
	if got, err := parseVringAddr(appendVringAddr(nil, a)); err != nil || got != a {
		t.Errorf("%+v, %v", got, err)
	}
	r := region{1, 2, 3, 4}
	if got, err := parseSingleRegion(append(make([]byte, 8), appendRegion(nil, r)...)); err != nil || got != r {
		t.Errorf("%+v, %v", got, err)
	}
	m := shmemMsg{1, 2, 3, 4, 1}
	if got, err := parseShmem(appendShmem(nil, m)); err != nil || got != m {
		t.Errorf("%+v, %v", got, err)
	}
	b := appendMessage(nil, 7, flagReply, []byte("payload"))
	if req, flags, size, err := parseHeader(b); err != nil || req != 7 || flags != flagReply|flagVersion || size != 7 || !bytes.Equal(b[headerSize:], []byte("payload")) {
		t.Errorf("%d %d %d %v", req, flags, size, err)
	}
	for n := range headerSize {
		if _, _, _, err := parseHeader(b[:n]); err == nil {
			t.Errorf("header of %d bytes", n)
		}
	}
}

// TestTokenPack: a token survives its conversion to two numbers.
func TestTokenPack(t *testing.T) {
	for _, tok := range []Token{{}, {gen: 1<<32 - 1, Written: 1<<32 - 1, head: 1<<16 - 1}, {gen: 3, Written: 24, head: 7}} {
		if got := UnpackToken(tok.Pack()); got != tok {
			t.Errorf("%+v became %+v", tok, got)
		}
	}
}

// TestChainAllocs: taking, reading and answering a chain allocates nothing.
func TestChainAllocs(t *testing.T) {
	mem := make([]byte, fuzzMemory)
	copy(mem, chainSeeds()["indirect"])
	q := fuzzQueue(t, mem, FeatureIndirectDesc)
	var c Chain
	var buf [32]byte
	idx := uint16(1)
	n := testing.AllocsPerRun(1000, func() {
		le.PutUint16(mem[fuzzAvail+4+2*int((idx-1)%fuzzRingSize):], 3)
		le.PutUint16(mem[fuzzAvail+2:], idx)
		idx++
		if !q.Next(&c) || c.Read(buf[:]) != nil || c.Write(buf[:24]) != nil {
			t.Fatal("no chain")
		}
		q.Push(c.Token())
		q.Notify()
	})
	if n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkChain(b *testing.B) {
	for _, kind := range []string{"command-with-data", "indirect"} {
		b.Run(kind, func(b *testing.B) {
			mem := make([]byte, fuzzMemory)
			copy(mem, chainSeeds()[kind])
			head := le.Uint16(mem[fuzzAvail+4:])
			for i := range fuzzRingSize {
				le.PutUint16(mem[fuzzAvail+4+2*i:], head)
			}
			q := fuzzQueue(b, mem, FeatureIndirectDesc)
			var c Chain
			buf := make([]byte, 8192)
			idx := uint16(0)
			b.ReportAllocs()
			for b.Loop() {
				idx++
				le.PutUint16(mem[fuzzAvail+2:], idx)
				if !q.Next(&c) || c.Read(buf[:c.Remaining()]) != nil || c.Write(buf[:24]) != nil {
					b.Fatal("no chain")
				}
				q.Push(c.Token())
				q.Notify()
			}
		})
	}
}
