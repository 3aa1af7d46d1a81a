package names

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vix/internal/accept"
)

// Limits of the guest's end, for its own protection.
const (
	maxPending = 1024             // unanswered questions; further ones are refused
	maxConns   = 64               // TCP connections
	idleConn   = 10 * time.Second // how long an idle connection stays
)

// A Stub is the guest's end: a name server for its programs.
type Stub struct {
	// OnSearch, if set before Serve, is called with the host's search list each time that it may
	// have changed.
	OnSearch func(domains []string)

	at  netip.AddrPort
	udp *net.UDPConn
	tcp *net.TCPListener

	mu      sync.Mutex
	lastID  uint32
	pending map[uint32]func([]byte) // callbacks by the question's id
}

// Listen starts to take questions at an address; Serve answers them.
func Listen(at netip.AddrPort) (*Stub, error) {
	udp, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, err
	}
	tcp, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(at))
	if err != nil {
		return nil, errors.Join(err, udp.Close())
	}
	return &Stub{at: at, udp: udp, tcp: tcp, pending: map[uint32]func([]byte){}}, nil
}

// Next returns a new Stub in the place of one that has ended.
func (s *Stub) Next() (*Stub, error) { return Listen(s.at) }

// Close ends the Stub.
func (s *Stub) Close() error { return errors.Join(s.udp.Close(), s.tcp.Close()) }

// Serve sends questions to out, and passes the answers from in to the programs that asked. It
// ends, and the Stub with it, when in ends.
func (s *Stub) Serve(in io.Reader, out io.Writer) error {
	defer s.end()
	w := &questions{out: out}
	go s.takeDatagrams(w)
	go s.takeConnections(w)
	for {
		f, err := readFrame(in)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if f.how == search {
			if s.OnSearch != nil {
				s.OnSearch(domainsIn(strings.Fields(string(f.message))))
			}
			continue
		}
		s.mu.Lock()
		answer := s.pending[f.id]
		delete(s.pending, f.id)
		s.mu.Unlock()
		if answer != nil {
			answer(f.message)
		}
	}
}

// end releases all who wait.
func (s *Stub) end() {
	_ = s.Close()
	s.mu.Lock()
	left := s.pending
	s.pending = nil // no new questions
	s.mu.Unlock()
	for _, answer := range left {
		answer(nil)
	}
}

// questions writes frames, whole.
type questions struct {
	mu  sync.Mutex
	out io.Writer
}

// ask sends a question. It calls answer once, with nothing if there is no answer.
func (s *Stub) ask(w *questions, how how, message []byte, answer func([]byte)) {
	s.mu.Lock()
	if s.pending == nil || len(s.pending) >= maxPending {
		s.mu.Unlock()
		answer(nil)
		return
	}
	s.lastID++
	f := frame{s.lastID, how, message}
	s.pending[f.id] = answer
	s.mu.Unlock()
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = writeFrame(w.out, f) // if it fails, Serve ends
}

func (s *Stub) takeDatagrams(w *questions) {
	buf := make([]byte, maxMessage)
	for {
		n, from, err := s.udp.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil || n < minMessage {
			continue // an answer could not be delivered, which concerns nobody here
		}
		s.ask(w, byUDP, buf[:n], func(answer []byte) {
			if len(answer) > 0 {
				_, _ = s.udp.WriteToUDPAddrPort(answer, from)
			}
		})
	}
}

func (s *Stub) takeConnections(w *questions) {
	places := make(chan struct{}, maxConns)
	_ = accept.Serve(s.tcp, func(conn *net.TCPConn) { // on an error, programs still have UDP
		places <- struct{}{}
		go func() {
			defer func() { <-places }()
			defer conn.Close()
			s.serveConnection(w, conn)
		}()
	}, func(*net.TCPConn, error) {})
}

// serveConnection answers a connection's questions, one after the other.
func (s *Stub) serveConnection(w *questions, conn *net.TCPConn) {
	for {
		_ = conn.SetDeadline(time.Now().Add(idleConn))
		message, err := readTCP(conn)
		if err != nil {
			return
		}
		answered := make(chan []byte, 1)
		s.ask(w, byTCP, message, func(answer []byte) { answered <- answer })
		answer := <-answered
		if len(answer) == 0 || writeTCP(conn, answer) != nil {
			return
		}
	}
}
