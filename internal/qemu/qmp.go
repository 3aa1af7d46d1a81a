package qemu

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/digitalocean/go-qemu/qmp"
	"golang.org/x/sys/unix"
)

// QMP's flow (QEMU docs/interop/qmp-spec): a greeting, qmp_capabilities, then
// one JSON object a line: our commands, and QEMU's replies and events mixed.
//
//	QEMU ──► reader ─┬─ "event"           ──► events; the reader never blocks on them
//	                 └─ "return", "error" ──► replies ──► execute, one at a time
//
// monitor implements go-qemu's qmp.Monitor over a descriptor, with its types.
// go-qemu's own SocketMonitor is not used: the reply that its Run returns lies
// in a buffer that its reader goes on filling, a reply over 64 KiB or an event
// that nobody takes ends it or hangs it, it has no deadlines, and it dials a
// path, where we have a socketpair that nobody else can reach.

const (
	qmpTimeout = 5 * time.Second // of one command; QEMU answers in milliseconds
	maxQMPLine = 4 << 20         // query-qmp-schema is about 300 KiB
	qmpEvents  = 64              // events that may wait; then the oldest is dropped
)

// A Monitor is a QMP connection. A broken line closes it. A command fails if QEMU does not
// answer in time, and QEMU may go on: each command has an id, which its reply repeats, so
// that a late reply does not count as the next command's.
type Monitor struct {
	conn    *os.File
	timeout time.Duration
	replies chan []byte
	events  chan qmp.Event
	done    chan struct{} // closed when the reader has ended

	turn sync.Mutex // one command at a time
	last uint64     // the id of the last command; under turn
}

var _ qmp.Monitor = (*Monitor)(nil)

// NewMonitor returns a monitor over conn, which it owns.
func NewMonitor(conn *os.File) *Monitor {
	return &Monitor{conn: conn, timeout: qmpTimeout, replies: make(chan []byte, 1), events: make(chan qmp.Event, qmpEvents), done: make(chan struct{})}
}

// Connect reads the greeting and leaves negotiation mode. Its reader ends with
// Disconnect, or with QEMU.
func (m *Monitor) Connect() error {
	r := bufio.NewReaderSize(m.conn, 64<<10)
	_ = m.conn.SetReadDeadline(time.Now().Add(m.timeout))
	line, err := readLine(r)
	if err != nil {
		close(m.done)
		return fmt.Errorf("qmp: no greeting: %w", err)
	}
	var greeting struct {
		QMP *struct{ Version qmp.Version }
	}
	if err := json.Unmarshal(line, &greeting); err != nil || greeting.QMP == nil {
		close(m.done)
		return fmt.Errorf("qmp: %.80q is not a greeting", line)
	}
	_ = m.conn.SetReadDeadline(time.Time{})
	go m.read(r)
	return m.Execute("qmp_capabilities", nil, nil)
}

// Disconnect closes the connection and waits for the reader.
func (m *Monitor) Disconnect() error {
	_ = m.conn.Close() // the reader may have closed it already
	<-m.done
	return nil
}

// Events yields QEMU's events; it is closed when the connection ends.
func (m *Monitor) Events(context.Context) (<-chan qmp.Event, error) { return m.events, nil }

func (m *Monitor) read(r *bufio.Reader) {
	defer close(m.done)
	defer close(m.events)
	for {
		line, err := readLine(r)
		if err != nil {
			m.conn.Close()
			return
		}
		var e qmp.Event
		if err := json.Unmarshal(line, &e); err != nil {
			m.conn.Close()
			return
		}
		if e.Event == "" {
			for sent := false; !sent; { // the newest: an older one is late
				select {
				case m.replies <- line:
					sent = true
				default:
					select {
					case <-m.replies:
					default:
					}
				}
			}
			continue
		}
		for sent := false; !sent; {
			select {
			case m.events <- e:
				sent = true
			default:
				select {
				case <-m.events:
				default:
				}
			}
		}
	}
}

// readLine returns a fresh copy of the next line.
func readLine(r *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxQMPLine:
			return nil, errors.New("line too long")
		}
	}
}

// Run sends one command, already encoded, and returns the whole reply.
func (m *Monitor) Run(command []byte) ([]byte, error) {
	m.turn.Lock()
	defer m.turn.Unlock()
	return m.runInTurn(command, nil, 0)
}

// runInTurn runs a command with an id, or 0 if it has none, and a descriptor beside it, or
// nil. m.turn is held.
func (m *Monitor) runInTurn(command []byte, file *os.File, id uint64) ([]byte, error) {
	select {
	case <-m.replies: // a late one
	default:
	}
	_ = m.conn.SetWriteDeadline(time.Now().Add(m.timeout))
	if err := m.write(append(bytes.TrimSpace(command), '\n'), file); err != nil {
		m.conn.Close() // a part of a line may have gone
		return nil, fmt.Errorf("qmp: %w", err)
	}
	t := time.NewTimer(m.timeout)
	defer t.Stop()
	for {
		select {
		case reply := <-m.replies:
			if answers(reply, id) {
				return reply, nil
			}
		case <-m.done:
			return nil, fmt.Errorf("qmp: %w", io.ErrUnexpectedEOF)
		case <-t.C:
			return nil, fmt.Errorf("qmp: no reply within %s", m.timeout)
		}
	}
}

// answers reports whether a reply is command id's. A reply without an id is: QEMU could not
// read the command.
func answers(reply []byte, id uint64) bool {
	var r struct {
		ID *uint64 `json:"id"`
	}
	return json.Unmarshal(reply, &r) != nil || r.ID == nil || *r.ID == id
}

// write sends b, with a descriptor on its first byte if there is one.
func (m *Monitor) write(b []byte, file *os.File) error {
	if file != nil {
		conn, err := m.conn.SyscallConn()
		if err != nil {
			return err
		}
		n, rights := 0, unix.UnixRights(int(file.Fd()))
		if e := conn.Write(func(fd uintptr) bool {
			n, err = unix.SendmsgN(int(fd), b, rights, nil, 0)
			return !errors.Is(err, unix.EAGAIN)
		}); e != nil {
			err = e
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	_, err := m.conn.Write(b)
	return err
}

// A qmpError is QEMU's refusal of a command.
type qmpError struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *qmpError) Error() string { return e.Desc }

// Execute runs one command and decodes its result into out.
func (m *Monitor) Execute(name string, args, out any) error { return m.Call(nil, name, args, out) }

// Call is Execute with a descriptor that belongs to the command, or nil.
func (m *Monitor) Call(file *os.File, name string, args, out any) error {
	m.turn.Lock()
	defer m.turn.Unlock()
	m.last++
	command, err := json.Marshal(struct {
		qmp.Command
		ID uint64 `json:"id"`
	}{qmp.Command{Execute: name, Args: args}, m.last})
	if err != nil {
		return err
	}
	reply, err := m.runInTurn(command, file, m.last)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	var r struct {
		Return json.RawMessage `json:"return"`
		Error  *qmpError       `json:"error"`
	}
	if err := json.Unmarshal(reply, &r); err != nil {
		m.conn.Close()
		return fmt.Errorf("qmp: %s: %w", name, err)
	}
	if r.Error != nil {
		return fmt.Errorf("qmp: %s: %w", name, r.Error)
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(r.Return, out)
}

// The commands that a supervisor uses.

// Status returns QEMU's run state: running, paused, shutdown, …
func (m *Monitor) Status() (string, error) {
	var s struct {
		Status string `json:"status"`
	}
	err := m.Execute("query-status", nil, &s)
	return s.Status, err
}
