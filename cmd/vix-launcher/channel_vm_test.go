package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/qemu"
	"vix/internal/vm"
)

// newVsockRig is a rig whose VM t has its agent's channel over vsock.
func newVsockRig(t testing.TB) *rig {
	t.Helper()
	if err := qemu.CheckVhost(vhostVsock); err != nil {
		t.Skip("no vsock here: ", err)
	}
	r := newRig(t)
	r.configure("[vm.t]\nchannel = \"vsock\"\n")
	return r
}

// The verbs work over vsock, if the machine has the kernel's device. cmd/vix-guest also tests
// the guest's side without it.
func TestVMVsock(t *testing.T) {
	r := newVsockRig(t)
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	st := r.list()[0]
	if st.Channel != (vm.ChannelState{Kind: "vsock", By: "kernel"}) {
		t.Errorf("%+v", st.Channel)
	}
	if p := r.vix(0, "status", "t"); !strings.Contains(p.out.String(), "vsock, by kernel") {
		t.Error(p.out.String())
	}
	if p := r.vix(0, "exec", "t", "--", "sh", "-c", "ls /sys/class/virtio-ports; cat /proc/cmdline"); !strings.Contains(p.out.String(), "vix.agent=vsock:") || strings.Contains(p.out.String(), "vport") {
		t.Error(p.out.String())
	}
	t.Run("hostile guest", func(t *testing.T) {
		if _, err := exec.LookPath("python3"); err != nil {
			t.Skip("lacks: python3")
		}
		for user, want := range map[string]string{"user": "no port: Permission denied\n", "root": "a port\n"} {
			p := r.vix(0, "exec", "t", "--user", user, "--", "python3", "-c", hostileVsock)
			if p.out.String() != want+"refused 30\n" {
				t.Errorf("%s: %q, %s", user, p.out.String(), p.err.String())
			}
		}
	})
	for name, test := range map[string]func(*testing.T, *rig){"exec": testExec, "exec statuses": testExecStatuses, "shell": testShell, "cp": testCopy} {
		t.Run(name, func(t *testing.T) {
			sub := *r
			sub.t = t
			test(t, &sub)
		})
	}
	t.Run("streams", func(t *testing.T) { // larger than any packet, in both directions
		in := bytes.Repeat([]byte("0123456789abcde\n"), 1<<18)
		p := r.start(bytes.NewReader(in), "exec", "t", "--", "cat")
		if p.code() != 0 || p.out.String() != string(in) {
			t.Errorf("cat gave back %d of %d bytes", len(p.out.String()), len(in))
		}
	})
	r.vix(0, "stop", "t")
	keep.Close()
	if c := first.code(); c != 143 {
		t.Errorf("run after stop: %d, %s", c, first.err.String())
	}
	r.nothingLeft()
}

// hostileVsock connects from the guest as an agent does, while there is one already: from a
// root-only port, where that works; and repeatedly.
const hostileVsock = `
import re, socket
port = int(re.search(r"vix.agent=vsock:(\d+)", open("/proc/cmdline").read())[1])
refused = 0
for i in range(30):
    s = socket.socket(socket.AF_VSOCK)
    s.settimeout(0.1) # the device does not say no: it says nothing
    try:
        s.bind((socket.VMADDR_CID_ANY, 1000 - i))
        if i == 0: print("a port")
    except PermissionError as e:
        if i == 0: print("no port:", e.strerror)
    try:
        s.connect((socket.VMADDR_CID_HOST, port))
    except (ConnectionResetError, BrokenPipeError, TimeoutError):
        refused += 1
print("refused", refused)
`

// BenchmarkVMChannel compares the two channels, in two VMs side by side: the time to run a
// program, and the rate of a stream in each direction.
func BenchmarkVMChannel(b *testing.B) {
	if b.N > 1 {
		return
	}
	r := newVsockRig(b)
	r.configure("[vm.t]\nchannel = \"vsock\"\n[vm.u]\nchannel = \"serial\"\n")
	var stdins []io.Closer
	var runs []*launched
	for _, name := range []string{"t", "u"} {
		stdin, keep := io.Pipe()
		stdins = append(stdins, keep)
		p := r.start(stdin, "run", "--vm", name, "--no-gui", "sh", "-c", "echo up; read x")
		p.says("up\n")
		runs = append(runs, p)
	}
	kinds := map[string]string{}
	for _, st := range r.list() {
		kinds[st.Name] = st.Channel.Kind + "-" + st.Channel.By
	}
	const execs, mib = 100, 64
	n := int64(mib) << 20
	if err := os.WriteFile(filepath.Join(r.dir, "file"), make([]byte, n), 0o600); err != nil {
		b.Fatal(err)
	}
	ratio := func(unit string, measure func(name string) float64) {
		t, u := measure("t"), measure("u")
		metric(b, t, unit+"-"+kinds["t"])
		metric(b, u, unit+"-"+kinds["u"])
		metric(b, t/u, unit+"-ratio")
	}
	took := map[string][]time.Duration{}
	for range execs { // alternating, so that other load on the machine affects both
		for _, name := range []string{"t", "u"} {
			begin := time.Now()
			r.vix(0, "exec", name, "--", "true")
			took[name] = append(took[name], time.Since(begin))
		}
	}
	ratio("s/exec", func(name string) float64 {
		slices.Sort(took[name])
		return took[name][execs/2].Seconds()
	})
	for what, line := range map[string]string{
		"down": fmt.Sprintf("$VIX exec %%s -- head -c %d /dev/zero >/dev/null", n),
		"up":   "$VIX exec %s -- sh -c 'cat >/dev/null' <$D/file",
	} {
		ratio("MB/s-"+what, func(name string) float64 {
			begin := time.Now()
			r.shell(b, fmt.Sprintf(line, name))
			return float64(n) / 1e6 / time.Since(begin).Seconds()
		})
	}
	for i, p := range runs {
		stdins[i].Close()
		p.code()
	}
}
