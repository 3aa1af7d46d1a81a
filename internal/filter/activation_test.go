package filter

import (
	"strings"
	"testing"
	"time"

	"vix/internal/wayland"
)

// TestActivation: a token is spent once, on the next window, before that has content.
func TestActivation(t *testing.T) {
	r := newFramed(t, "full")
	first := r.window()
	r.show(first, r.buffer(200, 100)) // before there is a token
	r.filter.Activate("old")
	r.filter.Activate("newer")
	second := r.window()
	if got := activated(t, r, second); got != "newer" {
		t.Errorf("the second window: token %q", got)
	}
	if got := activated(t, r, r.window()); got != "" {
		t.Errorf("the third window: token %q", got)
	}
}

// activated shows a window and returns the token that it was activated with.
func activated(t *testing.T, r *framed, w framedWindow) (token string) {
	t.Helper()
	buf := r.buffer(200, 100)
	r.guest.Send(w.surface, wayland.WlSurfaceReqAttach, buf, 0, 0)
	r.guest.Send(w.surface, wayland.WlSurfaceReqCommit)
	var manager uint32
	for {
		m, err := r.rig.host.Next()
		if err != nil {
			t.Fatal(err)
		}
		switch {
		case m.Op == wayland.WlRegistryReqBind && len(m.Body) > 12 && strings.Contains(string(m.Body), wayland.XdgActivationV1.Name):
			manager = m.Word(len(m.Body)/4 - 1)
		case manager != 0 && m.ID == manager && m.Op == wayland.XdgActivationV1ReqActivate:
			d := wayland.NewDecoder(m.Body)
			token = string(d.String())
			if surface := d.Uint(); surface != w.hostSurface {
				t.Errorf("activate of surface %d, want %d", surface, w.hostSurface)
			}
		case m.ID == w.hostSurface && m.Op == wayland.WlSurfaceReqCommit:
			return token
		}
	}
}

func TestActivationTokens(t *testing.T) {
	f := New(Config{VM: "v", Tag: "v", Frame: "none", Color: "#000000"})
	for _, bad := range []string{strings.Repeat("x", maxToken+1), "a\x00b", "a\nb"} {
		f.Activate(bad)
		if got := f.activation.take(); got != "" {
			t.Errorf("took %q", got)
		}
	}
	f.Activate("stale")
	f.activation.since = time.Now().Add(-tokenLife - time.Second)
	if got := f.activation.take(); got != "" {
		t.Errorf("took the stale %q", got)
	}
}
