package supervise

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"vix/internal/accept"
	"vix/internal/display"
	"vix/internal/proc"
	"vix/internal/vm"
)

// requestLimit bounds the wait for a client's request.
const requestLimit = 5 * time.Second

// accept serves every connection until the listener closes.
func (s *supervisor) accept(ln *net.UnixListener) {
	err := accept.Serve(ln, func(conn *net.UnixConn) {
		s.clients.Go(func() {
			defer conn.Close()
			s.serve(conn)
		})
	}, func(conn *net.UnixConn, why error) {
		s.log.Printf("vix", "refused: control socket: %v", why)
		s.tell(&vm.Control{Conn: conn}, vm.Reply{Fail: s.refusal(why)})
	})
	if err != nil {
		s.cancel(vm.Failf("VM %s: control socket: %v", s.launch.VM.Name, err))
	}
}

// refusal is the reply to a client for whom there is no descriptor.
func (s *supervisor) refusal(why error) *vm.Failure {
	return vm.Failf("VM %s: its supervisor cannot take another client: %v; try again when fewer programs run in it", s.launch.VM.Name, why)
}

func (s *supervisor) serve(conn *net.UnixConn) {
	if _, err := vm.CheckPeer(conn, s.uid); err != nil {
		s.log.Printf("vix", "refused: control socket: %v", err)
		return
	}
	c := &vm.Control{Conn: conn}
	var req vm.Request
	_ = conn.SetReadDeadline(time.Now().Add(requestLimit))
	files, err := c.RecvFiles(&req, vm.MaxRequest)
	defer proc.CloseFiles(files)
	_ = conn.SetReadDeadline(time.Time{})
	switch frozen := err == nil || vm.Foreign(err); {
	case frozen && req.Op == vm.OpState:
		s.guest.probe()
		s.root.lookAtPrograms()
		s.tell(c, vm.Reply{State: new(s.snapshot())})
	case frozen && req.Op == vm.OpStop:
		s.serveStop(c, req.Force)
	case errors.Is(err, vm.ErrNoDescriptor):
		s.log.Printf("vix", "refused: control: %v", err)
		s.tell(c, vm.Reply{Fail: s.refusal(err)})
	case err != nil:
		s.log.Printf("vix", "control: %v", err)
		if !errors.Is(err, io.EOF) {
			s.tell(c, vm.Reply{Fail: vm.Failf("VM %s: request not understood: %v", s.launch.VM.Name, err)})
		}
	case req.Version != vm.ControlVersion:
		s.tell(c, vm.Reply{Fail: vm.Failf("VM %s: started by another version of Vix; it keeps running, and can be stopped with vix stop %s", s.launch.VM.Name, s.launch.VM.Name)})
	case req.Op == vm.OpRun:
		s.serveRun(c, req, files)
	case req.Op == vm.OpWatch:
		s.serveWatch(c)
	case req.Op == vm.OpLogs:
		s.serveLogs(c, req.Follow)
	case req.Op == vm.OpMount:
		s.serveMount(c, req)
	case req.Op == vm.OpUmount:
		s.serveUmount(c, req)
	case req.Op == vm.OpFolders:
		s.serveFolders(c)
	case req.Op == vm.OpUSBAttach, req.Op == vm.OpUSBDetach:
		s.serveUSB(c, req)
	case req.Op == vm.OpTrace:
		s.serveDisplay(c, display.Request{Request: vm.OpTrace, Classes: req.Classes}, files)
	case req.Op == vm.OpTake, req.Op == vm.OpGive, req.Op == vm.OpFollow:
		s.serveDisplay(c, display.Request{Request: req.Op}, files)
	default:
		s.tell(c, vm.Reply{Fail: vm.Failf("VM %s: unknown request %q", s.launch.VM.Name, req.Op)})
	}
}

func (s *supervisor) serveStop(c *vm.Control, force bool) {
	if force {
		s.cancel(errForced)
		s.forceOnce.Do(func() { close(s.forced) })
	} else {
		s.cancel(errStop)
	}
	<-s.gone
	s.tell(c, vm.Reply{Done: true})
}

func (s *supervisor) serveLogs(c *vm.Control, follow bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	defer cancel()
	go func() {
		// A client sends nothing more; the next thing is its end.
		_, _ = c.Conn.Read(make([]byte, 1))
		cancel()
	}()
	err := s.log.CopyTo(ctx, follow, func(line string) error {
		_ = c.Conn.SetWriteDeadline(time.Now().Add(answerLimit))
		return c.Send(vm.Reply{Line: line})
	})
	if err == nil {
		s.tell(c, vm.Reply{Done: true})
	}
	c.Conn.Close()
}

// serveWatch sends the state when it has changed and the client has asked for it.
func (s *supervisor) serveWatch(c *vm.Control) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(s.ctx))
	defer cancel(nil)
	asks := make(chan struct{})
	go func() { // ends with the connection
		defer cancel(errHungUp)
		for {
			var req vm.Request
			if c.Recv(&req, vm.MaxRequest) != nil {
				return
			}
			select {
			case asks <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	pace := time.NewTicker(vm.WatchPace)
	defer pace.Stop()
	for {
		st, changed := s.watchState()
		s.tell(c, vm.Reply{State: &st})
		for _, event := range []<-chan struct{}{asks, changed} {
			select {
			case <-event:
			case <-s.gone:
				s.tell(c, vm.Reply{Done: true})
				return
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-pace.C:
		case <-s.gone:
		}
	}
}
