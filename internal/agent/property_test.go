package agent

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"sync"
	"testing"

	"pgregory.net/rapid"
)

// TestStreams: whatever the sizes of writes and reads, over a stream with and without a
// buffer, each program's output equals its input, in order.
func TestStreams(t *testing.T) {
	noLeaks(t)
	rapid.Check(t, func(rt *rapid.T) {
		a, b := net.Pipe()
		if rapid.Bool().Draw(rt, "socket") {
			_, _ = a.Close(), b.Close()
			a, b = socketpair(t)
		}
		p := newPair(t, a, b)
		defer p.stop()
		var all sync.WaitGroup
		for range rapid.IntRange(1, 5).Draw(rt, "programs") {
			size := rapid.IntRange(0, 3*Window).Draw(rt, "size")
			wr := rapid.IntRange(1, 200_000).Draw(rt, "write")
			rd := rapid.IntRange(1, 100_000).Draw(rt, "read")
			seed := rapid.Byte().Draw(rt, "seed")
			all.Go(func() { echo(t, p, size, max(wr, size/50), max(rd, size/100), seed) })
		}
		all.Wait()
	})
}

func echo(t *testing.T, p *pair, size, writes, reads int, seed byte) {
	data := make([]byte, size)
	_, _ = rand.NewChaCha8([32]byte{seed}).Read(data)
	proc, err := p.host.Spawn(t.Context(), Spawn{Argv: []string{"both"}})
	if err != nil {
		t.Error(err)
		return
	}
	var all sync.WaitGroup
	all.Go(func() {
		for b := data; len(b) > 0; {
			n := min(writes, len(b))
			if _, err := proc.Stdin.Write(b[:n]); err != nil {
				t.Error(err)
			}
			b = b[n:]
		}
		_ = proc.Stdin.Close()
	})
	for _, r := range []io.Reader{proc.Stdout, proc.Stderr} {
		all.Go(func() {
			var got bytes.Buffer
			if _, err := io.CopyBuffer(struct{ io.Writer }{&got}, r, make([]byte, reads)); err != nil {
				t.Error(err)
			}
			if !bytes.Equal(got.Bytes(), data) {
				t.Errorf("%d bytes came back of %d, or not the same", got.Len(), len(data))
			}
		})
	}
	all.Wait()
	if st, err := proc.Wait(); st != (Status{}) || err != nil {
		t.Error(st, err)
	}
}

// TestRing: a ring is a queue of bytes.
func TestRing(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var r ring
		var model []byte
		next := byte(0)
		rt.Repeat(map[string]func(*rapid.T){
			"write": func(rt *rapid.T) {
				b := make([]byte, rapid.IntRange(0, Window-r.n).Draw(rt, "n"))
				for i := range b {
					b[i], next = next, next+1
				}
				r.write(b)
				model = append(model, b...)
			},
			"read": func(rt *rapid.T) {
				b := make([]byte, rapid.IntRange(0, Window).Draw(rt, "n"))
				n := r.read(b)
				if n != min(len(b), len(model)) || !bytes.Equal(b[:n], model[:n]) {
					rt.Fatalf("read %d of %d wrongly", n, len(model))
				}
				model = model[n:]
			},
			"": func(rt *rapid.T) {
				if r.n != len(model) || len(r.buf) > Window {
					rt.Fatalf("%d bytes in %d, not %d", r.n, len(r.buf), len(model))
				}
			},
		})
	})
}

// messages draws any message that can be sent.
func messages() *rapid.Generator[Message] {
	id := rapid.Uint32Range(1, 1<<32-1)
	text := rapid.StringN(0, 100, 300)
	name := rapid.StringMatching(`[a-z][a-z0-9_-]{0,30}`)
	list := rapid.SliceOfN(rapid.StringMatching(`[^\x00]{1,20}`), 1, 10)
	stream := rapid.Map(rapid.IntRange(0, 4), func(i int) Stream { return Stream(i) })
	ms := rapid.Int64Range(0, 3600_000)
	return rapid.Custom(func(t *rapid.T) Message {
		switch rapid.IntRange(0, 23).Draw(t, "kind") {
		case 0:
			return Hello{Version: rapid.IntRange(1, 9).Draw(t, "v"), Kernel: text.Draw(t, "k")}
		case 1:
			return Boot{Hostname: name.Draw(t, "h"), Time: ms.Draw(t, "t"), User: User{name.Draw(t, "u"), 1000, 100}, Env: list.Draw(t, "e"), Search: rapid.SliceOfN(rapid.StringMatching(`[a-z_]{1,20}(\.[a-z0-9-]{1,20}){0,3}`), 1, 6).Draw(t, "s")}
		case 2:
			return Stage{Name: name.Draw(t, "n"), Uptime: ms.Draw(t, "t"), State: name.Draw(t, "s")}
		case 3:
			return Ready{Uptime: ms.Draw(t, "t")}
		case 4:
			if rapid.Bool().Draw(t, "request") {
				r := requests().Draw(t, "r")
				return Spawn{ID: id.Draw(t, "id"), Kind: KindRequest, Request: &r, User: "root", Cwd: "/x"}
			}
			return Spawn{ID: id.Draw(t, "id"), Kind: rapid.SampledFrom([]Kind{KindProgram, KindShell}).Draw(t, "kind of program"), User: name.Draw(t, "u"), Argv: list.Draw(t, "argv"), Env: list.Draw(t, "e"), Cwd: "/x", TTY: rapid.Bool().Draw(t, "tty"), Rows: rapid.Uint16().Draw(t, "r"), Cols: 7}
		case 5:
			return Spawned{ID: id.Draw(t, "id"), PID: rapid.IntRange(2, 1<<22).Draw(t, "pid")}
		case 6:
			return Kill{ID: id.Draw(t, "id"), Signal: rapid.IntRange(1, 64).Draw(t, "sig")}
		case 7:
			return Resize{ID: id.Draw(t, "id"), Rows: rapid.Uint16().Draw(t, "r"), Cols: rapid.Uint16().Draw(t, "c")}
		case 8:
			return Exit{ID: id.Draw(t, "id"), Code: rapid.IntRange(0, 255).Draw(t, "c"), Signal: rapid.IntRange(0, 64).Draw(t, "s")}
		case 9:
			return Error{ID: rapid.Uint32().Draw(t, "id"), Code: rapid.IntRange(0, 255).Draw(t, "c"), Text: text.Draw(t, "t")}
		case 10:
			return PowerOff{Grace: ms.Draw(t, "g")}
		case 11:
			return Data{ID: rapid.Uint32().Draw(t, "id"), Stream: stream.Draw(t, "s"), Bytes: rapid.SliceOfN(rapid.Byte(), 0, 500).Draw(t, "b")}
		case 12:
			return Clock{Time: 1 + ms.Draw(t, "ns")}
		case 13:
			bytes := rapid.Uint64Range(0, maxTraffic)
			return Traffic{Received: bytes.Draw(t, "rx"), Sent: bytes.Draw(t, "tx")}
		case 14:
			return Credit{ID: rapid.Uint32().Draw(t, "id"), Stream: stream.Draw(t, "s"), N: rapid.Uint32Range(1, Window).Draw(t, "n")}
		case 15:
			return Ping{N: rapid.Uint64().Draw(t, "n")}
		case 16:
			return Pong{N: rapid.Uint64().Draw(t, "n")}
		case 17:
			return Shortage{Program: name.Draw(t, "p"), Count: rapid.Uint64Min(1).Draw(t, "n")}
		case 18:
			return WindowLoss{How: text.Draw(t, "how"), Count: rapid.Uint64Min(1).Draw(t, "n"), Pause: rapid.Int64Range(0, maxPause).Draw(t, "p")}
		case 19:
			return Call{ID: id.Draw(t, "id"), Names: &NamesCall{Failure: text.Draw(t, "failure")}}
		case 20:
			return Accept{ID: id.Draw(t, "id")}
		case 21:
			return Refuse{ID: id.Draw(t, "id"), Text: text.Draw(t, "t")}
		case 22:
			return Over{ID: id.Draw(t, "id")}
		default:
			return Hangup{ID: rapid.Uint32().Draw(t, "id"), Stream: stream.Draw(t, "s")}
		}
	})
}

func TestMessages(t *testing.T) {
	buf := make([]byte, MaxPayload)
	rapid.Check(t, func(rt *rapid.T) {
		m := messages().Draw(rt, "m")
		b, err := Append(nil, m)
		if err != nil {
			rt.Fatal(err)
		}
		typ, payload, err := ReadFrame(bytes.NewReader(b), buf)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := Parse(typ, payload)
		if err != nil {
			rt.Fatal(err)
		}
		if d, ok := got.(Data); ok {
			d.Bytes = append([]byte{}, d.Bytes...)
			got = d
		}
		if !reflect.DeepEqual(got, m) {
			rt.Fatalf("%+v became %+v", m, got)
		}
	})
}

// FuzzFrame: a decoded frame encodes to an equal frame.
func FuzzFrame(f *testing.F) {
	needCorpus(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		buf := make([]byte, MaxPayload)
		typ, payload, err := ReadFrame(bytes.NewReader(in), buf)
		if err != nil {
			return
		}
		m, err := Parse(typ, payload)
		if err != nil {
			return
		}
		if m.Type() != typ {
			t.Fatalf("a frame of type %s holds a %s", typ, m.Type())
		}
		out, err := Append(nil, m)
		if err != nil {
			// JSON may grow when it is encoded again (escapes).
			return
		}
		again, err := Parse(typ, out[headerSize:])
		if err != nil {
			t.Fatalf("%+v does not decode again: %v", m, err)
		}
		final, err := Append(nil, again)
		if err != nil || !bytes.Equal(out, final) {
			t.Fatalf("%q, and then %q (%v)", out, final, err)
		}
	})
}

// FuzzHost: a host survives any guest: it ends, and leaves nothing.
func FuzzHost(f *testing.F) {
	needHellos(f)
	f.Fuzz(func(t *testing.T, in []byte) { _ = attack(t, in) })
}

// needHellos fails if the seeds are stale: after a hello of another version a host ignores
// everything.
func needHellos(f *testing.F) {
	f.Helper()
	needCorpus(f)
	seeds, _ := filepath.Glob(filepath.Join("testdata", "fuzz", f.Name(), "*"))
	good := 0
	for _, name := range seeds {
		b, err := os.ReadFile(name)
		if err == nil && bytes.Contains(b, fmt.Appendf(nil, `version\x22:%d`, Version)) {
			good++
		}
	}
	if good < 10 {
		f.Fatalf("%d seeds speak version %d", good, Version)
	}
}

// needCorpus fails if the seeds are missing.
func needCorpus(f *testing.F) {
	f.Helper()
	seeds, err := os.ReadDir(filepath.Join("testdata", "fuzz", f.Name()))
	if err != nil || len(seeds) < 10 {
		f.Fatalf("%d seeds (%v)", len(seeds), err)
	}
}
