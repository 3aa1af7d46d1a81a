package agent

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// The random machine: the seed alone determines a sequence, and both ends finish each step
// before the next (package testing/synctest). To repeat one:
//
//	go test -run TestMachine ./internal/agent -seed=7 -sequences=1
var (
	sequences = flag.Int("sequences", 150, "how many random sequences are tried on the agent's protocol")
	seedFlag  = flag.Uint64("seed", 1, "of the first random sequence; the others' follow")
)

const maxSteps = 60

// eachSequence runs f for each seed, in a bubble, which fails if a goroutine is left.
func eachSequence(t *testing.T, f func(*testing.T, *rand.Rand, func(string, ...any))) {
	for i := range uint64(*sequences) {
		seed := *seedFlag + i
		var said []string
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("-seed=%d -sequences=1:", seed)
					for _, s := range said {
						t.Log(s)
					}
				}
			}()
			f(t, rand.New(rand.NewPCG(seed, 0)), func(format string, a ...any) { said = append(said, fmt.Sprintf(format, a...)) })
		})
		if t.Failed() {
			return
		}
	}
}

// A cast starts the programs of the machine's guests: some only when let allows it.
type cast struct {
	mu   sync.Mutex
	held []chan struct{}
	live atomic.Int32 // programs that have not ended
}

// roles are the programs: how each starts, and what it does then.
var roles = []string{"cat", "yes", "sleep", "exit", "daemon", "nope", "held cat", "held exit", "exec yes", "exec sleep", "exec nope"}

// start starts a program: a "held" one when let allows it, or not at all when ctx ends; an
// "exec" can no longer be stopped.
func (c *cast) start(ctx context.Context, s Spawn) (*Program, error) {
	role := s.Argv
	if s.Kind == KindRequest {
		role = []string{"exit"}
	}
	if role[0] == "held" || role[0] == "exec" {
		let := c.hold()
		stop := ctx.Done()
		if role[0] == "exec" {
			stop = nil
		}
		select {
		case <-let:
		case <-stop:
			return nil, ctx.Err()
		}
		role = role[1:]
	}
	if role[0] == "nope" {
		return nil, &SpawnError{Code: 127, Text: "not found"}
	}
	return c.play(role[0], s), nil
}

// hold returns a channel that let closes.
func (c *cast) hold() chan struct{} {
	let := make(chan struct{})
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held = append(c.held, let)
	return let
}

// let allows one held program to start, or all.
func (c *cast) let(all bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.held) > 0 {
		close(c.held[0])
		c.held = c.held[1:]
		if !all {
			return
		}
	}
}

// play is a process: its streams end with it; TERM and KILL end it.
func (c *cast) play(role string, s Spawn) *Program {
	c.live.Add(1)
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	stderr, errOut := io.Pipe()
	killed := make(chan struct{})
	end := sync.OnceFunc(func() { close(killed); _, _, _ = in.Close(), out.Close(), errOut.Close() })
	var status Status
	done := make(chan struct{})
	go func() {
		switch role {
		case "cat":
			_, _ = io.Copy(out, in)
		case "yes":
			for {
				if _, err := out.Write(make([]byte, 5000)); err != nil {
					break
				}
			}
		case "sleep":
			<-killed
		}
		status.Code = int(s.ID % 200)
		if role == "daemon" { // a descendant still holds the output
			_, _ = in.Close(), errOut.Close()
			go func() {
				for {
					if _, err := out.Write([]byte("x")); err != nil {
						return
					}
					time.Sleep(time.Second)
				}
			}()
		} else {
			end()
		}
		c.live.Add(-1)
		close(done)
	}()
	return &Program{
		PID: 100 + int(s.ID), Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Signal: func(sig syscall.Signal) error {
			if sig == syscall.SIGKILL || sig == syscall.SIGTERM {
				end()
			}
			return nil
		},
		Wait: func() Status { <-done; return status },
	}
}

// daemonNotices is when a daemon notices that its reader is gone, by the bubble's clock.
const daemonNotices = 3 * time.Second

// An askedRun is a run that the machine has requested from the host.
type askedRun struct {
	role    string
	cancel  context.CancelFunc
	results chan error // of Spawn
	proc    *Process   // nil until it runs
	over    bool       // Spawn has returned an error
	written int        // bytes of stdin
	read    int        // bytes of stdout
	busy    [3]atomic.Bool
}

// A rig drives a real host against a guest, which may also be real.
type rig struct {
	t    *testing.T
	rnd  *rand.Rand
	say  func(string, ...any)
	ref  *referee
	wire *wire
	cast *cast
	real bool // the guest is real
	host *Host
	runs []*askedRun

	guest *Guest // nil: the guest does not call
	calls []*placedCall

	mu  sync.Mutex // guards errors from the runs' goroutines
	bad error
}

func (r *rig) spawn() {
	role := roles[r.rnd.IntN(len(roles))]
	ctx, cancel := context.WithCancel(context.Background())
	run := &askedRun{role: role, cancel: cancel, results: make(chan error, 2)}
	r.say("run %d: %s", len(r.runs), role)
	if r.rnd.IntN(20) == 0 {
		r.say("  (whose client is gone already)")
		cancel()
	}
	r.runs = append(r.runs, run)
	argv := []string{role}
	if first, second, ok := cutWord(role); ok {
		argv = []string{first, second}
	}
	go func() {
		p, err := r.host.Spawn(ctx, Spawn{Argv: argv})
		r.mu.Lock()
		run.proc, run.over = p, err != nil
		r.mu.Unlock()
		run.results <- err
	}()
}

func cutWord(s string) (string, string, bool) {
	for i := range s {
		if s[i] == ' ' {
			return s[:i], s[i+1:], true
		}
	}
	return s, "", false
}

// step performs a random step on the host's end.
func (r *rig) step() {
	if len(r.runs) == 0 || r.rnd.IntN(4) == 0 {
		r.spawn()
		return
	}
	i := r.rnd.IntN(len(r.runs))
	run := r.runs[i]
	what := r.rnd.IntN(10)
	if what < 3 {
		r.say("cancel %d", i)
		run.cancel()
		return
	}
	if run.proc == nil {
		return
	}
	switch p := run.proc; what {
	case 3:
		sig := []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGKILL, syscall.SIGCONT}[r.rnd.IntN(4)]
		r.say("kill %d %d", i, sig)
		_ = p.Kill(sig)
	case 4:
		r.say("resize %d", i)
		_ = p.Resize(uint16(r.rnd.IntN(100)), 80)
	case 5:
		n := r.rnd.IntN(3 * Window / 2)
		r.say("write %d to %d", n, i)
		r.work(run, Stdin, func() { r.write(run, n) })
	case 6:
		r.say("end stdin of %d", i)
		_ = p.Stdin.Close()
	case 7, 8:
		n := 1 + r.rnd.IntN(Window)
		r.say("read %d of %d", n, i)
		r.work(run, Stdout, func() { r.read(run, n) })
	case 9:
		s := Stdout + Stream(r.rnd.IntN(2))
		r.say("hang up stream %d of %d", s, i)
		_ = []io.Closer{p.Stdout, p.Stderr}[s-1].Close()
	}
}

// work calls f in a goroutine, one at a time for each stream of a run.
func (r *rig) work(run *askedRun, s Stream, f func()) {
	if run.busy[s].Swap(true) {
		return
	}
	go func() {
		defer run.busy[s].Store(false)
		f()
	}()
}

func (r *rig) write(run *askedRun, n int) {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(run.written + i)
	}
	k, _ := run.proc.Stdin.Write(b)
	run.written += k
}

// read checks that cat returns its input.
func (r *rig) read(run *askedRun, n int) {
	b := make([]byte, n)
	k, _ := io.ReadFull(run.proc.Stdout, b)
	for i := range k {
		if r.real && (run.role == "cat" || run.role == "held cat") && b[i] != byte(run.read+i) {
			r.mu.Lock()
			r.bad = fmt.Errorf("byte %d of a run's output is another", run.read+i)
			r.mu.Unlock()
			return
		}
	}
	run.read += k
}

// traffic stalls a direction of the wire, or lets all or a part of a frame through.
func (r *rig) traffic() {
	which := r.rnd.IntN(2)
	l := []*lane{r.wire.ab, r.wire.ba}[which]
	n := []int{-1, -1, 0, 1 + r.rnd.IntN(40)}[r.rnd.IntN(4)]
	r.say("direction %d lets %d bytes through", which, n)
	l.let(n)
}

// check is called after every step.
func (r *rig) check() {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := errors.Join(r.bad, r.ref.fault()); err != nil {
		r.t.Fatal(err)
	}
	for i, run := range r.runs {
		if len(run.results) > 1 {
			r.t.Fatalf("run %d ended twice", i)
		}
	}
	for i, c := range r.calls {
		if len(c.results) > 1 {
			r.t.Fatalf("call %d has two answers", i)
		}
	}
}

// settle ends every run, and checks that each has ended once, with one result, and that
// neither end holds anything of it.
func (r *rig) settle() {
	r.say("settle")
	r.wire.ab.let(-1)
	r.wire.ba.let(-1)
	r.check()
	r.cancel()
	r.check()
	r.cast.let(true)
	r.check()
	for _, run := range r.runs {
		if run.proc != nil {
			_ = run.proc.Kill(syscall.SIGKILL)
			_, _, _ = run.proc.Stdin.Close(), run.proc.Stdout.Close(), run.proc.Stderr.Close()
		}
	}
	for _, c := range r.calls {
		if c.conn != nil {
			_ = c.conn.Close()
		}
	}
	time.Sleep(daemonNotices)
	r.check()
	r.results()
	r.host.l.mu.Lock()
	defer r.host.l.mu.Unlock()
	if a, b, c, d := len(r.host.procs), len(r.host.l.streams), len(r.host.l.control), len(r.host.calls); a+b+c+d > 0 {
		r.t.Fatalf("the host holds %d runs, %d streams, %d frames, %d calls of what is over", a, b, c, d)
	}
}

// cancel ends every wait.
func (r *rig) cancel() {
	for _, run := range r.runs {
		run.cancel()
	}
	for _, c := range r.calls {
		c.cancel()
	}
}

// results checks that every run and every call has exactly one result.
func (r *rig) results() {
	for i, c := range r.calls {
		if len(c.results) != 1 {
			r.t.Fatalf("call %d (%s) has %d answers", i, c.role, len(c.results))
		}
	}
	for i, run := range r.runs {
		if len(run.results) != 1 {
			r.t.Fatalf("run %d (%s) has %d results", i, run.role, len(run.results))
		}
		if run.proc == nil {
			continue
		}
		select {
		case <-run.proc.Exited():
		default:
			r.t.Fatalf("run %d (%s) has not ended", i, run.role)
		}
	}
}

// TestMachine: the host survives whatever its clients do, and however the channel stalls
// meanwhile, and every run ends once.
func TestMachine(t *testing.T) {
	eachSequence(t, func(t *testing.T, rnd *rand.Rand, say func(string, ...any)) {
		ref, cast := newReferee(), &cast{}
		w, a, b := newWire(func(b []byte) { ref.saw(0, b) }, func(b []byte) { ref.saw(1, b) })
		r := &rig{t: t, rnd: rnd, say: say, ref: ref, wire: w, cast: cast, real: true, host: NewHost(a, quiet)}
		r.host.Handle(CallNames, cast.desk())
		guest := NewGuest(b, GuestConfig{Log: quiet, Boot: func(Boot) {}, Clock: func(int64) {}, Start: cast.start})
		r.guest = guest
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 2)
		go func() { ended <- r.host.Run(ctx) }()
		go func() { ended <- guest.Run(ctx) }()
		defer func() {
			cancel()
			r.cancel()
			cast.let(true)
		}()
		for range rnd.IntN(maxSteps) {
			switch rnd.IntN(12) {
			case 0:
				r.traffic()
			case 8, 9, 10, 11:
				r.callStep()
			case 1:
				r.say("a program is let start")
				cast.let(false)
			case 2:
				guest.Traffic(rnd.Uint64N(1<<40), 1)
				guest.Shortage("yes", rnd.Uint64()|1)
				guest.WindowLoss("signal killed", rnd.Uint64()|1, time.Second)
				_ = r.host.SetClock()
				ping, stop := context.WithTimeout(ctx, daemonNotices)
				go func() { _ = r.host.Ping(ping); stop() }()
			default:
				r.step()
			}
			r.check()
			if len(ended) > 0 {
				t.Fatalf("the channel has ended: %v", <-ended)
			}
		}
		if rnd.IntN(4) == 0 { // the machine dies, or the supervisor does
			say("the channel breaks")
			[]*end{a, b}[rnd.IntN(2)].Close()
			cast.let(true)
			r.check()
			_, _ = <-ended, <-ended
			r.check()
			r.results()
			time.Sleep(daemonNotices)
			return
		}
		r.settle()
		guest.mu.Lock()
		if n := len(guest.procs) + int(cast.live.Load()); n > 0 {
			t.Errorf("the guest holds %d runs that are over", n)
		}
		guest.mu.Unlock()
		guest.l.mu.Lock()
		if a, b := len(guest.calls), len(guest.l.streams); a+b > 0 {
			t.Errorf("the guest holds %d calls, %d streams that are over", a, b)
		}
		guest.l.mu.Unlock()
		p, err := r.host.Spawn(ctx, Spawn{Argv: []string{"exit"}})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.host.Ping(ctx); err != nil {
			t.Fatal(err)
		}
		if st, err := p.Wait(); st.Code != int(p.id%200) || err != nil {
			t.Fatal(st, err)
		}
		say("power off")
		if err := r.host.PowerOff(ctx); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(<-ended, <-ended); err != nil {
			t.Fatal(err)
		}
	})
}

// A violator is a hostile guest: it sends frames that the referee allows, and in the end one
// that it forbids.
type violator struct {
	*rig
	guest *end
	spent bool // it has sent a violation
}

// frame draws a frame, and reports whether it is allowed now.
func (v *violator) frame() (Message, bool) {
	v.ref.mu.Lock()
	defer v.ref.mu.Unlock()
	if v.rnd.IntN(3) == 0 {
		return v.callFrame()
	}
	id := uint32(v.rnd.IntN(int(v.ref.lastID) + 2))
	s := Stream(v.rnd.IntN(3))
	var m Message
	switch v.rnd.IntN(8) {
	case 0:
		m = Spawned{ID: id, PID: 7}
	case 1:
		m = Error{ID: id, Code: 127, Text: "no"}
	case 2, 3:
		m = Data{ID: id, Stream: s, Bytes: make([]byte, v.rnd.IntN(MaxData+1))}
	case 4:
		m = Data{ID: id, Stream: s}
	case 5:
		m = Exit{ID: id, Code: 3}
	case 6:
		m = Credit{ID: id, Stream: s, N: uint32(1 + v.rnd.IntN(Window))}
	default:
		m = Hangup{ID: id, Stream: s}
	}
	if m.check() != nil {
		return nil, false
	}
	if e, ok := m.(Error); ok && e.ID == 0 {
		return nil, false // its last frame is tested elsewhere
	}
	row := fromGuest[m.Type()]
	run := v.ref.runs[id]
	if run == nil || row == ([phases]verdict{}) || row[run.phase] != acts {
		return m, false
	}
	trial := *run
	return m, trial.move(1, m) == nil
}

// TestHostileGuest: the host ends the channel at the first violation, and not earlier.
func TestHostileGuest(t *testing.T) {
	eachSequence(t, func(t *testing.T, rnd *rand.Rand, say func(string, ...any)) {
		ref := newReferee()
		w, a, b := newWire(func(b []byte) { ref.saw(0, b) }, func([]byte) {})
		r := &rig{t: t, rnd: rnd, say: say, ref: ref, wire: w, cast: &cast{}, host: NewHost(a, quiet)}
		r.host.Handle(CallNames, r.cast.desk())
		v := &violator{rig: r, guest: b}
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		ended := make(chan error, 1)
		go func() { ended <- r.host.Run(ctx) }()
		go func() { _, _ = io.Copy(io.Discard, b) }()
		defer r.cancel()
		defer r.cast.let(true)
		v.send(Hello{Version: Version})
		for steps := rnd.IntN(2 * maxSteps); steps > 0 || !v.spent; steps-- {
			if rnd.IntN(3) == 0 {
				r.step()
			} else if m, ok := v.frame(); m != nil && (ok || steps <= 0) {
				say("guest: %s %+v, which it may: %v", m.Type(), short(m), ok)
				ref.mu.Lock()
				err := ref.judge(1, m)
				ref.mu.Unlock()
				if ok && err != nil {
					t.Fatal(err)
				}
				v.send(m)
				if v.spent = !ok; v.spent {
					break
				}
			}
			r.check()
			if len(ended) > 0 {
				t.Fatalf("the channel has ended: %v", <-ended)
			}
		}
		r.cast.let(true) // slow handlers of calls are waited for
		synctest.Wait()
		select {
		case err := <-ended:
			if !errors.Is(err, ErrProtocol) {
				t.Fatal(err)
			}
		default:
			t.Fatal("a violation did not end the channel")
		}
		r.results()
	})
}

// send writes a frame in two pieces.
func (v *violator) send(m Message) {
	b, err := Append(nil, m)
	if err != nil {
		v.t.Fatal(err)
	}
	cut := v.rnd.IntN(len(b) + 1)
	for _, part := range [][]byte{b[:cut], b[cut:]} {
		_, _ = v.guest.Write(part)
		synctest.Wait()
	}
}

func short(m Message) any {
	if d, ok := m.(Data); ok {
		return fmt.Sprintf("%d of stream %d: %d bytes", d.ID, d.Stream, len(d.Bytes))
	}
	return m
}

// TestHostileHost: the guest trusts its host, and survives any; its own frames obey the tables
// all the same.
func TestHostileHost(t *testing.T) {
	eachSequence(t, func(t *testing.T, rnd *rand.Rand, say func(string, ...any)) {
		ref, cast := newReferee(), &cast{}
		_, a, b := newWire(func([]byte) {}, func(b []byte) { ref.saw(1, b) })
		guest := NewGuest(b, GuestConfig{Log: quiet, Boot: func(Boot) {}, Clock: func(int64) {}, Start: cast.start})
		ended := make(chan error, 1)
		go func() { ended <- guest.Run(context.Background()) }()
		go func() { _, _ = io.Copy(io.Discard, a) }()
		defer a.Close()
		defer cast.let(true)
		v := &violator{rig: &rig{t: t, rnd: rnd, say: say, guest: guest}, guest: a}
		defer v.cancel()
		gen := messages()
		for range rnd.IntN(2 * maxSteps) {
			if rnd.IntN(4) == 0 {
				v.callStep()
				synctest.Wait()
			}
			m := hostFrame(rnd, ref)
			if rnd.IntN(10) == 0 {
				m = gen.Example(rnd.Int())
			}
			if t := m.Type(); t == TypePowerOff || t == TypeSpawn && keyID(m) > 10_000 {
				continue
			}
			say("host: %s %+v", m.Type(), short(m))
			ref.mu.Lock()
			_ = ref.judge(0, m) // a forbidden frame does not change the model
			ref.mu.Unlock()
			v.send(m)
			if rnd.IntN(4) == 0 {
				cast.let(false)
			}
			synctest.Wait()
			if err := ref.fault(); err != nil {
				t.Fatal(err)
			}
			if len(ended) > 0 {
				t.Fatalf("the guest has ended: %v", <-ended)
			}
		}
		v.send(PowerOff{Grace: 1000})
		cast.let(true)
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		v.results()
		if n := cast.live.Load(); n > 0 {
			t.Errorf("%d programs live", n)
		}
		time.Sleep(daemonNotices)
	})
}

func keyID(m Message) uint32 {
	k, _ := keyOf(m)
	return k.id
}

// hostFrame draws a host's frame about runs, new and old, in any order.
func hostFrame(rnd *rand.Rand, ref *referee) Message {
	ref.mu.Lock()
	last := ref.lastID
	ref.mu.Unlock()
	id := 1 + uint32(rnd.IntN(int(last)+1))
	s := Stream(rnd.IntN(3))
	switch rnd.IntN(12) {
	case 8, 9, 10, 11:
		return hostCallFrame(rnd, ref)
	case 0, 1:
		role := roles[rnd.IntN(len(roles))]
		argv := []string{role}
		if first, second, ok := cutWord(role); ok {
			argv = []string{first, second}
		}
		return Spawn{ID: id, Argv: argv}
	case 2:
		return Kill{ID: id, Signal: 1 + rnd.IntN(20)}
	case 3:
		return Resize{ID: id, Rows: 1}
	case 4:
		return Data{ID: id, Stream: Stdin, Bytes: make([]byte, rnd.IntN(MaxData))}
	case 5:
		return Data{ID: id, Stream: s}
	case 6:
		return Credit{ID: id, Stream: s, N: uint32(1 + rnd.IntN(Window))}
	}
	return Hangup{ID: id, Stream: s}
}
