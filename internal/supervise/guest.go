package supervise

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vix/internal/agent"
	"vix/internal/plain"
	"vix/internal/vm"
)

// A guest is the agent's channel to the guest, once it has booted.
type guest struct {
	passive
	*host
	channel *channelPart
	shares  *sharesPart
	desktop Desktop

	agent  *agent.Host        // nil before the guest has connected
	hangUp context.CancelFunc // ends the channel; nil before the guest has connected
	probes chan struct{}      // capacity 1; see probe

	calls map[agent.CallKind]agent.Handler // what the guest may call for

	shortages    shortages
	windowLosses windowLosses
}

// start waits for the guest's end of the channel, runs it, and returns when programs can
// start.
func (s *guest) start() error {
	conn, err := s.channel.accept()
	if err != nil {
		return err
	}
	s.agent = agent.NewHost(conn, s.slogger("agent"))
	s.agent.OnShortage = s.onShortage
	s.agent.OnWindowLoss = s.onWindowLoss
	for kind, handler := range s.calls {
		s.agent.Handle(kind, handler)
	}
	s.mu.Lock()
	s.traffic = s.agent.Traffic
	s.mu.Unlock()
	// Not s.ctx: the channel has to carry the request to stop.
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.ctx))
	s.hangUp = cancel
	closed := make(chan struct{})
	s.pumps.Go(func() {
		defer close(closed)
		s.reportEnd(s.agent.Run(ctx))
	})
	s.pumps.Go(func() { s.keepClock(ctx) })
	s.pumps.Go(func() {
		select {
		case err := <-s.agent.Failed():
			s.reportEnd(err) // without waiting for the guest to switch itself off
		case <-closed:
		}
	})
	return s.boot()
}

// boot tells the guest what it is, and waits until it is ready.
func (s *guest) boot() error {
	err := s.agent.Boot(agent.Boot{
		Hostname: s.launch.VM.Name,
		Time:     time.Now().UnixNano(),
		User:     guestUser,
		Env:      s.launch.GuestEnv,
		Mounts:   s.shares.mounts(),
		Zone:     readZone(s.launch.Parts.System),
		Search:   s.search(),
	})
	if err != nil {
		return err
	}
	ready, done := make(chan error, 1), make(chan error, 1)
	limit, stop := context.WithTimeout(s.ctx, startLimit)
	s.pumps.Go(func() {
		defer stop()
		ready <- s.agent.Ready(limit)
	})
	s.pumps.Go(func() { s.pumpStages(s.agent.Stages(), ready, done) })
	return s.wait(done)
}

func (s *guest) run(ctx context.Context) { s.keepAnswer(ctx) }

func (s *guest) stop(bool) error {
	if s.hangUp != nil {
		s.hangUp()
	}
	return nil
}

// pumpStages notes the guest's stages until there can be no more. It passes ready's value
// on to done, after the stages before it.
func (s *guest) pumpStages(stages <-chan agent.Stage, ready <-chan error, done chan<- error) {
	note := func(st agent.Stage) {
		if st.State == "" {
			s.stage(st.Name, time.Duration(st.Uptime)*time.Millisecond)
		} else {
			s.log.Printf("vix", "guest: %s is %s", st.Name, st.State)
		}
	}
	for stages != nil || ready != nil {
		select {
		case st, ok := <-stages:
			if !ok {
				stages = nil
				continue
			}
			note(st)
		case err := <-ready:
			ready = nil
			for more := err == nil && stages != nil; more; {
				select {
				case st, ok := <-stages:
					if more = ok; ok {
						note(st)
					}
				default:
					more = false
				}
			}
			if err == nil {
				s.stage("ready", 0)
			}
			done <- err
		}
	}
}

// reportEnd makes the end of the agent's channel a trouble.
func (s *guest) reportEnd(err error) {
	name := s.launch.VM.Name
	var ge *agent.GuestError
	switch {
	case errors.As(err, &ge):
		s.report(trouble{rankGuest, vm.Failf("VM %s: %v; run it again", name, ge)})
	case errors.Is(err, agent.ErrProtocol):
		s.report(trouble{rankGuest, vm.Failf("VM %s: %v; the VM was ended, because it can no longer be trusted", name, err)})
	case err != nil:
		s.report(trouble{rankOther, vm.Failf("VM %s: agent channel: %v; run it again", name, err)})
	default:
		s.report(trouble{rankOther, vm.Failf("VM %s: the guest switched itself off; run it again", name)})
	}
}

const (
	// guestLimit is the silence after which a guest counts as not answering: a busy one, emulated, answers within a second.
	guestLimit = 5 * time.Second
	// pingPace is the time between two pings without another reason.
	pingPace = 5 * time.Second
)

// A VM may stand still, in two ways:
//
//	QEMU stops it (STOP)          an error inside of KVM, an I/O error, a guest's panic: it
//	                              will never run again, and is ended, with QEMU's reason
//	it does not answer a ping     QEMU is stopped by a signal, the guest hangs, the host is
//	                              overloaded: it may go on; list and waiting clients show that
//
// Vix itself never stops a VM's processors.

// keepAnswer pings the guest until ctx ends, and notes when the guest does not answer.
func (s *guest) keepAnswer(ctx context.Context) {
	t := time.NewTimer(pingPace)
	defer t.Stop()
	for {
		limit, cancel := context.WithTimeout(ctx, guestLimit)
		err := s.agent.Ping(limit)
		cancel()
		if err != nil && ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			s.setSilent(true)
			err = s.agent.Ping(ctx)
			s.setSilent(false)
		}
		if err != nil {
			return
		}
		t.Reset(pingPace)
		select {
		case <-t.C:
		case <-s.probes:
		case <-ctx.Done():
			return
		}
	}
}

// probe has the guest pinged now: somebody is about to wait for it.
func (s *guest) probe() {
	select {
	case s.probes <- struct{}{}:
	default:
	}
}

func (s *guest) setSilent(silent bool) {
	if s.ctx.Err() == nil {
		s.log.Add("vix", map[bool]string{true: "the guest does not answer", false: "the guest answers again"}[silent])
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = silent
	s.changedLocked()
}

// runOwn has the agent do something itself, as root, with in as its standard input. What
// it says is the guest's word.
func (s *guest) runOwn(request agent.Request, in io.Reader) error {
	spawn := agent.Spawn{Kind: agent.KindRequest, Request: &request, User: "root"}
	ctx, cancel := context.WithTimeout(s.ctx, mountLimit)
	defer cancel()
	p, err := s.agent.Spawn(ctx, spawn)
	if err != nil {
		return err
	}
	unhook := context.AfterFunc(ctx, func() { _ = p.Kill(unix.SIGKILL); _ = p.Stdin.Close(); _ = p.Stdout.Close(); _ = p.Stderr.Close() })
	defer unhook()
	var out sync.WaitGroup
	out.Go(func() {
		if in != nil {
			_, _ = io.Copy(p.Stdin, in)
		}
		_ = p.Stdin.Close()
	})
	out.Go(func() { _, _ = io.Copy(io.Discard, p.Stdout) })
	output, _ := io.ReadAll(io.LimitReader(p.Stderr, 1<<10))
	_ = p.Stderr.Close()
	select {
	case <-p.Exited():
	case <-ctx.Done():
		return fmt.Errorf("the guest did not answer within %s", mountLimit)
	}
	out.Wait()
	switch st, err := p.Wait(); {
	case err != nil:
		return err
	case st.Code != 0 || st.Signal != 0:
		return errors.New(plain.Text(strings.TrimSpace(string(output)), vm.MaxTitle, plain.OneLine))
	}
	return nil
}
