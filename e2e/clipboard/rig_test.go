// Package clipboard holds the selections' and drags' tests with real programs on a
// headless sway. Most need no VM: two proxies, "red" and "blue", are to the compositor
// and to each other what two VMs are.
package clipboard

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/desktoptest"
)

// patience is how long a program may take to start and show its window.
const patience = 90 * time.Second

// A desk is a sway with two proxies.
type desk struct {
	*desktoptest.Desktop
	t       testing.TB
	bin     string
	proxies map[string]*desktoptest.Proc
	passed  chan struct{} // a token for each request that reached a display process
}

func newDesk(t testing.TB) *desk {
	t.Helper()
	return deskOf(t, desktoptest.Config{Timeout: patience})
}

// deskOf makes a desk; its proxies have more arguments.
func deskOf(t testing.TB, cfg desktoptest.Config, proxyArgs ...string) *desk {
	t.Helper()
	lacks := desktoptest.Lacks()
	for _, name := range []string{"wl-copy", "foot"} {
		if _, err := exec.LookPath(name); err != nil {
			lacks += " " + name
		}
	}
	if lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	bin, err := filepath.Abs("../../build/bin")
	if err != nil {
		t.Fatal(err)
	}
	d := &desk{Desktop: desktoptest.Start(t, cfg), t: t, bin: bin, proxies: map[string]*desktoptest.Proc{}, passed: make(chan struct{}, 1000)}
	for _, vm := range []string{"red", "blue"} {
		d.proxy(vm, proxyArgs...)
	}
	return d
}

func (d *desk) socket(vm string) string { return filepath.Join(d.Dir, vm) }

// proxy starts what stands for a VM.
func (d *desk) proxy(vm string, more ...string) {
	d.t.Helper()
	ours, theirs := pair(d.t, unix.SOCK_SEQPACKET)
	defer theirs.Close()
	cmd := d.command("", append([]string{filepath.Join(d.bin, "vix-waylandproxy"), "local", "--listen", d.socket(vm), "--vm", vm, "--frame", "full", "--control-fd", "3"}, more...)...)
	cmd.ExtraFiles = []*os.File{theirs}
	p, err := desktoptest.Command(d.t, cmd, nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.supervise(vm, ours)
	d.proxies[vm] = p
	d.t.Cleanup(func() {
		if d.t.Failed() {
			d.t.Logf("the proxy of %s wrote: %s", vm, p.Output())
		}
	})
	again := time.NewTicker(20 * time.Millisecond) // a socket that listens has no event
	defer again.Stop()
	for deadline := time.Now().Add(patience); ; <-again.C {
		if _, err := os.Stat(d.socket(vm)); err == nil {
			return
		}
		select {
		case <-p.Done():
			d.t.Fatalf("the proxy of %s ended: %s", vm, p.Output())
		default:
		}
		if time.Now().After(deadline) {
			d.t.Fatalf("the proxy of %s makes no socket", vm)
		}
	}
}

// command is a program of a VM's, of the host's with "".
func (d *desk) command(vm string, argv ...string) *exec.Cmd {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = d.Env()
	if vm != "" {
		cmd.Env = append(cmd.Env, "WAYLAND_DISPLAY="+d.socket(vm))
	}
	return cmd
}

// start starts a program that ends with the test.
func (d *desk) start(vm string, argv ...string) *desktoptest.Proc {
	d.t.Helper()
	p, err := desktoptest.Command(d.t, d.command(vm, argv...), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	return p
}

// copies lets a program copy; it is the owner until it is replaced.
func (d *desk) copies(vm string, content []byte, args ...string) {
	d.t.Helper()
	cmd := d.command(vm, append([]string{"wl-copy"}, args...)...)
	cmd.Stdin = bytes.NewReader(content)
	stderr, err := os.Create(filepath.Join(d.Dir, "wl-copy")) // no pipe, which what it leaves behind would hold
	if err != nil {
		d.t.Fatal(err)
	}
	defer stderr.Close()
	cmd.Stderr = stderr
	if err := cmd.Run(); err != nil {
		said, _ := os.ReadFile(stderr.Name())
		d.t.Fatalf("wl-copy in %q: %v: %s", vm, err, said)
	}
}

// pastes returns what a program gets, and what it complains of.
func (d *desk) pastes(vm string, args ...string) (content []byte, complaint string) {
	d.t.Helper()
	cmd := d.command(vm, append([]string{"timeout", "60", "wl-paste", "--no-newline"}, args...)...)
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	_ = cmd.Run() // with nothing to paste it fails, and says so
	return out.Bytes(), strings.TrimSpace(stderr.String())
}

func pair(t testing.TB, kind int) (ours, theirs *os.File) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs = os.NewFile(uintptr(fds[0]), "control"), os.NewFile(uintptr(fds[1]), "control")
	t.Cleanup(func() { _ = ours.Close() })
	return ours, theirs
}

// supervise stands for a VM's supervisor, as far as the clipboard goes: it hands the
// socket that comes with a request on to the display process (internal/vm/control.go).
func (d *desk) supervise(vm string, display *os.File) {
	d.t.Helper()
	dir := filepath.Join(d.Dir, "vix", vm)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		d.t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "control.sock"), Net: "unix"})
	if err != nil {
		d.t.Fatal(err)
	}
	done := make(chan struct{})
	d.t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.AcceptUnix()
			if err != nil {
				return
			}
			if err := passOn(c, display); err != nil && !errors.Is(err, unix.EPIPE) {
				d.t.Errorf("the supervisor of %s: %v", vm, err)
			}
			d.passed <- struct{}{}
		}
	}()
}

func passOn(c *net.UnixConn, display *os.File) error {
	defer c.Close()
	buf, oob := make([]byte, 4096), make([]byte, unix.CmsgSpace(4))
	n, on, _, _, err := c.ReadMsgUnix(buf, oob)
	if err != nil || n < 4 {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	var packet string
	for _, op := range []string{"take", "give", "follow"} {
		if bytes.Contains(buf[:n], []byte(`"op":"`+op+`"`)) {
			packet = `{"request":"` + op + `"}`
		}
	}
	ms, err := unix.ParseSocketControlMessage(oob[:on])
	if err != nil || len(ms) != 1 {
		return errors.Join(err, errors.New("no descriptor"))
	}
	fds, err := unix.ParseUnixRights(&ms[0])
	if err != nil {
		return err
	}
	defer unix.Close(fds[0])
	if err := unix.Sendmsg(int(display.Fd()), []byte(packet), unix.UnixRights(fds[0]), nil, 0); err != nil {
		return err
	}
	reply := []byte(`{"done":true}`)
	_, err = c.Write(append(binary.LittleEndian.AppendUint32(nil, uint32(len(reply))), reply...))
	return err
}

// launcher is a command line of vix-launcher's.
func (d *desk) launcher(args ...string) *exec.Cmd {
	cmd := d.command("", append([]string{filepath.Join(d.bin, "vix-launcher")}, args...)...)
	cmd.Env = append(cmd.Env, "SWAYSOCK="+d.IPC, "XDG_CONFIG_HOME="+d.Dir, "WAYLAND_DISPLAY="+d.Socket)
	return cmd
}

// vix runs vix clipboard, and returns what it prints and whether it went well.
func (d *desk) vix(args ...string) (out string, ok bool) {
	d.t.Helper()
	b, err := d.launcher(append([]string{"clipboard"}, args...)...).CombinedOutput()
	return strings.TrimSpace(string(b)), err == nil
}

// flow starts what carries out a VM's profile, as its supervisor would.
func (d *desk) flow(vm string) *desktoptest.Proc {
	d.t.Helper()
	p, err := desktoptest.Command(d.t, d.launcher("clipboard-flow", vm), nil)
	if err != nil {
		d.t.Fatal(err)
	}
	d.until("the profile of "+vm+" to be carried out", func() bool { return strings.Contains(p.Output(), "follows") })
	return p
}

// must is vix that must go well.
func (d *desk) must(args ...string) string {
	d.t.Helper()
	out, ok := d.vix(args...)
	if !ok {
		d.t.Fatalf("clipboard %q: %s", args, out)
	}
	return out
}

// config writes the user's config.toml.
func (d *desk) config(text string) {
	d.t.Helper()
	if err := os.MkdirAll(filepath.Join(d.Dir, "vix"), 0o700); err != nil {
		d.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Dir, "vix", "config.toml"), []byte(text), 0o600); err != nil {
		d.t.Fatal(err)
	}
}

// window opens a terminal of a VM's and waits for it.
func (d *desk) window(vm string) *desktoptest.Node {
	d.t.Helper()
	d.start(vm, "foot", "--app-id=held", "sleep", "1000")
	return d.WaitWindow(d.t, desktoptest.ByAppIDPrefix("vix."+vm+"."))
}
