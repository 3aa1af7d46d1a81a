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

	"golang.org/x/sys/unix"

	"vix/internal/qemu"
	"vix/internal/vm"
)

// newVsockRig is a rig whose VM t has its agent's channel over vsock.
func newVsockRig(t testing.TB) *rig {
	t.Helper()
	if _, err := exec.LookPath(vsockName); err != nil {
		t.Skip("lacks: " + vsockName)
	}
	r := newRig(t)
	r.configure("[vm.t]\nchannel = \"vsock\"\n")
	return r
}

// The verbs over vsock. Where the machine has the kernel's device that carries it, and
// else vhost-device-vsock.
func TestVMVsock(t *testing.T) {
	r := newVsockRig(t)
	by := "kernel"
	if qemu.CheckVhost(vhostVsock) != nil {
		by = vsockName
	}
	stdin, keep := io.Pipe()
	defer keep.Close()
	first := r.start(stdin, "run", "--no-gui", "--vm", "t", "sh", "-c", "echo up; read x")
	first.says("up\n")
	st := r.list()[0]
	if st.Channel != (vm.ChannelState{Kind: "vsock", By: by}) || (st.PIDs.Vsock > 0) != (by == vsockName) {
		t.Errorf("%+v, %+v", st.Channel, st.PIDs)
	}
	if p := r.vix(0, "status", "t"); !strings.Contains(p.out.String(), "vsock, by "+by) {
		t.Error(p.out.String())
	}
	if p := r.vix(0, "exec", "t", "--", "sh", "-c", "ls /sys/class/virtio-ports; cat /proc/cmdline"); !strings.Contains(p.out.String(), "vix.agent=vsock:") || strings.Contains(p.out.String(), "vport") {
		t.Error(p.out.String())
	}
	if by == vsockName {
		checkVsockConfined(t, r, st)
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
	t.Run("streams", func(t *testing.T) { // larger than any packet, both ways
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

// hostileVsock tries in the guest what an agent does, when there is one already: from a
// port that only root may have, where that works; and again and again.
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

// checkVsockConfined looks at what vhost-device-vsock has left, by doctor and in /proc.
func checkVsockConfined(t *testing.T, r *rig, st vm.State) {
	t.Helper()
	p := r.start(nil, "doctor")
	p.code()                                                                                                                                       // 1: the socket is not a compositor's
	if text := p.out.String(); !strings.Contains(text, "the agent's channel is vsock, by "+vsockName) || !strings.Contains(text, "  "+vsockName) { // as a process
		t.Error(text)
	}
	if st.Confinement[vsockName].PID != st.PIDs.Vsock {
		t.Errorf("%+v", st.Confinement)
	}
	if os.Getuid() != 0 || len(st.Confinement[vsockName].Weaker) > 0 {
		return // others may not look; or this machine cannot confine all
	}
	for _, path := range []string{"home", "root", "run", "var"} {
		if _, err := os.Stat(fmt.Sprintf("/proc/%d/root/%s", st.PIDs.Vsock, path)); err == nil {
			t.Errorf("%s sees /%s", vsockName, path)
		}
	}
}

// The end of the process that carries the channel is the VM's.
func TestVMVsockKilled(t *testing.T) {
	r := newVsockRig(t)
	if qemu.CheckVhost(vhostVsock) == nil {
		t.Skip("the kernel carries vsock here: there is no process to kill")
	}
	p := r.start(nil, "run", "--no-gui", "--vm", "t", "sh", "-c", "echo up; exec sleep 1000")
	p.says("up\n")
	if err := unix.Kill(r.list()[0].PIDs.Vsock, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if c := p.code(); c != 125 || !strings.Contains(p.err.String(), "VM t: vhost-device-vsock ended: signal: killed") || strings.Count(p.err.String(), "VM t: vhost") != 1 {
		t.Errorf("%d: %s", c, p.err.String())
	}
	r.nothingLeft()
}

// BenchmarkVMChannel compares the two channels, in two VMs side by side: how soon a
// program has run, and what a stream carries each way.
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
		p := r.start(stdin, "run", "--vm", name, "--no-gui", "--disposable", "sh", "-c", "echo up; read x")
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
	for range execs { // in turn, so that what else the machine does falls on both
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
