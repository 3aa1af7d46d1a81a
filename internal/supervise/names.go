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

// A nameServer is what a guest with a network calls with its programs' questions for names.
type nameServer struct {
	*host
	guest *guest
	told  pace // touched by serve, of which there is one at a time
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

// handler bounds the calls: a guest makes one, and when that is over another, after a second
// at least.
func (s *nameServer) handler() agent.Handler {
	return agent.Handler{Open: 1, Pace: agent.Pace{Burst: 4, Step: time.Second}, Serve: s.serve}
}

// serve has the guest's questions answered by whom the host asks at the time; package names
// says how. What ends a call is the guest's doing, so it is told at a pace.
func (s *nameServer) serve(ctx context.Context, c *agent.Caller) {
	if why := c.Call.Names.Failure; why != "" {
		s.log.Printf("vix", "the guest asks for names again: %s", why)
	}
	conn, err := c.Accept()
	if err != nil {
		return // the channel has ended
	}
	f := &names.Forwarder{File: s.resolver()}
	err = f.Serve(ctx, conn, conn)
	if s.ctx.Err() != nil || ctx.Err() != nil || errors.Is(err, agent.ErrClosed) {
		return
	}
	if s.told.admits(time.Now()) {
		why := cmp.Or(err, errors.New("its name server has ended"))
		s.guest.tellAt(&s.told, fmt.Sprintf("VM %s: its guest cannot resolve names: %v; it is told to start again", s.launch.VM.Name, why))
	}
}
