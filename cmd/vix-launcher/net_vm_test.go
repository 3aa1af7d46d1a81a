package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vix/internal/vm"
)

// hostAddr is an address of the tests' host other than its loopback.
const hostAddr = "192.0.2.77"

// A hostNet is a host network for the tests: a network namespace where nothing else listens,
// and without a way out.
type hostNet struct{ own, before *os.File }

func newHostNet(t *testing.T) *hostNet {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	open := func() *os.File {
		f, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	n := &hostNet{before: open()}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("lacks: a network namespace of its own: %v", err)
	}
	n.own = open()
	if err := unix.Setns(int(n.before.Fd()), unix.CLONE_NEWNET); err != nil {
		panic(err) // the thread is unusable
	}
	n.do(func() {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range []string{hostAddr, nameServer(t)} {
			addr, err := netlink.ParseAddr(a + "/32")
			if err == nil && !addr.IP.IsLoopback() {
				err = netlink.AddrReplace(lo, addr)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			t.Fatal(err)
		}
	})
	return n
}

// do calls f in the namespace, for listening, dialling and starting programs there.
func (n *hostNet) do(f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for _, ns := range []*os.File{n.own, n.before} {
		if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
			panic(err)
		}
		if ns == n.own {
			f()
		}
	}
}

// serve answers HTTP at an address with text.
func (n *hostNet) serve(t *testing.T, at, text string) (port int) {
	t.Helper()
	var ln net.Listener
	var err error
	n.do(func() { ln, err = net.Listen("tcp4", at+":0") })
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, text) })}
	go func() { _ = s.Serve(ln) }()
	t.Cleanup(func() { s.Close() })
	return ln.Addr().(*net.TCPAddr).Port
}

// nameServer is this machine's resolver, which passt and QEMU read from resolv.conf.
func nameServer(t *testing.T) string {
	t.Helper()
	c, err := dns.ClientConfigFromFile("/etc/resolv.conf")
	if err != nil || len(c.Servers) == 0 || net.ParseIP(c.Servers[0]).To4() == nil {
		t.Skip("lacks: an IPv4 name server in /etc/resolv.conf")
	}
	return c.Servers[0]
}

// resolve starts a DNS server at the resolver's address; it knows one name.
func (n *hostNet) resolve(t *testing.T, name, addr string) {
	t.Helper()
	var pc net.PacketConn
	var err error
	n.do(func() { pc, err = net.ListenPacket("udp4", nameServer(t)+":53") })
	if err != nil {
		t.Fatal(err)
	}
	s := &dns.Server{PacketConn: pc, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		if question := q.Question[0]; question.Name == dns.Fqdn(name) && question.Qtype == dns.TypeA {
			m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: net.ParseIP(addr)}}
		}
		_ = w.WriteMsg(m)
	})}
	go func() { _ = s.ActivateAndServe() }()
	t.Cleanup(func() { _ = s.Shutdown() })
}

// freePort returns an unused port of the namespace.
func (n *hostNet) freePort(t *testing.T, network string) (port int) {
	t.Helper()
	n.do(func() {
		if network == "udp" {
			c, err := net.ListenPacket("udp4", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			port = c.LocalAddr().(*net.UDPAddr).Port
			return
		}
		l, err := net.Listen("tcp4", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		port = l.Addr().(*net.TCPAddr).Port
	})
	return port
}

// A netVM is a VM with --net nat in a network of its own.
type netVM struct {
	*rig
	host     *hostNet
	tcp, udp int // host ports that lead to 8080 and 8081
	keep     io.WriteCloser
	first    *launched
}

func newNetVM(t *testing.T, path ...string) *netVM {
	t.Helper()
	host := newHostNet(t) // outlives the rig
	r := newRig(t)
	for _, name := range []string{"curl", "ip", "python3"} {
		if _, err := exec.LookPath("/usr/bin/" + name); err != nil {
			t.Skip("lacks: " + name)
		}
	}
	n := &netVM{rig: r, host: host}
	r.host = host
	r.env = append(r.env, path...)
	n.tcp, n.udp = n.host.freePort(t, "tcp"), n.host.freePort(t, "udp")
	stdin, keep := io.Pipe()
	n.keep = keep
	n.first = r.start(stdin, "run", "--timings", "--vm", "t", "--net", "nat",
		"--publish", fmt.Sprintf("%d:8080", n.tcp), "--publish", fmt.Sprintf("%d:8081/udp", n.udp),
		// The very first program already has the network.
		"sh", "-c", "ip -4 -o addr show; ip route; cat /etc/resolv.conf; echo up; read x")
	n.first.says("up\n")
	return n
}

func (n *netVM) end() {
	n.t.Helper()
	fmt.Fprintln(n.keep, "done")
	n.keep.Close()
	if code := n.first.code(); code != 0 {
		n.t.Errorf("status %d: %s", code, n.first.err.String())
	}
}

// guest runs a command in the guest and returns its stdout and stderr.
func (n *netVM) guest(user, script string) string {
	n.t.Helper()
	p := n.start(nil, "exec", "t", "--user", user, "--", "sh", "-c", script)
	p.code()
	return p.out.String() + p.err.String()
}

// checkNetwork checks the properties that every kind of network has.
func (n *netVM) checkNetwork(t *testing.T) {
	t.Helper()
	text := n.first.out.String()
	for _, want := range []string{"10.0.2.15/24", "default via 10.0.2.2", "nameserver 10.0.2.3", "127.0.0.1/8"} {
		if !strings.Contains(text, want) {
			t.Errorf("the first program does not see %q: %s", want, text)
		}
	}
	if !strings.Contains(n.first.err.String(), "stage network") {
		t.Errorf("no stage network: %s", n.first.err.String())
	}
	t.Log(n.first.err.String())
	web := n.host.serve(t, hostAddr, "a server of the network")
	n.host.resolve(t, "www.vix.test", hostAddr)
	if got := n.guest("user", fmt.Sprintf("curl -sS -m 60 http://%s:%d/", hostAddr, web)); got != "a server of the network\n" {
		t.Errorf("HTTP: %q", got)
	}
	if got := n.guest("user", fmt.Sprintf("curl -sS -m 60 http://www.vix.test:%d/", web)); got != "a server of the network\n" {
		t.Errorf("HTTP by name: %q", got)
	}
	n.checkPublished(t)
}

// checkTraffic checks that list and top show the bytes that a guest's card has carried.
func (n *netVM) checkTraffic(t *testing.T) {
	t.Helper()
	const size = 1 << 20
	web := n.host.serve(t, hostAddr, strings.Repeat("x", size))
	p := n.start(nil, "exec", "t", "--", "sh", "-c", fmt.Sprintf("while curl -sS http://%s:%d/ -o /dev/null; do echo more; sleep 0.2; done", hostAddr, web))
	p.says("more\n")
	limit := time.Now().Add(time.Minute)
	for n.list()[0].Net.Received < size { // the guest's reports come with a delay
		if time.Now().After(limit) {
			t.Fatalf("%+v", n.list()[0].Net)
		}
		time.Sleep(50 * time.Millisecond)
	}
	if st := n.list()[0].Net; st.Sent == 0 || st.Sent > st.Received {
		t.Errorf("%+v", st)
	}
	var uses []vmUsage
	text := n.vix(0, "top", "--once", "--json", "--every", "6s").out.String() // more than the interval of the guest's reports
	if err := json.Unmarshal([]byte(text), &uses); err != nil || len(uses) != 1 || uses[0].NetIn < 1000 || uses[0].NetOut == 0 || uses[0].NetOut > uses[0].NetIn {
		t.Errorf("%v: %s", err, text)
	}
	_ = p.Process.Kill()
	p.code()
}

// checkPublished checks that both ports answer, at 127.0.0.1 only.
func (n *netVM) checkPublished(t *testing.T) {
	t.Helper()
	server := n.start(nil, "exec", "t", "--", "python3", "-uc", `
import http.server, socket, threading
u = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); u.bind(("", 8081))
def echo():
  while 1:
    b, a = u.recvfrom(99); u.sendto(b"echo " + b, a)
threading.Thread(target=echo, daemon=True).start()
class H(http.server.BaseHTTPRequestHandler):
  def do_GET(s):
    s.send_response(200); s.end_headers(); s.wfile.write(b"a server of the guest")
h = http.server.HTTPServer(("", 8080), H); print("listens"); h.serve_forever()`)
	server.says("listens\n")
	dial := func(network, at string) (c net.Conn, err error) {
		n.host.do(func() { c, err = net.DialTimeout(network, at, time.Minute) })
		return c, err
	}
	c, err := dial("tcp4", fmt.Sprintf("127.0.0.1:%d", n.tcp))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(c, "GET / HTTP/1.0\r\n\r\n")
	if got, err := io.ReadAll(c); !bytes.HasSuffix(got, []byte("a server of the guest")) {
		t.Errorf("published TCP port: %q, %v", got, err)
	}
	if c, err := dial("tcp4", fmt.Sprintf("%s:%d", hostAddr, n.tcp)); err == nil {
		c.Close()
		t.Errorf("the port is published at %s too", hostAddr)
	}
	u, err := dial("udp4", fmt.Sprintf("127.0.0.1:%d", n.udp))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	_ = u.SetDeadline(time.Now().Add(time.Minute))
	fmt.Fprint(u, "hello")
	b := make([]byte, 99)
	if k, err := u.Read(b); string(b[:k]) != "echo hello" {
		t.Errorf("published UDP port: %q, %v", b[:k], err)
	}
	_ = server.Process.Kill()
	server.code()
}

// hostileRoutes makes a guest send packets for 127.0.0.1 out of its network card.
const hostileRoutes = `
for i in all eth0; do echo 1 >/proc/sys/net/ipv4/conf/$i/route_localnet; echo 0 >/proc/sys/net/ipv4/conf/$i/rp_filter; done
ip addr del 127.0.0.1/8 dev lo
ip route flush table local dev lo
ip route add local 10.0.2.15 dev eth0 table local
ip route add 127.0.0.0/8 dev eth0 via 10.0.2.2 src 10.0.2.15
ip route get 127.0.0.1
`

// reachLoopback tries to reach a service at the host's 127.0.0.1 by every address that a NAT
// could translate to it, and returns those that answered.
func (n *netVM) reachLoopback(t *testing.T) (reached []string) {
	t.Helper()
	secret := n.host.serve(t, "127.0.0.1", "a secret of the host")
	// A marker beside it shows that the test could have seen an attempt.
	if got := n.guest("root", hostileRoutes); !strings.Contains(got, "dev eth0") {
		t.Fatalf("the guest is not hostile: %s", got)
	}
	got := n.guest("root", fmt.Sprintf(`for a in %s; do (curl -sS -m 20 http://$a:%d/ 2>&1 | sed "s/^/$a: /") & done; wait`,
		"127.0.0.1 127.0.0.53 10.0.2.2 10.0.2.3 10.0.2.15 10.0.2.1 0.0.0.0 169.254.2.2 169.254.1.1 255.255.255.255", secret))
	for line := range strings.Lines(got) {
		if at, text, _ := strings.Cut(line, ": "); strings.Contains(text, "secret") {
			reached = append(reached, at)
		}
	}
	t.Logf("a hostile guest's attempts: %s", got)
	return reached
}

// A VM has a network by passt.
func TestVMNetwork(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath(passtName); err != nil {
		t.Skip("lacks: passt")
	}
	n := newNetVM(t)
	n.checkNetwork(t)
	st := n.list()[0]
	if st.Net.By != "passt" || st.PIDs.Network == 0 || len(st.Net.Publish) != 2 {
		t.Errorf("%+v, %+v", st.Net, st.PIDs)
	}
	checkConfined(t, n.rig, st)
	n.checkTraffic(t)
	if reached := n.reachLoopback(t); len(reached) > 0 {
		t.Errorf("a hostile guest reaches the host's 127.0.0.1 by %v", reached)
	}
	// Another passt replaces one that ends, but not for ever; the VM then goes on without, and
	// says so.
	for last := 0; st.PIDs.Network != 0; {
		if st.PIDs.Network != last {
			if last = st.PIDs.Network; unix.Kill(last, unix.SIGKILL) != nil {
				t.Fatalf("passt %d has ended", last)
			}
		}
		for st = n.list()[0]; st.PIDs.Network == last || st.PIDs.Network == 0 && !strings.Contains(strings.Join(st.Notes, "\n"), "its network is gone"); {
			st = n.list()[0]
		}
	}
	logs := n.start(nil, "logs", "-f", "t")
	logs.says("its network is gone: passt ended: signal: killed; stop the VM and run it again to restore it")
	_ = logs.Process.Kill()
	logs.code()
	if got := n.guest("user", "until grep -q 0 /sys/class/net/eth0/carrier; do sleep 0.1; done; echo alive"); got != "alive\n" {
		t.Errorf("after passt's end: %q", got)
	}
	if st := n.list()[0]; !st.Net.Down || st.PIDs.Network != 0 || st.State != vm.StateRunning {
		t.Errorf("after passt's end: %+v %+v", st.Net, st.PIDs)
	}
	n.end()
}

// A VM without passt has QEMU's own network.
func TestVMUserNetwork(t *testing.T) {
	t.Parallel()
	e := osEnv()
	qemu, err := e.look(qemuName)
	if err != nil {
		t.Skip("lacks: " + qemuName)
	}
	bin := t.TempDir()
	if err := os.Symlink(qemu, filepath.Join(bin, qemuName)); err != nil {
		t.Fatal(err)
	}
	n := newNetVM(t, "PATH="+bin)
	n.checkNetwork(t)
	st := n.list()[0]
	if st.Net.By != "qemu" || st.PIDs.Network != 0 {
		t.Errorf("%+v, %+v", st.Net, st.PIDs)
	}
	if text := n.first.err.String(); strings.Count(text, "passt is not installed") != 1 {
		t.Errorf("whoever starts the VM is not told: %s", text)
	}
	n.end()
}

// A VM without a network has none.
func TestVMNoNetwork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	p := r.vix(0, "run", "--vm", "t", "sh", "-c", "ls /sys/class/net; cat /sys/class/net/lo/operstate /etc/resolv.conf 2>/dev/null; true")
	if p.out.String() != "lo\nunknown\n" {
		t.Errorf("%q", p.out.String())
	}
	for _, dev := range strings.Fields(r.vix(0, "run", "--vm", "t", "sh", "-c", "cat /sys/bus/virtio/devices/*/device").out.String()) {
		if dev == "0x0001" {
			t.Error("there is a network card")
		}
	}
}
