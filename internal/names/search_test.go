package names

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// searchesFor expects the guest to receive a list, now or after others.
func (p *pair) searchesFor(domains ...string) {
	p.t.Helper()
	var last []string
	for limit := time.After(time.Minute); ; {
		select {
		case last = <-p.searches:
			if slices.Equal(last, domains) {
				return
			}
		case <-limit:
			p.t.Fatalf("the guest was told %q last, and never %q", last, domains)
		}
	}
}

// The guest receives the host's search list, and each change of it, without a question.
func TestSearchFollowsTheFile(t *testing.T) {
	p := newPair(t)
	p.searchesFor() // the file is missing
	dir := filepath.Dir(p.file)
	target := filepath.Join(dir, "a", "b", "stub.conf")
	if err := os.Symlink("a/b/stub.conf", p.file); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(target), 0o700); err != nil {
		t.Fatal(err)
	}
	p.write("nameserver 127.0.0.1\nsearch lan example.org.\n")
	p.searchesFor("lan", "example.org")
	p.write("search home\nnameserver 127.0.0.1\n") // in place
	p.searchesFor("home")
	if err := os.WriteFile(target+".new", []byte("domain lan\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(target+".new", target); err != nil {
		t.Fatal(err)
	}
	p.searchesFor("lan")
	// A file replaces the link itself.
	if err := os.WriteFile(p.file+".new", []byte("search vpn.test\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(p.file+".new", p.file); err != nil {
		t.Fatal(err)
	}
	p.searchesFor("vpn.test")
	if err := os.Remove(p.file); err != nil {
		t.Fatal(err)
	}
	p.searchesFor()
}

// Whatever a network makes the host write, a search list is one line of a few domains.
func TestSearchIsBounded(t *testing.T) {
	long := strings.Repeat("a", 63)
	for text, want := range map[string][]string{
		"search . lan":                                {"lan"},
		"search a\ndomain b":                          {"b"},
		"domain a c\nsearch b d":                      {"b", "d"},
		"search":                                      nil,
		"searching a":                                 nil,
		"search a;b c#d $(e) é \x1b[m f g":            {"f", "g"},
		"search a\x00b\rnameserver ok":                {"nameserver", "ok"}, // one line with two domains
		"search -a a..b .a a. _x.a-b":                 {"a", "_x.a-b"},
		"search 1 2 3 4 5 6 7 8":                      {"1", "2", "3", "4", "5", "6"},
		"search " + long + "a b":                      {"b"},
		"search " + strings.Repeat(long+" ", 9) + "b": {long, long, long, long},
		"search " + long + "." + long + "." + long + "." + long + " b": {"b"},
	} {
		file := filepath.Join(t.TempDir(), "resolv.conf")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := readConf(file).search; !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

// A name server whose channel has ended is replaced by another at the same address, while
// connections of the old one are still open.
func TestNextStub(t *testing.T) {
	at := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), freePort(t))
	stub, err := Listen(at)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := stub.Serve(bytes.NewReader(append([]byte{0, 0, 0, 0, 2, 1, 1}, make([]byte, 257)...)), io.Discard); !errors.Is(err, errFrame) {
		t.Fatalf("a search list that is too long: %v", err)
	}
	if stub, err = stub.Next(); err != nil {
		t.Fatal(err)
	}
	in, answers := io.Pipe()
	questions, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- stub.Serve(in, out) }()
	go func() { // a host that echoes the question
		for {
			f, err := readFrame(questions)
			if err != nil {
				return
			}
			f.message[2] |= 0x80
			_ = writeFrame(answers, f)
		}
	}()
	c := &dns.Client{Timeout: time.Minute}
	if _, _, err := c.Exchange(new(dns.Msg).SetQuestion(name, dns.TypeA), at.String()); err != nil {
		t.Error(err)
	}
	questions.Close()
	answers.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
