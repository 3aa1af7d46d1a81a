package supervise

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/display"
	"vix/internal/vm"
)

func (s *supervisor) setDisplayControl(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.displayControl = f
}

// serveDisplay hands the client's pipe or socket to the display process.
func (s *supervisor) serveDisplay(c *vm.Control, r display.DisplayRequest, files []*os.File) {
	if err := s.askDisplay(r, files); err != nil {
		s.tell(c, vm.Reply{Fail: vm.Failf("VM %s: %s: %v", s.launch.VM.Name, r.Request, err)})
		return
	}
	s.tell(c, vm.Reply{Done: true})
}

func (s *supervisor) askDisplay(r display.DisplayRequest, files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("a request with %d descriptors, not one", len(files))
	}
	return s.sendDisplay(r, unix.UnixRights(int(files[0].Fd())))
}

func (s *supervisor) sendDisplay(r display.DisplayRequest, rights []byte) error {
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
	if err := s.sendDisplay(display.DisplayRequest{Request: "activate", Token: token}, nil); err != nil {
		s.log.Printf("vix", "activation: %v", err)
	}
}
