package agent

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// The part of the random machine for calls.

// callRoles are what the machine's hosts do with a call; the call names its role.
var callRoles = []string{"echo", "echo", "source", "close", "deaf", "refuse", "silent", "held", "slow"}

// desk answers the machine's calls; its limits are below their number.
func (c *cast) desk() Handler {
	return Handler{Open: 4, Pace: Pace{Burst: 6, Step: time.Second}, Serve: c.serve}
}

func (c *cast) serve(ctx context.Context, call *Caller) {
	switch role := call.Call.Names.Failure; role {
	case "refuse":
		call.Refuse("not \x1b[2J")
	case "silent":
	case "held", "slow": // held ends when the guest gives it up, slow does not
		let := c.hold()
		done := ctx.Done()
		if role == "slow" {
			done = nil
		}
		select {
		case <-let:
			c.talk(ctx, call, "echo")
		case <-done:
		}
	default:
		c.talk(ctx, call, role)
	}
}

func (c *cast) talk(ctx context.Context, call *Caller, role string) {
	conn, err := call.Accept()
	if err != nil {
		return
	}
	call.Refuse("too late") // has no effect
	switch role {
	case "close":
	case "source":
		for err == nil {
			_, err = conn.Write(make([]byte, 7000))
		}
	case "deaf": // until it may end
		select {
		case <-c.hold():
		case <-ctx.Done():
		}
	default:
		_, _ = io.Copy(conn, conn)
		_ = conn.CloseWrite()
	}
}

// A placedCall is a call by the machine's guest.
type placedCall struct {
	role    string
	cancel  context.CancelFunc
	results chan error // of Call
	conn    *Conn      // nil until it is accepted, and if it never is
	written int
	read    int
	busy    [2]atomic.Bool // its directions, from Up
}

// callStep performs a random step on a call of the guest.
func (r *rig) callStep() {
	if len(r.calls) == 0 || r.rnd.IntN(3) == 0 {
		r.place()
		return
	}
	i := r.rnd.IntN(len(r.calls))
	c := r.calls[i]
	what := r.rnd.IntN(8)
	if what == 0 {
		r.say("cancel call %d", i)
		c.cancel()
		return
	}
	if c.conn == nil {
		return
	}
	switch what {
	case 1, 2:
		n := r.rnd.IntN(3 * Window / 2)
		r.say("write %d to call %d", n, i)
		c.work(Up, func() {
			b := make([]byte, n)
			for i := range b {
				b[i] = byte(c.written + i)
			}
			k, _ := c.conn.Write(b)
			c.written += k
		})
	case 3, 4, 5:
		n := 1 + r.rnd.IntN(Window)
		r.say("read %d of call %d", n, i)
		c.work(Down, func() { r.hear(c, n) })
	case 6:
		r.say("end what call %d writes", i)
		_ = c.conn.CloseWrite()
	case 7:
		r.say("close call %d", i)
		_ = c.conn.Close()
	}
}

func (r *rig) place() {
	role := callRoles[r.rnd.IntN(len(callRoles))]
	ctx, cancel := context.WithCancel(context.Background())
	c := &placedCall{role: role, cancel: cancel, results: make(chan error, 2)}
	r.say("call %d: %s", len(r.calls), role)
	if r.rnd.IntN(10) == 0 {
		r.say("  (which is given up already)")
		cancel()
	}
	r.calls = append(r.calls, c)
	go func() {
		conn, err := r.guest.Call(ctx, Call{Names: &NamesCall{Failure: role}})
		r.mu.Lock()
		c.conn = conn
		if (conn == nil) != (err != nil) {
			r.bad = fmt.Errorf("a call is %v, and its error %w", conn, err)
		}
		r.mu.Unlock()
		c.results <- err
	}()
}

func (c *placedCall) work(s Stream, f func()) {
	if c.busy[s-Up].Swap(true) {
		return
	}
	go func() {
		defer c.busy[s-Up].Store(false)
		f()
	}()
}

// hear checks that an echo returns its input.
func (r *rig) hear(c *placedCall, n int) {
	b := make([]byte, n)
	k, _ := io.ReadFull(c.conn, b)
	for i := range k {
		if r.real && c.role == "echo" && b[i] != byte(c.read+i) {
			r.mu.Lock()
			r.bad = fmt.Errorf("byte %d of a call is another", c.read+i)
			r.mu.Unlock()
			return
		}
	}
	c.read += k
}

// callFrame draws a guest's frame about a call, and reports whether it is allowed now. The
// referee is locked.
func (v *violator) callFrame() (Message, bool) {
	id := uint32(v.rnd.IntN(int(v.ref.last) + 2))
	s := Up + Stream(v.rnd.IntN(2))
	if v.rnd.IntN(8) == 0 {
		s = Stdin // belongs to a run, or to none
	}
	var m Message
	switch v.rnd.IntN(8) {
	case 0, 1:
		m = Call{ID: max(v.ref.last+1, id), Names: &NamesCall{Failure: callRoles[v.rnd.IntN(len(callRoles))]}}
		if v.rnd.IntN(10) == 0 {
			m = Call{ID: id, Names: &NamesCall{}}
		}
	case 2, 3:
		m = Data{ID: id, Stream: Up, Bytes: make([]byte, v.rnd.IntN(MaxData+1))}
	case 4:
		m = Data{ID: id, Stream: Up}
	case 5:
		m = Over{ID: id}
	case 6:
		m = Credit{ID: id, Stream: s, N: uint32(1 + v.rnd.IntN(Window))}
	default:
		m = Hangup{ID: id, Stream: s}
	}
	k, _ := keyOf(m)
	if m.check() != nil || !k.call {
		return nil, false
	}
	return m, v.ref.mayCall(1, m)
}

// mayCall reports whether m is allowed, without changing the model.
func (r *referee) mayCall(who int, m Message) bool {
	trial := &referee{calls: map[uint32]*judgedCall{}, last: r.last}
	for id, c := range r.calls {
		copied := *c
		trial.calls[id] = &copied
	}
	return trial.judgeCall(who, m) == nil
}

// hostCallFrame draws a host's frame about calls, new and old, in any order.
func hostCallFrame(rnd *rand.Rand, ref *referee) Message {
	ref.mu.Lock()
	last := ref.last
	ref.mu.Unlock()
	id := 1 + uint32(rnd.IntN(int(last)+1))
	s := Up + Stream(rnd.IntN(2))
	switch rnd.IntN(8) {
	case 0, 1:
		return Accept{ID: id}
	case 2:
		return Refuse{ID: id, Text: "no"}
	case 3, 4:
		return Data{ID: id, Stream: Down, Bytes: make([]byte, rnd.IntN(MaxData))}
	case 5:
		return Data{ID: id, Stream: Down}
	case 6:
		return Credit{ID: id, Stream: s, N: uint32(1 + rnd.IntN(Window))}
	}
	return Hangup{ID: id, Stream: s}
}
