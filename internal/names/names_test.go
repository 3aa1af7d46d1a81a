package names

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
)

const name = "www.vix.test."

// A server is a name server that has one address for the name, or none.
type server struct{ asked atomic.Int32 }

// serve starts a server, which answers with addr; "" refuses, "never" does not answer.
func serve(t *testing.T, at, addr string, port uint16) *server {
	t.Helper()
	s := &server{}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		s.asked.Add(1)
		m := new(dns.Msg).SetReply(q)
		switch addr {
		case "never":
			return
		case "":
			m.Rcode = dns.RcodeServerFailure
		default:
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
			for i := 0; q.Question[0].Name != name && i < 200; i++ { // a long answer
				m.Answer = append(m.Answer, &dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: dns.ClassINET}, Txt: []string{strings.Repeat("x", 200)}})
			}
			if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
				m.Truncate(dns.MinMsgSize)
			}
		}
		_ = w.WriteMsg(m)
	})
	place := netip.AddrPortFrom(netip.MustParseAddr(at), port)
	pc, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(place))
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(place))
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range []*dns.Server{{PacketConn: pc, Handler: handler}, {Listener: ln, Handler: handler}} {
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = d.ActivateAndServe()
		}()
		t.Cleanup(func() { pc.Close(); ln.Close(); <-ended })
	}
	return s
}

// freePort returns a port that is free at the addresses of all the tests' servers.
func freePort(t *testing.T) uint16 {
	t.Helper()
	for range 20 {
		l, err := net.Listen("tcp", ":0")
		if err != nil {
			t.Fatal(err)
		}
		port := uint16(l.Addr().(*net.TCPAddr).Port)
		u, err := net.ListenUDP("udp", &net.UDPAddr{Port: int(port)})
		l.Close()
		if err == nil {
			u.Close()
			return port
		}
	}
	t.Fatal("no port is free for TCP and UDP")
	return 0
}

// A pair is both ends, and a client in the guest.
type pair struct {
	t    *testing.T
	file string
	port uint16
	at   string // of the stub

	searches chan []string // lists that the guest has received
}

func newPair(t *testing.T) *pair {
	t.Helper()
	p := &pair{t: t, file: filepath.Join(t.TempDir(), "resolv.conf"), port: freePort(t), searches: make(chan []string, 64)}
	f := &Forwarder{File: p.file, port: p.port}
	stubPort := freePort(t)
	stub, err := Listen(netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), stubPort))
	if err != nil {
		t.Fatal(err)
	}
	p.at = netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), stubPort).String()
	stub.OnSearch = func(domains []string) { p.searches <- domains }
	questions, out := io.Pipe()
	in, answers := io.Pipe()
	ended := make(chan error, 2)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { ended <- f.Serve(ctx, questions, answers) }()
	go func() { ended <- stub.Serve(in, out) }()
	t.Cleanup(func() {
		cancel()
		out.Close()
		answers.Close()
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Error(err)
		}
	})
	return p
}

func (p *pair) write(text string) {
	p.t.Helper()
	if err := os.WriteFile(p.file, []byte(text), 0o600); err != nil {
		p.t.Fatal(err)
	}
}

// ask acts as a program of the guest.
func (p *pair) ask(network, what string) *dns.Msg {
	p.t.Helper()
	c := &dns.Client{Net: network, Timeout: time.Minute}
	m, _, err := c.Exchange(new(dns.Msg).SetQuestion(what, dns.TypeA), p.at)
	if err != nil {
		p.t.Fatalf("%s over %s: %v", what, network, err)
	}
	return m
}

// resolves expects an answer.
func (p *pair) resolves(want string) {
	p.t.Helper()
	m := p.ask("udp", name)
	if len(m.Answer) != 1 || m.Answer[0].(*dns.A).A.String() != want {
		p.t.Errorf("want %s: %v", want, m)
	}
}

// The host's servers change, and the guest still resolves.
func TestFollowsTheFile(t *testing.T) {
	p := newPair(t)
	serve(t, "127.0.0.1", "192.0.2.1", p.port)
	serve(t, "127.0.0.2", "192.0.2.2", p.port)
	serve(t, "127.0.0.3", "192.0.2.3", p.port)

	// resolv.conf is a link to nothing.
	target := filepath.Join(filepath.Dir(p.file), "dir", "stub.conf")
	if err := os.Symlink("dir/stub.conf", p.file); err != nil {
		t.Fatal(err)
	}
	if m := p.ask("udp", name); m.Rcode != dns.RcodeServerFailure {
		t.Errorf("without a file: %v", m)
	}
	if err := os.Mkdir(filepath.Dir(target), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write("# comes up\nnameserver 127.0.0.1\nsearch x\n")
	p.resolves("192.0.2.1")
	// The file is written in place; in the same second, with the same length.
	p.write("# comes up\nnameserver 127.0.0.2\nsearch x\n")
	p.resolves("192.0.2.2")
	// The file and the link are replaced.
	if err := os.WriteFile(p.file+".new", []byte("nameserver bad\nnameserver 127.0.0.3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.file+".new", p.file); err != nil {
		t.Fatal(err)
	}
	p.resolves("192.0.2.3")
	// A server that answered is still in the list, but another is first.
	p.write("nameserver 127.0.0.1\nnameserver 127.0.0.3\n")
	p.resolves("192.0.2.1")
}

func TestIPv6(t *testing.T) {
	if l, err := net.Listen("tcp6", "[::1]:0"); err != nil {
		t.Skipf("lacks: IPv6: %v", err)
	} else {
		l.Close()
	}
	p := newPair(t)
	serve(t, "::1", "192.0.2.6", p.port)
	p.write("nameserver ::1\n")
	p.resolves("192.0.2.6")
}

// The first server is dead, silent or broken: the next one answers, and later answers come at once.
func TestNextServer(t *testing.T) {
	for what, addr := range map[string]string{"dead": "dead", "silent": "never", "broken": ""} {
		t.Run(what, func(t *testing.T) {
			p := newPair(t)
			first := &server{}
			if addr != "dead" {
				first = serve(t, "127.0.0.1", addr, p.port)
			}
			serve(t, "127.0.0.2", "192.0.2.2", p.port)
			p.write("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
			p.resolves("192.0.2.2")
			asked := first.asked.Load()
			for range 10 {
				p.resolves("192.0.2.2")
			}
			if n := first.asked.Load(); n != asked {
				t.Errorf("the first was asked %d times more", n-asked)
			}
		})
	}
	t.Run("all", func(t *testing.T) {
		p := newPair(t)
		serve(t, "127.0.0.1", "", p.port)
		p.write("nameserver 127.0.0.1\nnameserver 127.0.0.2\n")
		if m := p.ask("udp", name); m.Rcode != dns.RcodeServerFailure || len(m.Question) != 1 {
			t.Error(m)
		}
	})
}

// An answer that is too long for a datagram comes by TCP.
func TestLongAnswer(t *testing.T) {
	p := newPair(t)
	serve(t, "127.0.0.1", "192.0.2.1", p.port)
	p.write("nameserver 127.0.0.1\n")
	if m := p.ask("udp", "long.vix.test."); !m.Truncated {
		t.Error(m)
	}
	if m := p.ask("tcp", "long.vix.test."); m.Truncated || len(m.Answer) != 201 {
		t.Errorf("%d records", len(m.Answer))
	}
}

// silent is a server that only counts questions.
func silent(t *testing.T, at string, port uint16) *net.UDPConn {
	t.Helper()
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(at), port)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// A guest that asks without end gets maxQuestions handled at one time, and harms only itself.
func TestHostileGuest(t *testing.T) {
	f := &Forwarder{File: filepath.Join(t.TempDir(), "resolv.conf"), port: freePort(t)}
	if err := os.WriteFile(f.File, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	count := silent(t, "127.0.0.1", f.port)
	in, flood := io.Pipe()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- f.Serve(ctx, in, io.Discard) }()
	taken := make(chan int, 1)
	go func() {
		n := 0
		for ; n < 10*maxQuestions; n++ {
			if writeFrame(flood, frame{uint32(n), byUDP, make([]byte, minMessage)}) != nil {
				break
			}
		}
		taken <- n
	}()
	buf := make([]byte, maxMessage)
	for range maxQuestions {
		if _, _, err := count.ReadFromUDP(buf); err != nil {
			t.Fatal(err)
		}
	}
	cancel() // before any has timed out
	in.Close()
	if n := <-taken; n > maxQuestions {
		t.Errorf("%d questions were taken", n)
	}
	if err := <-ended; !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	for what, b := range map[string][]byte{
		"an unknown way":  {1, 0, 0, 0, 7, 12, 0},
		"a short message": append([]byte{1, 0, 0, 0, 0, 3, 0}, "abc"...),
		"a half message":  append([]byte{1, 0, 0, 0, 0, 12, 0}, "abc"...),
		"a half header":   {1, 0, 0},
		"a search list":   append([]byte{0, 0, 0, 0, 2, 3, 0}, "lan"...),
	} {
		if err := f.Serve(t.Context(), bytes.NewReader(b), io.Discard); err == nil {
			t.Errorf("%s is taken", what)
		}
	}
}

// An answer to another question is not accepted.
func TestForgedAnswer(t *testing.T) {
	f := &Forwarder{File: filepath.Join(t.TempDir(), "resolv.conf"), port: freePort(t)}
	if err := os.WriteFile(f.File, []byte("nameserver 127.0.0.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	conn := silent(t, "127.0.0.1", f.port)
	go func() {
		buf := make([]byte, maxMessage)
		n, from, err := conn.ReadFromUDP(buf)
		if err != nil {
			return
		}
		q := bytes.Clone(buf[:n])
		forged, echo, right := bytes.Clone(q), bytes.Clone(q), bytes.Clone(q)
		forged[0], forged[2] = forged[0]^1, 0x80
		right[2] = 0x80
		for _, b := range [][]byte{forged, echo, q[:5], append(right, "right"...)} {
			_, _ = conn.WriteToUDP(b, from)
		}
	}()
	if got := f.answer(t.Context(), byUDP, make([]byte, minMessage), readConf(f.File).servers); !bytes.HasSuffix(got, []byte("right")) {
		t.Errorf("%q", got)
	}
}

func FuzzFrames(f *testing.F) {
	f.Add([]byte{1, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 1, 12, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12})
	f.Fuzz(func(t *testing.T, b []byte) {
		fw := &Forwarder{File: "/nonexistent"}
		var out bytes.Buffer
		_ = fw.Serve(t.Context(), bytes.NewReader(b), &out)
		for {
			if _, err := readFrame(&out); errors.Is(err, io.EOF) {
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	})
}
