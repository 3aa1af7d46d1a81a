package gpu_test

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vix/internal/gpu"
	"vix/internal/gpu/gputest"
	"vix/internal/vhost/vhosttest"
	"vix/internal/wayland"
)

// The tests TestAttack… play a hostile guest that controls its kernel, its memory and
// its rings. During each, a witness, a connection of another
// program in the same guest, talks with the host and must not be delayed. After
// each, the device must hold no more than before.

// patience bounds the witness's wait for an answer, on a busy machine.
const patience = 5 * time.Second

// attackRig is a rig with a witness and the device's log.
type attackRig struct {
	*rig
	log   *logBuffer
	trips atomic.Int64
	worst atomic.Int64 // nanoseconds of the slowest round trip
	stop  chan struct{}
	done  chan error
}

// logBuffer is a log that a test can read while it grows.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// attack runs f against a device, and checks that it harms nothing else and leaves
// nothing behind.
func attack(t *testing.T, cfg gpu.Config, f func(r *attackRig)) {
	t.Helper()
	checkLeaks(t)
	before := measure(t)
	a := &attackRig{log: &logBuffer{}, stop: make(chan struct{}), done: make(chan error, 1)}
	cfg.Log = slog.New(slog.NewTextHandler(a.log, nil))
	if cfg.Accept == nil {
		cfg.Accept = func(tr wayland.Transport) { _ = serveEcho(tr) }
	}
	a.rig = newRig(t, cfg, gputest.Features)
	w, err := a.Connect(nil)
	must(t, err)
	go func() { a.done <- a.witness(w) }()
	ended := false
	t.Cleanup(func() {
		if !ended { // f has failed
			_ = a.close()
			if err := <-a.done; err != nil {
				t.Logf("the witness: %v", err)
			}
		}
	})
	a.settle(t)
	f(a)
	a.settle(t)
	close(a.stop)
	if err := <-a.done; err != nil {
		t.Errorf("the witness: %v", err)
	}
	ended = true
	must(t, w.Close())
	closed := make(chan error, 1)
	go func() { closed <- a.close() }()
	select {
	case err := <-closed:
		if err != nil {
			t.Errorf("serve: %v", err)
		}
	case <-time.After(2 * patience):
		buf := make([]byte, 64<<10)
		t.Fatalf("the device does not end\n%s", buf[:runtime.Stack(buf, true)])
	}
	t.Logf("witness: %d round trips, the slowest %.1f ms", a.trips.Load(), float64(a.worst.Load())/1e6)
	if after := waitMeasure(t, before); after != "" {
		t.Error(after)
	}
}

// witness sends bytes and reads their echo until it is stopped.
func (a *attackRig) witness(c *gputest.Conn) error {
	for i := byte(0); ; i++ {
		select {
		case <-a.stop:
			return nil
		default:
		}
		begin := time.Now()
		if err := a.echo(c, i); err != nil {
			return fmt.Errorf("round trip %d: %w", a.trips.Load(), err)
		}
		a.worst.Store(max(a.worst.Load(), int64(time.Since(begin))))
		a.trips.Add(1)
	}
}

// echo is one round trip of a connection of the echo host.
func (a *attackRig) echo(c *gputest.Conn, b byte) error {
	send := c.Start(gputest.SendCmd(request('E', 1, b)), -1)
	if _, err := await(send); err != nil {
		return fmt.Errorf("SEND: %w", err)
	}
	poll := c.Poll()
	if _, err := await(poll); err != nil {
		return fmt.Errorf("POLL: %w", err)
	}
	e, err := gputest.ParseEvent(c.Channel)
	if err == nil && !bytes.Equal(e.Data, []byte{b}) {
		err = fmt.Errorf("%x came back for %x", e.Data, b)
	}
	return err
}

// await waits for an answer, within patience, and returns its type.
func await(q *vhosttest.Request) (typ uint32, err error) {
	typ, ok, err := q.Within(patience)
	switch {
	case err != nil:
		return 0, err
	case !ok:
		return 0, fmt.Errorf("no answer within %v", patience)
	}
	q.Free()
	return typ, nil
}

// settle waits until the witness has made two more round trips.
func (a *attackRig) settle(t *testing.T) {
	t.Helper()
	want := a.trips.Load() + 2
	for deadline := time.Now().Add(2 * patience); a.trips.Load() < want; {
		select {
		case err := <-a.done:
			a.done <- err
			t.Fatalf("the witness: %v", err)
		case <-time.After(time.Millisecond): // its counter has no event
		}
		if time.Now().After(deadline) {
			t.Fatal("the witness hangs")
		}
	}
}

// measured holds a process's use of resources.
type measured struct {
	fds, goroutines, maps int
	heap                  uint64
}

func measure(t *testing.T) measured {
	t.Helper()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	maps, err := os.ReadFile("/proc/self/maps")
	must(t, err)
	return measured{countFDs(t), runtime.NumGoroutine(), bytes.Count(maps, []byte("memfd:")), m.HeapAlloc}
}

// heapSlack is the memory that the tests themselves and the runtime may keep.
const heapSlack = 4 << 20

// waitMeasure waits until the process holds no more than before, and otherwise describes
// the excess.
func waitMeasure(t *testing.T, before measured) string {
	t.Helper()
	var now measured
	for range 300 {
		now = measure(t)
		if now.fds <= before.fds && now.goroutines <= before.goroutines && now.maps <= before.maps && now.heap <= before.heap+heapSlack {
			return ""
		}
		time.Sleep(10 * time.Millisecond) // a pipe's reader has a second
	}
	return fmt.Sprintf("left behind: %d descriptors, %d goroutines, %d mappings of memory files, %d bytes of heap",
		now.fds-before.fds, now.goroutines-before.goroutines, now.maps-before.maps, int64(now.heap)-int64(before.heap))
}

// wantLog checks for a line that names a limit and its value.
func (a *attackRig) wantLog(t *testing.T, limit string, value any) {
	t.Helper()
	if want := fmt.Sprintf("limit=%s value=%v", limit, value); !strings.Contains(a.log.String(), want) {
		t.Errorf("no line %q in the log:\n%s", want, a.log)
	}
}

// stuckHost accepts connections and never reads from them; release ends them.
type stuckHost struct {
	release chan struct{}
	open    atomic.Int64
}

// accept serves the first connection, the witness's, with an echo.
func (s *stuckHost) accept(t wayland.Transport) {
	if s.open.Add(1) == 1 {
		_ = serveEcho(t)
		return
	}
	<-s.release
	_ = t.Close()
}
