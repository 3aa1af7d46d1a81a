package filter

import (
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vix/internal/desktoptest"
	"vix/internal/display"
	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// globalsOf lists what a compositor offers to a new connection.
func globalsOf(t *testing.T, socket string) []string {
	t.Helper()
	u, err := wayland.Dial(socket)
	if err != nil {
		t.Fatal(err)
	}
	c := wayland.NewClient(u)
	defer c.Close()
	if err := c.Registry(); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, g := range c.Globals {
		names = append(names, g.Interface)
	}
	return names
}

// TestSecurityContext makes one on a real compositor: a connection through it
// sees less, and the compositor knows a window's VM; once it is closed nobody
// listens.
func TestSecurityContext(t *testing.T) {
	if lacks := desktoptest.Lacks(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	waylandtest.LeakCheck(t)
	d := desktoptest.Start(t, desktoptest.Config{})
	path := filepath.Join(d.Dir, "context")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	up, err := wayland.Dial(d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, err := NewSecurityContext(up, "web", int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	all, some := globalsOf(t, d.Socket), globalsOf(t, path)
	for _, name := range []string{"zwlr_screencopy_manager_v1", "wp_security_context_manager_v1", "zwlr_layer_shell_v1"} {
		if !slices.Contains(all, name) || slices.Contains(some, name) {
			t.Errorf("%s: without a context %v, with one %v", name, slices.Contains(all, name), slices.Contains(some, name))
		}
	}
	for _, name := range all {
		if _, ok := display.Rules[wayland.Lookup(name)]; !ok && display.Unknown[name] == "" {
			t.Errorf("%s of this compositor has neither a rule nor a reason", name)
		}
	}
	if err := ctx.Close(); err != nil {
		t.Error(err)
	}
}

// TestContextDialer holds that a compositor that was restarted is given a new
// context, and that one without contexts is spoken to directly.
func TestContextDialer(t *testing.T) {
	if lacks := desktoptest.Lacks(); lacks != "" {
		t.Skip("lacks: " + lacks)
	}
	waylandtest.LeakCheck(t)
	first, second := desktoptest.Start(t, desktoptest.Config{}), desktoptest.Start(t, desktoptest.Config{})
	socket, path := first.Socket, filepath.Join(t.TempDir(), "context")
	contexts := 0
	d := &ContextDialer{
		VM:     "web",
		Direct: func() (wayland.Transport, error) { return wayland.Dial(socket) },
		Listen: func() (*os.File, error) {
			contexts++
			_ = os.Remove(path) // there is none the first time
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
			if err != nil {
				return nil, err
			}
			l.SetUnlinkOnClose(false)
			defer l.Close()
			return l.File()
		},
		Through: func() (wayland.Transport, error) { return wayland.Dial(path) },
		Log:     slog.New(slog.DiscardHandler),
	}
	dial := func(want int) {
		t.Helper()
		c, err := d.Dial()
		if err != nil {
			t.Fatal(err)
		}
		if contexts != want {
			t.Errorf("%d contexts were made, not %d", contexts, want)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	dial(1)
	dial(1)
	first.Sway.Stop()
	socket = second.Socket
	dial(2)
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := d.Through()
		if err != nil {
			break // the compositor has seen that the context is closed
		}
		_ = c.Close()
		if time.Now().After(deadline) {
			t.Fatal("the compositor still listens after Close")
		}
	}
}

func TestNoSecurityContext(t *testing.T) {
	waylandtest.LeakCheck(t)
	for name, c := range map[string]struct {
		answer func(p *waylandtest.Peer)
		want   string
	}{
		"none": {func(p *waylandtest.Peer) { p.Send(3, wayland.WlCallbackEvtDone, 0) }, ErrNoSecurityContext.Error()},
		"end":  {func(p *waylandtest.Peer) { _ = p.Tr.Close() }, "closed the connection"},
		"error": {func(p *waylandtest.Peer) {
			p.Put(1, wayland.WlDisplayEvtError, 1, 2, "no\x1b[31m memory")
		}, "refused: error 2: no"},
	} {
		t.Run(name, func(t *testing.T) {
			near, far := waylandtest.Pair(t)
			host := &waylandtest.Peer{T: t, Tr: near}
			done := make(chan error, 1)
			go func() {
				_, err := NewSecurityContext(far, "web", 0)
				done <- err
			}()
			host.Want(1, wayland.WlDisplayReqGetRegistry)
			host.Want(1, wayland.WlDisplayReqSync)
			c.answer(host)
			err := <-done
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Errorf("%v", err)
			}
			if name == "none" && !errors.Is(err, ErrNoSecurityContext) {
				t.Errorf("%v is not ErrNoSecurityContext", err)
			}
			_ = near.Close()
		})
	}
}
