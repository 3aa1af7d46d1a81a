package wayland_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// connected returns a client and its compositor, which has received the client's Registry
// and not answered yet; its result comes from done.
func connected(t *testing.T) (c *wayland.Client, host *waylandtest.Peer, done chan error) {
	t.Helper()
	near, far := waylandtest.Pair(t)
	c, host, done = wayland.NewClient(near), &waylandtest.Peer{T: t, Tr: far}, make(chan error, 1)
	t.Cleanup(func() { _ = c.Close() })
	t.Cleanup(func() { _ = far.Close() })
	go func() { done <- c.Registry() }()
	host.Want(1, wayland.WlDisplayReqGetRegistry)
	host.Want(1, wayland.WlDisplayReqSync)
	return c, host, done
}

const (
	registry = 2
	sync     = 3
)

func TestClient(t *testing.T) {
	waylandtest.LeakCheck(t)
	c, host, done := connected(t)
	host.Put(registry, wayland.WlRegistryEvtGlobal, 7, "wl_shm", 1)
	host.Put(registry, wayland.WlRegistryEvtGlobal, 9, "wl_seat", 5)
	host.Put(registry, wayland.WlRegistryEvtGlobal, 10, "wl_seat", 7)
	host.Send(sync, wayland.WlCallbackEvtDone, 0)
	host.Send(1, wayland.WlDisplayEvtDeleteId, sync)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if none := c.Bind("wl_compositor", 6); none != 0 {
		t.Errorf("bound what there is not: %d", none)
	}
	seat := c.Bind("wl_seat", 7)
	pointer := c.NewID()
	c.Msg(seat, wayland.WlSeatReqGetPointer, pointer)
	var seen []string
	go func() {
		done <- c.Roundtrip(func(m wayland.Msg) error {
			seen = append(seen, fmt.Sprintf("%d.%d", m.ID, m.Op))
			return nil
		})
	}()
	d := host.Want(registry, wayland.WlRegistryReqBind).Args()
	if name, iface, version, id := d.Uint(), string(d.String()), d.Uint(), d.Uint(); name != 9 || iface != "wl_seat" || version != 5 || id != seat {
		t.Errorf("bind of %d, %s, %d as %d", name, iface, version, id)
	}
	host.Want(seat, wayland.WlSeatReqGetPointer)
	again := host.Want(1, wayland.WlDisplayReqSync).Word(0)
	host.Send(seat, wayland.WlSeatEvtCapabilities, 1)
	host.Send(again, wayland.WlCallbackEvtDone, 0)
	if err := <-done; err != nil || len(seen) != 1 || seen[0] != fmt.Sprintf("%d.%d", seat, wayland.WlSeatEvtCapabilities) {
		t.Errorf("%v, %v", seen, err)
	}
}

// Invalid input from a compositor ends the client with a plain error, and the client keeps
// no descriptor.
func TestClientRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		answer func(t *testing.T, p *waylandtest.Peer)
		want   string
	}{
		"end": {func(_ *testing.T, p *waylandtest.Peer) { _ = p.Tr.Close() }, wayland.ErrGone.Error()},
		"error": {func(_ *testing.T, p *waylandtest.Peer) {
			p.Put(1, wayland.WlDisplayEvtError, 4, 2, "no\x1b[31m memory")
		}, "object 4, error 2: no"},
		"no Wayland":            {func(_ *testing.T, p *waylandtest.Peer) { p.Write([]byte("HTTP/1.1 400 Bad Request\r\n")) }, "size"},
		"a string that is none": {func(_ *testing.T, p *waylandtest.Peer) { p.Send(registry, wayland.WlRegistryEvtGlobal, 1, 400, 1) }, wayland.ErrArgs.Error()},
		"globals": {func(_ *testing.T, p *waylandtest.Peer) {
			for range 5000 {
				var e wayland.Encoder
				_ = e.Put(registry, wayland.WlRegistryEvtGlobal, 1, "wl_output", 4)
				if p.Tr.Send(e.B, nil) != nil {
					return // the client has closed
				}
			}
		}, "globals"},
		"descriptors": {func(t *testing.T, p *waylandtest.Peer) {
			for k := range 4 {
				var ds []wayland.Desc
				for range wayland.MaxDescs {
					ds = append(ds, waylandtest.Memfd(t, 1))
				}
				b := []byte{byte(registry), 0, 0, 0, 0, 0, 12, 0, 0, 0, 0, 0}[3*k:][:3] // a quarter of a message
				if p.Tr.Send(b, ds) != nil {
					return
				}
			}
		}, "descriptors without messages"},
	} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			client, host, done := connected(t)
			answered := make(chan struct{})
			go func() {
				defer close(answered)
				c.answer(t, host)
			}()
			err := <-done
			_ = client.Close() // makes pending sends to it fail
			<-answered
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\x1b") {
				t.Error(err)
			}
		})
	}
}

// A client without an answer ends when it is closed.
func TestClientClose(t *testing.T) {
	waylandtest.LeakCheck(t)
	c, _, done := connected(t)
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, wayland.ErrClosed) {
		t.Error(err)
	}
}
