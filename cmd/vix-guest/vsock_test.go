package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/agent"
)

// vsockChannel is a vsock connection that the guest makes, through the user-space device of
// vhost-device-vsock, which represents a host port by a Unix socket.
func vsockChannel(t *testing.T) channel {
	t.Helper()
	device, err := exec.LookPath("vhost-device-vsock")
	if err != nil {
		t.Skip("lacks: vhost-device-vsock")
	}
	const port = 5000
	dir := t.TempDir()
	socket, host := filepath.Join(dir, "vsock"), filepath.Join(dir, "host")
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: fmt.Sprintf("%s_%d", host, port), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	start(t, command(device, "--guest-cid", "4242", "--socket", socket, "--uds-path", host))
	waitFor(t, socket)
	return channel{
		args: []string{"-chardev", "socket,id=vsock,path=" + socket, "-device", "vhost-user-vsock-pci,chardev=vsock"},
		word: fmt.Sprintf(" vix.agent=vsock:%d", port),
		accept: func() (net.Conn, error) {
			_ = ln.SetDeadline(time.Now().Add(4 * time.Minute))
			return ln.Accept()
		},
	}
}

// The agent's protocol is the same over vsock. The comparison with virtio-serial, in one run,
// decided which of them a VM uses. The figures are those of a user-space device, and do not
// show what the kernel's device (/dev/vhost-vsock) does.
func TestVsock(t *testing.T) {
	for _, by := range []struct {
		name string
		make func(*testing.T) channel
	}{{"vsock", vsockChannel}, {"virtio-serial", serialChannel}} {
		t.Run(by.name, func(t *testing.T) {
			v := startVMBy(t, "root", by.make).ready(t)
			limit := time.AfterFunc(4*time.Minute, func() { v.conn.Close() }) // in case the channel hangs
			defer limit.Stop()
			testIdentity(t, v)
			testStatus(t, v)
			testTenMegabytes(t, v)
			compareChannel(t, v)
			if err := v.host.PowerOff(t.Context()); err != nil {
				t.Error(err)
			}
			if err := <-v.off; err != nil {
				t.Errorf("QEMU: %v", err)
			}
		})
	}
}

// A guest that should use vsock, but has none, uses the virtio-serial port.
func TestVsockMissing(t *testing.T) {
	v := startVMBy(t, "root", func(t *testing.T) channel {
		ch := serialChannel(t)
		ch.word = " vix.agent=vsock:5000"
		return ch
	}).ready(t)
	testIdentity(t, v)
	console, err := os.ReadFile(v.console)
	if err != nil || !strings.Contains(string(console), "vix-guest: agent: vsock port 5000 of the host: ") {
		t.Errorf("it does not say so: %v\n%s", err, console)
	}
}

// compareChannel measures a channel's throughput, and the time to run a program.
func compareChannel(t *testing.T, v *vm) {
	t.Helper()
	const mib, runs = 32, 20
	begin := time.Now()
	p, err := v.host.Spawn(t.Context(), agent.Spawn{Argv: []string{"head", "-c", fmt.Sprint(mib << 20), "/dev/zero"}})
	if err != nil {
		t.Fatal(err)
	}
	if n, err := io.Copy(io.Discard, p.Stdout); err != nil || n != mib<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	down := time.Since(begin)
	begin = time.Now()
	if p, err = v.host.Spawn(t.Context(), agent.Spawn{Argv: []string{"sh", "-c", "cat >/dev/null"}}); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<20)
	for range mib {
		if _, err := p.Stdin.Write(buf); err != nil {
			t.Fatal(err)
		}
	}
	_ = p.Stdin.Close()
	if st, err := p.Wait(); err != nil || st.Code != 0 {
		t.Errorf("%v, %v", st, err)
	}
	up := time.Since(begin)
	begin = time.Now()
	for range runs {
		v.expect(t, agent.Spawn{Argv: []string{"true"}})
	}
	t.Logf("%d MiB: %.1f MB/s down, %.1f MB/s up; %.1f ms for a program", mib,
		float64(mib<<20)/1e6/down.Seconds(), float64(mib<<20)/1e6/up.Seconds(), float64(time.Since(begin).Milliseconds())/runs)
}
