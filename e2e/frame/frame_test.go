// Package frame looks at the frames of VMs' windows, and at what hostile guests show,
// on real compositors without a screen, at several scales: sway, labwc and Weston, and
// with make e2e-full also KWin and Mutter. Its pictures are kept in build/e2e.
package frame

import (
	"context"
	"image"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"

	"vix/internal/desktoptest"
	"vix/internal/filter"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// A vm stands in for a virtual machine: a socket whose clients pass its filter.
type vm struct {
	name, color string
	frame       string // "full" when empty
}

var (
	work  = vm{name: "work", color: "#2060c0"}
	vault = vm{name: "vault", color: "#f0c000"}
)

// serve filters the clients of a socket of the desktop's, until the test ends.
func (v vm) serve(t *testing.T, upstream string) (path string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "vix-frame-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path = filepath.Join(dir, v.name)
	if v.frame == "" {
		v.frame = "full"
	}
	log := slog.New(slog.NewTextHandler(logTo{t}, &slog.HandlerOptions{Level: slog.LevelError}))
	ctxSocket := filepath.Join(dir, "context")
	dialer := &filter.ContextDialer{
		VM:     v.name,
		Direct: func() (wayland.Transport, error) { return wayland.Dial(upstream) },
		Listen: func() (*os.File, error) {
			_ = os.Remove(ctxSocket) // of a compositor without contexts, which is asked each time
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: ctxSocket, Net: "unix"})
			if err != nil {
				return nil, err
			}
			l.SetUnlinkOnClose(false)
			defer l.Close()
			return l.File()
		},
		Through: func() (wayland.Transport, error) { return wayland.Dial(ctxSocket) },
		Log:     log,
	}
	f := filter.New(filter.Config{
		VM: v.name, Tag: v.name, Color: v.color, Frame: v.frame,
		Dial: dialer.Dial,
		Log:  log,
	})
	t.Cleanup(func() { _ = dialer.Close() }) // after the connections, which Serve's own ends
	waylandtest.Serve(t, path, func(ctx context.Context, client *wayland.UnixConn) {
		_ = f.Serve(ctx, client)
	})
	return path
}

type logTo struct{ t *testing.T }

func (l logTo) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}

// run starts a program as the VM's.
func run(t *testing.T, d *desk, socket string, argv ...string) *desktoptest.Proc {
	t.Helper()
	return d.start(t, append([]string{"env", "WAYLAND_DISPLAY=" + socket, "GSK_RENDERER=cairo", "GDK_BACKEND=wayland"}, argv...)...)
}

// keep saves a picture under build/e2e.
func keep(t *testing.T, name string, img image.Image) {
	t.Helper()
	dir := filepath.Join("..", "..", "build", "e2e")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := desktoptest.SavePNG(filepath.Join(dir, name), img); err != nil {
		t.Fatal(err)
	}
}
