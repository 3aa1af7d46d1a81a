package supervise

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"vix/config"
	"vix/internal/agent"
	"vix/internal/names"
)

// resolvConf names the host's name servers (resolv.conf(5)).
const resolvConf = "etc/resolv.conf"

const (
	// After a name server that lives shorter than this, the pause before the next one
	// doubles.
	namesLife       = time.Minute
	leastNamesPause = time.Second
	mostNamesPause  = time.Minute
)

// A namesPart is the VM's resolver.
type namesPart struct {
	passive
	*host
	guest *guest
}

// resolver returns the path of the host's resolv.conf.
func (s *host) resolver() string { return filepath.Join(s.launch.Parts.System, resolvConf) }

// search returns the host's search list, for a guest with a network.
func (s *host) search() []string {
	if s.launch.VM.Net != config.NetNAT {
		return nil
	}
	return names.Search(s.resolver())
}

// run has the host's present name servers answer the guest's questions for names, as long as
// the guest runs; package names says how. A guest without a network gets no name server.
// When the guest's name server ends, run starts another one; the guest may end one as often
// as it likes, so a pace bounds the messages about it.
func (s *namesPart) run(context.Context) {
	if s.launch.VM.Net != config.NetNAT {
		return
	}
	var notes pace
	for pause := time.Duration(0); ; {
		began := time.Now()
		err := s.serve()
		if err == nil || s.ctx.Err() != nil {
			return
		}
		if time.Since(began) > namesLife {
			pause = 0
		}
		pause = min(max(2*pause, leastNamesPause), mostNamesPause)
		if notes.admits(time.Now()) {
			s.guest.tellAt(&notes, fmt.Sprintf("VM %s: its guest does not resolve names: %v; that is begun again in %v", s.launch.VM.Name, err, pause))
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
	}
}

// serve serves the guest's name server until that has ended, and returns why; nil if the
// guest itself has ended.
func (s *namesPart) serve() error {
	p, err := s.guest.agent.Spawn(s.ctx, agent.Spawn{Kind: agent.KindNames, Argv: []string{"names"}})
	if err != nil {
		if errors.Is(err, agent.ErrClosed) {
			return nil
		}
		return err
	}
	f := &names.Forwarder{File: s.resolver()}
	err = f.Serve(s.ctx, p.Stdout, p.Stdin)
	_, _, _ = p.Stdin.Close(), p.Stdout.Close(), p.Stderr.Close()
	// Another one can start only after this one's end.
	select {
	case <-p.Exited():
	case <-s.ctx.Done():
		return nil
	}
	if _, exitErr := p.Wait(); exitErr != nil {
		return nil
	}
	return cmp.Or(err, errors.New("its name server has ended"))
}
