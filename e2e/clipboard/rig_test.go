// Package clipboard holds the selections' and drags' tests with real programs on a
// headless sway. Most need no VM: two proxies, "red" and "blue", are to the compositor
// and to each other what two VMs are.
package clipboard

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
)

// patience is how long a program may take to start and show its window.
const patience = 90 * time.Second

// A desk is a sway with two proxies.
type desk struct {
	*desktoptest.Desktop
	t   *testing.T
	bin string
}

func newDesk(t *testing.T) *desk {
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
	d := &desk{Desktop: desktoptest.Start(t, desktoptest.Config{Timeout: patience}), t: t, bin: bin}
	for _, vm := range []string{"red", "blue"} {
		d.proxy(vm)
	}
	return d
}

func (d *desk) socket(vm string) string { return filepath.Join(d.Dir, vm) }

// proxy starts what stands for a VM.
func (d *desk) proxy(vm string) {
	d.t.Helper()
	p := d.Client(d.t, filepath.Join(d.bin, "vix-waylandproxy"), "local", "--listen", d.socket(vm), "--vm", vm, "--frame", "full")
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
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	cmd.WaitDelay = time.Second // the copy that it leaves behind holds stderr
	if err := cmd.Run(); err != nil && err != exec.ErrWaitDelay {
		d.t.Fatalf("wl-copy in %q: %v: %s", vm, err, stderr.String())
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
