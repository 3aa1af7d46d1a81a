// Package desktoptest gives a test a desktop of its own: a headless sway, with
// a picture of its screen, its window tree, a keyboard and a pointer.
//
//	Start ─► sway (WLR_BACKENDS=headless, in a runtime directory of its own)
//	           │ sway.sock: IPC          Tree, WaitWindow, Command, SetSize
//	           │ wayland-N: grim         Screenshot, WaitScreen
//	           │            wtype        Type, Key
//	           ├            our client   MoveTo, Click, Drag, Scroll (zwlr_virtual_pointer_v1)
//	           └            our client   Lock (ext_session_lock_v1)
//
// Everything that it starts ends with the test, also when the test's process is
// killed (parent-death signals). It waits for events: sway's start by an exec line
// and inotify, windows by IPC events. Only a screen's content has no event, and is
// looked at until it is as expected.
//
// It is a test's helper, not a part of any program; it takes sway, grim and
// wtype from PATH and says what is missing (Lacks).
package desktoptest

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// T is what the harness needs of a *testing.T. The demo brings its own.
type T interface {
	Helper()
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Cleanup(func())
}

// Config changes what Start starts; its zero value is good for most tests.
type Config struct {
	Width, Height int                 // of the only output; 1280×800 when 0
	Sway          string              // further lines of sway's configuration
	Credential    *syscall.Credential // whose processes they are; nil: the test's own
	Timeout       time.Duration       // of each wait; two minutes when 0: machines without KVM are slow
}

// A Desktop is a running sway with one headless output.
type Desktop struct {
	Dir     string // its XDG_RUNTIME_DIR, 0700
	Socket  string // absolute path of the Wayland socket
	IPC     string // absolute path of sway's IPC socket
	Sway    *Proc  // nil when it is not ours
	conf    string // sway's configuration, when it is ours
	timeout time.Duration
	bus     string // address of the session bus, if there is one
	cred    *syscall.Credential
	seat    *seat // made at the start, or of an attached desktop when it is first used
}

// Lacks says which of the programs that a Desktop needs are not on PATH, or "".
func Lacks() string {
	var missing []string
	for _, name := range []string{"sway", "grim", "wtype"} {
		if _, err := exec.LookPath(name); err != nil {
			missing = append(missing, name)
		}
	}
	return strings.Join(missing, ", ")
}

// Start starts a Desktop that ends with the test.
func Start(t T, cfg Config) *Desktop {
	t.Helper()
	d, err := start(t, cfg)
	if err != nil {
		t.Fatalf("starting a headless sway: %v", err)
	}
	return d
}

// Attach uses a compositor that runs already: its Wayland socket, and sway's
// IPC socket, which is empty for another compositor.
func Attach(socket, ipc string) *Desktop {
	return &Desktop{Dir: filepath.Dir(socket), Socket: socket, IPC: ipc, timeout: 2 * time.Minute}
}

func start(t T, cfg Config) (*Desktop, error) {
	if cfg.Width == 0 || cfg.Height == 0 {
		cfg.Width, cfg.Height = 1280, 800
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = 2 * time.Minute
	}
	// Not t.TempDir: the path of a socket may have 107 bytes.
	dir, err := os.MkdirTemp("", "vix-desktop-")
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if cfg.Credential != nil {
		if err := os.Chown(dir, int(cfg.Credential.Uid), int(cfg.Credential.Gid)); err != nil {
			return nil, err
		}
	}
	d := &Desktop{Dir: dir, IPC: filepath.Join(dir, "sway.sock"), timeout: cfg.Timeout, cred: cfg.Credential}
	d.conf = filepath.Join(dir, "sway.conf")
	text := fmt.Sprintf("output HEADLESS-1 mode %dx%d position 0 0\nxwayland disable\nfocus_follows_mouse no\ndefault_border none\n%s\nexec : >%s/ready\n",
		cfg.Width, cfg.Height, cfg.Sway, dir)
	if err := os.WriteFile(d.conf, []byte(text), 0o644); err != nil {
		return nil, err
	}
	if err := d.startSway(t); err != nil {
		return nil, err
	}
	t.Cleanup(d.closeSeat)
	d.MoveTo(t, cfg.Width-1, cfg.Height-1) // out of the pictures
	return d, nil
}

// startSway starts sway, and the seat's client before any other: see seat.
func (d *Desktop) startSway(t T) error {
	appears, err := watch(d.Dir, "ready")
	if err != nil {
		return err
	}
	defer appears.Close()
	cmd := exec.Command("sway", "-c", d.conf)
	cmd.Env = append(d.Env(), "WLR_BACKENDS=headless", "WLR_RENDERER=pixman", "WLR_LIBINPUT_NO_DEVICES=1", "SWAYSOCK="+d.IPC)
	if d.Sway, err = Command(t, cmd, d.cred); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	if err := d.ready(ctx, appears); err != nil {
		return errors.Join(err, errors.New(d.Sway.Output()))
	}
	d.seat, err = newSeat(d.Socket, d.timeout)
	return err
}

// Restart kills the compositor, as a crash does, and starts it again; its sockets get
// the names that they had.
func (d *Desktop) Restart(t T) error {
	d.closeSeat()
	d.Sway.Signal(syscall.SIGKILL)
	d.Sway.Wait()
	was := d.Socket
	d.Socket = "" // sway is no client of its own
	for _, name := range []string{filepath.Join(d.Dir, "ready"), d.IPC} {
		if err := os.Remove(name); err != nil {
			return err
		}
	}
	if err := d.startSway(t); err != nil {
		return err
	}
	if d.Socket != was {
		return fmt.Errorf("sway came back at %s, and was at %s", d.Socket, was)
	}
	return nil
}

// ready waits until sway runs the commands of its configuration, which it does
// when its sockets listen and its outputs exist.
func (d *Desktop) ready(ctx context.Context, appears *watcher) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() { // ends with ctx
		select {
		case <-d.Sway.Done():
			cancel(errors.New("sway ended at its start"))
		case <-ctx.Done():
		}
	}()
	if err := appears.wait(ctx); err != nil {
		return err
	}
	if _, err := d.ipc(ctx, ipcGetVersion, ""); err != nil {
		return err
	}
	sockets, err := filepath.Glob(filepath.Join(d.Dir, "wayland-*"))
	if err != nil {
		return err
	}
	for _, s := range sockets {
		if !strings.HasSuffix(s, ".lock") {
			d.Socket = s
			return nil
		}
	}
	return errors.New("sway made no Wayland socket")
}

// Env is the environment of a client of this desktop: the process's own, with
// the display's variables changed.
func (d *Desktop) Env() []string {
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch name {
		case "XDG_RUNTIME_DIR", "WAYLAND_DISPLAY", "WAYLAND_SOCKET", "SWAYSOCK", "I3SOCK", "DISPLAY", "DBUS_SESSION_BUS_ADDRESS":
		default:
			env = append(env, v)
		}
	}
	env = append(append(env, "XDG_RUNTIME_DIR="+d.Dir), d.busEnv()...)
	if d.Socket != "" {
		env = append(env, "WAYLAND_DISPLAY="+filepath.Base(d.Socket))
	}
	return env
}

// Client starts a program on this desktop, outside any VM.
func (d *Desktop) Client(t T, argv ...string) *Proc {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = d.Env()
	p, err := Command(t, cmd, d.cred)
	if err != nil {
		t.Fatalf("starting %s: %v", argv[0], err)
	}
	return p
}

// run runs a short-lived client and returns its standard output.
func (d *Desktop) run(argv ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), d.timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = d.Env()
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: d.cred}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", argv[0], err, strings.TrimSpace(stderr.String()))
	}
	return out, nil
}
