package desktop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"vix/internal/desktop"
	"vix/internal/desktoptest"
)

func TestSway(t *testing.T) {
	d := start(t)
	s := desktop.Sway{Socket: d.IPC}
	if _, err := s.Focused(within(t)); !errors.Is(err, desktop.ErrNoFocus) {
		t.Errorf("an empty desktop: %v", err)
	}
	ev, err := s.Subscribe(within(t), "window", "workspace")
	if err != nil {
		t.Fatal(err)
	}
	defer ev.Close()
	if err := s.Run(within(t), `assign [app_id="^vix\.web\."] workspace number 3`); err != nil {
		t.Fatal(err)
	}
	d.Client(t, "foot", "--app-id=vix.web.org.foo", "--title=hello", "cat")
	w := waitEvent(t, ev, "window", "new").Window
	if vm, app, ok := w.VM(); !ok || vm != "web" || app != "org.foo" {
		t.Errorf("window %+v: VM %q, app %q, %v", w, vm, app, ok)
	}
	if err := s.Run(within(t), "workspace number 3"); err != nil {
		t.Fatal(err)
	}
	waitEvent(t, ev, "workspace", "focus")
	f, err := s.Focused(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if f.ID != w.ID || f.Workspace != "3" || f.AppID != "vix.web.org.foo" || f.PID == 0 {
		t.Errorf("focused %+v, want window %d on workspace 3", f, w.ID)
	}
	ws, err := s.Workspaces(within(t))
	if err != nil {
		t.Fatal(err)
	}
	if i := len(ws) - 1; ws[i].Name != "3" || !ws[i].Focused || ws[i].Num != 3 || ws[i].Output != "HEADLESS-1" {
		t.Errorf("workspaces %+v", ws)
	}
	if err := s.Run(within(t), "nonsense"); err == nil || !strings.Contains(err.Error(), "nonsense") {
		t.Errorf("a bad command: %v", err)
	}
	if _, err := s.Subscribe(within(t), "nonsense"); err == nil {
		t.Error("a subscription to nonsense succeeded")
	}
	d.CloseWindow(t, &desktoptest.Node{ID: w.ID})
	waitEvent(t, ev, "window", "close")
}

func waitEvent(t *testing.T, ev *desktop.SwayEvents, kind, change string) desktop.SwayEvent {
	t.Helper()
	for {
		e, err := ev.Next()
		if err != nil {
			t.Fatalf("waiting for %s %s: %v", kind, change, err)
		}
		if e.Kind == kind && e.Change == change {
			return e
		}
	}
}

// TestSwayIsBounded: what answers is not taken at its word.
func TestSwayIsBounded(t *testing.T) {
	head := func(magic string, n, kind uint32) []byte {
		b := binary.NativeEndian.AppendUint32([]byte(magic), n)
		return binary.NativeEndian.AppendUint32(b, kind)
	}
	for name, c := range map[string]struct {
		reply []byte
		want  string
	}{
		"huge":       {head("i3-ipc", 1<<31, 4), "at most"},
		"not sway":   {head("x3-ipc", 2, 4), "not an IPC message"},
		"other type": {append(head("i3-ipc", 2, 1), "{}"...), "a reply of type 1"},
		"not JSON":   {append(head("i3-ipc", 2, 4), "{["...), "invalid character"},
		"ends":       {head("i3-ipc", 2, 4), "sway has ended"},
		"deep":       {append(head("i3-ipc", 2<<20, 4), bytes.Repeat([]byte(`{"nodes":[`), 2<<20/10+1)[:2<<20]...), "depth"},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			l, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			go func() {
				if c2, err := l.Accept(); err == nil {
					_, _ = c2.Read(make([]byte, 64))
					_, _ = c2.Write(c.reply)
					c2.Close()
				}
			}()
			_, err = desktop.Sway{Socket: path}.Windows(within(t))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("err = %v, want %q", err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (desktop.Sway{Socket: filepath.Join(t.TempDir(), "none")}).Windows(ctx); err == nil {
		t.Error("a cancelled question was answered")
	}
}

func TestSplitAppID(t *testing.T) {
	for id, want := range map[string][2]string{
		"vix.web.firefox":       {"web", "firefox"},
		"vix.a-b_1.org.gnome.X": {"a-b_1", "org.gnome.X"},
		"vix.web":               {},
		"vix..x":                {},
		"vix.UP.x":              {},
		"firefox":               {},
	} {
		vm, app, ok := desktop.SplitAppID(id)
		if vm != want[0] || app != want[1] || ok != (want[0] != "") {
			t.Errorf("%s: %q, %q, %v", id, vm, app, ok)
		}
	}
}
