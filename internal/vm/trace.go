package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vix/config"
)

// A trace goes past the supervisor: the client makes a pipe, its far end travels
// with the request to the supervisor and from there to the display process, which
// writes to it until nobody reads it.
//
//	client ──trace + pipe──► supervisor ──packet + pipe──► display
//	       ◄──────────────────── lines ────────────────────────┘

// displayRequest is a packet of the display's control channel
// (vix-waylandproxy(1), --control-fd).
type displayRequest struct {
	Request string `json:"request"`
	Classes string `json:"classes,omitempty"`
	Token   string `json:"token,omitempty"`
}

// newDisplayControl makes the display's control channel: seqpacket, so that a
// request and its descriptor stay together.
func newDisplayControl() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return os.NewFile(uintptr(fds[0]), "display control"), os.NewFile(uintptr(fds[1]), "display control"), nil
}

func (s *supervisor) setDisplayControl(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.displayControl = f
}

// serveDisplay hands the client's pipe or socket to the display process.
func (s *supervisor) serveDisplay(c *control, r displayRequest, files []*os.File) {
	if err := s.askDisplay(r, files); err != nil {
		s.tell(c, reply{Fail: failf("VM %s: %s: %v", s.launch.VM.Name, r.Request, err)})
		return
	}
	s.tell(c, reply{Done: true})
}

func (s *supervisor) askDisplay(r displayRequest, files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("a request with %d descriptors, not one", len(files))
	}
	return s.sendDisplay(r, unix.UnixRights(int(files[0].Fd())))
}

func (s *supervisor) sendDisplay(r displayRequest, rights []byte) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.launch.VM.NoGUI {
		return errors.New("the VM was started without a display")
	}
	if s.displayControl == nil {
		return errors.New("the display does not run yet; try again in a moment")
	}
	raw, err := s.displayControl.SyscallConn()
	if err != nil {
		return err
	}
	var sendErr error
	err = raw.Control(func(fd uintptr) {
		// The queue is full only when the display hangs: then nobody waits for it.
		sendErr = unix.Sendmsg(int(fd), b, rights, nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	return errors.Join(err, sendErr)
}

// activate hands a run's activation token to the display, for the program's window,
// and tells who places windows that the user has asked for one.
func (s *supervisor) activate(token string) {
	if token == "" {
		return
	}
	select {
	case s.asked <- time.Now():
	default:
	}
	if err := s.sendDisplay(displayRequest{Request: "activate", Token: token}, nil); err != nil {
		s.log.printf("vix", "activation: %v", err)
	}
}

// Trace writes every message between the VM's programs and the compositor to w,
// a line each, until the VM ends or ctx is done. classes is a list as of
// vix-waylandproxy's --trace.
func (r *Registry) Trace(ctx context.Context, name, classes string, w io.Writer) error {
	if err := config.CheckName(name); err != nil {
		return failf("%v", err)
	}
	conn, _, err := r.dial(name)
	if err != nil {
		return failf("VM %s: %v", name, err)
	}
	defer conn.Close()
	lines, far, err := os.Pipe()
	if err != nil {
		return failf("trace: %v", err)
	}
	defer lines.Close()
	unhook := context.AfterFunc(ctx, func() {
		conn.Close()
		lines.Close()
	})
	defer unhook()
	c := &control{conn: conn}
	err = c.send(request{Version: controlVersion, Op: opTrace, Classes: classes}, far)
	far.Close()
	var rep reply
	if err == nil {
		err = c.recv(&rep, maxFrame)
	}
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return failf("VM %s: %v", name, err)
	case rep.Fail != nil:
		return rep.Fail
	}
	if _, err = io.Copy(w, lines); ctx.Err() != nil {
		return nil
	}
	return err
}
