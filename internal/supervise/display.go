package supervise

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"vix/internal/display"
	"vix/internal/plain"
	"vix/internal/proc"
	"vix/internal/qemu"
	"vix/internal/sandbox"
	"vix/internal/vm"
)

const displayChild = "display"

// A displayPart is the display process, vix-waylandproxy host: its connections to the
// compositor, its windows, and the requests to it.
type displayPart struct {
	passive
	*host
	broker  *broker
	child   *proc.Child
	qemu    *os.File // QEMU's end of the vhost-user socket, until QEMU has it
	control *os.File // while the process runs; under host.mu
}

// start starts the process, unless the VM has no display.
func (s *displayPart) start() error {
	if s.launch.VM.NoGUI {
		return nil
	}
	var ours, theirs []*os.File
	pair := func(o, t *os.File, err error) error {
		if err == nil {
			ours, theirs = append(ours, o), append(theirs, t)
		}
		return err
	}
	broker, brokerEnd, err := brokerFiles()
	if err == nil {
		err = errors.Join(pair(proc.Socketpair("display")), pair(os.Pipe()), pair(display.NewControl()))
	}
	if err != nil {
		proc.CloseFiles(append(ours, theirs...))
		if broker != nil {
			err = errors.Join(err, broker.Close(), brokerEnd.Close())
		}
		return err
	}
	l := s.launch
	policy := display.PolicyOf(l.VM, l.Drags)
	err = display.Send(ours[2], display.Request{Request: display.RequestPolicy, Policy: &policy}, nil)
	if err != nil {
		proc.CloseFiles(append(ours, theirs...))
		return errors.Join(err, broker.Close(), brokerEnd.Close())
	}
	spec := display.Spec{VM: l.VM.Name, VhostFD: 3, EventsFD: 4, ControlFD: 5, BrokerFD: 6}
	child, err := proc.Start(s.nest, s.log, proc.Command{
		Name: displayChild, Path: l.Parts.Proxy, Args: spec.Args(), Files: append(theirs, brokerEnd),
		Own: sandbox.Attr(s.uid, os.Getgid()),
	})
	if err != nil {
		proc.CloseFiles(ours)
		return errors.Join(err, broker.Close())
	}
	s.child, s.qemu = child, ours[0]
	events, ctl := ours[1], ours[2]
	s.setControl(ctl)
	s.pumps.Go(func() {
		defer events.Close()
		s.readEvents(events, child.Cmd.Process.Pid)
	})
	s.pumps.Go(func() { s.serveBroker(broker) })
	s.own(child, "the display process ended", func(p *vm.PIDs) *int { return &p.Display })
	// Another process may hold the pipe open: the reader must not outlive this one.
	s.pumps.Go(func() {
		<-child.Done
		_ = events.SetReadDeadline(time.Now().Add(proc.DrainLimit))
		s.setControl(nil)
		ctl.Close()
		broker.Close()
	})
	return nil
}

func (s *displayPart) devices() []qemu.Device {
	if s.qemu == nil {
		return nil
	}
	return []qemu.Device{qemu.Display(take(&s.qemu))}
}

func (s *displayPart) stop(graceful bool) error {
	proc.CloseFiles([]*os.File{s.qemu})
	endChild(s.child, graceful)
	return nil
}

// readEvents reads the events of the display process pid, about itself and its windows, as
// one JSON object a line, until the process ends. Titles are a guest's words.
func (s *displayPart) readEvents(r io.Reader, pid int) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 4<<10), 64<<10)
	for lines.Scan() {
		var e struct {
			Event string `json:"event"`
			vm.Window
			sandbox.Report
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			s.log.Printf("vix", "display: bad event: %v", err)
			continue
		}
		if e.Event == "confined" {
			s.noteConfinement(displayChild, pid, e.Report)
			continue
		}
		s.windowEvent(e.Event, e.Window)
	}
	if err := lines.Err(); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		s.log.Printf("vix", "display: events: %v", err)
	}
}

func (s *displayPart) windowEvent(event string, w vm.Window) {
	w.Title, w.AppID = plain.Text(w.Title, vm.MaxTitle, plain.OneLine), plain.Text(w.AppID, vm.MaxTitle, plain.OneLine)
	first := false
	s.mu.Lock()
	list := slices.DeleteFunc(s.state.Windows, func(x vm.Window) bool { return x.ID == w.ID })
	if event == "window" && len(list) == len(s.state.Windows) { // and not another title of an old one
		s.opened++
	}
	if event == "window" && len(list) < vm.MaxWindows {
		list = append(list, w)
		first = !slices.ContainsFunc(s.state.Stages, func(st vm.Stage) bool { return st.Name == "window" })
	}
	s.state.Windows = list
	s.changedLocked()
	s.mu.Unlock()
	if first {
		s.stage("window", 0)
	}
}

func (s *displayPart) setControl(f *os.File) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.control = f
}

// serveDisplay hands the client's pipe or socket to the display process.
func (s *supervisor) serveDisplay(c *vm.Control, r display.Request, files []*os.File) {
	if err := s.display.ask(r, files); err != nil {
		s.tell(c, vm.Reply{Fail: vm.Failf("VM %s: %s: %v", s.launch.VM.Name, r.Request, err)})
		return
	}
	s.tell(c, vm.Reply{Done: true})
}

func (s *displayPart) ask(r display.Request, files []*os.File) error {
	if len(files) != 1 {
		return fmt.Errorf("a request with %d descriptors, not one", len(files))
	}
	return s.send(r, files[0])
}

func (s *displayPart) send(r display.Request, file *os.File) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.launch.VM.NoGUI {
		return errors.New("the VM was started without a display")
	}
	if s.control == nil {
		return errors.New("the display is not running yet; try again in a moment")
	}
	return display.Send(s.control, r, file)
}

// activate passes a run's activation token to the display, for the program's window.
func (s *displayPart) activate(token string) {
	if err := s.send(display.Request{Request: display.RequestActivate, Token: token}, nil); err != nil {
		s.log.Printf("vix", "activation: %v", err)
	}
}
