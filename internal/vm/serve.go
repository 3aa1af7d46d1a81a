package vm

import (
	"context"
	"errors"
	"io"
	"net"
	"time"

	"vix/internal/accept"
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
		s.log.printf("vix", "refused: control socket: %v", why)
		s.tell(&control{conn: conn}, reply{Fail: s.refusal(why)})
	})
	if err != nil {
		s.cancel(failf("VM %s: control socket: %v", s.launch.VM.Name, err))
	}
}

// refusal is what a client is told for whom there is no descriptor.
func (s *supervisor) refusal(why error) *Failure {
	return failf("VM %s: its supervisor has no place for another client: %v; try again when fewer programs run in it", s.launch.VM.Name, why)
}

func (s *supervisor) serve(conn *net.UnixConn) {
	if _, err := checkPeer(conn, s.uid); err != nil {
		s.log.printf("vix", "refused: control socket: %v", err)
		return
	}
	c := &control{conn: conn}
	var req request
	_ = conn.SetReadDeadline(time.Now().Add(requestLimit))
	files, err := c.recvFiles(&req, maxRequest)
	defer closeFiles(files)
	_ = conn.SetReadDeadline(time.Time{})
	switch frozen := err == nil || foreign(err); {
	case frozen && req.Op == opState:
		s.probe()
		s.lookAtPrograms()
		s.tell(c, reply{State: new(s.snapshot())})
	case frozen && req.Op == opStop:
		s.serveStop(c, req.Force)
	case errors.Is(err, errNoDescriptor):
		s.log.printf("vix", "refused: control: %v", err)
		s.tell(c, reply{Fail: s.refusal(err)})
	case err != nil:
		s.log.printf("vix", "control: %v", err)
		if !errors.Is(err, io.EOF) {
			s.tell(c, reply{Fail: failf("VM %s: request not understood: %v", s.launch.VM.Name, err)})
		}
	case req.Version != controlVersion:
		s.tell(c, reply{Fail: failf("VM %s: started by another version of vix-launcher; it goes on, and can be stopped with vix-launcher stop %s", s.launch.VM.Name, s.launch.VM.Name)})
	case req.Op == opRun:
		s.serveRun(c, req, files)
	case req.Op == opWatch:
		s.serveWatch(c)
	case req.Op == opLogs:
		s.serveLogs(c, req.Follow)
	case req.Op == opMount:
		s.serveMount(c, req)
	case req.Op == opUmount:
		s.serveUmount(c, req)
	case req.Op == opFolders:
		s.serveFolders(c)
	case req.Op == opUSBAttach, req.Op == opUSBDetach:
		s.serveUSB(c, req)
	case req.Op == opTrace:
		s.serveDisplay(c, displayRequest{Request: opTrace, Classes: req.Classes}, files)
	case req.Op == opTake, req.Op == opGive, req.Op == opFollow:
		s.serveDisplay(c, displayRequest{Request: req.Op}, files)
	default:
		s.tell(c, reply{Fail: failf("VM %s: unknown request %q", s.launch.VM.Name, req.Op)})
	}
}

// tell sends a reply. A client that does not take it within answerLimit, or is
// gone, has lost its interest.
func (s *supervisor) tell(c *control, r reply) {
	_ = c.conn.SetWriteDeadline(time.Now().Add(answerLimit))
	_ = c.send(r)
}

func (s *supervisor) snapshot() State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cloneLocked()
}

// cloneLocked is the state of now. That the guest's network has carried more is no change
// that anybody is told of.
func (s *supervisor) cloneLocked() State {
	if s.traffic != nil {
		s.state.Net.traffic(s.traffic())
	}
	st := s.state.clone()
	if s.silent && st.State == StateRunning {
		st.State = StateNotAnswering
	}
	return st
}

func (s *supervisor) serveStop(c *control, force bool) {
	if force {
		s.cancel(errForced)
		s.forceOnce.Do(func() { close(s.forced) })
	} else {
		s.cancel(errStop)
	}
	<-s.gone
	s.tell(c, reply{Done: true})
}

func (s *supervisor) serveLogs(c *control, follow bool) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	defer cancel()
	go func() {
		// A client says nothing more; what comes is its end.
		_, _ = c.conn.Read(make([]byte, 1))
		cancel()
	}()
	err := s.log.copyTo(ctx, follow, func(line string) error {
		_ = c.conn.SetWriteDeadline(time.Now().Add(answerLimit))
		return c.send(reply{Line: line})
	})
	if err == nil {
		s.tell(c, reply{Done: true})
	}
	c.conn.Close()
}

// serveWatch sends the state whenever it has changed and the client has asked.
func (s *supervisor) serveWatch(c *control) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(s.ctx))
	defer cancel(nil)
	asks := make(chan struct{})
	go func() { // ends with the connection
		defer cancel(errHungUp)
		for {
			var req request
			if c.recv(&req, maxRequest) != nil {
				return
			}
			select {
			case asks <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
	}()
	pace := time.NewTicker(watchPace)
	defer pace.Stop()
	for {
		st, changed := s.watchState()
		s.tell(c, reply{State: &st})
		for _, event := range []<-chan struct{}{asks, changed} {
			select {
			case <-event:
			case <-s.gone:
				s.tell(c, reply{Done: true})
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
