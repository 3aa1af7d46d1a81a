package supervise

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/vsock"
	"golang.org/x/sys/unix"

	"vix/config"
	"vix/internal/qemu"
	"vix/internal/vm"
)

// startChannel starts a VM over a channel; vhost is what stands for /dev/vhost-vsock.
func (b *bench) startChannel(kind, vhost string, argv ...string) *session {
	s := b.start("t", argv...)
	s.run.Launch = func() (vm.Launch, error) {
		l := b.launch("t")
		l.VM.Channel = kind
		l.Parts.Vhost = vhost
		return l, nil
	}
	return b.goRun(s)
}

// Without the kernel's device, "auto" is the serial port, and "vsock" says what to do.
func TestNoVsock(t *testing.T) {
	b := newBench(t)
	none := filepath.Join(b.dir, "none")
	for _, vhost := range []string{none, "/dev/null", b.bin} {
		s := b.startChannel(config.ChannelAuto, vhost, "sleep", "60")
		if st := b.state(s); st.Channel != (vm.ChannelState{Kind: "serial", By: qemuChild}) || len(st.Notes) > 0 {
			t.Errorf("%s: %+v, %+v, %q", vhost, st.Channel, st.PIDs, st.Notes)
		}
		var log strings.Builder
		if err := b.reg.Logs(t.Context(), "t", false, &log); err != nil || strings.Count(log.String(), "is virtio-serial: no vsock: "+vhost) != 1 {
			t.Errorf("%s: %v: %s", vhost, err, log.String())
		}
		if err := b.reg.Stop(t.Context(), "t", true); err != nil {
			t.Error(err)
		}
		<-s.done
	}
	s := b.start("t", "true")
	s.run.Launch = func() (vm.Launch, error) {
		l := b.launch("t")
		l.VM.Channel, l.Parts.Vhost = config.ChannelVsock, none
		return l, nil
	}
	b.goRun(s)
	<-s.done
	failure(t, s, vm.CodeVix, `VM t: channel = "vsock": `+none+": there is none", "load the kernel's vhost_vsock")
}

func TestCheckVhost(t *testing.T) {
	dir := t.TempDir()
	file, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "pipe")
	if err := errors.Join(os.WriteFile(file, []byte("x"), 0o600), unix.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "there is none", file: "not the kernel's device for vsock", pipe: "not the kernel's device for vsock",
		"/dev/null": "not the kernel's device for vsock", dir: "is a directory",
	} {
		if err := qemu.CheckVhost(path); err == nil || !strings.HasPrefix(err.Error(), path+": ") || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
}

// A vsockListener is a Unix socket's, whose clients say in their first eight bytes which
// vsock address the kernel would give for them: here is no vsock to connect by.
type vsockListener struct{ *net.UnixListener }

type vsockPeer struct {
	net.Conn
	addr vsock.Addr
}

func (p *vsockPeer) RemoteAddr() net.Addr { return &p.addr }

func (l vsockListener) Accept() (net.Conn, error) {
	c, err := l.UnixListener.Accept()
	if err != nil {
		return nil, err
	}
	var b [8]byte
	if _, err := io.ReadFull(c, b[:]); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return &vsockPeer{c, vsock.Addr{ContextID: binary.BigEndian.Uint32(b[:]), Port: binary.BigEndian.Uint32(b[4:])}}, nil
}

func (l vsockListener) dial(t *testing.T, cid, port uint32) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", l.Addr().String())
	if err == nil {
		t.Cleanup(func() { c.Close() })
		_, err = c.Write(binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, cid), port))
	}
	if err != nil {
		t.Error(err)
		return nil
	}
	return c
}

// refused waits until the other end has closed c.
func refused(t *testing.T, c net.Conn) {
	t.Helper()
	if c == nil {
		return // it could not even connect, which is told
	}
	_ = c.SetReadDeadline(time.Now().Add(time.Minute))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("not refused: %d, %v", n, err)
	}
}

func listenAs(t *testing.T) vsockListener {
	t.Helper()
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(t.TempDir(), "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return vsockListener{ln}
}

// The kernel's vsock shows a port of the host's to every VM and to the host's own
// programs: only the agent of this VM gets through.
func TestVsockPeers(t *testing.T) {
	const cid, other = 4242, 4243
	ln := listenAs(t)
	files := openFiles(t)
	var said []error
	c := &kernelVsock{ln: ln, cid: cid, refused: func(err error) { said = append(said, err) }}
	type result struct {
		conn io.ReadWriteCloser
		err  error
	}
	got := make(chan result, 1)
	go func() {
		conn, err := c.connect(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- result{conn, err}
	}()
	for _, from := range [][2]uint32{
		{other, 1023},                 // another VM
		{vsock.Host, 1023}, {1, 1023}, // a program of the host's; one through the loopback
		{0, 1023}, {unix.VMADDR_CID_ANY, 1023},
		{cid, 1024}, {cid, unix.VMADDR_PORT_ANY}, // a program of the guest's
	} {
		refused(t, ln.dial(t, from[0], from[1]))
	}
	// A flood from another VM is refused, connection by connection, and costs no more.
	var flood sync.WaitGroup
	for range 8 {
		flood.Go(func() {
			for range 250 {
				conn := ln.dial(t, other, 1023)
				refused(t, conn)
				if t.Failed() {
					return
				}
				conn.Close()
			}
		})
	}
	flood.Wait()
	agent := ln.dial(t, cid, 1023)
	r := <-got
	if r.err != nil {
		t.Fatal(r.err)
	}
	if len(said) != maxRefusals+1 {
		t.Errorf("%d lines: %v", len(said), said)
	}
	if _, err := net.Dial("unix", ln.Addr().String()); err == nil {
		t.Error("a second connection is possible")
	}
	if _, err := agent.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if b := make([]byte, 1); true {
		if _, err := io.ReadFull(r.conn, b); err != nil || b[0] != 'x' {
			t.Errorf("%q, %v", b, err)
		}
	}
	r.conn.Close()
	agent.Close()
	c.close()
	if n := openFiles(t); n > files+7 { // the seven above are open until the test's end
		t.Errorf("%d descriptors, before %d", n, files)
	}
}

// A guest that does not connect ends the wait with the start.
func TestVsockNobody(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	ln := listenAs(t)
	go func() {
		refused(t, ln.dial(t, 1, 1))
		cancel(errStop)
	}()
	c := &kernelVsock{ln: ln, cid: 4242, refused: func(error) {}}
	if conn, err := c.connect(ctx); conn != nil && err == nil || !errors.Is(err, errStop) {
		t.Errorf("%v, %v", conn, err)
	}
}

// A guest that cannot connect takes the serial port; what it says there is not lost.
func TestVsockSpare(t *testing.T) {
	for _, connects := range []bool{false, true} {
		ln := listenAs(t)
		spare, err := newSerial()
		if err != nil {
			t.Fatal(err)
		}
		c := &kernelVsock{ln: ln, cid: 4242, spare: spare, refused: func(error) {}}
		m := qemu.Machine{Devices: c.devices()}
		_, files := m.Command()
		if len(m.Devices) != 2 || len(files) != 3 {
			t.Fatalf("%+v, %v", m, files)
		}
		port := files[2]
		var far io.Writer = port
		want := vm.ChannelState{Kind: "serial", By: qemuChild}
		if connects {
			far, want = ln.dial(t, 4242, 1023), vm.ChannelState{Kind: "vsock", By: "kernel"}
		}
		if _, err := far.Write([]byte("hello")); err != nil {
			t.Fatal(err)
		}
		conn, err := c.connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		b := make([]byte, 5)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "hello" || c.state() != want {
			t.Errorf("%q, %v, %+v", b, err, c.state())
		}
		conn.Close()
		c.close()
		if _, err := port.Write([]byte("x")); err == nil {
			t.Error("the port is still open")
		}
		port.Close()
	}
}
