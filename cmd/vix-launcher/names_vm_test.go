package main

import (
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

// nameAt starts a name server in the namespace; it knows one name.
func (n *hostNet) nameAt(t *testing.T, at, name, addr string) {
	t.Helper()
	var pc net.PacketConn
	var err error
	n.do(func() { pc, err = net.ListenPacket("udp", netip.AddrPortFrom(netip.MustParseAddr(at), 53).String()) })
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if question := q.Question[0]; question.Name == dns.Fqdn(name) && question.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 0}, A: net.ParseIP(addr)}}
		}
		_ = w.WriteMsg(m)
	})}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = s.ActivateAndServe()
	}()
	t.Cleanup(func() { pc.Close(); <-ended })
}

// A guest resolves names by the servers that its host uses now, not by those at the start.
func TestVMNames(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(passtName); err != nil {
		t.Skip("lacks: passt")
	}
	if os.Getuid() != 0 {
		t.Skip("lacks: root, for a /etc of the test's own and for port 53")
	}
	host := newHostNet(t) // outlives the rig
	r := newRig(t)
	host.nameAt(t, "127.0.0.1", "www.vix.test", "192.0.2.1")
	host.nameAt(t, "127.0.0.2", "www.vix.test", "192.0.2.2")
	host.nameAt(t, "::1", "www.vix.test", "192.0.2.6")
	host.nameAt(t, "127.0.0.3", "printer.lan", "192.0.2.3")

	// At the VM's start, resolv.conf is a link to nothing.
	stdin, keep := io.Pipe()
	defer keep.Close()
	p := &launched{Cmd: exec.Command("unshare", "--mount", "sh", "-ec", `
cp -a /etc $D/etc; rm -f $D/etc/resolv.conf; ln -s $D/net/resolv.conf $D/etc/resolv.conf; mount --bind $D/etc /etc
exec "$@"`, "sh", filepath.Join(r.bin, "vix-launcher"), "run", "--no-gui", "--net", "nat", "--vm", "t", "sh", "-c", "echo up; read x"),
		t: t, done: make(chan struct{})}
	p.Env, p.Stdin, p.Stdout, p.Stderr = append(r.env, "D="+r.dir), stdin, &p.out, &p.err
	var err error
	host.do(func() { err = p.Start() })
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.Wait() // its ProcessState is used
		close(p.done)
	}()
	p.says("up\n")

	resolv := filepath.Join(r.dir, "net", "resolv.conf")
	resolve := func(what, name, want string) {
		t.Helper()
		got := r.start(nil, "exec", "t", "--", "getent", "ahostsv4", name)
		got.code()
		if first, _, _ := strings.Cut(got.out.String(), " "); first != want {
			t.Errorf("%s: %q %s, want %q", what, got.out.String(), got.err.String(), want)
		}
	}
	resolves := func(what, want string) {
		t.Helper()
		resolve(what, "www.vix.test", want)
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(resolv+".new", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(resolv+".new", resolv); err != nil {
			t.Fatal(err)
		}
	}
	resolves("a link that dangles", "")
	if err := os.Mkdir(filepath.Dir(resolv), 0o755); err != nil {
		t.Fatal(err)
	}
	write("nameserver 127.0.0.1\n")
	resolves("the link leads somewhere", "192.0.2.1")
	write("nameserver 127.0.0.9\nnameserver 127.0.0.2\n")
	resolves("another file, whose first server is dead", "192.0.2.2")
	write("nameserver ::1\n")
	resolves("IPv6 alone", "192.0.2.6")
	// The guest's programs complete a short name themselves. Shells have no event for files.
	write("nameserver 127.0.0.3\nsearch lan\n")
	r.vix(0, "exec", "t", "--", "sh", "-c", "until grep -qx 'search lan' /etc/resolv.conf; do sleep 0.1; done")
	resolve("a short name", "printer", "192.0.2.3")
	write("nameserver 127.0.0.3\n")
	r.vix(0, "exec", "t", "--", "sh", "-c", "while grep -q search /etc/resolv.conf; do sleep 0.1; done")
	resolve("without a search list", "printer", "")
	// A change by the guest's root stays.
	r.vix(0, "exec", "--user", "root", "t", "--", "sh", "-c", "echo '# mine' >>/etc/resolv.conf")
	write("nameserver 127.0.0.3\nsearch home lan\n")
	resolve("another's file", "printer", "")
	if got := r.vix(0, "exec", "t", "--", "tail", "-n1", "/etc/resolv.conf").out.String(); got != "# mine\n" {
		t.Errorf("resolv.conf ends with %q", got)
	}
	// The end of the channel ends the programs' questions.
	keep.Close()
	if code := p.code(); code > 1 {
		t.Errorf("status %d: %s", code, p.err.String())
	}
	r.vix(0, "stop", "--all")
	if text := p.err.String(); strings.Contains(text, "resolve") {
		t.Error(text)
	}
}
