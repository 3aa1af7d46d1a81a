package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vix/internal/wayland"
	"vix/internal/wayland/waylandtest"
)

// watched is a transport that notes what is sent at once, and charges for the
// descriptors that it receives.
type watched struct {
	wayland.Transport
	bytes, descs atomic.Int64 // the most at once
	held         *account
}

func (w *watched) Send(p []byte, ds []wayland.Desc) error {
	w.bytes.Store(max(w.bytes.Load(), int64(len(p))))
	w.descs.Store(max(w.descs.Load(), int64(len(ds))))
	return w.Transport.Send(p, ds)
}

func (w *watched) Recv(p []byte, ds []wayland.Desc) (int, []wayland.Desc, error) {
	had := len(ds)
	n, ds, err := w.Transport.Recv(p, ds)
	for k := had; k < len(ds) && w.held != nil; k++ {
		ds[k].Held = w.held.take()
	}
	return n, ds, err
}

// account counts descriptors that are on their way.
type account struct {
	mu        sync.Mutex
	now, most int
}

type charge struct {
	a    *account
	once sync.Once
}

func (a *account) take() *charge {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.now++
	a.most = max(a.most, a.now)
	return &charge{a: a}
}

func (h *charge) Release() {
	h.once.Do(func() {
		h.a.mu.Lock()
		defer h.a.mu.Unlock()
		h.a.now--
	})
}

// watchedRig is a rig whose transports to the relay are watched.
func watchedRig(t *testing.T, cfg Config) (r *rig, client, server *watched) {
	t.Helper()
	cn, cf := waylandtest.Pair(t)
	sn, sf := waylandtest.Pair(t)
	client, server = &watched{Transport: cf, held: &account{}}, &watched{Transport: sf}
	r = &rig{
		client: &waylandtest.Peer{T: t, Tr: cn},
		server: &waylandtest.Peer{T: t, Tr: sn},
		conn:   New(client, server, cfg),
		done:   make(chan error, 1),
	}
	go func() { r.done <- r.conn.Run(context.Background()) }()
	t.Cleanup(func() { r.close() })
	return r, client, server
}

// TestDescriptorsAhead holds that descriptors ahead of a message that never ends are
// charged while the relay has them, that it takes no more of them than one send of a
// peer can have and one receive brings, and that all are given back at the end.
func TestDescriptorsAhead(t *testing.T) {
	waylandtest.LeakCheck(t)
	r, client, _ := watchedRig(t, Config{})
	head := []byte{1, 0, 0, 0, 1, 0, 252, 0} // get_registry, of 252 bytes
	for k := range 10 * wayland.MaxDescs {
		b := []byte{0}
		if k < len(head) {
			b[0] = head[k]
		}
		if r.client.Tr.Send(b, []wayland.Desc{waylandtest.Memfd(t, 1)}) != nil {
			break
		}
	}
	r.server.WantEnd()
	if err := r.close(); err == nil {
		t.Error("the connection ended without a reason")
	}
	if a := client.held; a.now != 0 || a.most <= maxAhead || a.most > 2*wayland.MaxDescs {
		t.Errorf("%d descriptors at most, %d at the end", a.most, a.now)
	}
}

// TestManyMessagesOfAHook holds that what a hook writes is sent in pieces, whole and in
// its order, with its descriptors no later than their messages, to both sides.
func TestManyMessagesOfAHook(t *testing.T) {
	const messages, every = 20_000, 100 // with a descriptor in every hundredth
	write := func(t *testing.T, e func() *wayland.Encoder, desc func(wayland.Desc), id uint32) {
		for k := range uint32(messages) {
			e().Msg(id, 7, k, 1)
			if k%every == 0 {
				desc(waylandtest.Memfd(t, int64(k+1)))
			}
		}
	}
	for name, toServer := range map[string]bool{"to the server": true, "to the client": false} {
		t.Run(name, func(t *testing.T) {
			waylandtest.LeakCheck(t)
			h := NewHooks()
			h.Request(wayland.WlDisplay, wayland.WlDisplayReqSync, func(c *Conn, m *Msg) (bool, error) {
				if toServer {
					write(t, c.ToServer, c.SendDesc, 99)
				} else {
					write(t, c.ToClient, c.SendDescToClient, 99)
				}
				return true, nil
			})
			r, client, server := watchedRig(t, Config{Hooks: h})
			reader := r.client
			if toServer {
				reader = r.server
			}
			r.client.Send(1, wayland.WlDisplayReqSync, 2)
			taken := 0
			for k := range uint32(messages) {
				m, err := reader.Next()
				if err != nil || m.ID != 99 || m.Word(0) != k {
					t.Fatalf("message %d: %v %+v", k, err, m)
				}
				if k%every != 0 {
					continue
				}
				if len(reader.Descs) == 0 {
					t.Fatalf("message %d comes before its descriptor", k)
				}
				var st unix.Stat_t
				if err := unix.Fstat(reader.Descs[0].FD, &st); err != nil || st.Size != int64(k+1) {
					t.Fatalf("message %d came with a file of %d bytes (%v)", k, st.Size, err)
				}
				reader.Descs[0].Close()
				reader.Descs = reader.Descs[1:]
				taken++
			}
			if id := r.server.Want(1, wayland.WlDisplayReqSync).Word(0); id != 2 || taken != messages/every {
				t.Errorf("id %d, %d descriptors", id, taken)
			}
			for _, w := range []*watched{client, server} {
				if b, d := w.bytes.Load(), w.descs.Load(); b > 2*pieceSize || d > wayland.MaxDescs {
					t.Errorf("%d bytes and %d descriptors were sent at once", b, d)
				}
			}
		})
	}
}

// TestOutboxIsBounded holds that many messages with hooks do not add up, and that a hook
// that writes without end ends the connection, and writes into a bounded outbox.
func TestOutboxIsBounded(t *testing.T) {
	waylandtest.LeakCheck(t)
	endless, most := false, 0
	h := NewHooks()
	h.Request(wayland.WlDisplay, wayland.WlDisplayReqSync, func(c *Conn, m *Msg) (bool, error) {
		n := 100
		if endless {
			n = 1 << 20
		}
		for k := range uint32(n) {
			c.ToServer().Msg(99, 7, k, 1)
			c.ToClient().Msg(98, 7, k, 1)
			most = max(most, len(c.current.out.B), len(c.client.inject.B))
		}
		return false, nil
	})
	r := newRig(t, Config{Hooks: h})
	read := make(chan struct{})
	for _, p := range []*waylandtest.Peer{r.client, r.server} {
		go func() {
			for {
				if _, err := p.Next(); err != nil {
					read <- struct{}{}
					return
				}
			}
		}()
	}
	var e wayland.Encoder
	const requests = 2000 // as one receive brings
	for k := range uint32(requests) {
		e.Msg(1, wayland.WlDisplayReqSync, 2+k)
	}
	r.client.Write(e.B)
	r.client.Tr.Close()
	<-read
	<-read
	if _ = r.close(); most > 2*pieceSize {
		t.Errorf("%d bytes were put together", most)
	}

	endless, most = true, 0
	r = newRig(t, Config{Hooks: h})
	r.client.Send(1, wayland.WlDisplayReqSync, 2)
	r.server.WantEnd()
	if err := r.close(); err == nil || most > maxOutbox+pieceSize {
		t.Errorf("%v; %d bytes were put together", err, most)
	}
}
