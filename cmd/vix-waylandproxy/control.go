package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/clipboard"
	"vix/internal/display"
	"vix/internal/trace"
)

const (
	maxTraces  = 8    // at once
	traceLines = 4096 // lines that a trace may be ahead of its reader
	// maxExchanges bounds the simultaneous transfers to and from the VM's selections and the
	// followers of them: each transfer may hold clipboard.MaxData.
	maxExchanges = 5
)

// control serves the requests of package display's control channel.
type control struct {
	tr   *tracing
	clip *clipboard.World
	// activate sets the host's token for the next window; nil without a filter.
	activate func(token string)
	log      *slog.Logger
	conn     *net.UnixConn
	wg       sync.WaitGroup
	stop     chan struct{}
	n        chan struct{} // a token for each running trace
	x        chan struct{} // a token for each running exchange of the clipboard
}

// receivePolicy reads the first request of the channel.
func receivePolicy(conn *net.UnixConn) (p display.Policy, err error) {
	buf := make([]byte, display.MaxRequest)
	n, err := conn.Read(buf)
	if err != nil {
		return p, err
	}
	r, err := display.Parse(buf[:n])
	if err == nil && (r.Request != display.RequestPolicy || r.Policy == nil) {
		err = errors.New("the first request is no policy")
	}
	if err != nil {
		return p, err
	}
	return *r.Policy, r.Policy.Check()
}

// newControl serves conn until close; a nil conn needs no service.
func newControl(conn *net.UnixConn, tr *tracing, clip *clipboard.World, activate func(string), log *slog.Logger) *control {
	c := &control{
		conn: conn, tr: tr, clip: clip, activate: activate, log: log, stop: make(chan struct{}),
		n: make(chan struct{}, maxTraces), x: make(chan struct{}, maxExchanges),
	}
	if conn != nil {
		c.wg.Go(c.serve)
	}
	return c
}

func (c *control) close() {
	close(c.stop)
	if c.conn != nil {
		_ = c.conn.Close()
	}
	c.wg.Wait()
}

func (c *control) serve() {
	buf, oob := make([]byte, display.MaxRequest), make([]byte, unix.CmsgSpace(4))
	for {
		n, on, flags, _, err := c.conn.ReadMsgUnix(buf, oob)
		if err != nil || n == 0 {
			return
		}
		r, bad := display.Parse(buf[:n])
		if bad == nil && r.Request == display.RequestActivate && on == 0 {
			if c.activate != nil {
				c.activate(r.Token)
			}
			continue
		}
		f, err := oneFile(oob[:on], flags)
		if err != nil {
			c.log.Warn("control request dropped", "err", err)
			continue
		}
		err = bad
		if err == nil && (r.Request == display.RequestTake || r.Request == display.RequestGive || r.Request == display.RequestFollow) {
			c.exchange(f, r.Request)
			continue
		}
		if err != nil || r.Request != display.RequestTrace {
			c.refuse(f, errors.New("unknown control request"))
			continue
		}
		classes, err := trace.ParseClasses(r.Classes)
		if err != nil {
			c.refuse(f, err)
			continue
		}
		select {
		case c.n <- struct{}{}:
			c.wg.Go(func() { c.trace(f, classes) })
		default:
			c.refuse(f, fmt.Errorf("%d traces run already; end one", maxTraces))
		}
	}
}

// exchange reads the VM's selections, or sets them, over a stream socket.
func (c *control) exchange(f *os.File, what string) {
	conn, err := net.FileConn(f)
	_ = f.Close() // FileConn makes a copy
	if err != nil {
		c.log.Warn("control request dropped", "err", err)
		return
	}
	select {
	case c.x <- struct{}{}:
	default:
		_, _ = fmt.Fprintln(conn, `{"error":"too many copies and pastes at once; try again"}`)
		_ = conn.Close()
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	stop := make(chan struct{})
	c.wg.Go(func() {
		select {
		case <-c.stop:
		case <-stop:
		}
		cancel()
	})
	c.wg.Go(func() {
		defer func() { <-c.x }()
		defer close(stop)
		switch what {
		case display.RequestTake:
			c.clip.ServeTake(ctx, conn)
		case display.RequestGive:
			c.clip.ServeGive(ctx, conn)
		case display.RequestFollow:
			c.clip.ServeFollow(ctx, conn)
		}
	})
}

func (c *control) refuse(f *os.File, err error) {
	_, _ = fmt.Fprintln(f, "vix-waylandproxy:", err)
	_ = f.Close()
}

// oneFile returns the only descriptor of a control message that was received with flags.
func oneFile(oob []byte, flags int) (*os.File, error) {
	ms, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for k := range ms {
		got, err := unix.ParseUnixRights(&ms[k])
		if err != nil {
			return nil, err
		}
		fds = append(fds, got...)
	}
	if len(fds) != 1 {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		if len(fds) == 0 && flags&unix.MSG_CTRUNC != 0 {
			return nil, fmt.Errorf("no room for a descriptor: %w", unix.EMFILE)
		}
		return nil, fmt.Errorf("a request brings one descriptor, not %d", len(fds))
	}
	unix.CloseOnExec(fds[0])
	if err := unix.SetNonblock(fds[0], true); err != nil {
		return nil, errors.Join(err, unix.Close(fds[0]))
	}
	return os.NewFile(uintptr(fds[0]), "trace"), nil
}

// trace writes to f until a write fails or the display ends. Messages never wait: the trace
// counts and omits the lines for which a slow reader has no room.
func (c *control) trace(f *os.File, classes trace.Classes) {
	defer func() { <-c.n }()
	q := &lineQueue{lines: make(chan []byte, traceLines)}
	end, err := c.tr.begin(classes, q)
	if err != nil {
		c.refuse(f, err)
		return
	}
	defer end()
	broken := make(chan struct{})
	go func() {
		defer close(broken)
		waitForReaderToGo(f)
	}()
	defer func() {
		_ = f.Close()
		<-broken
	}()
	for {
		select {
		case <-c.stop:
			return
		case <-broken:
			return
		case line := <-q.lines:
			if lost := q.takeLost(); lost > 0 {
				line = append(fmt.Appendf(nil, "… %d messages left out: the reader is too slow\n", lost), line...)
			}
			if _, err := f.Write(line); err != nil {
				return
			}
		}
	}
}

// waitForReaderToGo returns when f, or the other end of its pipe or socket, is
// closed.
func waitForReaderToGo(f *os.File) {
	raw, err := f.SyscallConn()
	if err != nil {
		return
	}
	// The poller wakes a writer when the reader goes away; poll confirms it.
	_ = raw.Read(func(fd uintptr) bool {
		p := []unix.PollFd{{Fd: int32(fd), Events: 0}}
		n, err := unix.Poll(p, 0)
		return err != nil || n > 0 && p[0].Revents&(unix.POLLERR|unix.POLLHUP|unix.POLLNVAL) != 0
	})
}

// lineQueue holds a trace's text until its reader takes it.
type lineQueue struct {
	lines chan []byte
	mu    sync.Mutex
	lost  int
}

func (q *lineQueue) Write(b []byte) (int, error) {
	select {
	case q.lines <- bytes.Clone(b):
	default:
		q.mu.Lock()
		q.lost++
		q.mu.Unlock()
	}
	return len(b), nil
}

func (q *lineQueue) takeLost() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	n := q.lost
	q.lost = 0
	return n
}
