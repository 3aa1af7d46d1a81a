package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var quiet = slog.New(slog.DiscardHandler)

// socketpair returns two connected stream sockets, as QEMU's chardev uses.
func socketpair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns [2]net.Conn
	for i, fd := range fds {
		f := os.NewFile(uintptr(fd), "agent")
		conns[i], err = net.FileConn(f)
		_ = f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}

// noLeaks fails the test if goroutines or descriptors are left at its end.
func noLeaks(t *testing.T) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), openFiles(t)
	t.Cleanup(func() {
		// A goroutine that has reported its end may need a moment to vanish.
		for end := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > goroutines && time.Now().Before(end); {
			runtime.Gosched()
		}
		if n := runtime.NumGoroutine(); n > goroutines {
			buf := make([]byte, 64<<10)
			t.Errorf("%d goroutines, %d before:\n%s", n, goroutines, buf[:runtime.Stack(buf, true)])
		}
		if n := openFiles(t); n > fds {
			t.Errorf("%d open files, %d before", n, fds)
		}
	})
}

func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// A fakeProgram stands for a process; its body runs in a goroutine.
type fakeProgram struct {
	stdin          *io.PipeReader
	stdout, stderr *io.PipeWriter
	signals        chan syscall.Signal
	args           []string
}

// fakes are the programs of a test guest.
var fakes = map[string]func(*fakeProgram) Status{
	"cat": func(p *fakeProgram) Status {
		_, _ = io.Copy(p.stdout, p.stdin)
		return Status{}
	},
	"both": func(p *fakeProgram) Status { // stdin to stdout and stderr
		_, _ = io.Copy(io.MultiWriter(p.stdout, p.stderr), p.stdin)
		return Status{}
	},
	"exit": func(p *fakeProgram) Status {
		var code int
		_, _ = fmt.Sscan(p.args[1], &code)
		return Status{Code: code}
	},
	"yes": func(p *fakeProgram) Status {
		lines := strings.Repeat("y\n", 2048)
		for {
			if _, err := io.WriteString(p.stdout, lines); err != nil {
				return Status{Signal: syscall.SIGPIPE}
			}
		}
	},
	"sleep": func(p *fakeProgram) Status { return Status{Signal: <-p.signals} },
	"polite": func(p *fakeProgram) Status {
		<-p.signals
		_, _ = io.WriteString(p.stdout, "bye\n")
		return Status{Code: 5}
	},
	"deaf": func(p *fakeProgram) Status { // does not read, does not end
		_ = p.stdin.Close()
		return Status{Signal: <-p.signals}
	},
	"stubborn": func(p *fakeProgram) Status {
		for s := range p.signals {
			if s == syscall.SIGKILL {
				return Status{Signal: s}
			}
		}
		panic("not reached")
	},
}

func startFake(ctx context.Context, s Spawn) (*Program, error) {
	if s.Argv[0] == "never" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.Argv[0] == "slow" { // frames that arrive meanwhile come before it runs
		time.Sleep(time.Millisecond)
		s.Argv = []string{"yes"}
	}
	body := fakes[s.Argv[0]]
	if body == nil {
		return nil, &SpawnError{Code: 127, Text: "not found\x1b[2J"}
	}
	in, stdin := io.Pipe()
	stdout, out := io.Pipe()
	stderr, errOut := io.Pipe()
	p := &fakeProgram{stdin: in, stdout: out, stderr: errOut, signals: make(chan syscall.Signal, 16), args: s.Argv}
	status := make(chan Status, 1)
	go func() {
		st := body(p)
		_, _, _ = in.Close(), out.Close(), errOut.Close()
		status <- st
	}()
	return &Program{
		PID: 100 + int(s.ID), Stdin: stdin, Stdout: stdout, Stderr: stderr,
		Signal: func(sig syscall.Signal) error { p.signals <- sig; return nil },
		Wait:   func() Status { return <-status },
	}, nil
}

// A pair is both ends over one stream.
type pair struct {
	host    *Host
	guest   *Guest
	stop    context.CancelFunc
	hostErr chan error
	gstErr  chan error
	boots   chan Boot
}

func newPair(t testing.TB, a, b io.ReadWriteCloser, ready ...func(*Host)) *pair {
	t.Helper()
	p := &pair{hostErr: make(chan error, 1), gstErr: make(chan error, 1), boots: make(chan Boot, 1)}
	p.host = NewHost(a, quiet)
	for _, f := range ready {
		f(p.host)
	}
	p.guest = NewGuest(b, GuestConfig{Log: quiet, Kernel: "6.12", Boot: func(b Boot) { p.boots <- b }, Start: startFake})
	ctx, cancel := context.WithCancel(context.Background())
	p.stop = cancel
	var running sync.WaitGroup
	running.Go(func() { p.hostErr <- p.host.Run(ctx) })
	running.Go(func() { p.gstErr <- p.guest.Run(context.Background()) })
	t.Cleanup(func() {
		cancel()
		running.Wait()
	})
	return p
}

func (p *pair) spawn(t testing.TB, argv ...string) *Process {
	t.Helper()
	proc, err := p.host.Spawn(t.Context(), Spawn{Argv: argv})
	if err != nil {
		t.Fatal(err)
	}
	return proc
}

var boot = Boot{Hostname: "vm", User: User{Name: "user", UID: 1000, GID: 1000}}

func TestBoot(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	if err := p.host.Boot(boot); err != nil {
		t.Fatal(err)
	}
	if err := p.host.Boot(boot); err == nil {
		t.Error("boot twice")
	}
	got := <-p.boots
	if d := time.Since(time.Unix(0, got.Time)); d < 0 || d > time.Minute {
		t.Errorf("the guest is told a time %v ago", d)
	}
	if got.Hostname != "vm" || got.User != boot.User {
		t.Errorf("the guest is told %+v", got)
	}
	p.guest.Stage("init", "", 3*time.Second)
	p.guest.Stage("proxy", "absent", 4*time.Second)
	p.guest.Ready(5 * time.Second)
	if err := p.host.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, want := range []Stage{{"init", 3000, ""}, {"proxy", 4000, "absent"}} {
		if s := <-p.host.Stages(); s != want {
			t.Errorf("stage %+v, not %+v", s, want)
		}
	}
	if err := p.host.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	if err := errors.Join(<-p.hostErr, <-p.gstErr); err != nil {
		t.Error(err)
	}
	if _, open := <-p.host.Stages(); open {
		t.Error("stages are still open")
	}
}

func TestBootRefused(t *testing.T) {
	a, b := net.Pipe()
	defer b.Close()
	h := NewHost(a, quiet)
	for name, change := range map[string]func(*Boot){
		"no hostname":   func(b *Boot) { b.Hostname = "" },
		"hostname":      func(b *Boot) { b.Hostname = "a b" },
		"long hostname": func(b *Boot) { b.Hostname = strings.Repeat("a", 64) },
		"root":          func(b *Boot) { b.User.UID = 0 },
		"root's group":  func(b *Boot) { b.User.GID = 0 },
		"user":          func(b *Boot) { b.User.Name = "a:b" },
		"NUL":           func(b *Boot) { b.Env = []string{"A=\x00"} },
	} {
		bad := boot
		change(&bad)
		if err := h.Boot(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	_ = a.Close()
}

func TestPrograms(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)

	if st, err := p.spawn(t, "exit", "3").Wait(); st.ExitCode() != 3 || err != nil {
		t.Error(st, err)
	}
	_, err := p.host.Spawn(t.Context(), Spawn{Argv: []string{"nope"}})
	var se *SpawnError
	if !errors.As(err, &se) || se.Code != 127 || err.Error() != "nope: not found[2J" {
		t.Errorf("%v", err)
	}
	sleeper := p.spawn(t, "sleep")
	if err := sleeper.Kill(syscall.SIGUSR1); err != nil {
		t.Error(err)
	}
	if st, err := sleeper.Wait(); st.ExitCode() != 128+10 || err != nil {
		t.Error(st, err)
	}
	yes := p.spawn(t, "yes")
	if _, err := io.ReadFull(yes.Stdout, make([]byte, 1<<20)); err != nil {
		t.Error(err)
	}
	_ = yes.Stdout.Close()
	if st, err := yes.Wait(); st.Signal != syscall.SIGPIPE || err != nil {
		t.Error(st, err)
	}
	deaf := p.spawn(t, "deaf")
	if _, err := io.Copy(deaf.Stdin, bytes.NewReader(make([]byte, 2*Window))); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("write to a program that does not read: %v", err)
	}
	_ = deaf.Kill(syscall.SIGTERM)
	if st, err := deaf.Wait(); st.Signal != syscall.SIGTERM || err != nil {
		t.Error(st, err)
	}
}

// TestMany runs twice as many programs as fit at one time: their places become free again.
func TestMany(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	for range 2 {
		var procs []*Process
		for range MaxProcesses {
			procs = append(procs, p.spawn(t, "cat"))
		}
		if _, err := p.host.Spawn(t.Context(), Spawn{Argv: []string{"cat"}}); err == nil {
			t.Error("one more than the limit")
		}
		for _, c := range procs {
			_ = c.Stdin.Close()
			if b, err := io.ReadAll(c.Stdout); len(b) > 0 || err != nil {
				t.Error(b, err)
			}
			if b, err := io.ReadAll(c.Stderr); len(b) > 0 || err != nil {
				t.Error(b, err)
			}
			if st, err := c.Wait(); st != (Status{}) || err != nil {
				t.Error(st, err)
			}
		}
		p.host.mu.Lock()
		if n := len(p.host.procs); n > 0 {
			t.Errorf("%d programs are not forgotten", n)
		}
		p.host.mu.Unlock()
	}
	p.host.l.mu.Lock()
	defer p.host.l.mu.Unlock()
	if n := len(p.host.l.streams); n > 0 {
		t.Errorf("%d streams are not forgotten", n)
	}
}

func TestPowerOff(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	polite, stubborn := p.spawn(t, "polite"), p.spawn(t, "stubborn")
	if err := p.host.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(polite.Stdout); string(b) != "bye\n" || err != nil {
		t.Errorf("last words %q, %v", b, err)
	}
	if st, err := polite.Wait(); st.Code != 5 || err != nil {
		t.Error(st, err)
	}
	if st, err := stubborn.Wait(); st.Signal != syscall.SIGKILL || err != nil {
		t.Error(st, err)
	}
	if _, err := p.host.Spawn(t.Context(), Spawn{Argv: []string{"cat"}}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// TestPowerOffEarly powers off while a program waits for its start.
func TestPowerOffEarly(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	spawned := make(chan error, 1)
	go func() {
		_, err := p.host.Spawn(context.Background(), Spawn{Argv: []string{"never"}})
		spawned <- err
	}()
	for p.guest.find(1) == nil {
		runtime.Gosched()
	}
	if err := p.host.PowerOff(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-spawned; err == nil {
		t.Error("it has started")
	}
}

// TestAbandonedStart ends clients before their program runs, over a real socket: the channel
// lives, and their places become free.
func TestAbandonedStart(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	for i := range 3 * MaxProcesses {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*time.Microsecond)
		if proc, err := p.host.Spawn(ctx, Spawn{Argv: []string{[]string{"never", "slow", "yes"}[i%3]}}); err == nil {
			_, _ = proc.Stdout.Close(), proc.Kill(syscall.SIGKILL)
		} else if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
		cancel()
	}
	for over := false; !over; runtime.Gosched() {
		p.host.l.mu.Lock()
		over = len(p.host.procs) == 0
		p.host.l.mu.Unlock()
		select {
		case err := <-p.hostErr:
			t.Fatal(err)
		default:
		}
	}
	if st, err := p.spawn(t, "exit", "4").Wait(); st.Code != 4 || err != nil {
		t.Error(st, err)
	}
}

// TestGuestGone ends the machine abruptly.
func TestGuestGone(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	c := p.spawn(t, "cat")
	if _, err := io.WriteString(c.Stdin, "word"); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(c.Stdout, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	_ = b.Close()
	if err := <-p.hostErr; err != nil {
		t.Error(err)
	}
	if _, err := c.Wait(); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	if _, err := io.ReadAll(c.Stdout); !errors.Is(err, ErrClosed) {
		t.Errorf("a cut stream looks whole: %v", err)
	}
	if _, err := c.Stdin.Write([]byte("x")); err == nil {
		t.Error("wrote to a machine that is gone")
	}
	if err := p.host.Ready(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

func TestGuestGivesUp(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	p.guest.Fail("no root\x1b[1m" + strings.Repeat("x", 5000))
	_ = b.Close()
	var ge *GuestError
	if err := <-p.hostErr; !errors.As(err, &ge) || !strings.HasPrefix(err.Error(), "guest: no root[1mxxx") {
		t.Errorf("%v", err)
	}
	if err := p.host.Ready(t.Context()); !errors.As(err, &ge) {
		t.Errorf("%v", err)
	}
}

// TestUnread checks that a guest which does not read blocks no client that gives up.
func TestUnread(t *testing.T) {
	noLeaks(t)
	a, b := net.Pipe() // no buffer: the first write blocks
	defer b.Close()
	h := NewHost(a, quiet)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	short, stop := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer stop()
	if _, err := h.Spawn(short, Spawn{Argv: []string{"cat"}}); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := h.PowerOff(short); !errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	p, err := h.ask(&Spawn{Argv: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	for i := range 2000 {
		if err := errors.Join(p.Kill(syscall.Signal(1+i%64)), p.Resize(uint16(i), 1), h.l.send(Clock{Time: int64(i + 1)})); err != nil {
			t.Fatal(err)
		}
	}
	h.l.mu.Lock()
	if n := len(h.l.control); n > 64+7 { // also a resize, a spawn, a clock, a poweroff; the first run's kill and hangups
		t.Errorf("%d frames wait for a guest that does not read", n)
	}
	h.l.mu.Unlock()
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

// TestSlowReader checks that the program holds unread output, and not the channel.
func TestSlowReader(t *testing.T) {
	noLeaks(t)
	a, b := socketpair(t)
	p := newPair(t, a, b)
	slow := p.spawn(t, "yes")
	fast := p.spawn(t, "yes")
	if _, err := io.CopyN(io.Discard, fast.Stdout, 16<<20); err != nil {
		t.Fatal(err)
	}
	p.host.l.mu.Lock()
	if n, room := slow.out.ring.n, len(slow.out.ring.buf); n != Window || room != Window {
		t.Errorf("the unread stream holds %d bytes in %d, not %d", n, room, Window)
	}
	p.host.l.mu.Unlock()
	if _, err := io.CopyN(io.Discard, slow.Stdout, 4<<20); err != nil {
		t.Error(err)
	}
}
