package agent

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"
)

// callPair is a pair whose host answers calls by d; with nil it refuses all.
func callPair(t *testing.T, d *Handler) *pair {
	t.Helper()
	a, b := socketpair(t)
	return newPair(t, a, b, func(h *Host) {
		if d != nil {
			h.Handle(CallNames, *d)
		}
	})
}

// echoing answers every call by returning its input.
func echoing() *Handler {
	return &Handler{Open: 3, Pace: Pace{Burst: 1000, Step: time.Second}, Serve: func(_ context.Context, c *Caller) {
		if conn, err := c.Accept(); err == nil {
			_, _ = io.Copy(conn, conn)
		}
	}}
}

var names = Call{Names: &NamesCall{}}

// A call carries more than a window both ways, and its place is free when it is over.
func TestCall(t *testing.T) {
	noLeaks(t)
	p := callPair(t, echoing())
	data := make([]byte, 3*Window)
	_, _ = rand.NewChaCha8([32]byte{7}).Read(data)
	for range 2 * MaxCalls {
		conn, err := p.guest.Call(t.Context(), names)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			_, _ = conn.Write(data)
			_ = conn.CloseWrite()
		}()
		got, err := io.ReadAll(conn)
		if err != nil || !bytes.Equal(got, data) {
			t.Fatalf("%d bytes came back of %d, or not the same: %v", len(got), len(data), err)
		}
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	}
}

// A guest receives the reason of a refusal, and may call again.
func TestCallRefused(t *testing.T) {
	waits := func(ctx context.Context, c *Caller) {
		if _, err := c.Accept(); err == nil {
			<-ctx.Done()
		}
	}
	for want, d := range map[string]*Handler{
		"the host takes no such calls": nil,
		"nobody takes it":              {Open: 3 * MaxCalls, Pace: Pace{Burst: 9}, Serve: func(context.Context, *Caller) {}},
		"not now[2J":                   {Open: 3 * MaxCalls, Pace: Pace{Burst: 9}, Serve: func(_ context.Context, c *Caller) { c.Refuse("not now\x1b[2J") }},
		"1 of the kind are open":       {Open: 1, Pace: Pace{Burst: 9, Step: time.Second}, Serve: waits},
		"too many of the kind came":    {Open: 9, Pace: Pace{Burst: 1, Step: time.Hour}, Serve: waits},
	} {
		t.Run(want, func(t *testing.T) {
			p := callPair(t, d)
			for try := range 3 * MaxCalls {
				_, err := p.guest.Call(t.Context(), names)
				var refusal *RefusalError
				switch {
				case err == nil && try == 0 && d != nil && d.Serve != nil:
				case !errors.As(err, &refusal) || !strings.Contains(refusal.Text, want):
					t.Fatalf("try %d: %v", try, err)
				}
			}
		})
	}
}

// A call that waits for its answer ends with its caller, and its Serve learns of it; an unsent
// call is taken back.
func TestCallGivenUp(t *testing.T) {
	noLeaks(t)
	came, gone := make(chan struct{}), make(chan struct{})
	p := callPair(t, &Handler{Open: 1, Pace: Pace{Burst: 9}, Serve: func(ctx context.Context, c *Caller) {
		close(came)
		<-ctx.Done()
		close(gone)
	}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-came; cancel() }()
	if _, err := p.guest.Call(ctx, names); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	<-gone
	if _, err := p.guest.Call(ctx, names); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// A guest that leaves its calls has no more served at once than may be open: a call has its
// place until its Serve has returned.
func TestCallLeft(t *testing.T) {
	noLeaks(t)
	serves, ended := make(chan struct{}, 9), make(chan struct{})
	release := sync.OnceFunc(func() { close(ended) })
	p := callPair(t, &Handler{Open: 1, Pace: Pace{Burst: 9}, Serve: func(_ context.Context, c *Caller) {
		_, _ = c.Accept()
		serves <- struct{}{}
		<-ended
	}})
	defer release()
	for try := range 3 {
		conn, err := p.guest.Call(t.Context(), names)
		var refusal *RefusalError
		switch {
		case try == 0 && err == nil:
			<-serves
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
		case try == 0 || !errors.As(err, &refusal) || !strings.Contains(refusal.Text, "1 of the kind are open"):
			t.Fatalf("try %d: %v", try, err)
		}
	}
	release()
	for {
		conn, err := p.guest.Call(t.Context(), names)
		if err == nil {
			if err := conn.Close(); err != nil {
				t.Error(err)
			}
			return
		}
		var refusal *RefusalError
		if !errors.As(err, &refusal) {
			t.Fatal(err)
		}
	}
}

// Both ends of a call, and a caller that waits, learn of the channel's end.
func TestCallAndEnd(t *testing.T) {
	noLeaks(t)
	served := make(chan error, 2)
	p := callPair(t, &Handler{Open: 2, Pace: Pace{Burst: 9}, Serve: func(ctx context.Context, c *Caller) {
		if c.Call.Names.Failure != "" {
			<-ctx.Done()
			served <- nil
			return
		}
		conn, err := c.Accept()
		if err == nil {
			_, err = io.Copy(io.Discard, conn)
		}
		served <- err
	}})
	conn, err := p.guest.Call(t.Context(), names)
	if err != nil {
		t.Fatal(err)
	}
	waits := make(chan error, 1)
	go func() {
		_, err := p.guest.Call(context.Background(), Call{Names: &NamesCall{Failure: "x"}})
		waits <- err
	}()
	if err := p.host.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-waits; !errors.Is(err, ErrClosed) {
		t.Errorf("who waits: %v", err)
	}
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, ErrClosed) {
		t.Errorf("the guest reads: %v", err)
	}
	if _, err := p.guest.Call(t.Context(), names); !errors.Is(err, ErrClosed) {
		t.Errorf("another call: %v", err)
	}
	if err := <-p.hostErr; err != nil { // all of Serve have then returned
		t.Error(err)
	}
	if n := len(served); n == 0 {
		t.Error("the host still serves")
	}
}

// FuzzCall: a decoded call has one kind, and encodes to an equal call.
func FuzzCall(f *testing.F) {
	needCorpus(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		m, err := Parse(TypeCall, in)
		if err != nil {
			return
		}
		c := m.(Call)
		if c.ID == 0 || c.Kind() == "" || len(c.plain().Names.Failure) > maxText {
			t.Fatalf("%+v", c)
		}
		out, err := Append(nil, c.plain())
		if err != nil {
			t.Fatal(err)
		}
		again, err := Parse(TypeCall, out[headerSize:])
		if err != nil {
			t.Fatal(err)
		}
		if final, err := Append(nil, again); err != nil || !bytes.Equal(out, final) {
			t.Fatalf("%q, and then %q (%v)", out, final, err)
		}
	})
}

// FuzzCalls: a host with a handler survives any guest: it ends, and leaves nothing.
func FuzzCalls(f *testing.F) {
	needHellos(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		h := NewHost(a, quiet)
		h.Handle(CallNames, *echoing())
		_ = attackHost(t, h, b, in)
		for id, c := range h.calls {
			if c.cancel != nil && c.call.phase == asked {
				t.Errorf("call %d waits after the channel's end", id)
			}
		}
	})
}

// FuzzGuest: a guest that calls survives any host, and sends nothing that the tables forbid.
func FuzzGuest(f *testing.F) {
	needCorpus(f)
	f.Fuzz(func(t *testing.T, in []byte) {
		a, b := net.Pipe()
		g := NewGuest(b, GuestConfig{Log: quiet, Boot: func(Boot) {}, Start: startFake})
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = g.Run(t.Context()) // any result is allowed
		}()
		called := make(chan struct{})
		go func() {
			defer close(called)
			if conn, err := g.Call(t.Context(), names); err == nil {
				_, _ = io.Copy(conn, conn)
				_ = conn.Close()
			}
		}()
		read := make(chan struct{})
		go func() {
			defer close(read)
			_, _ = io.Copy(io.Discard, a)
		}()
		_, _ = a.Write(in)
		_ = a.Close()
		<-ended
		<-called
		<-read
	})
}
