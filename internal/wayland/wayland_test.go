package wayland

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"
)

// pair returns two connected transports.
func pair(t testing.TB) (a, b *UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	mk := func(fd int) *UnixConn {
		f := os.NewFile(uintptr(fd), "pair")
		defer f.Close()
		c, err := net.FileConn(f)
		if err != nil {
			t.Fatal(err)
		}
		u, err := NewUnixConn(c.(*net.UnixConn))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { u.Close() })
		return u
	}
	return mk(fds[0]), mk(fds[1])
}

func TestTables(t *testing.T) {
	fds := 0
	for _, i := range Interfaces() {
		if Lookup(i.Name) != i {
			t.Errorf("%s is in the tables twice", i.Name)
		}
		for _, ms := range [][]Message{i.Requests, i.Events} {
			for _, m := range ms {
				if m.Since > i.Version {
					t.Errorf("%s.%s: since %d is above version %d", i.Name, m.Name, m.Since, i.Version)
				}
				if len(m.FDKinds) > 0 {
					fds++
					if _, ok := fdKinds[i.Name+"."+m.Name]; !ok {
						t.Errorf("%s.%s has a descriptor that fdKinds does not know", i.Name, m.Name)
					}
				}
			}
		}
	}
	for name := range fdKinds {
		i, m, _ := strings.Cut(name, ".")
		iface := Lookup(i)
		if iface == nil {
			continue // for interfaces that not all versions of the packages have
		}
		has := func(x Message) bool { return x.Name == m && len(x.FDKinds) > 0 }
		if !slices.ContainsFunc(iface.Requests, has) && !slices.ContainsFunc(iface.Events, has) {
			t.Errorf("fdKinds names %s, which has no descriptor", name)
		}
	}
	if fds < 9 {
		t.Errorf("only %d messages have descriptors: the tables are not whole", fds)
	}
	bind := WlRegistry.Requests[WlRegistryReqBind]
	if bind.Sig != "usun" || bind.New == nil || bind.New.Iface != nil {
		t.Errorf("wl_registry.bind is %+v", bind)
	}
}

func TestNext(t *testing.T) {
	var e Encoder
	e.Msg(3, 1, 7, 8)
	for k := range len(e.B) {
		if _, _, size, err := Next(e.B[:k]); size != 0 || err != nil {
			t.Fatalf("%d of %d bytes: size %d, %v", k, len(e.B), size, err)
		}
	}
	if id, op, size, err := Next(e.B); id != 3 || op != 1 || size != 16 || err != nil {
		t.Fatal(id, op, size, err)
	}
	for _, size := range []uint32{0, 4, 9, 10, 4100, 65532} {
		PutWord(e.B, 4, size<<16)
		if _, _, _, err := Next(e.B); !errors.Is(err, ErrSize) {
			t.Errorf("size %d: %v", size, err)
		}
	}
}

func TestCheck(t *testing.T) {
	title := &XdgToplevel.Requests[XdgToplevelReqSetTitle]
	for name, body := range map[string][]byte{
		"empty":    {},
		"null":     {0, 0, 0, 0},
		"no NUL":   {4, 0, 0, 0, 'a', 'b', 'c', 'd'},
		"short":    {9, 0, 0, 0, 'a', 'b', 'c', 0},
		"huge":     {0xff, 0xff, 0xff, 0xff, 'a', 'b', 'c', 0},
		"surplus":  {2, 0, 0, 0, 'a', 0, 0, 0, 0, 0, 0, 0},
		"unpadded": {2, 0, 0, 0, 'a', 0},
		"wrap":     {0xfd, 0xff, 0xff, 0xff},
	} {
		if err := title.Check(body); !errors.Is(err, ErrArgs) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := title.Check([]byte{2, 0, 0, 0, 'a', 0, 0, 0}); err != nil {
		t.Error(err)
	}
	damage := &WlSurface.Requests[WlSurfaceReqDamage]
	if damage.Check(make([]byte, 16)) != nil || damage.Check(make([]byte, 12)) == nil {
		t.Error("wl_surface.damage takes four words")
	}
}

// encode writes arguments for m, drawn by next.
func encode(e *Encoder, m *Message, id uint32, op uint16, next func() uint32) error {
	e.Begin(id, op)
	for k := range m.Args {
		switch m.Args[k].Type {
		case 'h':
		case 's':
			e.String(strings.Repeat("x", int(next()%200)))
		case 'a':
			e.Array(bytes.Repeat([]byte{7}, int(next()%200)))
		default:
			e.Uint(next())
		}
	}
	return e.End()
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		i := rapid.SampledFrom(Interfaces()).Draw(t, "interface")
		ms := append(slices.Clone(i.Requests), i.Events...)
		if len(ms) == 0 {
			return
		}
		op := rapid.IntRange(0, len(ms)-1).Draw(t, "message")
		var e Encoder
		if err := encode(&e, &ms[op], 9, uint16(op), func() uint32 { return rapid.Uint32().Draw(t, "word") }); err != nil {
			t.Fatal(err)
		}
		_, _, size, err := Next(e.B)
		if err != nil || size != len(e.B) {
			t.Fatal(size, err)
		}
		if err := ms[op].Check(e.B[HeaderSize:]); err != nil {
			t.Fatalf("%s.%s: %v", i.Name, ms[op].Name, err)
		}
		if s := ms[op].Append(nil, i.Name, 9, e.B[HeaderSize:]); !bytes.HasSuffix(s, []byte(")")) {
			t.Fatalf("%s", s)
		}
	})
}

// FuzzMessage gives arbitrary bytes to every message of the tables: decode → encode is
// identity if the padding is zero, and nothing panics.
func FuzzMessage(f *testing.F) {
	f.Fuzz(func(t *testing.T, iface uint16, event bool, op uint16, data []byte) {
		i := Interfaces()[int(iface)%len(Interfaces())]
		ms := i.Requests
		if event {
			ms = i.Events
		}
		if len(ms) == 0 {
			return
		}
		_, _, size, err := Next(data)
		if err != nil || size == 0 {
			return
		}
		m := &ms[int(op)%len(ms)]
		body := data[HeaderSize:size]
		if m.Check(body) != nil {
			return
		}
		m.Append(nil, i.Name, 1, body)
		var e Encoder
		e.Begin(Word(data, 0), uint16(Word(data, 4)))
		d := NewDecoder(body)
		for k := range m.Args {
			switch m.Args[k].Type {
			case 'h':
			case 's':
				s, null := d.str()
				if null {
					return // a null string has no separate encoding here
				}
				e.String(string(s))
			case 'a':
				e.Array(d.Array())
			default:
				e.Uint(d.Uint())
			}
		}
		if err := e.End(); err != nil {
			t.Fatal(err)
		}
		if len(e.B) != size {
			t.Fatalf("%s.%s: %d bytes became %d", i.Name, m.Name, size, len(e.B))
		}
		if !m.Dynamic && !bytes.Equal(e.B, data[:size]) {
			t.Fatalf("%s.%s: % x became % x", i.Name, m.Name, data[:size], e.B)
		}
	})
}

func TestCorpus(t *testing.T) {
	for _, target := range []string{"FuzzMessage"} {
		files, err := filepath.Glob(filepath.Join("testdata", "fuzz", target, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s has no corpus (%v)", target, err)
		}
	}
}

func fdCount(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

func TestUnixConnDescriptors(t *testing.T) {
	before := fdCount(t)
	a, b := pair(t)
	var ds []Desc
	for range MaxDescs {
		fd, err := unix.MemfdCreate("t", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		ds = append(ds, FileDesc(KindMemory, fd))
	}
	if err := a.Send([]byte("12345678"), ds); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	n, got, err := b.Recv(buf, nil)
	if n != 4 || err != nil || len(got) != MaxDescs {
		t.Fatal(n, err, len(got))
	}
	if n, more, err := b.Recv(buf, nil); n != 4 || err != nil || len(more) != 0 {
		t.Fatal(n, err, more)
	}
	CloseAll(got)
	a.Close()
	if _, _, err := b.Recv(buf, nil); !errors.Is(err, io.EOF) {
		t.Errorf("after close: %v", err)
	}
	if err := a.Send(buf, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("send after close: %v", err)
	}
	b.Close()
	if after := fdCount(t); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

func TestUnixConnRefuses(t *testing.T) {
	before := fdCount(t)
	a, _ := pair(t)
	if err := a.Send([]byte("12345678"), []Desc{ResDesc(7)}); err == nil {
		t.Error("a resource passed a socket")
	}
	fd, err := unix.MemfdCreate("t", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Send([]byte("12345678"), append(slices.Repeat([]Desc{{FD: -1}}, MaxDescs), FileDesc(KindMemory, fd))); err == nil {
		t.Error("too many descriptors passed")
	}
	if after := fdCount(t); after != before+2 {
		t.Errorf("%d descriptors before, %d after: Send keeps what it refuses", before, after)
	}
}

// TestUnixConnBlocked checks that Close ends a Send that waits for room, and a
// Recv that waits for bytes.
func TestUnixConnBlocked(t *testing.T) {
	a, b := pair(t)
	sent := make(chan error)
	go func() {
		for {
			if err := a.Send(make([]byte, 64<<10), nil); err != nil {
				sent <- err
				return
			}
		}
	}()
	received := make(chan error)
	go func() {
		_, _, err := a.Recv(make([]byte, 8), nil)
		received <- err
	}()
	if _, _, err := b.Recv(make([]byte, 8), nil); err != nil { // the sender is under way
		t.Fatal(err)
	}
	a.Close()
	if err := <-sent; !errors.Is(err, ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if err := <-received; !errors.Is(err, ErrClosed) {
		t.Errorf("receive: %v", err)
	}
}

func BenchmarkUnixConn(b *testing.B) {
	x, y := pair(b)
	msg, buf := make([]byte, 4096), make([]byte, 4096)
	b.ReportAllocs()
	for b.Loop() {
		if err := x.Send(msg, nil); err != nil {
			b.Fatal(err)
		}
		for n := 0; n < len(msg); {
			k, _, err := y.Recv(buf, nil)
			if err != nil {
				b.Fatal(err)
			}
			n += k
		}
	}
}

// TestUnixConnLingers: a closed end knows whether the peer still holds sent data, and the
// peer sees it as closed.
func TestUnixConnLingers(t *testing.T) {
	for _, how := range []string{"reads", "closes", "has read", "is forgotten"} {
		a, b := pair(t)
		a.Linger()
		fd, err := unix.MemfdCreate("m", unix.MFD_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Send([]byte("hello"), []Desc{FileDesc(KindMemory, fd)}); err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 10)
		read := func() {
			n, ds, err := b.Recv(buf, nil)
			CloseAll(ds)
			if err != nil || n != 5 || len(ds) != 1 {
				t.Fatal(n, len(ds), err)
			}
		}
		if how == "has read" {
			read()
		}
		_ = a.Close()
		if pending := a.Pending(); pending != (how != "has read") {
			t.Errorf("%s: pending %v", how, pending)
		}
		switch how {
		case "reads":
			read()
		case "closes":
			_ = b.Close()
		case "is forgotten":
			a.Forget()
		}
		if a.Pending() {
			t.Errorf("%s: still pending", how)
		}
		if how == "reads" || how == "has read" {
			if _, _, err := b.Recv(buf, nil); !errors.Is(err, io.EOF) {
				t.Errorf("%s: %v instead of the end", how, err)
			}
		}
		a.Forget()
	}
}
