package supervise

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/vm"
)

// waylandName is the listening socket's name in the VM's directory.
const waylandName = "wayland"

// brokerFiles makes the channel.
func brokerFiles() (ours *net.UnixConn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "broker")
	f := os.NewFile(uintptr(fds[0]), "broker")
	defer f.Close() // FileConn makes a copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, nil, errors.Join(err, theirs.Close())
	}
	return c.(*net.UnixConn), theirs, nil
}

// A broker makes the display's connections to the compositor.
type broker struct {
	listener string // path
	dir      *os.Root

	mu      sync.Mutex
	session vm.Session
	witness *os.File      // our connection to the compositor, or nil
	context bool          // connections go through the security context's listener
	renewed chan struct{} // closed and replaced when the compositor is another one
}

func newBroker(h *host) *broker {
	return &broker{
		session:  vm.Session{Wayland: h.launch.Wayland, Sway: h.launch.Sway},
		listener: h.reg.Socket(h.launch.VM.Name, waylandName).Name, dir: h.dir, renewed: make(chan struct{}),
	}
}

// serveBroker answers the display until it or the channel ends.
func (s *displayPart) serveBroker(c *net.UnixConn) {
	b := s.broker
	defer b.close()
	buf := make([]byte, display.MaxBrokerRequest)
	for {
		n, err := c.Read(buf)
		if err != nil || n == 0 {
			return
		}
		f, err := b.answer(string(buf[:n]))
		if err != nil {
			text := err.Error()
			s.log.Printf("vix", "display: %s: %s", plain.Text(strings.TrimSpace(string(buf[:n])), proc.MaxLogLine, plain.OneLine), text)
			_, err = c.Write([]byte(text[:min(len(text), display.MaxBrokerAnswer)]))
		} else {
			_, _, err = c.WriteMsgUnix([]byte(display.BrokerOK), unix.UnixRights(int(f.Fd())), nil)
			f.Close()
		}
		if err != nil {
			return
		}
	}
}

func (b *broker) answer(what string) (*os.File, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch what {
	case display.BrokerConnect:
		return b.connect()
	case display.BrokerThrough:
		f, err := connectFile(b.listener)
		b.context = b.context || err == nil
		return f, err
	case display.BrokerListen:
		return b.listen()
	}
	return nil, errors.New("unknown request")
}

func (b *broker) connect() (*os.File, error) {
	if err := b.meet(); err != nil {
		return nil, err
	}
	if b.context {
		return nil, errors.New("refused: the VM's connections go through its security context")
	}
	return connectFile(b.session.Wayland)
}

// lives reports whether the compositor that we met first still runs.
func (b *broker) lives() bool {
	if b.witness == nil {
		return false
	}
	lives := false
	raw, err := b.witness.SyscallConn()
	if err != nil {
		return false
	}
	err = raw.Control(func(fd uintptr) {
		var p [1]byte
		n, _, err := unix.Recvfrom(int(fd), p[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
		lives = n > 0 || errors.Is(err, unix.EAGAIN)
	})
	return err == nil && lives
}

func (b *broker) forget() {
	if b.witness != nil {
		b.witness.Close()
		b.witness = nil
	}
	b.context = false
}

func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forget()
}

func (b *broker) listen() (*os.File, error) {
	if err := b.dir.Remove(waylandName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: b.listener, Net: "unix"})
	if err != nil {
		return nil, err
	}
	ln.SetUnlinkOnClose(false)
	defer ln.Close() // once the display has given it away, only the compositor has it
	return ln.File()
}

func connectFile(path string) (*os.File, error) {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	return c.File()
}
